"""Ranking and language metrics: pure functions of numpy arrays, one value per example.

A rank counts from 1; `MISSED` (infinite) is the rank of a target that is not in the ranking at all.
The mean over examples, with its interval, is `bootstrap`'s; averages are ratios of sums, so parts
computed on several hosts add up.
"""
from typing import NamedTuple

import numpy as np
import scipy.stats

MISSED = np.inf
NO_REPEATS = "none"      # a protocol's "repeated targets" where there are none


class Estimate(NamedTuple):
  """A mean with a bootstrap interval of 95 %, over `n` examples."""
  value: float
  lo: float
  hi: float
  n: int


def ranks_from_scores(score_UI, target_U, blocked_UI=None) -> np.ndarray:
  """The target's rank among all columns; of equal scores the lower column comes first.

  Args:
    score_UI: [users, columns]; -inf: not in the ranking. NaN is an error, not a low score.
    target_U: column of the target.
    blocked_UI: bool, true: taken out of the ranking. A blocked target is `MISSED`.

  Returns:
    float64 [users].
  """
  score_UI, target_U = np.asarray(score_UI), np.asarray(target_U)
  if np.isnan(score_UI).any():
    raise FloatingPointError("scores to rank hold NaN")
  if blocked_UI is not None:
    score_UI = np.where(blocked_UI, -np.inf, score_UI)
  own_U1 = np.take_along_axis(score_UI, target_U[:, None], axis=1)
  earlier_UI = np.arange(score_UI.shape[1])[None] < target_U[:, None]
  before_U = np.sum((score_UI > own_U1) | ((score_UI == own_U1) & earlier_UI), axis=1)
  return np.where(np.isneginf(own_U1[:, 0]), MISSED, 1.0 + before_U)


def ranks_from_items(items_UW, target_U) -> np.ndarray:
  """The target's place in lists of item rows, best first; `MISSED` where it is not listed."""
  match_UW = np.asarray(items_UW) == np.asarray(target_U)[:, None]
  return np.where(match_UW.any(axis=1), 1.0 + match_UW.argmax(axis=1), MISSED)


def repeated(histories: list, target_U) -> np.ndarray:
  """bool [U]: whether the target stands in its user's own history (item rows, one array a user)."""
  return np.array([target in history for history, target in zip(histories, target_U)], bool)


def rows_to_filter(histories: list, target_U) -> list[np.ndarray]:
  """The item rows to take out of each user's ranking: those of the history, ascending.

  None are taken out of a user's whose target is one of them. To spare the target alone would leave
  it as the only old item, and who ranks old items first would always be right.

  Args:
    histories: item rows of each user before the target.
    target_U: item row of each target.
  """
  return [np.zeros(0, np.int64) if repeats else np.unique(history)
          for history, repeats in zip(histories, repeated(histories, target_U))]


def filter_protocol(histories: list, target_U) -> dict[str, str]:
  """What a table's protocol says of `rows_to_filter`. Args: as there."""
  count = int(repeated(histories, target_U).sum())
  return {"filter": "items of the user's history are taken out",
          "repeated targets": f"{count} of {len(histories)} targets stand in their user's history: "
                              "these users are ranked without the filter" if count else NO_REPEATS}


def hit_rate(rank_U, k: int) -> np.ndarray:
  """1 where the target is among the first k, else 0."""
  return (np.asarray(rank_U) <= k).astype(np.float64)


def ndcg(rank_U, k: int) -> np.ndarray:
  """Normalised discounted gain at k of one relevant item: 1 / log2(1 + rank)."""
  rank_U = np.asarray(rank_U, np.float64)
  return np.where(rank_U <= k, 1.0 / np.log2(1.0 + rank_U), 0.0)


def reciprocal_rank(rank_U) -> np.ndarray:
  """1 / rank; 0 where the target was missed."""
  return 1.0 / np.asarray(rank_U, np.float64)


def bootstrap(sum_U, count_U=None, *, resamples: int, seed: int) -> Estimate:
  """sum(sum_U) / sum(count_U), with the 2.5 and 97.5 percentiles over resampled examples.

  Args:
    sum_U: one value per example (a user), or its sum over the example's tokens.
    count_U: how many things each sum is over; None: one.
    resamples: how often the examples are drawn again, with replacement.
    seed: of the draws.

  Returns:
    The estimate; all NaN where nothing is counted.
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
  """The mean over tasks of sum / count over items, its interval over resampled items.

  A resample draws items, and with an item all that was measured of it in any task.

  Args:
    sum_TI: a value of each task and item, or its sum over tokens.
    count_TI: how many things each sum is over; 0: the task has nothing of the item.
    resamples: see `bootstrap`.
    seed: see `bootstrap`.

  Returns:
    The estimate, n of it the items. Tasks with nothing in a resample are left out of its mean.
  """
  sum_TI, count_TI = np.asarray(sum_TI, np.float64), np.asarray(count_TI, np.float64)
  items = sum_TI.shape[1]
  rng = np.random.default_rng(seed)

  def mean(times_I):
    count_T = count_TI @ times_I
    return np.mean((sum_TI @ times_I)[count_T > 0] / count_T[count_T > 0])

  draws = (np.bincount(rng.integers(items, size=items), minlength=items)
           for _ in range(resamples))
  means = [mean(times_I) for times_I in draws if (count_TI @ times_I).any()]
  lo, hi = np.percentile(means, [2.5, 97.5])
  return Estimate(float(mean(np.ones(items))), float(lo), float(hi), items)


def spearman(a_NU, b_NU) -> np.ndarray:
  """float64 [N] rank correlation of each row of `a` with that of `b`; ties share a rank.

  0 where a row is constant: it ranks nothing.
  """
  def centred(x_NU):
    rank_NU = scipy.stats.rankdata(x_NU, axis=1)
    rank_NU -= rank_NU.mean(axis=1, keepdims=True)
    return rank_NU / np.maximum(np.linalg.norm(rank_NU, axis=1, keepdims=True), 1e-12)

  return np.sum(centred(a_NU) * centred(b_NU), axis=1)


def distinct(texts: list[str], n: int) -> float:
  """Distinct runs of n words among all those of the texts (Li et al., 1510.03055); 0: no runs."""
  runs = [tuple(words[i:i + n]) for words in (text.lower().split() for text in texts)
          for i in range(len(words) - n + 1)]
  return len(set(runs)) / len(runs) if runs else 0.0


def rank_estimates(rank_U, *, hits: tuple = (), ndcgs: tuple = (), depth: float = np.inf,
                   resamples: int, seed: int) -> dict[str, Estimate]:
  """The usual summary of ranks. All its rows share the resampled users.

  Args:
    rank_U: one rank per user.
    hits: the k of each hit rate.
    ndcgs: the k of each NDCG.
    depth: length of the lists the ranks come from. No metric looks further: a k above it is left
      out, and the mean reciprocal rank is called mrr@depth.
    resamples: see `bootstrap`.
    seed: see `bootstrap`.
  """
  values = {f"hr@{k}": hit_rate(rank_U, k) for k in hits if k <= depth}
  values |= {f"ndcg@{k}": ndcg(rank_U, k) for k in ndcgs if k <= depth}
  values["mrr" if np.isinf(depth) else f"mrr@{int(depth)}"] = reciprocal_rank(rank_U)
  return {name: bootstrap(value_U, resamples=resamples, seed=seed)
          for name, value_U in values.items()}
