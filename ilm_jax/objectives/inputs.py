"""What the objectives of both phases read: entity vectors, soft tokens, keys of a step."""
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from ilm_jax.models import ilm


def abstract(build: Callable) -> tuple[nnx.GraphDef, dict]:
  """What `build` returns, (graphdef, parameters), the parameters as shapes: nothing is drawn."""
  built = {}

  def parameters():
    built["graphdef"], found = build()
    return found

  shapes = jax.eval_shape(parameters)
  return built["graphdef"], shapes


_HIDING = 2 ** 31 - 1        # folded into a key, so that hiding draws what the model does not


def entity_inputs(frozen: dict, entity_B, rng=None, hide: float = 0.0) -> tuple[dict, dict]:
  """(vectors, present) of entity rows, for the Q-Former. Row 0, the padding, has nothing.

  Args:
    frozen: vectors, present.
    entity_B: int [B] entity rows.
    rng: a key, which the model may use too; None: nothing is hidden.
    hide: probability that an entity with several vectors loses one of them, each as likely. The
      last one that is there stays (DropoutNet, Volkovs et al., NeurIPS 2017: who reads an item
      without its behaviour now and then can rank an item that has none).
  """
  vectors = {name: table_RC[entity_B] for name, table_RC in frozen["vectors"].items()}
  present = {name: has_R[entity_B] & (entity_B > 0) for name, has_R in frozen["present"].items()}
  if rng is not None and hide and len(present) > 1:
    present = _without_one(present, jax.random.fold_in(rng, _HIDING), hide)
  return vectors, present


def _without_one(present: dict, rng, hide: float) -> dict:
  """`present` in which an entity with several vectors lacks one with probability `hide`."""
  has_NB = jnp.stack(list(present.values()))
  which, whether = jax.random.split(rng)
  turn_NB = jnp.where(has_NB, jax.random.uniform(which, has_NB.shape), -1.0)
  loses_B = jax.random.bernoulli(whether, hide, has_NB.shape[1:]) & (has_NB.sum(axis=0) > 1)
  chosen_NB = jnp.arange(len(has_NB))[:, None] == jnp.argmax(turn_NB, axis=0)[None]
  return dict(zip(present, has_NB & ~(chosen_NB & loses_B[None])))


def step_key(rng, n: int):
  """The n-th key of this step; None (deterministic) without one."""
  return None if rng is None else jax.random.fold_in(rng, n)


def whole(trainable: dict, frozen: dict) -> tuple[dict, dict]:
  """(parameters of the ILM, all parameters of the language model, frozen and trained)."""
  return ({k: v for k, v in trainable.items() if k != "lm"},
          {**frozen["lm"], **trainable.get("lm", {})})


def soft_tokens(model: ilm.ILM, frozen: dict, entity_BS, rng=None) -> jax.Array:
  """[B, S * Q, D]: the soft tokens of each row's entities, in order."""
  vectors, present = entity_inputs(
      frozen, entity_BS.reshape(-1), rng, model.config.vector_dropout)
  soft = model.soft_tokens(vectors, present, rng)
  return soft.reshape(entity_BS.shape[0], -1, soft.shape[-1])
