"""Ridge regression from one set of vectors to another, and the choice of its regularisation."""
from typing import NamedTuple

import numpy as np

_GRID, _FOLDS = (1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0), 5


class Ridge(NamedTuple):
  """A linear map from standardised vectors to centred vectors."""
  mean_C: np.ndarray
  scale_C: np.ndarray
  weight_CP: np.ndarray
  mean_P: np.ndarray

  def predict(self, x_NC) -> np.ndarray:
    """[N, P]: predicted differences from the mean target vector."""
    return ((x_NC - self.mean_C) / self.scale_C) @ self.weight_CP


def fit(x_NC, y_NP, regularisation: float) -> Ridge:
  """Fits standardised x to centred y: least mean squared error + regularisation * weights ** 2."""
  mean_C, scale_C, mean_P = x_NC.mean(0), np.maximum(x_NC.std(0), 1e-6), y_NP.mean(0)
  z_NC = (x_NC - mean_C) / scale_C
  gram_CC = z_NC.T @ z_NC / len(z_NC) + regularisation * np.eye(z_NC.shape[1])
  moment_CP = z_NC.T @ (y_NP - mean_P) / len(z_NC)
  return Ridge(mean_C, scale_C, np.linalg.solve(gram_CC, moment_CP), mean_P)


def choose(x_NC, y_NP, *, seed: int, group_N=None) -> float:
  """The regularisation of `_GRID` with the least squared error in cross-validation.

  Args:
    x_NC, y_NP: as in `fit`.
    seed: of the folds.
    group_N: rows of equal value are in the same fold, because they are alike; None: each row is
      on its own.
  """
  group_N = np.arange(len(x_NC)) if group_N is None else np.unique(group_N, return_inverse=True)[1]
  fold_N = (np.random.default_rng(seed).permutation(group_N.max() + 1) % _FOLDS)[group_N]

  def error(regularisation):
    total = 0.0
    for fold in range(_FOLDS):
      out_N = fold_N == fold
      ridge = fit(x_NC[~out_N], y_NP[~out_N], regularisation)
      total += np.sum((ridge.predict(x_NC[out_N]) + ridge.mean_P - y_NP[out_N]) ** 2)
    return total

  return float(min(_GRID, key=error))
