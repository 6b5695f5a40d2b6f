"""The three splits, by hand and on MovieLens-100K."""
import numpy as np
import pytest
import real

from ilm_jax import errors
from ilm_jax.data import interactions as lib
from ilm_jax.data import splits

NAMES = [splits.Rule(name, cold_fraction=0.4) for name in splits.MEANING]


def built(log, rule, k=1):
  """Interactions of (user, item, time) triples in log order."""
  users, items, times = zip(*log)
  ids = sorted(set(items))
  return lib.build(users, items, times, np.ones(len(log)),
                   lib.Items(ids, [""] * len(ids), [None] * len(ids), [[] for _ in ids]), k, rule)


def test_leave_one_out_for_users_of_one_two_and_three():
  """OpenP5 has no rule for short users: its targets are the last two, whoever it is.

  loo_last has the test targets of loo_stable.
  """
  user_N, time_N = np.array([0, 1, 1, 2, 2, 2]), np.arange(6)
  stable, last, openp5 = (splits.parts(splits.Rule(name), user_N, time_N)
                    for name in ("loo_stable", "loo_last", "loo_openp5"))
  train, valid, test = splits.TRAIN, splits.VALID, splits.TEST
  np.testing.assert_array_equal(stable, [train, train, train, train, valid, test])
  np.testing.assert_array_equal(last, [train, train, train, train, train, test])
  np.testing.assert_array_equal(openp5, [train, valid, test, train, valid, test])


def test_stable_order_keeps_ties_as_the_log_has_them():
  user_N, time_N = np.array([1, 0, 1, 0, 1]), np.array([7, 5, 7, 4, 6])
  np.testing.assert_array_equal(splits.order(splits.STABLE, user_N, time_N), [3, 1, 4, 0, 2])


def test_openp5_order_is_the_quicksort_of_the_whole_log():
  """Within a user by time, ties as one unstable sort over all users left them."""
  rng = np.random.default_rng(0)
  user_N, time_N = rng.integers(0, 40, 4000), rng.integers(0, 50, 4000)
  order = splits.order(splits.Rule("loo_openp5"), user_N, time_N)
  assert sorted(order) == list(range(4000))
  of_log = np.argsort(time_N, kind="quicksort")
  for user in range(40):
    np.testing.assert_array_equal(order[user_N[order] == user], of_log[user_N[of_log] == user])
  stable = splits.order(splits.STABLE, user_N, time_N)
  np.testing.assert_array_equal(time_N[order], time_N[stable])
  assert (order != stable).any()


def test_global_time_by_hand():
  """Ten events at 0, 10, .., 90; cuts at 60 and 80, which belong to the later windows.

  b's second event of the validation window is history only. d was not there in training.
  """
  log = [("a", "1", 0), ("b", "1", 10), ("c", "1", 20), ("a", "2", 30), ("b", "2", 40),
         ("c", "2", 50), ("b", "3", 60), ("b", "4", 70), ("b", "5", 80), ("d", "5", 90)]
  found, items = built(log, splits.Rule("global_time", (0.6, 0.8)))
  assert found.user_ids == ["a", "b", "c", "d"] and items.titles == ["1", "2", "3", "4", "5"]
  np.testing.assert_array_equal(found.part_N[found.of_user(1)],
                                [splits.TRAIN] * 2 + [splits.VALID, splits.NONE, splits.TEST])
  np.testing.assert_array_equal(found.part_N[found.of_user(3)], [splits.NONE])
  assert found.split.train.sum() == 6 and found.split.test.sum() == found.split.valid.sum() == 1
  np.testing.assert_array_equal(found.before_target(1), [1, 2, 3, 4])
  np.testing.assert_array_equal(found.before_target(0), [1, 2])
  assert [list(h) for h in lib.train_histories(found)] == [[1, 2], [1, 2], [1, 2], []]


def test_events_at_the_cut_are_all_after_it():
  log = [("a", "1", 1), ("a", "2", 5), ("b", "1", 1), ("b", "2", 5), ("a", "3", 9), ("b", "3", 9)]
  found, _ = built(log, splits.Rule("global_time", (0.5, 0.7)))
  np.testing.assert_array_equal(found.time_N[found.split.train], [1, 1])
  np.testing.assert_array_equal(found.time_N[found.split.valid], [5, 5])
  np.testing.assert_array_equal(found.time_N[found.split.test], [9, 9])


def test_a_global_split_that_leaves_nothing_is_an_error():
  log = [("a", "1", 5), ("a", "2", 5), ("b", "1", 5)]
  with pytest.raises(errors.UserError, match=r"time_fractions=\(0.8, 0.9\) leaves no training"):
    built(log, splits.Rule("global_time"))
  users, items, _ = zip(*log)
  with pytest.raises(errors.UserError, match="needs times, and this log has none"):
    lib.build(users, items, None, [1] * 3, None, 1, splits.Rule("global_time"))


# Items by first appearance: w1 w2 w3 w4 (0 to 3), then the cold c1 c2 (10, 11), by turns for
# validation and for test.
COLD_LOG = [("a", "w1", 0), ("b", "w2", 1), ("a", "w3", 2), ("c", "w4", 3), ("b", "w1", 4),
            ("a", "c1", 10), ("b", "c2", 11), ("a", "c2", 12), ("b", "w3", 13), ("b", "c2", 14),
            ("c", "c2", 15), ("a", "w2", 16), ("b", "c1", 17), ("b", "c1", 18), ("d", "w1", 19)]
COLD = splits.Rule("cold_items", cold_fraction=1 / 3)


def test_cold_items_by_hand():
  """a's and b's last of each half are targets; c has one training interaction before, too few."""
  found, items = built(COLD_LOG, COLD)
  none, train, valid, test = splits.NONE, splits.TRAIN, splits.VALID, splits.TEST
  assert items.ids == ["c1", "c2", "w1", "w2", "w3", "w4"]
  parts = [found.part_N[found.of_user(user)].tolist() for user in range(4)]
  assert parts == [[train, train, valid, test, train],
                   [train, train, none, train, test, none, valid],
                   [train, none], [train]]
  assert found.untrained_items.tolist() == [1, 2]
  assert found.train_counts.tolist() == [0, 0, 0, 3, 2, 2, 1, 3, 3, 1, 1]
  np.testing.assert_array_equal(found.before_target(0), [3, 5, 1])
  np.testing.assert_array_equal(found.before_target(1, valid), [4, 3, 2, 5, 2, 1])
  assert [list(h) for h in lib.train_histories(found)] == [[3, 5, 4], [4, 3, 5], [6], [3]]


def test_no_validation_target_is_an_item_that_training_never_meets():
  """User a's is item 2, which b trains on; b's is item 5, which nobody does."""
  log = [("a", "x", 0), ("a", "y", 1), ("a", "z", 2), ("b", "y", 0), ("b", "w", 1), ("b", "x", 2)]
  found, items = built(log, splits.STABLE)
  assert items.ids == ["w", "x", "y", "z"]
  assert lib.validation_targets(found).tolist() == [3, 0]
  assert not lib.validation_targets(built(COLD_LOG, COLD)[0]).any()


def test_equal_first_times_are_in_the_order_of_item_rows():
  log = [("a", item, 0) for item in "wxyz"] + [("a", "p", 5), ("a", "q", 5)]
  found, items = built(log, splits.Rule("cold_items", cold_fraction=0.3))
  assert [items.ids[found.item_N[part].item() - 1] for part in found.split[1:]] == ["p", "q"]


def test_a_cold_split_that_leaves_nothing_is_an_error():
  with pytest.raises(errors.UserError, match="cold_fraction=0.1 leaves no test target: 1 of 6"):
    built(COLD_LOG, splits.Rule("cold_items"))
  users, items, _ = zip(*COLD_LOG)
  with pytest.raises(errors.UserError, match="'cold_items' needs times, and this log has none"):
    lib.build(users, items, None, [1] * len(users), None, 1, COLD)


def test_cold_items_are_drawn_without_times_and_always_the_same():
  users, items, _ = zip(*COLD_LOG)
  drawn = splits.Rule("cold_drawn", cold_fraction=1 / 3)
  known = built(COLD_LOG, COLD)[1]
  found, again = (lib.build(users, items, None, [1] * len(users), known, 1, drawn)[0]
                  for _ in range(2))
  np.testing.assert_array_equal(found.part_N, again.part_N)
  cold = found.untrained_items
  assert len(cold) == 2
  assert set(found.item_N[found.split.valid | found.split.test]) == set(cold)
  assert not set(found.item_N[found.split.train]) & set(cold)
  assert str(drawn) == "cold_drawn 0.3333333333333333"


def test_the_fraction_is_part_of_the_rule_s_name():
  assert str(COLD) != str(splits.Rule("cold_items")) == "cold_items 0.1"
  assert str(splits.Rule("global_time")) == "global_time 0.8 0.9"


@pytest.mark.parametrize("name", ["cold_items", "cold_drawn"])
def test_movielens_cold_items(name):
  """No cold item is trained on; the halves are disjoint; two training interactions before."""
  found, _ = lib.build(*real.movielens_log(), k=5, rule=splits.Rule(name))
  cold, split = found.untrained_items, found.split
  assert len(cold) == round(0.1 * found.num_items)
  first_I = np.full(found.num_items + 1, np.iinfo(np.int64).max)
  np.minimum.at(first_I, found.item_N, found.time_N)
  warm = np.setdiff1d(np.arange(1, found.num_items + 1), cold)
  assert (first_I[warm].max() <= first_I[cold].min()) == (name == "cold_items")
  valid, test = (set(found.item_N[part].tolist()) for part in split[1:])
  assert valid | test <= set(cold.tolist()) and not valid & test
  assert not np.isin(found.item_N[split.train], cold).any()
  assert (split.train | np.isin(found.item_N, cold)).all()
  for at in np.flatnonzero(split.test):
    start = found.of_user(found.user_N[at]).start
    assert split.train[start:at].sum() >= 2
    rest = found.of_user(found.user_N[at]).stop
    assert not np.isin(found.item_N[at + 1:rest], list(test)).any()


def test_a_log_without_times_keeps_its_order():
  items = lib.Items(["x", "y"], ["X", ""], [None] * 2, [[], []])
  found, left = lib.build(["u", "v", "u", "u"], list("yxxy"), None, [1] * 4, items, 1)
  np.testing.assert_array_equal(found.item_N, [2, 1, 2, 1])
  assert not found.time_N.any() and left.titles == ["X", "y"]


@pytest.mark.parametrize("rule", NAMES, ids=str)
def test_parts_survive_saving(tmp_path, rule):
  log = [(str(n % 7), str(n % 5), n) for n in range(70)]
  found, items = built(log, rule)
  lib.save(tmp_path, found, items, {})
  again, _, _ = lib.load(tmp_path)
  np.testing.assert_array_equal(again.part_N, found.part_N)
  for mine, theirs in zip(again.split, found.split):
    np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("rule", NAMES, ids=str)
def test_movielens(rule):
  """No target is in training, or before what its history shows; at most one a user."""
  found, _ = lib.build(*real.movielens_log(), k=5, rule=rule)
  split = found.split
  assert not (split.train & split.valid | split.train & split.test | split.valid & split.test).any()
  for part in (split.valid, split.test):
    assert np.bincount(found.user_N[part], minlength=1).max() == part.any()
  if rule.name == "global_time":
    assert found.time_N[split.train].max() < found.time_N[split.valid].min()
    assert found.time_N[split.valid].max() < found.time_N[split.test].min()
    assert 0.75 < split.train.mean() <= 0.8
  elif not rule.cold:
    assert split.test.sum() == 943
    assert split.valid.sum() == (0 if rule.name == "loo_last" else 943)
    assert split.train.sum() == len(found.user_N) - 943 - split.valid.sum()
