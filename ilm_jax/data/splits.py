"""Splits interactions into training, validation and test, and orders events at equal times.

    loo_stable    leave one out: a user's last interaction is test, the one before validation, for
                  users with at least three; events at equal times stay in the order of the log
    loo_last      the same without validation: all but a user's last interaction is training. For
                  settings that are already chosen, and to compare with work that learns so
    loo_openp5    like OpenP5's code: the same for users with at least two, after an unstable sort
                  of the whole log by time; quicksort decides the order of events at equal times
    global_time   two points in time cut the log of all users; an event at a cut is after it. A
                  user's first interaction in the validation window is the validation target, the
                  first in the test window the test target; the other interactions in the windows
                  are history only. Users without training interactions have no targets.
    cold_items    the items that appear last in the log (a fraction of those that appear; of equal
                  first times the lower number is first) are cold: only their texts are known. In
                  order of appearance, cold items belong alternately to validation and to test. In
                  each half, a user's last interaction is the target if it has two training
                  interactions before it; other interactions with cold items are history only. All
                  interactions with other items are training, even after a user's target: they
                  reveal nothing about a cold item, but the user's vector knows them.
    cold_drawn    the same with items drawn at random in place of the last ones: for logs without
                  times, and so that cold items differ in age

With every rule a user has at most one validation and one test target. The history of a target is
all that comes before it in the user's log.
"""
from typing import NamedTuple

import numpy as np

from ilm_jax import errors

NONE, TRAIN, VALID, TEST = range(4)      # what an interaction is for; NONE: history only
MEANING = {
    "loo_stable": "leave-one-out, history with the validation item; equal times in log order",
    "loo_last": "leave-one-out, all but the last interaction learnt; equal times in log order",
    "loo_openp5": "leave-one-out, history with the validation item; equal times in the order of an "
                  "unstable sort (OpenP5)",
    "global_time": "a user's first interaction after a point in time, history all before it; "
                   "equal times in log order",
    "cold_items": "a user's last interaction with an item that has no training interaction, "
                  "history all before it; equal times in log order",
    "cold_drawn": "a user's last interaction with a randomly drawn item that has no training "
                  "interaction, history all before it; equal times in log order",
}
_COLD = ("cold_items", "cold_drawn")
_TIMED = ("global_time", "cold_items")
_WARM_BEFORE = 2         # least training interactions before a cold target
_DRAW = 0                # seed of cold_drawn: the same split for every seed of a run


class Rule(NamedTuple):
  """The rule that splits a log, and its parameters."""
  name: str = "loo_stable"                           # a key of MEANING
  time_fractions: tuple[float, float] = (0.8, 0.9)   # global_time: shares of events before the cuts
  cold_fraction: float = 0.1                         # cold_*: share of the items that are cold

  @property
  def meaning(self) -> str:
    """The rule in words, for a table."""
    return f"{self}: {MEANING[self.name]}"

  def __str__(self) -> str:
    numbers = {"global_time": self.time_fractions, **dict.fromkeys(_COLD, (self.cold_fraction,))}
    return " ".join(map(str, (self.name, *numbers.get(self.name, ()))))

  @property
  def timed(self) -> bool:
    """Whether it needs the times of interactions."""
    return self.name in _TIMED

  @property
  def cold(self) -> bool:
    """Whether its targets are items without a training interaction."""
    return self.name in _COLD


STABLE = Rule()


class Split(NamedTuple):
  """The parts of the N interactions as masks. Every interaction is in at most one part."""
  train: np.ndarray    # bool [N]
  valid: np.ndarray
  test: np.ndarray


def order(rule: Rule, user_N, time_N) -> np.ndarray:
  """int64 [N]: indices that sort the log by user, then time; the rule decides equal times.

  Args:
    rule: the rule.
    user_N, time_N: user and time of each event, in the order of the log.
  """
  if rule.name == "loo_openp5":
    # pandas' sort_values makes this call. The order of equal times depends on the whole log, on
    # numpy's version and on the processor; the result is part of the data's fingerprint.
    by_time_N = np.argsort(time_N, kind="quicksort")
  else:
    by_time_N = np.argsort(time_N, kind="stable")
  return by_time_N[np.argsort(np.asarray(user_N)[by_time_N], kind="stable")]


def parts(rule: Rule, user_N, time_N, item_N=None) -> np.ndarray:
  """int8 [N]: the part of each interaction: NONE, TRAIN, VALID or TEST.

  Args:
    rule: the rule.
    user_N, time_N: user and time of each interaction, sorted by `order`.
    item_N: int, the item of each; only the cold rules read it.

  Raises:
    UserError: a part is empty, by a rule other than leave-one-out.
  """
  user_N, time_N = np.asarray(user_N), np.asarray(time_N)
  if rule.cold:
    return _cold(rule, user_N, time_N, np.asarray(item_N))
  if rule.name == "global_time":
    return _global_time(rule.time_fractions, user_N, time_N)
  return _leave_one_out(user_N, least=2 if rule.name == "loo_openp5" else 3,
                        before=TRAIN if rule.name == "loo_last" else VALID)


def _leave_one_out(user_N, least: int, before: int) -> np.ndarray:
  """The last interaction is test, the one before it `before`, for users with at least `least`."""
  part_N = np.full(len(user_N), TRAIN, np.int8)
  start_U, count_U = np.unique(user_N, return_index=True, return_counts=True)[1:]
  last_U = (start_U + count_U - 1)[count_U >= least]
  part_N[last_U], part_N[last_U - 1] = TEST, before
  return part_N


def _global_time(fractions, user_N, time_N) -> np.ndarray:
  """Training before the first cut; one target a user in each of the two windows."""
  cuts = np.sort(time_N)[[int(fraction * len(time_N)) for fraction in fractions]]
  window_N = np.searchsorted(cuts, time_N, side="right")      # number of cuts before it: 0, 1 or 2
  part_N = np.where(window_N == 0, TRAIN, NONE).astype(np.int8)
  known_N = np.isin(user_N, user_N[window_N == 0])
  for window, part in ((1, VALID), (2, TEST)):
    at = np.flatnonzero((window_N == window) & known_N)
    part_N[at[np.unique(user_N[at], return_index=True)[1]]] = part
  _check_parts(
      part_N, f"data.split='global_time' with data.time_fractions={tuple(fractions)}",
      f"the cuts are at {cuts.tolist()}, the log goes from {time_N.min()} to {time_N.max()}. "
      "Choose other fractions, or data.split='loo_stable'")
  return part_N


def _cold(rule: Rule, user_N, time_N, item_N) -> np.ndarray:
  """Training without the cold items; one target for each user in each half of the cold items."""
  items_I, which_N = np.unique(item_N, return_inverse=True)
  if rule.name == "cold_drawn":
    order_I = np.random.default_rng(_DRAW).permutation(len(items_I))
  else:
    first_I = np.full(len(items_I), np.iinfo(np.int64).max)
    np.minimum.at(first_I, which_N, time_N)
    order_I = np.argsort(first_I, kind="stable")
  cold = order_I[len(items_I) - round(rule.cold_fraction * len(items_I)):]
  target_I = np.full(len(items_I), TRAIN, np.int8)     # the part in which an item may be a target
  target_I[cold[::2]], target_I[cold[1::2]] = VALID, TEST
  target_N = target_I[which_N]
  part_N = np.where(target_N == TRAIN, TRAIN, NONE).astype(np.int8)
  warm_N1 = np.r_[0, np.cumsum(part_N == TRAIN)]
  before_N = warm_N1[:-1] - warm_N1[np.searchsorted(user_N, user_N)]
  for part in (VALID, TEST):
    at = np.flatnonzero((target_N == part) & (before_N >= _WARM_BEFORE))
    part_N[at[np.diff(user_N[at], append=-1) != 0]] = part       # the last of each user
  _check_parts(
      part_N, f"data.split={rule.name!r} with data.cold_fraction={rule.cold_fraction}",
      f"{len(cold)} of {len(items_I)} items are cold, and a target has {_WARM_BEFORE} training "
      "interactions of its user before it. Choose another fraction, or data.split='loo_stable'")
  return part_N


def _check_parts(part_N, chosen: str, why: str) -> None:
  """Raises a UserError where a part is empty."""
  for part, name in ((TRAIN, "training interaction"), (VALID, "validation target"),
                     (TEST, "test target")):
    if not (part_N == part).any():
      raise errors.UserError(f"{chosen} leaves no {name}: {why}")
