"""Goodman and Kruskal's gamma between an order in groups, as of raters, and scores.

Of all pairs of items from different groups: (pairs that the scores order alike - pairs that they
order the other way) / both. Equal scores count in neither.
"""
import itertools

import numpy as np

from ilm_jax.evaluation import metrics, paired


def pairs(groups) -> np.ndarray:
  """int [P, 2]: (lower, higher) item rows of all pairs from different groups.

  Args:
    groups: item rows, the group with least first. A row that is in two groups makes no pair with
      itself.
  """
  every = [(low, high) for below, above in itertools.combinations(groups, 2)
           for low, high in itertools.product(below, above) if low != high]
  return np.array(every, np.int64).reshape(-1, 2)


def counts(low_P, high_P) -> tuple[int, int]:
  """(alike - otherwise, alike + otherwise). Args: scores of the lower and higher item of pairs."""
  sign_P = np.sign(np.asarray(high_P, np.float64) - np.asarray(low_P, np.float64))
  return int(sign_P.sum()), int(np.abs(sign_P).sum())


def estimate(bootstrap: paired.Bootstrap, sum_AR, count_AR) -> dict:
  """The mean of gamma over attributes; its interval over raters, the same draw for all attributes.

  Args:
    bootstrap: how often raters are drawn, by which seed.
    sum_AR, count_AR: `counts` of each attribute and rater.
  """
  return metrics.bootstrap_mean(sum_AR, count_AR, resamples=bootstrap.resamples,
                                seed=bootstrap.seed)._asdict()


def difference(bootstrap: paired.Bootstrap, one, other) -> dict:
  """`estimate` of one minus that of the other, drawing the same raters for both.

  Args:
    bootstrap: as in `estimate`.
    one, other: (sum_AR, count_AR) of each, of the same attributes and raters.
  """
  # A mean over twice the attributes, the other's with its sign turned, is half the difference.
  sum_AR, count_AR = (np.concatenate(both) for both in zip(one, (-np.asarray(other[0]), other[1])))
  half = estimate(bootstrap, sum_AR, count_AR)
  return {**{name: 2 * half[name] for name in ("value", "lo", "hi")}, "n": half["n"]}
