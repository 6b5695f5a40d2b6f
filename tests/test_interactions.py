"""Interaction arrays: small logs by hand, and the counts of MovieLens-100K."""
import json

import numpy as np
import pytest
import real

from ilm_jax import errors
from ilm_jax.data import interactions as lib
from ilm_jax.data import kept

ITEMS = lib.Items(ids=["30", "4", "5", "100"], titles=["Thirty", "Four", "Five", "Hundred"],
                  years=[1930, None, 1905, 2000], genres=[["War"], [], ["Drama", "Sci-Fi"], []])
# user, item, time, value, in log order. User 10 and item 100 go with k = 2, and then item 5 of 10.
LOG = [("9", "30", 50, 5), ("2", "4", 70, 1), ("9", "4", 20, 2), ("2", "30", 70, 4),
       ("9", "5", 20, 3), ("10", "5", 1, 3), ("2", "5", 10, 2), ("2", "100", 5, 2)]


def built(log=LOG, k=2):
  users, items, times, values = zip(*log)
  return lib.build(users, items, times, values, ITEMS, k)


def test_k_core_goes_round_until_nothing_changes():
  """Item 2 is met twice, but one of its users goes in the first round; then item 2, then user 1."""
  user_N = np.array([0, 0, 1, 1, 2, 3, 3])
  item_N = np.array([0, 1, 0, 2, 2, 0, 1])
  keep = lib.k_core(user_N, item_N, 2)
  np.testing.assert_array_equal(keep, [True, True, False, False, False, True, True])


def test_rows_and_order_by_hand():
  """Ids sort as numbers (4, 5, 30 and 2, 9); equal times stay in the order of the log."""
  interactions, items = built()
  assert interactions.user_ids == ["2", "9"]
  assert items.ids == ["4", "5", "30"] and items.titles == ["Four", "Five", "Thirty"]
  np.testing.assert_array_equal(interactions.user_N, [0, 0, 0, 1, 1, 1])
  np.testing.assert_array_equal(interactions.item_N, [2, 1, 3, 1, 2, 3])
  np.testing.assert_array_equal(interactions.time_N, [10, 70, 70, 20, 20, 50])
  np.testing.assert_array_equal(interactions.value_N, [2, 1, 4, 2, 3, 5])
  np.testing.assert_array_equal(interactions.offsets_U1, [0, 3, 6])
  assert interactions.of_user(1) == slice(3, 6)
  assert interactions.item_N.dtype == interactions.user_N.dtype == np.int32


def test_ties_follow_the_log_and_nothing_else():
  swapped = [LOG[3], LOG[0], LOG[1], LOG[4], LOG[2], *LOG[5:]]
  interactions, _ = built(swapped)
  np.testing.assert_array_equal(interactions.item_N, [2, 3, 1, 2, 1, 3])


def test_ids_that_are_not_all_numbers_sort_as_text():
  items = lib.Items(["b", "10", "9"], ["B", "Ten", "Nine"], [None] * 3, [[]] * 3)
  _, left = lib.build(["u"] * 3, ["b", "10", "9"], [1, 2, 3], [1, 1, 1], items, 1)
  assert left.ids == ["10", "9", "b"]


def test_leave_one_out():
  interactions, _ = built()
  split = interactions.split
  np.testing.assert_array_equal(np.flatnonzero(split.test), [2, 5])
  np.testing.assert_array_equal(np.flatnonzero(split.valid), [1, 4])
  np.testing.assert_array_equal(split.train, ~(split.test | split.valid))
  histories = lib.train_histories(interactions)
  assert [list(h) for h in histories] == [[2], [1]]


def test_short_histories_are_training_only():
  interactions, _ = lib.build(["a", "a", "b", "b", "b"], list("45545"), range(5), [1] * 5,
                              ITEMS, 1)
  split = interactions.split
  np.testing.assert_array_equal(split.train, [True, True, True, False, False])
  assert [len(h) for h in lib.train_histories(interactions)] == [2, 1]


def test_nothing_left_is_an_error():
  with pytest.raises(errors.UserError, match="no interaction of 8 remains in the 4-core"):
    built(k=4)


def test_a_core_of_0_keeps_items_that_nobody_met():
  users, items, times, values = zip(*LOG[:3])
  log, left = lib.build(users, items, times, values, ITEMS, 0)
  assert left.ids == ["4", "5", "30", "100"] and log.num_items == 4
  np.testing.assert_array_equal(log.item_N, [1, 1, 3])
  made = kept.counted(users, items, ITEMS, log, 0)
  assert made.lines() == [
      "data: 2 users, 2 items -> 4, 3 interactions (data.k_core=0)",
      "data: 2 items of the items file have no interaction: kept (data.k_core=0); "
      "'Five' (5), 'Hundred' (100)"]


def test_items_below_the_core_remain_if_asked():
  """Without their interactions; one that the log lacks, too. k=0 keeps all in any case."""
  users, items, times, values = zip(*LOG)
  more = lib.Items([*ITEMS.ids, "n"], [*ITEMS.titles, "New"], [*ITEMS.years, 2018],
                   [*ITEMS.genres, []])
  log, left = lib.build(users, items, times, values, more, 2, also=["n", "100", "4"])
  alone, _ = built()
  assert left.ids == ["100", "30", "4", "5", "n"] and left.titles[-1] == "New"
  assert [left.ids[row - 1] for row in log.item_N] == [
      ["4", "5", "30"][row - 1] for row in alone.item_N]
  assert sorted(set(log.item_N.tolist())) == [2, 3, 4]
  everything = lib.build(users, items, times, values, more, 0, also=["n"])[1]
  assert sorted(everything.ids) == sorted(more.ids)


def test_what_the_core_keeps_is_counted_and_said(tmp_path):
  users, items, _, _ = zip(*LOG)
  more = lib.Items(ITEMS.ids + list("xyzw"), [*ITEMS.titles, "X", "", "Z", "W"], [None] * 8,
                   [[]] * 8)
  made = kept.counted(users, items, more, built()[0], 2)
  assert made.lines() == [
      "data: 3 users -> 2, 4 items -> 3, 8 interactions -> 6 by the 2-core (data.k_core=2)",
      "data: 4 items of the items file have no interaction: left out; data.k_core=0 keeps them; "
      "e.g. 'X' (x), 'y', 'Z' (z)"]
  assert kept.load(tmp_path) is None
  kept.save(tmp_path, made)
  assert kept.load(tmp_path).lines() == made.lines()
  path = tmp_path / kept.FILE
  path.write_text(path.read_text().replace("8", "9", 1))
  with pytest.raises(errors.UserError, match="is damaged .*run --stage=prepare"):
    kept.load(tmp_path)


def test_items_without_description_are_an_error():
  with pytest.raises(errors.UserError, match="1 items of the log .* item '77'"):
    lib.build(["a"], ["77"], [0], [1], ITEMS, 1)


def test_item_text():
  assert lib.item_text(ITEMS, 3) == "Five (1905). Drama, Sci-Fi"
  assert lib.item_text(ITEMS, 2) == "Four"
  assert lib.full_title(ITEMS, 4) == "Hundred (2000)"


def test_heldout_items_are_a_fixed_share_with_their_twins():
  """Eleven films, two of them (rows 3 and 9) the same one under two ids."""
  titles = [f"film {i}" for i in range(8)] + ["film 2", "x", "y"]
  items = lib.Items(ids=list("abcdefghijk"), titles=titles, years=[None] * 11, genres=[[]] * 11)
  helds = np.array([lib.heldout_items(items, 0.2, seed=s) for s in range(30)])
  assert helds.shape == (30, 12) and not helds[:, 0].any()
  assert (helds[:, 3] == helds[:, 9]).all() and helds[:, 3].any() and not helds[:, 3].all()
  alone = helds[~helds[:, 3]]
  assert (alone.sum(axis=1) == 2).all()
  np.testing.assert_array_equal(helds[4], lib.heldout_items(items, 0.2, seed=4))
  assert (helds[4] != helds[5]).any()


@pytest.mark.parametrize(("titles", "most"), [(3, 0), (40, 50), (150, 50)])
def test_titles_of_many_items_hold_out_no_more_than_a_quarter_above_the_fraction(titles, most):
  """200 items; of three titles each is too large, of the others many have twins."""
  number_I = np.arange(200) % titles
  items = lib.Items([str(i) for i in range(200)], [f"t{n}" for n in number_I], [None] * 200,
                    [[]] * 200)
  for seed in range(5):
    held = lib.heldout_items(items, 0.2, seed)[1:]
    assert held.sum() <= most and (held.sum() > 40 or not most)
    assert not set(number_I[held]) & set(number_I[~held])           # twins are together


def test_a_few_twins_are_held_out_with_every_drawn_item():
  """As before there was a limit, which a small share of twins does not reach."""
  titles = [f"t{i % 190}" for i in range(200)]
  items = lib.Items([str(i) for i in range(200)], titles, [None] * 200, [[]] * 200)
  for seed in range(5):
    taken = {titles[i] for i in np.random.default_rng(seed).permutation(200)[:40]}
    np.testing.assert_array_equal(
        lib.heldout_items(items, 0.2, seed), [False, *(title in taken for title in titles)])


def test_save_and_load(tmp_path):
  interactions, items = built()
  fingerprint = lib.save(tmp_path, interactions, items, {"log": "abc"})
  again, items_again, found = lib.load(tmp_path)
  assert found == fingerprint and items_again == items
  assert again.user_ids == interactions.user_ids and again.num_items == 3
  for name in ("user_N", "item_N", "time_N", "value_N"):
    np.testing.assert_array_equal(getattr(again, name), getattr(interactions, name))
  assert json.loads((tmp_path / "manifest.json").read_text())["made_from"] == {"log": "abc"}


def test_a_changed_file_is_refused(tmp_path):
  lib.save(tmp_path, *built(), {})
  text = (tmp_path / "items.json").read_text()
  (tmp_path / "items.json").write_text(text.replace("Thirty", "Thirsty"))
  with pytest.raises(errors.UserError, match=r"damaged.*run --stage=prepare"):
    lib.load(tmp_path)
  (tmp_path / "interactions.npz").write_bytes(b"PK no longer")
  with pytest.raises(errors.UserError, match=r"cannot be read"):
    lib.load(tmp_path)
  with pytest.raises(errors.UserError, match=r"lacks manifest.json: run --stage=prepare"):
    lib.load(tmp_path / "nowhere")


def test_movielens_counts():
  interactions, items = lib.build(*real.movielens_log(), k=5)
  assert (interactions.num_users, len(items), len(interactions.user_N)) == (943, 1349, 99287)
  assert interactions.num_items == 1349
  assert lib.item_text(items, 1) == "Toy Story (1995). Animation, Children's, Comedy"
  split = interactions.split
  assert split.test.sum() == split.valid.sum() == 943
  same_time = (interactions.time_N[split.test] == interactions.time_N[split.valid]).sum()
  assert same_time > 400      # so the tie rule decides for nearly half of the users
