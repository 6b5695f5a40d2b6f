"""What the objectives of both phases read: entity vectors, soft tokens, keys of a step."""
from collections.abc import Callable

import jax
import jax.numpy as jnp
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


_HIDING = 2 ** 31 - 1        # folded into a key, so that hiding draws what the model does not
_OF_TEXT = "semantic"        # the vector that needs no interactions


def entity_inputs(frozen: dict, entity_B, rng=None, hide: float = 0.0) -> tuple[dict, dict]:
  """(vectors, present) of entity rows, for the Q-Former. Row 0, the padding, has nothing.

  Where `frozen` has members [R, S], rows that belong to a row, also theirs.

  Args:
    frozen: vectors, present, members.
    entity_B: int [B] entity rows.
    rng: a key, which the model may use too; None: nothing is hidden.
    hide: probability that an item is read by its text alone, without what interactions told of it:
      its other vectors and its members (DropoutNet, Volkovs et al., NeurIPS 2017: who reads an item
      without its behaviour now and then can rank an item that has none).
  """
  vectors, present = _of_rows(frozen, entity_B)
  if "members" in frozen:
    of_members = _of_rows(frozen, frozen["members"][entity_B])
    for mine, theirs in zip((vectors, present), of_members):
      mine |= {members_of(name): x for name, x in theirs.items()}
  hidden_B = _hidden(frozen, entity_B, rng, hide)
  if hidden_B is not None:
    present = {name: has if name == _OF_TEXT else has & ~hidden_B.reshape(-1, *[1] * (has.ndim - 1))
               for name, has in present.items()}
  return vectors, present


def log_draws(frozen: dict, entity_B, rng=None, hide: float = 0.0) -> jax.Array:
  """[B]: log of how many training interactions an entity has; 0, as of none, where
  `entity_inputs` with the same arguments hides what they told."""
  draws_B = frozen["log_draws"][entity_B]
  hidden_B = _hidden(frozen, entity_B, rng, hide)
  return draws_B if hidden_B is None else jnp.where(hidden_B, 0.0, draws_B)


def never_met(frozen: dict, item_I, rng) -> jax.Array | None:
  """bool [I]: in training (`rng` is a key), items without an interaction there: a model that learns
  to read items by their text must not learn to leave these out. None: all are candidates."""
  return frozen["never_met"][item_I] if rng is not None and "never_met" in frozen else None


def _hidden(frozen: dict, entity_B, rng, hide: float) -> jax.Array | None:
  """bool [B]: of which entities only the text is shown; None: of none."""
  if rng is None or not hide or _OF_TEXT not in frozen["present"]:
    return None
  turn_B = jax.random.bernoulli(jax.random.fold_in(rng, _HIDING), hide, entity_B.shape)
  return turn_B & frozen["present"][_OF_TEXT][entity_B]


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
  vectors, present = entity_inputs(
      frozen, entity_BS.reshape(-1), rng, model.config.vector_dropout)
  soft = model.soft_tokens(vectors, present, rng)
  return side_by_side(soft.reshape(*entity_BS.shape, *soft.shape[1:]), queries)


def side_by_side(soft_BSQD, queries: int) -> jax.Array:
  """[B, S * queries, D]: the first so many soft tokens of every entity, 0: all."""
  soft_BSQD = soft_BSQD[:, :, :queries] if queries else soft_BSQD
  return soft_BSQD.reshape(len(soft_BSQD), -1, soft_BSQD.shape[-1])
