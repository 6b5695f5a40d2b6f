"""Each audit passes what is clean and finds what is planted."""
import dataclasses
import types

import numpy as np
import pytest

from ilm_jax.data import interactions
from ilm_jax.evaluation import audit

RANDOM = np.random.default_rng(0)
ROWS = [[3, 1, 4, 5, 2], [2, 5, 1, 3], [4, 4, 1, 2, 5, 3]]      # user 0 is entity row 6
LOG = interactions.Interactions(
    user_ids=["a", "b", "c"], num_items=5,
    user_N=np.repeat(np.arange(3), [len(r) for r in ROWS]).astype(np.int32),
    item_N=np.concatenate(ROWS).astype(np.int32), time_N=np.arange(1, 16, dtype=np.int64),
    value_N=np.ones(15, np.float32))


def example(user, target, shown, inputs=(9,), targets=(7, 8, 2), prompt=0):
  return {"user": [user + 6], "target_entity": [target], "entities": [user + 6, *shown],
          "inputs": np.array(inputs), "targets": np.array(targets), "prompt": np.array([prompt])}


def one_time_each(item_N, time_N, num_items):
  """The log of one user."""
  return interactions.Interactions(
      user_ids=["a"], num_items=num_items, user_N=np.zeros(len(item_N), np.int32),
      item_N=np.array(item_N, np.int32), time_N=np.array(time_N, np.int64),
      value_N=np.ones(len(item_N), np.float32))


def test_a_target_in_its_own_history_is_found():
  clean = [example(0, 2, [4, 5]), example(2, 4, [4]), example(1, 3, [5, 1])]
  assert audit.histories_as_logged("sequential", "test", clean, LOG, 2) == []
  found, = audit.histories_as_logged(
      "sequential", "test", [*clean, example(0, 5, [4, 5])], LOG, 2)
  assert "in 1 of 4 prompts (first: example 3)" in found


def test_a_target_in_the_text_is_found():
  clean = [example(0, 2, [], (1, 7, 9, 8)), example(0, 2, [], (17, 8))]
  assert audit.target_not_told("straightforward", "test", clean, [[9]]) == []
  found, = audit.target_not_told(
      "straightforward", "test", [example(0, 2, [], (1, 7, 8, 4))], [[1, 4]])
  assert "in 1 of 1" in found


def test_a_title_of_the_template_s_own_words_is_no_leak():
  """Template 1 is "1 <slot 50> 7 8 4"; the title 7 8 is given away where it stands twice."""
  templates = [[1, 50, 4], [1, 50, 7, 8, 4]]
  by_chance = [example(0, 2, [3], (1, 50, 50, 7, 8, 4), prompt=1)]
  assert audit.target_not_told("sequential", "train", by_chance, templates) == []
  for leak in (example(0, 2, [3], (1, 50, 50, 7, 8, 4)),
               example(0, 2, [3], (1, 50, 7, 8, 50, 7, 8, 4), prompt=1)):
    found, = audit.target_not_told("sequential", "train", by_chance + [leak], templates)
    assert "in 1 of 2 prompts (first: example 1)" in found


@pytest.mark.parametrize("task, clean, leak", [
    ("user_item", {"entities": [6, 4]}, {"entities": [6, 5]}),       # user 0's validation item
    ("item_item", {"entities": [3, 1]}, {"entities": [5, 2]}),
    ("sequential", {"user": [7], "target_entity": [5]}, {"user": [7], "target_entity": [3]})])
def test_test_interactions_in_training_are_found(task, clean, leak):
  assert audit.trained_on_training_alone(task, [clean], LOG) == []
  found, = audit.trained_on_training_alone(task, [clean, leak], LOG)
  assert "1 of 2 examples (first: 1)" in found


def test_the_next_user_s_item_does_not_follow_the_last_user_s():
  """User 0 trains on 3 1 4, user 1 on 2 5: nobody met 2 after 4."""
  pairs = [{"entities": pair} for pair in ([1, 4], [4, 2], [2, 5])]
  found, = audit.trained_on_training_alone("item_item", pairs, LOG)
  assert "1 of 3 examples (first: 1)" in found


def test_pairs_with_rows_of_no_item_are_no_interactions():
  """With nine rows (7, -5) and (5, 13) would have the key of the pair (6, 4)."""
  clean = {"entities": [6, 4]}
  for leak in ([7, -5], [5, 13], [6], []):
    found, = audit.trained_on_training_alone("user_item", [clean, {"entities": leak}], LOG)
    assert "1 of 2 examples (first: 1)" in found
  none = dataclasses.replace(LOG, part_N=np.zeros(15, np.int8))
  assert len(audit.trained_on_training_alone("user_item", [clean], none)) == 1


def test_prepared_examples_are_read_many_at_a_time(monkeypatch):
  class Stored:
    """Without access to one example."""
    read = []

    def __len__(self):
      return 5

    def many(self, indices):
      self.read.append(list(indices))
      return [example(0, (3, 1, 5, 4, 2)[i], []) for i in indices]

  monkeypatch.setattr(audit, "_READ", 2)
  found, = audit.trained_on_training_alone("straightforward", Stored(), LOG)
  assert found.startswith("straightforward train: 2 of 5 examples (first: 2) are no training inter")
  assert Stored.read == [[0, 1], [2, 3], [4]]


# Items 4 and 5 are cold: user 0's training history is 3 1 2, with the cold 4 between.
COLD = dataclasses.replace(
    LOG, part_N=np.where(np.isin(LOG.item_N, [4, 5]), 0, 1).astype(np.int8))


def test_a_cold_item_in_training_is_found():
  clean = [example(0, 2, [3, 1]), {"entities": [6, 3]}, {"entities": [3, 1]}]
  assert audit.untrained_items_unknown("sequential", clean, COLD) == []
  assert audit.untrained_items_unknown("sequential", [example(0, 2, [4, 5])], LOG) == []
  for leak in (example(0, 2, [1, 4]), example(0, 5, [1]), {"entities": [3, 5]}):
    found, = audit.untrained_items_unknown("sequential", [*clean, leak], COLD)
    assert "in 1 of" not in found and "1 of 4 examples (first: 3)" in found


def test_training_histories_are_of_training_interactions():
  """Before item 2 user 0 has met 3 1 4 5; in training 3 and 1 alone, in test all."""
  alone, whole = [example(0, 2, [3, 1])], [example(0, 2, [3, 1, 4, 5])]
  for split, clean, leak in (("train", alone, whole), ("test", whole, alone)):
    assert audit.histories_as_logged("sequential", split, clean, COLD, 9) == []
    assert len(audit.histories_as_logged("sequential", split, leak, COLD, 9)) == 1


def test_behavioral_vectors_without_training_are_found():
  trained_R = np.r_[False, [True] * 3, False, False, [True] * 3]
  assert audit.no_vectors_of_untrained("behavioral", trained_R, COLD) == []
  every_R = np.arange(9) > 0
  found, = audit.no_vectors_of_untrained("sequential", every_R, COLD)
  assert "2 of 9 rows (first: 4)" in found and "--stage=cf" in found
  assert audit.no_vectors_of_untrained("behavioral", every_R, COLD, liked=[5, 4, 1]) == []


def test_vectors_that_saw_something_else_are_found():
  users, items = RANDOM.normal(size=(8, 3)), RANDOM.normal(size=(6, 3))
  turn = np.linalg.qr(RANDOM.normal(size=(3, 3)))[0]
  assert audit.vectors_of_training(users, items, users @ turn, items @ turn) == []
  other = users.copy()
  other[0] += 1
  assert "correlate by" in audit.vectors_of_training(other, items, users, items)[0]


def test_of_many_users_some_are_compared_from_the_first_to_the_last(monkeypatch):
  users, items = RANDOM.normal(size=(9, 3)), RANDOM.normal(size=(6, 3))
  monkeypatch.setattr(audit, "_SCORES", 3 * 6)
  for changed, count in ((0, 1), (4, 1), (8, 1), (3, 0)):
    other = users.copy()
    other[changed] = RANDOM.normal(size=3)
    assert len(audit.vectors_of_training(other, items, users, items)) == count


@pytest.mark.filterwarnings("error")
def test_equal_scores_have_no_correlation_and_are_no_finding():
  """One item, or one event: scores that are all the same, up to rounding."""
  for users in (1, 3):
    user, item = np.ones((users, 2), np.float32), np.ones((2, 2), np.float32)
    assert audit.vectors_of_training(user, item, user, item) == []
    assert audit.vectors_of_training(user, item, user * np.float32(1 + 1e-6), item) == []
    assert "differ" in audit.vectors_of_training(user, item, 2 * user, item)[0]


def test_numbers_in_the_order_of_time_are_found():
  order = RANDOM.permutation(20)
  log = one_time_each(order + 1, np.arange(1, 21), 20)
  met = np.argsort(order)                                   # the place of items 1..20
  assert audit.rows_carry_no_order(log, np.arange(20), "the index", "cure") == []
  found, = audit.rows_carry_no_order(log, met, "the index", "cure")
  assert "Spearman 1.00" in found and found.endswith("cure")
  assert audit.rows_carry_no_order(log, 20 - met, "the index", "cure")
  assert audit.rows_carry_no_order(
      dataclasses.replace(log, time_N=np.zeros(20, np.int64)), met, "the index", "cure") == []


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("items, times", [
    (range(1, 21), [7] * 20),           # one time for all
    ([1], [7]), ([1, 1, 1], [7, 8, 9]), ([1, 2, 3, 4], [6, 7, 8, 9])])
def test_too_little_to_tell_an_order_is_no_finding(items, times):
  log = one_time_each(list(items), times, max(items))
  assert audit.rows_carry_no_order(log, np.arange(max(items)), "item rows", "cure") == []


def test_running_numbers_of_the_log_itself_are_no_finding():
  """Rows are in the order of raw ids, as they are made: that these follow time is the log's."""
  log = one_time_each(range(1, 21), range(1, 21), 20)
  ids = [str(n) for n in range(985, 1005)]
  assert audit.item_rows_carry_no_order(log, ids) == []
  swapped = [ids[1], ids[0], *ids[2:]]
  found, = audit.item_rows_carry_no_order(log, swapped)
  assert "item rows" in found and "--stage=prepare" in found


def test_repeated_targets_are_counted():
  assert audit.repeated_targets(LOG) == {"validation": (0, 3), "test": (0, 3)}
  assert audit.repeated_targets(one_time_each([1, 2, 1, 1], range(4), 2)) == {
      "validation": (1, 1), "test": (1, 1)}


def test_ties_sorted_by_item_are_found():
  def tied(order):
    rows = [order(RANDOM.permutation(9)[:3] + 1) for _ in range(25)]
    return interactions.Interactions(
        user_ids=[str(u) for u in range(25)], num_items=9,
        user_N=np.repeat(np.arange(25), 3).astype(np.int32),
        item_N=np.concatenate(rows).astype(np.int32), time_N=np.full(75, 5, np.int64),
        value_N=np.ones(75, np.float32))

  assert audit.ties_not_sorted(tied(lambda r: r)) == []
  assert "ascending" in audit.ties_not_sorted(tied(np.sort))[0]
  assert "descending" in audit.ties_not_sorted(tied(lambda r: np.sort(r)[::-1]))[0]


def test_stale_folders_are_found():
  assert audit.of_these_data("entities/", {"data": "abc"}, "abc") == []
  assert "made from data abc, data/ is abd" in audit.of_these_data(
      "entities/", {"data": "abc"}, "abd")[0]


def test_the_stage_says_how_many_targets_repeat_and_reads_templates(monkeypatch, capsys):
  from ilm_jax.stages import auditing
  monkeypatch.setattr(auditing, "_checks", lambda run: iter([("a check", [])]))
  log = one_time_each([1, 2, 1, 1], range(4), 2)
  run = types.SimpleNamespace(data=interactions.Data(log, None, ""),
                              lm_tokenizer=types.SimpleNamespace(encode=lambda text: text))
  auditing.run(run)
  assert "1 of 1 in validation, 1 of 1 in test" in capsys.readouterr().out
  examples = types.SimpleNamespace(manifest={"templates": ["User{user} saw{history}. Next:"]})
  assert auditing._templates(run, examples) == ["User<slot> saw<slot>. Next:"]


def a_dialog(user, history, target, liked=()):
  return {"user": user, "history": history, "target": target,
          "opinions": [{"item": item, "kind": "liked"} for item in liked]}


def test_a_dialog_that_leads_to_what_is_held_out_is_found():
  """User "a" met 3, 1, 4 in training, 5 for validation, 2 for test."""
  raw_ids = [f"{row}x" for row in range(1, 6)]
  clean = [a_dialog("a", ["3x"], "1x", ["3x"]), a_dialog("a", ["3x", "1x"], "4x", ["1x"])]
  assert audit.dialogs_of_training("train", clean, LOG, raw_ids) == []
  for leak in (a_dialog("a", ["3x", "1x", "4x", "5x"], "2x"),
               a_dialog("a", ["3x", "1x", "4x"], "5x"), a_dialog("a", ["1x"], "4x"),
               a_dialog("a", ["3x"], "1x", ["2x"])):
    found, = audit.dialogs_of_training("train", [*clean, leak], LOG, raw_ids)
    assert "1 of 3 dialogs (first: 2)" in found


def test_a_user_in_both_parts_of_dialogs_is_found():
  train, other = [a_dialog("a", [], "1x")], [a_dialog("b", [], "1x")]
  assert audit.no_user_in_both(train, other) == []
  found, = audit.no_user_in_both(train, train + other)
  assert "1 users (first: a)" in found


def test_a_damaged_manifest_does_not_end_the_audit(tmp_path):
  from ilm_jax.stages import auditing
  contents = ("{", "{}", "[]", '{"made_from": {"data": "a"}}')
  for name, content in zip("wxyz", contents, strict=True):
    (tmp_path / "prepared" / name / "train").mkdir(parents=True)
    (tmp_path / "prepared" / name / "train" / "manifest.json").write_text(content)
  (_, same), = auditing._prepared(tmp_path, "a")
  (_, other), = auditing._prepared(tmp_path, "b")
  assert same == [] and len(other) == 1
