"""The item head's part of phase 2's loss: next-item prediction and distillation from a teacher."""
import dataclasses

import jax
import jax.numpy as jnp

from ilm_jax import losses
from ilm_jax.objectives import distillation, drawing, inputs


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadConfig:
  """The item head's part of phase 2's loss."""
  weight: float                 # 0: there is no head
  num_items: int                # items are the entity rows 1..num_items
  negatives: int                # items drawn for a softmax; 0: all of them
  layer: int = -1               # layers that "rank" rows run through; -1: all
  items_only: bool = False      # "rank" rows hold no users
  queries: int = 0              # soft tokens per entity in "rank" rows; 0: all
  distil: distillation.Distil | None = None      # a teacher whose softmax over items is matched

  @classmethod
  def of(cls, section, num_items: int, items_only: bool,
         distil: distillation.Distil | None = None) -> "HeadConfig":
    """The HeadConfig of a config's section phase2.head, for `num_items` items."""
    return cls(weight=section.weight, num_items=num_items, negatives=section.negatives,
               layer=section.layer, items_only=items_only, queries=section.queries, distil=distil)

  @property
  def whole(self) -> bool:
    """Whether the softmax is over all items."""
    return not 0 < self.negatives < self.num_items


def loss(model, head: HeadConfig, frozen: dict, hidden_BXD, batch, of, rng, catalogue=None,
         queries: int = 0):
  """(loss, metrics) of the next items.

  Args:
    model: with a head.
    head: config of the head's loss.
    frozen: vectors, present, log_draws; with `head.distil` also teacher.
    hidden_BXD: the language model's hidden states from which next items are predicted.
    batch: "next_item" int [B, X]; with `head.distil` also the fields of `distillation.histories`.
    of: the batch over which means are taken.
    rng: as in `nll`.
    catalogue: as in `nll`.
    queries: soft tokens per entity in the rows; 0: all.

  Returns:
    float32 scalar, in nats times `head.weight`; {"head_nll", "head_hit", with a teacher "head_kl"}
    as (sum, count).
  """
  item_N, c = batch["next_item"].reshape(-1), head.distil
  hidden_ND = hidden_BXD.reshape(len(item_N), -1)
  never_I = inputs.never_met(frozen, jnp.arange(1, head.num_items + 1), rng)
  if c is None:
    nll_N, hit_N = nll(model, head, frozen, hidden_ND, item_N, rng, catalogue)
  else:
    said_NI = logits(model, head, frozen, hidden_ND, rng, catalogue)
    nll_N, hit_N = _among_all(said_NI, item_N, never_I)
  count = jnp.sum(item_N > 0)
  total = losses.weighted_mean(nll_N, item_N > 0, of["next_item"] > 0)
  metrics = {"head_nll": (jnp.sum(nll_N * (item_N > 0)), count),
             "head_hit": (jnp.sum(hit_N & (item_N > 0)), count)}
  if c is not None:
    given_BSI = c.teacher(frozen["teacher"], *distillation.histories(
        batch, head.num_items, queries or model.config.num_queries))
    kl_N = distillation.divergence(
        given_BSI.reshape(said_NI.shape), said_NI, c.temperature, never_I)
    at_N = distillation.matched(batch, head.num_items).reshape(-1)
    total += c.weight * losses.weighted_mean(kl_N, at_N, distillation.matched(of, head.num_items))
    metrics["head_kl"] = (jnp.sum(kl_N * at_N), jnp.sum(at_N))
  return head.weight * total, metrics


def logits(model, c: HeadConfig, frozen: dict, hidden_ND, rng, catalogue=None) -> jax.Array:
  """[N, I] scores of all items; see `nll`."""
  key_IP, bias_I = _keys(model, frozen, jnp.arange(1, c.num_items + 1), rng, catalogue)
  return _inner(model, model.head.query(hidden_ND.astype(jnp.float32)), key_IP) + bias_I[None]


def nll(model, c: HeadConfig, frozen: dict, hidden_ND, item_N, rng, catalogue=None):
  """(negative log likelihood, hit) of the next items, float32 and bool [N]; row 0: ignore.

  With `c.negatives` the softmax is over the item itself and so many others, drawn uniformly; their
  sum estimates the sum over all others (`drawing.items`). Items in `inputs.never_met` are no
  candidates.

  Args:
    model: with a head.
    c: config of the head's loss.
    frozen: vectors, present, log_draws.
    hidden_ND: hidden states of the language model.
    item_N: int item rows; 0: no item.
    rng: for noise, dropout and negatives; None: no noise and no dropout, fixed negatives.
    catalogue: features [I + 1, F] and `inputs.log_draws` [I + 1] of rows 0..num_items, if they are
      already computed.
  """
  if c.whole:
    return _among_all(logits(model, c, frozen, hidden_ND, rng, catalogue), item_N,
                      inputs.never_met(frozen, jnp.arange(1, c.num_items + 1), rng))
  query_NP = model.head.query(hidden_ND.astype(jnp.float32))
  drawn = drawing.items(
      None if rng is None else inputs.step_key(rng, 1), c.num_items, c.negatives)
  key_MP, bias_M = _keys(model, frozen, jnp.concatenate([item_N, drawn.item_K]), rng, catalogue)
  n = len(item_N)
  own_N = jnp.sum(query_NP * key_MP[:n], axis=1) + bias_M[:n]
  other_NK = _inner(model, query_NP, key_MP[n:]) + bias_M[None, n:] + jnp.log(drawn.stands_K)[None]
  other_NK = jnp.where(drawn.item_K[None] == item_N[:, None], -jnp.inf, other_NK)
  never_K = inputs.never_met(frozen, drawn.item_K, rng)
  if never_K is not None:
    other_NK = jnp.where(never_K[None], -jnp.inf, other_NK)
  logits_NK = jnp.concatenate([own_N[:, None], other_NK], axis=1)
  return jax.nn.logsumexp(logits_NK, axis=1) - own_N, own_N >= jnp.max(logits_NK, axis=1)


def _keys(model, frozen: dict, rows, rng, catalogue) -> tuple[jax.Array, jax.Array]:
  """`ItemHead.items` of item rows."""
  if catalogue is not None:
    return model.head.items(*(part[rows] for part in catalogue))
  key = inputs.step_key(rng, 0)
  entities = (frozen, rows, key, model.config.vector_dropout)
  features = model.features(*inputs.entity_inputs(*entities), key)
  return model.head.items(features, inputs.log_draws(*entities))


def _inner(model, query_NP, key_KP) -> jax.Array:
  """[N, K]: all inner products."""
  return model.config.dot_general(query_NP, key_KP.T, (((1,), (0,)), ((), ())))


def _among_all(logits_NI, item_N, never_I) -> tuple[jax.Array, jax.Array]:
  """(negative log likelihood, hit), each [N]. Candidates: the item itself and all but `never_I`."""
  own_N1 = jnp.maximum(item_N - 1, 0)[:, None]
  own_N = jnp.take_along_axis(logits_NI, own_N1, axis=1)[:, 0]
  if never_I is not None:
    other_NI = jnp.arange(logits_NI.shape[1])[None] != own_N1
    logits_NI = jnp.where(never_I[None] & other_NI, -jnp.inf, logits_NI)
  return jax.nn.logsumexp(logits_NI, axis=1) - own_N, own_N >= jnp.max(logits_NI, axis=1)
