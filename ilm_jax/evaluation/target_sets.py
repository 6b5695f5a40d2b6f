"""Metrics of rankings with several targets each, one value per ranking; and their intervals.

Ranks count from 1; infinite: not in the ranking. The bootstrap draws whole groups of rankings, e.g.
all instances of one dialog.
"""
import numpy as np

from ilm_jax.evaluation import metrics, paired


def recall(ranks: list, k: int) -> np.ndarray:
  """float64 [N]: the share of a ranking's targets that is among its first k.

  Args:
    ranks: for each of N rankings the ranks of its targets, at least one.
    k: depth of the metric.
  """
  return np.array([metrics.hit_rate(rank_T, k).mean() for rank_T in ranks])


def reciprocal_rank(ranks: list) -> np.ndarray:
  """float64 [N]: 1 / rank of the best-ranked target. Args: see `recall`."""
  return np.array([metrics.reciprocal_rank(np.min(rank_T)) for rank_T in ranks])


def ndcg(ranks: list, k: int) -> np.ndarray:
  """float64 [N]: DCG at k / DCG at k with all targets at the top. Args: see `recall`."""
  return np.array([metrics.ndcg(rank_T, k).sum()
                   / metrics.ndcg(1.0 + np.arange(min(len(rank_T), k)), k).sum()
                   for rank_T in ranks])


def values(ranks: list) -> dict[str, np.ndarray]:
  """Metric -> float64 [N]. Args: see `recall`."""
  return {**{f"R@{k}": recall(ranks, k) for k in (1, 10, 50)}, "MRR": reciprocal_rank(ranks),
          "NDCG@10": ndcg(ranks, 10)}


def estimates(bootstrap: paired.Bootstrap, of_each: dict[str, np.ndarray], group_N) -> dict:
  """Metric -> estimate of the mean over rankings, with an interval over groups of rankings.

  Args:
    bootstrap: makes the intervals.
    of_each: from `values`, or the difference of two of them.
    group_N: the group of each ranking; the estimate's n counts groups.
  """
  _, group_N = np.unique(group_N, return_inverse=True)
  count_G = np.bincount(group_N)
  return {name: bootstrap.mean(np.bincount(group_N, weights=value_N), count_G)
          for name, value_N in of_each.items()}
