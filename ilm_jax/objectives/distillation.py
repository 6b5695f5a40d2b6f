"""Distillation into the item head: a sequential recommender reads the same history and is matched.

LLM-SRec (arXiv 2502.13909, section 4.2) draws a frozen language model's user state near the state
of a pre-trained sequential recommender, by mean squared error between projections of both and
uniformity against their collapse. Here the softmaxes over the catalogue are compared: what both
states are for, without projections that would be thrown away, and nothing can collapse.

The teacher is frozen and runs inside the step, on the item rows that the batch already holds. So it
reads what the row shows, no more: a window of the history, or a part of it.
"""
import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

_NEVER = -1e9      # a logit of what is no candidate; finite, so that 0 times its logarithm is 0


@dataclasses.dataclass(frozen=True)
class Distil:
  """A teacher of the item head, and what it has to say."""
  weight: float           # of the divergence beside the head's own loss
  temperature: float      # T of both softmaxes
  teacher: Callable       # (frozen["teacher"], *histories) -> float [B, S, I] scores of all items


def histories(batch: dict, num_items: int, queries: int) -> tuple[jax.Array, jax.Array]:
  """(item rows, segments), int [B, S] each: what a packed batch's slots hold, in order.

  Args:
    batch: of data/packing.py.
    num_items: entity rows above are users, who are 0 here, as padding is.
    queries: places of a slot, Q.

  Returns:
    Row 0: no item. Segments number the examples of a row; 0: the slot is empty.
  """
  entity_BS = batch["entities"]
  slot_BL = jnp.where(batch["slot"] < 0, -1, batch["slot"] // queries)
  here_BSL = slot_BL[:, None, :] == jnp.arange(entity_BS.shape[1])[None, :, None]
  segment_BS = jnp.max(jnp.where(here_BSL, batch["segment"][:, None, :], 0), axis=2)
  return jnp.where(entity_BS <= num_items, entity_BS, 0), segment_BS


def matched(batch: dict, num_items: int) -> jax.Array:
  """bool [B, S]: slots where an item stands and another is asked for: there a teacher has a say."""
  entity_BS = batch["entities"]
  return (batch["next_item"] > 0) & (entity_BS > 0) & (entity_BS <= num_items)


def divergence(given_NI, said_NI, temperature: float, never_I=None) -> jax.Array:
  """float32 [N]: T^2 KL(softmax(given / T), softmax(said / T)); no gradient goes to `given_NI`.

  T^2 keeps the size of the gradient (Hinton et al., arXiv 1503.02531, section 2). Columns that
  `never_I` names are left out of both: the teacher knows nothing of them.
  """
  if never_I is not None:
    given_NI, said_NI = (jnp.where(never_I[None], _NEVER, x) for x in (given_NI, said_NI))
  given_NI = jax.nn.log_softmax(jax.lax.stop_gradient(given_NI) / temperature, axis=1)
  said_NI = jax.nn.log_softmax(said_NI / temperature, axis=1)
  return temperature ** 2 * jnp.sum(jnp.exp(given_NI) * (given_NI - said_NI), axis=1)
