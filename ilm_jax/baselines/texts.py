"""Ranking items by the sentence vectors of their texts: who has no interactions has these."""
from collections.abc import Sequence

import numpy as np

_LAST = 10           # items of a history whose texts the neighbour compares
_RIDGE = 10.0        # of factors: the best of 0.3 to 30 on validation, where all are alike


def neighbour(text_I1C, histories: Sequence) -> np.ndarray:
  """float32 [U, I + 1]: cosine of each item's text to the mean of those of a history's last items.

  Args:
    text_I1C: a sentence vector for each item row; row 0 is the padding, which scores -inf.
    histories: item rows of each user, oldest first, at least one.
  """
  mean_UC = np.stack([text_I1C[history[-_LAST:]].mean(axis=0) for history in histories])
  score_UI = _unit(mean_UC) @ _unit(text_I1C).T
  score_UI[:, 0] = -np.inf
  return score_UI


def factors(text_I1C, item_I1C, user_UC, met_I) -> np.ndarray:
  """float32 [U, I + 1]: iALS's scores, where the factors of who was not met are read off its text.

  A ridge regression from unit text vectors to item factors, fitted on the items that were met.

  Args:
    text_I1C: a sentence vector for each item row; row 0 is the padding, which scores -inf.
    item_I1C, user_UC: factors of item rows and of the users who are ranked for.
    met_I: bool [I + 1], items that the factors know.
  """
  text_MC, item_MC = text_I1C[met_I], item_I1C[met_I]
  mean_C = text_MC.mean(axis=0)
  unit_IC = _unit(text_I1C - mean_C).astype(np.float64)
  unit_MC = unit_IC[met_I]
  kernel_CC = np.linalg.solve(unit_MC.T @ unit_MC + _RIDGE * np.eye(len(mean_C)),
                              unit_MC.T @ (item_MC - item_MC.mean(axis=0)))
  guessed_I1C = np.where(met_I[:, None], item_I1C, unit_IC @ kernel_CC + item_MC.mean(axis=0))
  score_UI = (user_UC @ guessed_I1C.T).astype(np.float32)
  score_UI[:, 0] = -np.inf
  return score_UI


def _unit(vectors_NC) -> np.ndarray:
  length_N1 = np.linalg.norm(vectors_NC, axis=1, keepdims=True)
  return vectors_NC / np.maximum(length_N1, 1e-12)
