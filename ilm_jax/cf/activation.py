"""Directions in a space of vectors along which a property grows, by ridge regression."""
from collections.abc import Callable

import numpy as np


def between(with_NC, without_MC, ridge: float = 1.0) -> np.ndarray:
  """float32 [C]: a concept activation direction between two sets of vectors.

  A ridge regression predicts which set a vector is from; both sets have the same total weight (Kim
  et al., arXiv 1711.11279, with ridge in place of their linear classifier: one solution, without
  iterations). The direction's length is the distance, along it, from the mean of `without_MC` to
  the mean of `with_NC`.

  Args:
    with_NC: float [N, C] vectors with the concept.
    without_MC: float [M, C] vectors without it.
    ridge: added to the covariance, in units of its mean variance.
  """
  sets = np.asarray(with_NC, np.float64), np.asarray(without_MC, np.float64)
  return along(np.concatenate(sets), np.repeat([1.0, 0.0], [len(x) for x in sets]), ridge,
               np.concatenate([np.full(len(x), 1 / len(x)) for x in sets]))


def along(x_NC, value_N, ridge: float = 1.0, weight_N=None) -> np.ndarray:
  """float32 [C]: the direction in which a number grows, by ridge regression of it on the vectors.

  Its length is the distance that vectors move along it while the number grows by 1.

  Args:
    x_NC: float [N, C] vectors.
    value_N: the number of each vector, e.g. a year; not all the same.
    ridge: added to the covariance, in units of its mean variance.
    weight_N: the weight of each vector; None: equal weights.
  """
  return regression(x_NC, ridge, weight_N)(value_N)


def regression(x_NC, ridge: float = 1.0, weight_N=None) -> Callable[[np.ndarray], np.ndarray]:
  """A function, value_N -> what `along` returns; all that depends on the vectors is done once.
  Args: as `along`."""
  x_NC = np.asarray(x_NC, np.float64)
  weight_N = np.ones(len(x_NC)) if weight_N is None else np.asarray(weight_N, np.float64)
  weight_N = weight_N / weight_N.sum()
  x_NC = x_NC - weight_N @ x_NC
  spread_CC = (weight_N[:, None] * x_NC).T @ x_NC
  scale = ridge * max(np.trace(spread_CC) / x_NC.shape[1], 1e-12)
  spread_CC += scale * np.eye(x_NC.shape[1])

  def of(value_N) -> np.ndarray:
    value_N = np.asarray(value_N, np.float64)
    value_N = value_N - weight_N @ value_N
    apart_C = (weight_N * value_N) @ x_NC / (weight_N @ value_N ** 2)
    way_C = np.linalg.solve(spread_CC, apart_C)
    way_C *= (apart_C @ way_C) / max(way_C @ way_C, 1e-12)
    return way_C.astype(np.float32)
  return of
