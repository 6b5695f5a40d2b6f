"""Adds scores from counts to those of a SASRec, inside a training step: a teacher of the item head.

A transition graph and EASE^R each score the items after a history by an item-item matrix and
weights of the history's items: decay^k for the item with k items after it, or 1 for all. So a step
needs one product for each of the two to score all places of all rows.
"""
import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ilm_jax import errors
from ilm_jax.baselines import ease, neighbours

# As tuned on validation targets of MovieLens-100K (docs/results/ml100k_baselines.md).
LAST, DECAY, SMOOTHING, REG = 20, 0.8, 5.0, 100.0
MOST_ITEMS = 20_000      # a dense matrix of items by items then takes 1.6 GB on every device
_RARE = 1e-6             # added to probabilities, so that every logarithm is finite


@dataclasses.dataclass(frozen=True)
class Counts:
  """Weights of two scores in the teacher's logits; 0 leaves a score out."""
  transitions: float = 0.0      # times the log probability by the transition graph
  ease: float = 0.0             # times the score by EASE^R, of mean 0 and deviation 1 over items

  @property
  def used(self) -> bool:
    """Whether any weight is above 0."""
    return bool(self.transitions or self.ease)


def check(c: Counts, num_items: int) -> None:
  """Raises a UserError if there are more items than `MOST_ITEMS`."""
  if c.used and num_items > MOST_ITEMS:
    raise errors.UserError(
        "phase2.head.distil_transitions and distil_ease hold matrices of items by items: "
        f"{num_items:,}, expected at most {MOST_ITEMS:,}: set both to 0, or raise data.k_core")


def arrays(c: Counts, histories: list, num_items: int) -> dict[str, np.ndarray]:
  """{"transitions": .., "ease": ..}: the matrices of the scores in use, float32 [I, I] each.

  Args:
    c: the weights.
    histories: item rows of each user's training interactions, in time order.
    num_items: I.

  Raises:
    UserError: see `check`.
  """
  check(c, num_items)
  made: dict[str, np.ndarray] = {}
  if c.transitions:
    alone = [np.array([row]) for row in range(1, num_items + 1)]
    made["transitions"] = neighbours.transition(
        histories, num_items, alone, last=1, decay=1.0, smoothing=SMOOTHING)[:, 1:]
  if c.ease:
    made["ease"] = ease.weights(histories, num_items, REG).astype(np.float32)
  return made


def beside(c: Counts, teacher: Callable) -> Callable:
  """The teacher's log softmax plus the weighted scores from counts: a product of experts.

  Args:
    c: the weights.
    teacher: (its parameters, row_BL, segment_BL) -> [B, L, I] logits.

  Returns:
    A function like `teacher`, with the parameters {"sasrec": .., and the arrays of `arrays`}.
  """
  def score(params, row_BL, segment_BL):
    total = jax.nn.log_softmax(teacher(params["sasrec"], row_BL, segment_BL), axis=-1)
    before_BLL, since_BLL = _before(row_BL, segment_BL)
    if c.transitions:
      weight_BLL = jnp.where(before_BLL & (since_BLL < LAST), DECAY ** since_BLL, 0.0)
      seen_BLI = _summed(weight_BLL, params["transitions"], row_BL)
      sum_BL1 = jnp.maximum(jnp.sum(seen_BLI, axis=-1, keepdims=True), _RARE)
      total += c.transitions * jnp.log(seen_BLI / sum_BL1 + _RARE)
    if c.ease:
      sum_BLI = _summed(before_BLL.astype(jnp.float32), params["ease"], row_BL)
      deviation_BL1 = jnp.maximum(jnp.std(sum_BLI, axis=-1, keepdims=True), _RARE)
      total += c.ease * (sum_BLI - jnp.mean(sum_BLI, axis=-1, keepdims=True)) / deviation_BL1
    return total

  return score


def _before(row_BL, segment_BL) -> tuple[jax.Array, jax.Array]:
  """(bool [B, L, L], int [B, L, L]): whether place s holds an item of the history up to place t,
  t included, and the number of items after s up to t; axes [batch, t, s]."""
  place_L = jnp.arange(row_BL.shape[1])
  before_BLL = ((segment_BL[:, :, None] == segment_BL[:, None, :]) & (row_BL[:, None, :] > 0)
                & (place_L[:, None] >= place_L[None, :])[None])
  count_BL = jnp.cumsum((row_BL > 0).astype(jnp.int32), axis=1)
  return before_BLL, count_BL[:, :, None] - count_BL[:, None, :]


def _summed(weight_BLL, matrix_II, row_BL) -> jax.Array:
  """[B, L, I]: the weighted sum of the matrix rows of each row's items."""
  return jnp.einsum("bts,bsi->bti", weight_BLL, matrix_II[jnp.maximum(row_BL - 1, 0)])
