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

  Returns:
    The estimate. An attribute for which one of them orders no pair (all scores equal) is left out.

  Raises:
    ValueError: that is so for all attributes.
  """
  parts = [np.asarray(part, np.float64) for part in (*one, *other)]
  raters = parts[0].shape[1]

  def apart(times_R):
    sum_A, count_A, other_A, other_count_A = (part @ times_R for part in parts)
    both_A = (count_A > 0) & (other_count_A > 0)
    return (sum_A[both_A] / count_A[both_A] - other_A[both_A] / other_count_A[both_A])

  if not len(every := apart(np.ones(raters))):
    raise ValueError("gamma: there is no attribute of which both order a pair")
  drawn = map(apart, metrics.draws(raters, bootstrap.resamples, bootstrap.seed))
  lo, hi = np.percentile([apart_A.mean() for apart_A in drawn if len(apart_A)], [2.5, 97.5])
  return {"value": float(every.mean()), "lo": float(lo), "hi": float(hi), "n": raters}
