"""Vectors of users who were not in the log, from what they liked: no training, no device.

The last thing that `ials.ials` solves is every user's row, given the items that it returns. The
same system, solved for one more history, is therefore that user's row: with the training history
of a user of the log it is the trained row, up to float32 (with `cf.solver="cg"`, up to what its
few steps leave over; with `cf.dtype="bfloat16"`, up to that rounding).

    form = fold_in.Form(item_I1C, reg=20.0, alpha=2.0)      # once: the Gram matrix of all items
    user_NC = form.users([[3, 17, 5]])                      # entity rows of what each of N liked

Tables of vectors are standardised behind the factorisation: `Fitted` does the same to new rows.
"""
import dataclasses
import functools

import numpy as np


@dataclasses.dataclass(frozen=True)
class Form:
  """What implicit ALS minimised, its items fixed.

  Attributes:
    item_I1C: [I + 1, C] float: items as `ials.ials` returned them; row 0 is zeros.
    reg, alpha: as they were in `ials.ials`.
  """
  item_I1C: np.ndarray
  reg: float
  alpha: float

  @functools.cached_property
  def gram_CC(self) -> np.ndarray:
    """[C, C] float64: what the systems of all users share."""
    item_IC = np.asarray(self.item_I1C[1:], np.float64)
    return item_IC.T @ item_IC + self.reg * np.eye(item_IC.shape[1])

  def users(self, histories) -> np.ndarray:
    """float32 [N, C]: the row of each of N users; zeros for one without history.

    Args:
      histories: of each user the entity rows (1..I) of its items, in any order; an item that is
        there twice counts twice, as in `ials.ials`.
    """
    user_NC = np.zeros((len(histories), self.item_I1C.shape[1]), np.float32)
    for user_C, history in zip(user_NC, histories):
      if len(history):
        met_TC = np.asarray(self.item_I1C[np.asarray(history)], np.float64)
        left_CC = self.gram_CC + self.alpha * (met_TC.T @ met_TC)
        user_C[:] = np.linalg.solve(left_CC, (1.0 + self.alpha) * met_TC.sum(axis=0))
    return user_NC


def of_last_items(histories, item_I1C, window: int) -> np.ndarray:
  """float64 [N, C]: the mean of each user's last `window` items; zeros for one without history.

  So `transitions.vectors` makes users, up to an affine map where its items were standardised.
  """
  item_I1C = np.asarray(item_I1C, np.float64)
  return np.stack([item_I1C[np.asarray(h, np.int64)[-window:]].mean(axis=0) if len(h) else
                   np.zeros(item_I1C.shape[1]) for h in histories])


@dataclasses.dataclass(frozen=True)
class Fitted:
  """The affine map of each dimension that took known rows to those of the entity table.

  A standardisation is one; its means and deviations need not have been kept.
  """
  scale_C: np.ndarray
  shift_C: np.ndarray

  @classmethod
  def of(cls, before_UC, after_UC) -> "Fitted":
    """The map by least squares: exact where there is one. A dimension without spread has scale 0.

    Args:
      before_UC: [U, C] rows as they were made, U >= 1.
      after_UC: [U, C] the same rows in the table.
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
