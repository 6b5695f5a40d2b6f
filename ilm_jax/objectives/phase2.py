"""The objective of phase 2: a pure function of pure dicts, ready for `loop.fit`.

Its builder, as that of phase 1 (phase1.py), closes over what is static and returns

  loss(trainable, frozen, batch, rng) -> (scalar loss, metrics: dict of scalars)

`rng` is a key; None switches dropout off (evaluation). Entity vectors are `frozen` and gathered by
entity row, so a batch carries rows only.
"""
import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from ilm_jax import losses
from ilm_jax.models import ilm, language_model
from ilm_jax.models.qformer import QFormerConfig, phase2_subtree
from ilm_jax.objectives import distillation, drawing, inputs


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadConfig:
  """The item head's part of phase 2's loss."""
  weight: float                 # 0: there is no head
  num_items: int                # items are the entity rows 1..num_items
  negatives: int                # items drawn for a softmax; 0: all of them
  layer: int = -1               # of the language model, after which "rank" rows are read; -1: all
  items_only: bool = False      # no user has a slot in them
  queries: int = 0              # soft tokens of an entity that they hold; 0: all
  distil: distillation.Distil | None = None      # a teacher whose softmax over items is matched

  @classmethod
  def of(cls, section, num_items: int, items_only: bool,
         distil: distillation.Distil | None = None) -> "HeadConfig":
    """That of a config's section phase2.head, for so many items."""
    return cls(weight=section.weight, num_items=num_items, negatives=section.negatives,
               layer=section.layer, items_only=items_only, queries=section.queries, distil=distil)

  @property
  def whole(self) -> bool:
    """Whether the softmax is over all items."""
    return not 0 < self.negatives < self.num_items


def build_phase2(config: QFormerConfig, lm_width: int, form: ilm.Form, soft_token_rms: float,
                 seed: int, start: Callable[[dict], dict] | None = None, mlp: bool = False,
                 head_width: int = 0) -> tuple[nnx.GraphDef, dict]:
  """(graphdef of the ILM, trainable = {"qformer": query path only, "projection": .., ..}).

  Args:
    config: as in phase 1; the text branch is left out here.
    lm_width: width of the language model's embeddings.
    form: see `ilm.Form`.
    soft_token_rms: RMS of the soft tokens at the start, see `ilm.ILM`.
    seed: of the fresh parameters.
    start: from the fresh Q-Former's parameters to those to start from, with or without text branch
      (pretrained, or phase 1's result); the projection is scaled to their outputs. None: fresh.
    mlp: an `ilm.MlpProjector` in place of Q-Former and projection, always fresh.
    head_width: of the item head; 0: none.
  """
  config = dataclasses.replace(config, query_path_only=True)
  model = (ilm.MlpProjector if mlp else ilm.ILM)(
      config, lm_width, form, soft_token_rms=soft_token_rms, head_width=head_width,
      rngs=nnx.Rngs(seed))
  graphdef, state = nnx.split(model)
  trainable = nnx.to_pure_dict(state)
  if start is not None and not mlp:
    trainable["qformer"] = phase2_subtree(start(trainable["qformer"]))
    rms = jax.jit(lambda p: ilm.output_rms(nnx.merge(graphdef, p).qformer))(trainable)
    trainable["projection"]["kernel"] /= rms
  return graphdef, trainable


def phase2_loss(graphdef: nnx.GraphDef | None, lm: language_model.Config,
                task_names: tuple[str, ...], head: HeadConfig | None = None):
  """Mean negative log likelihood of the target tokens under the frozen language model.

  With a `head` also that of the item which follows each slot of a history, times the head's
  weight.

  Batch: what data/packing.py makes; "rank" of it is a batch whose rows are read by the head alone,
  through the first `head.layer` layers, and where no other rows are there, no word is said. Of a
  microbatch also "whole", the batch of which it is a part and over which means are taken. `frozen`:
  lm (its parameters), vectors, present; for a head log_draws; with `head.distil` also teacher, its
  parameters. `trainable`: of the ILM; and lm, those parameters of the language model that are not
  frozen.

  Metrics, as (sum over target tokens, their count) so that they add up over batches: "nll" and
  "hit" (the target is the arg max), the same per task ("nll/<task>", ..); "head_nll", "head_hit" of
  a head, "head_kl" of its teacher. Of the whole batch: "tokens", the places of its sequences that
  are no padding; and "dropped", the examples that packing left out of it, where the batch says so.

  Args:
    graphdef: of the ILM; None for the same prompts without slots (`slot` all -1, nothing trained).
    lm: shape of the language model.
    task_names: `task` indexes this.
    head: of a graphdef with an item head, its part in the loss.
  """
  def loss_fn(trainable, frozen, batch, rng):
    ours_params, lm_params = inputs.whole(trainable, frozen)
    ours = None if graphdef is None else nnx.merge(graphdef, ours_params)
    read = _Reader(language_model.bind(lm, lm_params), ours, frozen)
    of, parts = batch.get("whole", batch), []
    if "tokens" in batch:
      parts.append(_words(read, batch, of, task_names, head, rng))
    if "rank" in batch:
      parts.append(_ranked(read, batch["rank"], of["rank"], head, inputs.step_key(rng, 2)))
    return sum(loss for loss, _ in parts), functools.reduce(_added, [more for _, more in parts])

  return loss_fn


def _added(one: dict, other: dict) -> dict:
  """The metrics of two parts of a batch; what both count is summed."""
  return one | other | {name: one[name] + other[name] for name in one if name in other}


class _Reader(NamedTuple):
  """The language model, and what puts soft tokens before it."""
  model: language_model.LanguageModel
  ours: ilm.Projector | None
  frozen: dict

  def embed(self, batch, rng, queries: int = 0) -> jax.Array:
    """[B, L, D]: the prompts of a batch, soft tokens spliced in; see `inputs.soft_tokens`."""
    embeds_BLD = language_model.embed_prompt(self.model, batch)
    if self.ours is None:
      return embeds_BLD
    soft_BXD = inputs.soft_tokens(self.ours, self.frozen, batch["entities"], rng, queries)
    return ilm.splice(embeds_BLD, soft_BXD, batch["slot"])


def _words(read: _Reader, batch, of, task_names, head: HeadConfig | None, rng):
  """(loss, metrics) of rows that say words, where the head reads them, too."""
  embeds_BLD = read.embed(batch, rng)
  at_BX, X = batch["target_at"], batch["target_at"].shape[1]
  if "next_at" in batch:
    at_BX = jnp.concatenate([at_BX, batch["next_at"]], axis=1)
  hidden_BXD = read.model.target_hidden(embeds_BLD, {**batch, "target_at": at_BX})
  nll_BX, hit_BX = read.model.token_nll(hidden_BXD[:, :X], batch["targets"])
  loss = losses.weighted_mean(nll_BX, batch["weights"], of["weights"])
  metrics = _sums(nll_BX, hit_BX, batch["weights"], batch["task"], task_names)
  metrics |= _counts(read.model.config, batch)
  if "next_at" in batch:
    of_head, more = _items(read, hidden_BXD[:, X:], batch, of, head, inputs.step_key(rng, 1))
    loss, metrics = loss + of_head, metrics | more
  return loss, metrics


def _ranked(read: _Reader, batch, of, head: HeadConfig, rng):
  """(loss, metrics) of rows that the head alone reads, `head.layer` layers deep."""
  catalogue = None
  if head.items_only and head.whole:      # one pass for slots and head: all are items
    entities = (read.frozen, jnp.arange(head.num_items + 1), rng, read.ours.config.vector_dropout)
    soft_IQD, features_IF = read.ours.read(*inputs.entity_inputs(*entities), rng)
    catalogue = features_IF, inputs.log_draws(*entities)
    soft_BXD = inputs.side_by_side(soft_IQD[batch["entities"]], head.queries)
    embeds_BLD = ilm.splice(
        language_model.embed_prompt(read.model, batch), soft_BXD, batch["slot"])
  else:
    embeds_BLD = read.embed(batch, rng, head.queries)
  hidden_BXD = read.model.target_hidden(
      embeds_BLD, {**batch, "target_at": batch["next_at"]}, head.layer)
  loss, metrics = _items(
      read, hidden_BXD, batch, of, head, inputs.step_key(rng, 1), catalogue, head.queries)
  return loss, metrics | _counts(read.model.config, batch)


def _items(read: _Reader, hidden_BXD, batch, of, head: HeadConfig, rng, catalogue=None,
           queries: int = 0):
  """(loss, metrics) of the items that follow; `queries` as in `_Reader.embed`."""
  item_N, c = batch["next_item"].reshape(-1), head.distil
  hidden_ND = hidden_BXD.reshape(len(item_N), -1)
  never_I = inputs.never_met(read.frozen, jnp.arange(1, head.num_items + 1), rng)
  if c is None:
    nll_N, hit_N = head_nll(read.ours, head, read.frozen, hidden_ND, item_N, rng, catalogue)
  else:
    said_NI = head_logits(read.ours, head, read.frozen, hidden_ND, rng, catalogue)
    nll_N, hit_N = _among_all(said_NI, item_N, never_I)
  count = jnp.sum(item_N > 0)
  loss = losses.weighted_mean(nll_N, item_N > 0, of["next_item"] > 0)
  metrics = {"head_nll": (jnp.sum(nll_N * (item_N > 0)), count),
             "head_hit": (jnp.sum(hit_N & (item_N > 0)), count)}
  if c is not None:
    given_BSI = c.teacher(read.frozen["teacher"], *distillation.histories(
        batch, head.num_items, queries or read.ours.config.num_queries))
    kl_N = distillation.divergence(
        given_BSI.reshape(said_NI.shape), said_NI, c.temperature, never_I)
    at_N = distillation.matched(batch, head.num_items).reshape(-1)
    loss += c.weight * losses.weighted_mean(kl_N, at_N, distillation.matched(of, head.num_items))
    metrics["head_kl"] = (jnp.sum(kl_N * at_N), jnp.sum(at_N))
  return head.weight * loss, metrics


def head_logits(model, c: HeadConfig, frozen: dict, hidden_ND, rng, catalogue=None) -> jax.Array:
  """[N, I] scores of all items; see `head_nll`."""
  key_IP, bias_I = _keys(model, frozen, jnp.arange(1, c.num_items + 1), rng, catalogue)
  return model.head.query(hidden_ND.astype(jnp.float32)) @ key_IP.T + bias_I[None]


def head_nll(model, c: HeadConfig, frozen: dict, hidden_ND, item_N, rng, catalogue=None):
  """(negative log likelihood, hit), each [N], of the item rows that follow; row 0 means nothing.

  With `c.negatives` a softmax over the item itself and so many others, drawn evenly, whose sum
  stands for that over all others (`drawing.items`). Items that `inputs.never_met` names are no
  candidates.

  Args:
    model: with a head.
    c: the catalogue.
    frozen: vectors, present, log_draws.
    hidden_ND: hidden states of the language model.
    item_N: item rows.
    rng: for noise, dropout and negatives; None: the first alone are off, negatives are fixed.
    catalogue: of rows 0..num_items, where they are known already, features [I + 1, F] and
      `inputs.log_draws` [I + 1].
  """
  if c.whole:
    return _among_all(head_logits(model, c, frozen, hidden_ND, rng, catalogue), item_N,
                      inputs.never_met(frozen, jnp.arange(1, c.num_items + 1), rng))
  query_NP = model.head.query(hidden_ND.astype(jnp.float32))
  drawn = drawing.items(
      None if rng is None else inputs.step_key(rng, 1), c.num_items, c.negatives)
  key_MP, bias_M = _keys(model, frozen, jnp.concatenate([item_N, drawn.item_K]), rng, catalogue)
  n = len(item_N)
  own_N = jnp.sum(query_NP * key_MP[:n], axis=1) + bias_M[:n]
  other_NK = query_NP @ key_MP[n:].T + bias_M[None, n:] + jnp.log(drawn.stands_K)[None]
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


def _among_all(logits_NI, item_N, never_I) -> tuple[jax.Array, jax.Array]:
  """(negative log likelihood, hit), each [N], of item rows among all; see `inputs.never_met`."""
  own_N = jnp.take_along_axis(logits_NI, jnp.maximum(item_N - 1, 0)[:, None], axis=1)[:, 0]
  if never_I is not None:
    logits_NI = jnp.where(never_I[None], -jnp.inf, logits_NI)
  return jax.nn.logsumexp(logits_NI, axis=1) - own_N, own_N >= jnp.max(logits_NI, axis=1)


def _counts(lm: language_model.Config, batch) -> dict:
  """tokens: how many places of the rows the language model reads for an example, soft tokens
  included; dropped, where the batch has it."""
  count = jnp.sum(batch["segment"] > 0)
  if language_model.is_encoder_decoder(lm):
    count += jnp.sum(batch["weights"] > 0)
  counts = {"tokens": count.astype(jnp.float32)}
  if "dropped" in batch:
    counts["dropped"] = jnp.sum(batch["dropped"]).astype(jnp.float32)
  return counts


def _sums(nll_BX, hit_BX, weight_BX, task_BX, task_names) -> dict:
  metrics = {}
  for name, index in (("", None), *((f"/{n}", i) for i, n in enumerate(task_names))):
    w_BX = weight_BX if index is None else weight_BX * (task_BX == index)
    count = jnp.sum(w_BX)
    metrics |= {f"nll{name}": (jnp.sum(w_BX * nll_BX), count),
                f"hit{name}": (jnp.sum(w_BX * hit_BX), count)}
  return metrics
