"""Measures how similar the lists of different users are: does everybody get the same items?

A list holds item rows (from 1), best first; 0 pads a list that is shorter than others.
"""
import numpy as np

TOP = 10      # items of each list that are compared


def top_items(score_UI, blocked_UI, count: int) -> np.ndarray:
  """int32 [U, count]: each user's items with the highest scores; on a tie the lower row first.

  Args:
    score_UI: float [users, I + 1]; -inf: not in the ranking.
    blocked_UI: bool [users, I + 1]; true: not listed; None: no item is blocked.
    count: length of the lists.
  """
  score_UI = np.asarray(score_UI)
  items_UK = np.zeros((len(score_UI), count), np.int32)
  for u, score_I in enumerate(score_UI):
    if blocked_UI is not None:
      score_I = np.where(blocked_UI[u], -np.inf, score_I)
    last = max(len(score_I) - count, 0)
    least = np.partition(score_I, last)[last]         # at least `count` items reach it
    rows = np.flatnonzero((score_I >= least) & ~np.isneginf(score_I))
    best = rows[np.argsort(-score_I[rows], kind="stable")[:count]]
    items_UK[u, :len(best)] = best
  return items_UK


def alike(items_UK, top: int = TOP) -> dict:
  """Metrics of a table's row about the first `top` items of all users' lists.

  Args:
    items_UK: int item rows, best first; 0: padding.
    top: items of each list that count.

  Returns:
    "shared by two users": the number of items that two users' lists share / `top`, the mean over
    all pairs of users (missing for a single user); "distinct items": their number in all lists.
  """
  items_UK = np.asarray(items_UK)[:, :top]
  users = len(items_UK)
  # An item in c lists is shared by c (c - 1) / 2 pairs of users.
  count_I = np.bincount(items_UK[items_UK > 0])
  pairs = users * (users - 1) / 2
  shared = float((count_I * (count_I - 1) / 2).sum())
  return {**({"shared by two users": {"value": shared / (pairs * top), "n": users}}
             if pairs else {}),
          "distinct items": {"value": int((count_I > 0).sum()), "n": users}}
