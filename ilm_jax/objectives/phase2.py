"""The objective of phase 2: a pure function of pure dicts, ready for `loop.fit`.

The builder, like that of phase 1 (phase1.py), closes over the static configuration and returns

  loss(trainable, frozen, batch, rng) -> (scalar loss, metrics: dict of scalars)

`rng` is a key; None switches dropout off (evaluation). Entity vectors are in `frozen` and are
gathered by entity row, so a batch carries only rows.
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
from ilm_jax.objectives import inputs, item_head


def build_phase2(config: QFormerConfig, lm_width: int, form: ilm.Form, soft_token_rms: float,
                 seed: int, start: Callable[[dict], dict] | None = None, mlp: bool = False,
                 head_width: int = 0) -> tuple[nnx.GraphDef, dict]:
  """(graphdef of the ILM, trainable = {"qformer": query path only, "projection": .., ..}).

  Args:
    config: as in phase 1; the text branch is left out here.
    lm_width: width of the language model's embeddings.
    form: see `ilm.Form`.
    soft_token_rms: RMS of the soft tokens at the start, see `ilm.ILM`.
    seed: for the fresh parameters.
    start: takes the fresh Q-Former's parameters and returns the parameters to start from, with or
      without a text branch (pretrained, or the result of phase 1); the projection is scaled to
      their outputs. None: keep the fresh ones.
    mlp: build an `ilm.MlpProjector` instead of Q-Former and projection; always fresh.
    head_width: width of the item head; 0: no head.
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
                task_names: tuple[str, ...], head: item_head.HeadConfig | None = None):
  """Mean negative log likelihood of the target tokens under the language model.

  With a `head`, plus that of the item that follows each slot of a history, times the head's weight.

  Batch: from data/packing.py. Its entry "rank" is a batch whose rows only the head reads, after the
  first `head.layer` layers; a batch with "rank" alone has no target tokens. A microbatch also has
  "whole", the batch that it is a part of; means are over that batch. `frozen`: lm (parameters),
  vectors, present; for a head log_draws; with `head.distil` also teacher (parameters). `trainable`:
  parameters of the ILM, and lm, the parameters of the language model that are not frozen.

  Metrics, as (sum over target tokens, count), so that batches can be added: "nll" (in nats) and
  "hit" (the target has the highest logit), also per task ("nll/<task>", ..); with a head "head_nll"
  and "head_hit", with its teacher "head_kl". Per batch: "tokens", the number of positions that are
  no padding; and "dropped", the number of examples that packing left out, if the batch has it.

  Args:
    graphdef: of the ILM; None for the same prompts without slots (`slot` all -1, nothing trained).
    lm: shape of the language model.
    task_names: names that `task` indexes.
    head: config of the head's loss, for a graphdef with an item head.
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
  """The metrics of two parts of a batch; metrics that both have are summed."""
  return one | other | {name: one[name] + other[name] for name in one if name in other}


class _Reader(NamedTuple):
  """The language model, and the projector that makes its soft tokens."""
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


def _words(read: _Reader, batch, of, task_names, head: item_head.HeadConfig | None, rng):
  """(loss, metrics) of rows with target texts, and of the head if it reads them too."""
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
    of_head, more = item_head.loss(
        read.ours, head, read.frozen, hidden_BXD[:, X:], batch, of, inputs.step_key(rng, 1))
    loss, metrics = loss + of_head, metrics | more
  return loss, metrics


def _ranked(read: _Reader, batch, of, head: item_head.HeadConfig, rng):
  """(loss, metrics) of rows that only the head reads, after `head.layer` layers."""
  catalogue = None
  if head.items_only and head.whole:      # one pass over all items serves slots and head
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
  loss, metrics = item_head.loss(
      read.ours, head, read.frozen, hidden_BXD, batch, of, inputs.step_key(rng, 1), catalogue,
      head.queries)
  return loss, metrics | _counts(read.model.config, batch)


def _counts(lm: language_model.Config, batch) -> dict:
  """tokens: positions that are no padding, with soft tokens; dropped, if the batch has it."""
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
