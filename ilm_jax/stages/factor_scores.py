"""Scores of the factorisation, which are added to those of the item head.

The item head reads vectors that have passed through projector and language model. The factorisation
that made these vectors scores items by itself: the user, folded in from the same history, times
each item. Added with a weight (`phase2.head.factors`) it is a skip connection from the vectors to
the scores. Nothing is trained; choose the weight on validation targets.
"""
import numpy as np

from ilm_jax.cf import fold_in
from ilm_jax.stages import context, vectors


class FactorScores:
  """Scores items for users by what they liked.

  Args:
    run: after stage cf; its factors are read.
    weight: what scores are multiplied with.

  Attributes:
    item_I1C: float32 [I + 1, C]: the items' factors; zeros for items without interactions.
  """

  def __init__(self, run: context.Run, weight: float):
    c, self.item_I1C = run.config.cf, vectors.factors(run)[1]
    self._weight = weight
    self._form = fold_in.Form(self.item_I1C, reg=c.reg, alpha=c.alpha)

  def users(self, histories) -> np.ndarray:
    """float32 [N, C]: the folded-in users times the weight; zeros without a history.

    Args:
      histories: for each user the entity rows (1..I) of its items, in any order.
    """
    return np.float32(self._weight) * self._form.users(histories)

  def scores(self, histories) -> np.ndarray:
    """float32 [N, I + 1], to be added to the item head's; `histories` as for `users`."""
    return self.users(histories) @ self.item_I1C.T


def of(run: context.Run) -> FactorScores | None:
  """The run's; None if its config has no weight for them."""
  weight = run.config.phase2.head.factors
  return FactorScores(run, weight) if weight else None
