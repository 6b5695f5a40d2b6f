"""Scores of the factorisation, which are added to those of the item head.

The item head reads vectors that have passed through projector and language model. The factorisation
that made these vectors scores items by itself: the user, folded in from the same history, times
each item. Added with a weight (`phase2.head.factors`) it is a skip connection from the vectors to
the scores. Nothing is trained; choose the weight on validation targets.

The weight is in units of the head's own scores: with weight 1 the added scores have the same
standard deviation over the catalogue as the head's, for users with few likes and with many.
"""
import numpy as np

from ilm_jax.cf import fold_in
from ilm_jax.stages import context, vectors

HEAD = "item head"       # the way to rank to whose scores they are added


class FactorScores:
  """Scores items for users by what they liked.

  Args:
    run: after stage cf; its factors are read.
    weight: the standard deviation of a user's added scores, in those of the head's scores.

  Attributes:
    item_I1C: float32 [I + 1, C]: the items' factors; zeros for items without interactions.
  """

  def __init__(self, run: context.Run, weight: float):
    c, self.item_I1C = run.config.cf, vectors.factors(run)[1]
    self._weight = weight
    self._form = fold_in.Form(self.item_I1C, reg=c.reg, alpha=c.alpha)
    self._met_I = np.any(self.item_I1C[1:] != 0, axis=1)

  def users(self, histories, head_NI1) -> np.ndarray:
    """float32 [N, C]: the folded-in users, scaled; zeros without a history.

    Args:
      histories: for each of N users the entity rows (1..I) of its items, in any order.
      head_NI1: float [N, I + 1]: the head's scores of all item rows.
    """
    user_NC = self._form.users(histories)
    return user_NC * self._scale(user_NC @ self.item_I1C.T, head_NI1)

  def scores(self, histories, head_NI1) -> np.ndarray:
    """float32 [N, I + 1], to be added to `head_NI1`; arguments as for `users`."""
    own_NI1 = self._form.users(histories) @ self.item_I1C.T
    return own_NI1 * self._scale(own_NI1, head_NI1)

  def _scale(self, own_NI1, head_NI1) -> np.ndarray:
    """float32 [N, 1]: what brings the factorisation's scores to the wanted deviation."""
    wanted_N = self._weight * self._deviation(np.asarray(head_NI1, np.float32))
    has_N = self._deviation(own_NI1)
    return np.divide(wanted_N, has_N, out=np.zeros_like(has_N), where=has_N > 0)[:, None]

  def _deviation(self, score_NI1) -> np.ndarray:
    """[N]: the standard deviation over the items that have factors."""
    return score_NI1[:, 1:][:, self._met_I].std(axis=1)


def named(config, by: str) -> str:
  """A way to rank with what is added to its scores: "item head with iALS"."""
  head = config.phase2.head
  return f"{by} with iALS" if by == HEAD and head.weight and head.factors else by


def of(run: context.Run) -> FactorScores | None:
  """The run's; None if it has no item head, or its config no weight for them."""
  head = run.config.phase2.head
  return FactorScores(run, head.factors) if head.weight and head.factors else None
