"""Goodman and Kruskal's gamma between ordered groups of items (e.g. from raters) and scores.

Over all pairs of items from different groups: (concordant - discordant) / (concordant +
discordant). A pair is concordant if the scores order it as the groups do; equal scores count as
neither.
"""
import itertools

import numpy as np

from ilm_jax.evaluation import metrics, paired


def pairs(groups) -> np.ndarray:
  """int [P, 2]: (lower, higher) item rows of all pairs from different groups.

  Args:
    groups: item rows of each group, the lowest group first. A row in two groups makes no pair with
      itself.
  """
  every = [(low, high) for below, above in itertools.combinations(groups, 2)
           for low, high in itertools.product(below, above) if low != high]
  return np.array(every, np.int64).reshape(-1, 2)


def counts(low_P, high_P) -> tuple[int, int]:
  """(concordant - discordant, concordant + discordant).

  Args:
    low_P, high_P: scores of the lower and of the higher item of each pair.
  """
  sign_P = np.sign(np.asarray(high_P, np.float64) - np.asarray(low_P, np.float64))
  return int(sign_P.sum()), int(np.abs(sign_P).sum())


def estimate(bootstrap: paired.Bootstrap, sum_AR, count_AR) -> dict:
  """The mean of gamma over attributes; the interval draws raters, the same for all attributes.

  Args:
    bootstrap: makes the interval.
    sum_AR, count_AR: `counts` of each attribute and rater.
  """
  return metrics.bootstrap_mean(sum_AR, count_AR, resamples=bootstrap.resamples,
                                seed=bootstrap.seed)._asdict()


def difference(bootstrap: paired.Bootstrap, one, other) -> dict:
  """Estimate of gamma of `one` - gamma of `other`, drawing the same raters for both.

  Args:
    bootstrap: as in `estimate`.
    one, other: (sum_AR, count_AR) of each, for the same attributes and raters.
  """
  # The mean over both sets of attributes, with the other's sums negated, is half the difference.
  sum_AR, count_AR = (np.concatenate(both) for both in zip(one, (-np.asarray(other[0]), other[1])))
  half = estimate(bootstrap, sum_AR, count_AR)
  return {**{name: 2 * half[name] for name in ("value", "lo", "hi")}, "n": half["n"]}
