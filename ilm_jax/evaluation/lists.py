"""How alike the lists are that different users get: whether everybody is shown the same items.

A list holds item rows (from 1), best first; 0 fills up a list that is shorter than others.
"""
import numpy as np

TOP = 10      # how far lists are compared


def top_items(score_UI, blocked_UI, count: int) -> np.ndarray:
  """int32 [U, count]: each user's items of the highest scores; of equal ones the lower row first.

  Args:
    score_UI: [users, I + 1]; -inf: not in the ranking.
    blocked_UI: bool, true: not to be listed; None: none.
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
  """Metrics of a table's row about the first `top` of all users' lists.

  Args:
    items_UK: item rows, best first; 0: none.
    top: how many of each list count.

  Returns:
    "shared by two users": the items that two users' lists have in common, as a share of `top`, its
    mean over all pairs of users (left out of a single user); "distinct items": of all lists.
  """
  items_UK = np.asarray(items_UK)[:, :top]
  users = len(items_UK)
  # An item that stands in c lists is shared by c (c - 1) / 2 pairs.
  count_I = np.bincount(items_UK[items_UK > 0])
  pairs = users * (users - 1) / 2
  shared = float((count_I * (count_I - 1) / 2).sum())
  return {**({"shared by two users": {"value": shared / (pairs * top), "n": users}}
             if pairs else {}),
          "distinct items": {"value": int((count_I > 0).sum()), "n": users}}
