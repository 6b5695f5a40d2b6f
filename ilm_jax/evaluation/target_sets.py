"""Metrics of rankings with several targets each, one value a ranking; and their intervals.

Ranks count from 1; infinite: not in the ranking. Examples that belong together (the instances of
one dialog) are drawn together by the bootstrap.
"""
import numpy as np

from ilm_jax.evaluation import metrics, paired


def recall(ranks: list, k: int) -> np.ndarray:
  """float64 [N]: which share of a ranking's targets is among its first k.

  Args:
    ranks: of each of N rankings the ranks of its targets, at least one.
    k: how far it looks.
  """
  return np.array([metrics.hit_rate(rank_T, k).mean() for rank_T in ranks])


def reciprocal_rank(ranks: list) -> np.ndarray:
  """float64 [N]: 1 / rank of the first target. Args: of `recall`."""
  return np.array([metrics.reciprocal_rank(np.min(rank_T)) for rank_T in ranks])


def ndcg(ranks: list, k: int) -> np.ndarray:
  """float64 [N]: discounted gain at k over that of all targets in front. Args: of `recall`."""
  return np.array([metrics.ndcg(rank_T, k).sum()
                   / metrics.ndcg(1.0 + np.arange(min(len(rank_T), k)), k).sum()
                   for rank_T in ranks])


def values(ranks: list, *, recalls=(1, 10, 50), ndcgs=(10,)) -> dict[str, np.ndarray]:
  """Metric -> float64 [N]. Args: of `recall`; the k of each recall and of each NDCG."""
  return {**{f"R@{k}": recall(ranks, k) for k in recalls}, "MRR": reciprocal_rank(ranks),
          **{f"NDCG@{k}": ndcg(ranks, k) for k in ndcgs}}


def estimates(bootstrap: paired.Bootstrap, of_each: dict[str, np.ndarray], group_N) -> dict:
  """Metric -> estimate of the mean over rankings, its interval over groups of them.

  Args:
    bootstrap: how often groups are drawn, by which seed.
    of_each: of `values`, or of the difference of two.
    group_N: which group each ranking is of; the estimate's n counts groups.
  """
  _, group_N = np.unique(group_N, return_inverse=True)
  count_G = np.bincount(group_N)
  return {name: bootstrap.mean(np.bincount(group_N, weights=value_N), count_G)
          for name, value_N in of_each.items()}
