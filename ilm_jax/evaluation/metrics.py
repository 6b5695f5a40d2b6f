"""Ranking and language metrics: pure functions of numpy arrays, one value per example.

Ranks count from 1; `MISSED` (infinite) is the rank of a target that is not in the ranking.
`bootstrap` gives the mean over examples with its interval. A mean is a ratio of sums, so that sums
from several hosts can be added.
"""
from typing import NamedTuple

import numpy as np

MISSED = np.inf
NO_REPEATS = "none"      # value of a protocol's field "repeated targets" when there are none


class Estimate(NamedTuple):
  """A mean over `n` examples with its 95 % bootstrap interval."""
  value: float
  lo: float
  hi: float
  n: int


def ranks_from_scores(score_UI, target_U, blocked_UI=None) -> np.ndarray:
  """Each target's rank among all columns; among equal scores the lower column comes first.

  Args:
    score_UI: float [users, columns]; -inf: not in the ranking.
    target_U: int, column of the target.
    blocked_UI: bool; true: removed from the ranking. A blocked target is `MISSED`.

  Returns:
    float64 [users].

  Raises:
    FloatingPointError: a score is NaN.
  """
  rank_U = np.full(len(target_U), MISSED)
  for u, (score_I, target) in enumerate(zip(np.asarray(score_UI), target_U)):   # few copies at once
    if np.isnan(score_I).any():
      raise FloatingPointError("scores to rank hold NaN, expected finite scores or -inf")
    if blocked_UI is not None:
      score_I = np.where(blocked_UI[u], -np.inf, score_I)
    own = score_I[target]
    if not np.isneginf(own):
      rank_U[u] = 1 + np.sum(score_I > own) + np.sum(score_I[:target] == own)
  return rank_U


def ranks_from_items(items_UW, target_U) -> np.ndarray:
  """float64 [U]: the target's rank in lists of item rows, best first; `MISSED` if not listed."""
  match_UW = np.asarray(items_UW) == np.asarray(target_U)[:, None]
  return np.where(match_UW.any(axis=1), 1.0 + match_UW.argmax(axis=1), MISSED)


def repeated(histories: list, target_U) -> np.ndarray:
  """bool [U]: whether the target is in its user's history (item rows, one array per user)."""
  return np.array([target in history for history, target in zip(histories, target_U)], bool)


def rows_to_filter(histories: list, target_U) -> list[np.ndarray]:
  """The item rows to remove from each user's ranking: those of the history, ascending.

  For a user whose target is in the history, none are removed. Keeping the target alone would leave
  it as the only old item, and a model that ranks old items first would always be right.

  Args:
    histories: item rows of each user before the target.
    target_U: item row of each target.
  """
  return [np.zeros(0, np.int64) if repeats else np.unique(history)
          for history, repeats in zip(histories, repeated(histories, target_U))]


def filter_protocol(histories: list, target_U) -> dict[str, str]:
  """The protocol fields of a table that used `rows_to_filter`. Args: see there."""
  count = int(repeated(histories, target_U).sum())
  return {"filter": "items of the user's history are taken out",
          "repeated targets": f"{count} of {len(histories)} targets stand in their user's history: "
                              "these users are ranked without the filter" if count else NO_REPEATS}


def hit_rate(rank_U, k: int) -> np.ndarray:
  """float64 [U]: 1 where the target is among the first k, else 0."""
  return (np.asarray(rank_U) <= k).astype(np.float64)


def ndcg(rank_U, k: int) -> np.ndarray:
  """float64 [U]: NDCG at k with one relevant item: 1 / log2(1 + rank), 0 beyond k."""
  rank_U = np.asarray(rank_U, np.float64)
  return np.where(rank_U <= k, 1.0 / np.log2(1.0 + rank_U), 0.0)


def reciprocal_rank(rank_U) -> np.ndarray:
  """float64 [U]: 1 / rank; 0 where the target was missed."""
  return 1.0 / np.asarray(rank_U, np.float64)


def bootstrap(sum_U, count_U=None, *, resamples: int, seed: int) -> Estimate:
  """sum(sum_U) / sum(count_U), with the 2.5 and 97.5 percentiles over resampled examples.

  Args:
    sum_U: one value per example (a user), or the sum over the example's tokens.
    count_U: number of terms in each sum; None: one.
    resamples: number of resamples of the examples, with replacement.
    seed: for the draws.

  Returns:
    The estimate; value and interval are NaN if the counts sum to 0.
  """
  sum_U = np.asarray(sum_U, np.float64)
  count_U = np.ones_like(sum_U) if count_U is None else np.asarray(count_U, np.float64)
  n = len(sum_U)
  if count_U.sum() <= 0:
    return Estimate(np.nan, np.nan, np.nan, n)
  rng = np.random.default_rng(seed)
  means = np.full(resamples, np.nan)
  for r in range(resamples):
    draw_U = rng.integers(n, size=n)
    if (count := count_U[draw_U].sum()) > 0:
      means[r] = sum_U[draw_U].sum() / count
  lo, hi = np.nanpercentile(means, [2.5, 97.5])
  return Estimate(float(sum_U.sum() / count_U.sum()), float(lo), float(hi), n)


def bootstrap_mean(sum_TI, count_TI, *, resamples: int, seed: int) -> Estimate:
  """The mean over tasks of sum / count over items, with an interval over resampled items.

  A resample draws items; a drawn item brings its values of all tasks.

  Args:
    sum_TI: one value per task and item, or the sum over tokens.
    count_TI: number of terms in each sum; 0: the task has no value for the item.
    resamples: see `bootstrap`.
    seed: see `bootstrap`.

  Returns:
    The estimate; its n is the number of items. A task without values in a resample is left out of
    that resample's mean.
  """
  sum_TI, count_TI = np.asarray(sum_TI, np.float64), np.asarray(count_TI, np.float64)
  items = sum_TI.shape[1]

  def mean(times_I):
    count_T = count_TI @ times_I
    return np.mean((sum_TI @ times_I)[count_T > 0] / count_T[count_T > 0])

  means = [mean(times_I) for times_I in draws(items, resamples, seed)
           if (count_TI @ times_I).any()]
  lo, hi = np.percentile(means, [2.5, 97.5])
  return Estimate(float(mean(np.ones(items))), float(lo), float(hi), items)


def draws(items: int, resamples: int, seed: int):
  """Yields int [items] for each resample: how often each item is drawn."""
  rng = np.random.default_rng(seed)
  for _ in range(resamples):
    yield np.bincount(rng.integers(items, size=items), minlength=items)


def spearman(a_NU, b_NU) -> np.ndarray:
  """float64 [N]: rank correlation of each row of `a` with the same row of `b`.

  Equal values share their mean rank. The value is 0 where a row is constant.
  """
  import scipy.stats  # a quarter of a command's start; most commands correlate nothing

  def centred(x_NU):
    rank_NU = scipy.stats.rankdata(x_NU, axis=1)
    rank_NU -= rank_NU.mean(axis=1, keepdims=True)
    return rank_NU / np.maximum(np.linalg.norm(rank_NU, axis=1, keepdims=True), 1e-12)

  return np.sum(centred(a_NU) * centred(b_NU), axis=1)


def distinct(texts: list[str], n: int) -> float:
  """Distinct n-grams of words / all n-grams of the texts (Li et al., 1510.03055); 0: no n-gram."""
  runs = [tuple(words[i:i + n]) for words in (text.lower().split() for text in texts)
          for i in range(len(words) - n + 1)]
  return len(set(runs)) / len(runs) if runs else 0.0


def rank_estimates(rank_U, *, hits: tuple = (), ndcgs: tuple = (), depth: float = np.inf,
                   resamples: int, seed: int) -> dict[str, Estimate]:
  """Hit rates, NDCGs and mean reciprocal rank; all metrics share the resampled users.

  Args:
    rank_U: one rank per user.
    hits: the k of each hit rate.
    ndcgs: the k of each NDCG.
    depth: length of the lists that the ranks come from. A k above it is left out, and the mean
      reciprocal rank is named mrr@depth.
    resamples: see `bootstrap`.
    seed: see `bootstrap`.
  """
  values = {f"hr@{k}": hit_rate(rank_U, k) for k in hits if k <= depth}
  values |= {f"ndcg@{k}": ndcg(rank_U, k) for k in ndcgs if k <= depth}
  values["mrr" if np.isinf(depth) else f"mrr@{int(depth)}"] = reciprocal_rank(rank_U)
  return {name: bootstrap(value_U, resamples=resamples, seed=seed)
          for name, value_U in values.items()}
