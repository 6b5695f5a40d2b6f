"""What the objectives of both phases read: entity vectors, soft tokens, keys of a step."""
from collections.abc import Callable

import jax
from flax import nnx

from ilm_jax.models import ilm
from ilm_jax.models.qformer_layers import members_of


def abstract(build: Callable) -> tuple[nnx.GraphDef, dict]:
  """What `build` returns, (graphdef, parameters), the parameters as shapes: nothing is drawn."""
  built = {}

  def parameters():
    built["graphdef"], found = build()
    return found

  shapes = jax.eval_shape(parameters)
  return built["graphdef"], shapes


def entity_inputs(frozen: dict, entity_B) -> tuple[dict, dict]:
  """(vectors, present) of entity rows, for the Q-Former. Row 0, the padding, has nothing.

  Where `frozen` has members [R, S], rows that belong to a row, also theirs.
  """
  vectors, present = _of_rows(frozen, entity_B)
  if "members" in frozen:
    of_members = _of_rows(frozen, frozen["members"][entity_B])
    for mine, theirs in zip((vectors, present), of_members):
      mine |= {members_of(name): x for name, x in theirs.items()}
  return vectors, present


def _of_rows(frozen: dict, entity_B) -> tuple[dict, dict]:
  vectors = {name: table_RC[entity_B] for name, table_RC in frozen["vectors"].items()}
  present = {name: has_R[entity_B] & (entity_B > 0) for name, has_R in frozen["present"].items()}
  return vectors, present


def step_key(rng, n: int):
  """The n-th key of this step; None (deterministic) without one."""
  return None if rng is None else jax.random.fold_in(rng, n)


def whole(trainable: dict, frozen: dict) -> tuple[dict, dict]:
  """(parameters of the ILM, all parameters of the language model, frozen and trained)."""
  return ({k: v for k, v in trainable.items() if k != "lm"},
          {**frozen["lm"], **trainable.get("lm", {})})


def soft_tokens(model: ilm.Projector, frozen: dict, entity_BS, rng=None, queries: int = 0
                ) -> jax.Array:
  """[B, S * Q, D]: the soft tokens of each row's entities, in order; the first `queries` of each
  entity, 0: all."""
  soft = model.soft_tokens(*entity_inputs(frozen, entity_BS.reshape(-1)), rng)
  return side_by_side(soft.reshape(*entity_BS.shape, *soft.shape[1:]), queries)


def side_by_side(soft_BSQD, queries: int) -> jax.Array:
  """[B, S * queries, D]: the first so many soft tokens of every entity, 0: all."""
  soft_BSQD = soft_BSQD[:, :, :queries] if queries else soft_BSQD
  return soft_BSQD.reshape(len(soft_BSQD), -1, soft_BSQD.shape[-1])
