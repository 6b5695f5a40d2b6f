"""Inputs of the objectives of both phases: entity vectors, soft tokens, keys of a step."""
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from ilm_jax.models import ilm
from ilm_jax.models.qformer_layers import members_of


def abstract(build: Callable) -> tuple[nnx.GraphDef, dict]:
  """The (graphdef, parameters) of `build`, the parameters as shapes; no parameters are drawn."""
  built = {}

  def parameters():
    built["graphdef"], found = build()
    return found

  shapes = jax.eval_shape(parameters)
  return built["graphdef"], shapes


_HIDING = 2 ** 31 - 1        # folded into a key, so that hiding and the model draw independently
_OF_TEXT = "semantic"        # the vector that needs no interactions


def entity_inputs(frozen: dict, entity_B, rng=None, hide: float = 0.0) -> tuple[dict, dict]:
  """(vectors, present) of entity rows, for the Q-Former. Row 0 is padding and has no vector.

  If `frozen` has members [R, S] (the rows of each row's members), their vectors are included.

  Args:
    frozen: vectors, present, members.
    entity_B: int [B] entity rows.
    rng: a key, which the model may use too; None: nothing is hidden.
    hide: probability that only an item's text is shown. Vectors from interactions and members are
      hidden then, so that the model learns to rank items without interactions (DropoutNet, Volkovs
      et al., NeurIPS 2017).
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
  """float32 [B]: frozen["log_draws"] of entities, the log of their training interactions.

  It is 0, as for an entity without any, where `entity_inputs` with the same arguments hides
  vectors from interactions.
  """
  draws_B = frozen["log_draws"][entity_B]
  hidden_B = _hidden(frozen, entity_B, rng, hide)
  return draws_B if hidden_B is None else jnp.where(hidden_B, 0.0, draws_B)


def never_met(frozen: dict, item_I, rng) -> jax.Array | None:
  """bool [I]: items without a vector from collaborative filtering, which training must not use as
  candidates.

  A model that learns to read items from their text must not learn to rank these low. None: all are
  candidates (in evaluation, where `rng` is None, or without such items).
  """
  return frozen["never_met"][item_I] if rng is not None and "never_met" in frozen else None


def _hidden(frozen: dict, entity_B, rng, hide: float) -> jax.Array | None:
  """bool [B]: true where only an entity's text is shown; None: nowhere."""
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
  """(parameters of the ILM, all parameters of the language model, both frozen and trained)."""
  return ({k: v for k, v in trainable.items() if k != "lm"},
          {**frozen["lm"], **trainable.get("lm", {})})


def soft_tokens(model: ilm.Projector, frozen: dict, entity_BS, rng=None, queries: int = 0
                ) -> jax.Array:
  """[B, S * Q, D]: soft tokens of each row's entities, in order; `queries` of each, 0: all."""
  vectors, present = entity_inputs(
      frozen, entity_BS.reshape(-1), rng, model.config.vector_dropout)
  soft = model.soft_tokens(vectors, present, rng)
  return side_by_side(soft.reshape(*entity_BS.shape, *soft.shape[1:]), queries)


def side_by_side(soft_BSQD, queries: int) -> jax.Array:
  """[B, S * queries, D]: the first `queries` soft tokens of each entity; 0: all."""
  soft_BSQD = soft_BSQD[:, :, :queries] if queries else soft_BSQD
  return soft_BSQD.reshape(len(soft_BSQD), -1, soft_BSQD.shape[-1])
