"""Vectors of users who are not in the log, from the items they liked: no training, no device.

As its last step, `ials.ials` solves the row of every user, given the items that it returns.
Solving the same system for a new history gives the row of a new user. For the training history of
a user of the log, the result is the trained row up to float32 rounding (with `cf.solver="cg"`, up
to the rest that its few steps leave; with `cf.dtype="bfloat16"`, up to bfloat16 rounding).

    form = fold_in.Form(item_I1C, reg=20.0, alpha=2.0)      # once: the Gram matrix of all items
    user_NC = form.users([[3, 17, 5]])                      # entity rows that each of N users liked

The tables of vectors are standardised after the factorisation; `Fitted` does the same to new rows.
"""
import dataclasses
import functools

import numpy as np


@dataclasses.dataclass(frozen=True)
class Form:
  """The objective of implicit ALS with its items fixed.

  Attributes:
    item_I1C: float [I + 1, C]: item vectors as `ials.ials` returned them; row 0 is zeros.
    reg, alpha: as given to `ials.ials`.
  """
  item_I1C: np.ndarray
  reg: float
  alpha: float

  @functools.cached_property
  def gram_CC(self) -> np.ndarray:
    """float64 [C, C]: the matrix that the systems of all users share."""
    item_IC = np.asarray(self.item_I1C[1:], np.float64)
    return item_IC.T @ item_IC + self.reg * np.eye(item_IC.shape[1])

  def users(self, histories) -> np.ndarray:
    """float32 [N, C]: the row of each of N users; zeros for one without history.

    Args:
      histories: for each user, the entity rows (1..I) of the items, in any order; an item that
        comes twice counts once, as in stage cf.
    """
    user_NC = np.zeros((len(histories), self.item_I1C.shape[1]), np.float32)
    for user_C, history in zip(user_NC, histories):
      if len(history):
        once = list(dict.fromkeys(np.asarray(history).tolist()))
        met_TC = np.asarray(self.item_I1C[once], np.float64)
        left_CC = self.gram_CC + self.alpha * (met_TC.T @ met_TC)
        user_C[:] = np.linalg.solve(left_CC, (1.0 + self.alpha) * met_TC.sum(axis=0))
    return user_NC


def of_last_items(histories, item_I1C, window: int) -> np.ndarray:
  """float64 [N, C]: the mean of each user's last `window` items; zeros for one without history.

  `transitions.vectors` makes users in the same way, up to an affine map if the items given here
  are standardised.
  """
  item_I1C = np.asarray(item_I1C, np.float64)
  return np.stack([item_I1C[np.asarray(h, np.int64)[-window:]].mean(axis=0) if len(h) else
                   np.zeros(item_I1C.shape[1]) for h in histories])


@dataclasses.dataclass(frozen=True)
class Fitted:
  """For each dimension, the affine map from rows as they were made to rows of the entity table.

  A standardisation is such a map; its means and deviations are found again from known rows.
  """
  scale_C: np.ndarray
  shift_C: np.ndarray

  @classmethod
  def of(cls, before_UC, after_UC) -> "Fitted":
    """Fits the map by least squares; exact if such a map exists. Constant dimensions have scale 0.

    Args:
      before_UC: float [U, C]: rows as they were made, U >= 1.
      after_UC: float [U, C]: the same rows in the table.
    """
    before_UC, after_UC = np.asarray(before_UC, np.float64), np.asarray(after_UC, np.float64)
    mean_C = before_UC.mean(axis=0)
    centred_UC = before_UC - mean_C
    spread_C = (centred_UC ** 2).mean(axis=0)
    both_C = (centred_UC * (after_UC - after_UC.mean(axis=0))).mean(axis=0)
    scale_C = both_C / np.where(spread_C > 0, spread_C, 1.0)
    return cls(scale_C, after_UC.mean(axis=0) - scale_C * mean_C)

  def __call__(self, new_NC) -> np.ndarray:
    """float32 [N, C]: new rows as the table would hold them."""
    return (np.asarray(new_NC, np.float64) * self.scale_C + self.shift_C).astype(np.float32)
