"""Distils a sequential recommender, which reads the same history, into the item head.

LLM-SRec (arXiv 2502.13909, section 4.2) pulls a frozen language model's user state towards the
state of a pre-trained sequential recommender: mean squared error between projections of both, and
a uniformity loss against their collapse. Here the softmaxes over the catalogue are compared: both
states exist to produce them, no projections are needed, and nothing can collapse.

The teacher is frozen and runs inside the step, on the item rows that the batch already holds. It
therefore reads only what the row shows: the history, a window or a part of it.
"""
import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

_NEVER = -1e9      # logit of an item that is no candidate; finite, so that 0 * its logarithm is 0


@dataclasses.dataclass(frozen=True)
class Distil:
  """A teacher of the item head."""
  weight: float           # of the divergence; the head's own loss has weight 1
  temperature: float      # T of both softmaxes
  teacher: Callable       # (frozen["teacher"], *histories) -> float [B, S, I] scores of all items


def histories(batch: dict, num_items: int, queries: int) -> tuple[jax.Array, jax.Array]:
  """(item rows, segments), int [B, S] each, of the slots of a packed batch, in order.

  Args:
    batch: of data/packing.py.
    num_items: I; entity rows above I are users.
    queries: soft tokens per slot, Q.

  Returns:
    Item rows, 0 for users and padding; segments number the examples of a row, 0: empty slot.
  """
  entity_BS = batch["entities"]
  slot_BL = jnp.where(batch["slot"] < 0, -1, batch["slot"] // queries)
  here_BSL = slot_BL[:, None, :] == jnp.arange(entity_BS.shape[1])[None, :, None]
  segment_BS = jnp.max(jnp.where(here_BSL, batch["segment"][:, None, :], 0), axis=2)
  return jnp.where(entity_BS <= num_items, entity_BS, 0), segment_BS


def matched(batch: dict, num_items: int) -> jax.Array:
  """bool [B, S]: slots that hold an item and have a next item: there the teacher is matched."""
  entity_BS = batch["entities"]
  return (batch["next_item"] > 0) & (entity_BS > 0) & (entity_BS <= num_items)


def divergence(given_NI, said_NI, temperature: float, never_I=None) -> jax.Array:
  """float32 [N]: T^2 KL(softmax(given / T), softmax(said / T)); no gradient goes to `given_NI`.

  T^2 keeps the size of the gradient (Hinton et al., arXiv 1503.02531, section 2). Columns where
  `never_I` is true are left out of both softmaxes: the teacher knows nothing about them.
  """
  if never_I is not None:
    given_NI, said_NI = (jnp.where(never_I[None], _NEVER, x) for x in (given_NI, said_NI))
  given_NI = jax.nn.log_softmax(jax.lax.stop_gradient(given_NI) / temperature, axis=1)
  said_NI = jax.nn.log_softmax(said_NI / temperature, axis=1)
  return temperature ** 2 * jnp.sum(jnp.exp(given_NI) * (given_NI - said_NI), axis=1)
