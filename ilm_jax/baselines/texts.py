"""Rankings by sentence vectors of item texts, which items without interactions have, too."""
from collections.abc import Sequence

import numpy as np

_LAST = 10           # items at the end of a history that `neighbour` reads
_RIDGE = 10.0        # of `factors`: best of 0.3 to 30 on validation, where all are about equal


def neighbour(text_I1C, histories: Sequence) -> np.ndarray:
  """[U, I + 1]: cosine of each item's text with the mean text vector of a history's last items.

  Args:
    text_I1C: float [I + 1, C] sentence vectors of item rows; row 0 is the padding and scores -inf.
    histories: item rows of each user, oldest first, at least one.
  """
  mean_UC = np.stack([text_I1C[history[-_LAST:]].mean(axis=0) for history in histories])
  score_UI = _unit(mean_UC) @ _unit(text_I1C).T
  score_UI[:, 0] = -np.inf
  return score_UI


def factors(text_I1C, item_I1C, user_UC, met_I) -> np.ndarray:
  """float32 [U, I + 1]: iALS's scores; the factors of items without interactions come from texts.

  A ridge regression predicts item factors from unit text vectors; it is fitted on all other items.

  Args:
    text_I1C: float [I + 1, C] sentence vectors of item rows; row 0 is the padding and scores -inf.
    item_I1C, user_UC: factors of item rows and of the users to rank for.
    met_I: bool [I + 1], items with interactions, whose factors are known.
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
