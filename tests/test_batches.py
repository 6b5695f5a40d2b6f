"""Packing by hand, and batches as a pure function of the step."""
import numpy as np
import pytest

from ilm_jax import errors
from ilm_jax.data import batches, filling, packing
from tests import small_configs

SLOT = 99


def example(inputs, entities, targets):
  return {"inputs": np.array(inputs, np.int32), "entities": np.array(entities, np.int32),
          "targets": np.array(targets, np.int32)}


A = example([11, SLOT, 12], [5], [21, 2])                     # 3 + 1 + 1 = 5 tokens with Q = 2
B = example([SLOT, 13, SLOT], [6, 7], [22, 23, 24, 2])        # 5 + 3 = 8 tokens
C = example([14, 15], [], [2])                                # 2 tokens


def spec(**changes):
  return small_configs.lm_batch(**{
      "rows": 2, "length": 10, "slots": 3, "targets": 5, "queries": 2, "slot_id": SLOT,
      "examples_per_group": 3, "rows_per_group": 2, "task_names": ("t",), **changes})


def test_packing_for_an_encoder_decoder_by_hand():
  """The row holds the inputs alone, A's four places and C's two."""
  got, dropped = packing.pack_groups([[A, C]], spec(encoder_decoder=True, rows=1, rows_per_group=1))
  assert dropped == 0
  want = {"tokens": [11, 0, 0, 12, 14, 15, 0, 0, 0, 0], "segment": [1, 1, 1, 1, 2, 2, 0, 0, 0, 0],
          "targets": [21, 2, 2, 0, 0], "target_segment": [1, 1, 2, 0, 0],
          "target_position": [0, 1, 0, 0, 0], "target_at": [0, 0, 0, 0, 0]}
  for name, row in want.items():
    np.testing.assert_array_equal(got[name], [row], err_msg=name)


def test_ids_around_prompts_take_their_room():
  """BOS 7 before and 8 after C's two tokens: the target is predicted from the 8."""
  got, dropped = packing.pack_groups([[C]], spec(before=(7,), after=(8,), rows=1, rows_per_group=1))
  assert dropped == 0
  np.testing.assert_array_equal(got["tokens"][0, :5], [7, 14, 15, 8, 0])
  np.testing.assert_array_equal(got["segment"][0], [1] * 4 + [0] * 6)
  assert got["target_at"][0, 0] == 3 and got["slot"].max() == -1


def test_packing_by_hand():
  """Longest first: B opens row 0, A has no room there and opens row 1, C goes behind B."""
  got, dropped = packing.pack_groups([[A, {**B, "task": 1}, C]], spec())
  want = {
      "tokens": [[0, 0, 13, 0, 0, 22, 23, 24, 14, 15], [11, 0, 0, 12, 21, 0, 0, 0, 0, 0]],
      "slot": [[0, 1, -1, 2, 3, -1, -1, -1, -1, -1], [-1, 0, 1, -1, -1, -1, -1, -1, -1, -1]],
      "segment": [[1, 1, 1, 1, 1, 1, 1, 1, 2, 2], [1, 1, 1, 1, 1, 0, 0, 0, 0, 0]],
      "position": [[0, 1, 2, 3, 4, 5, 6, 7, 0, 1], [0, 1, 2, 3, 4, 0, 0, 0, 0, 0]],
      "prefix": [[1, 1, 1, 1, 1, 0, 0, 0, 1, 1], [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]],
      "entities": [[6, 7, 0], [5, 0, 0]],
      "target_at": [[4, 5, 6, 7, 9], [3, 4, 0, 0, 0]],
      "targets": [[22, 23, 24, 2, 2], [21, 2, 0, 0, 0]],
      "target_segment": [[1, 1, 1, 1, 2], [1, 1, 0, 0, 0]],
      "target_position": [[0, 1, 2, 3, 0], [0, 1, 0, 0, 0]],
      "weights": [[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]],
      "task": [[1, 1, 1, 1, 0], [0, 0, 0, 0, 0]],
  }
  assert dropped == 0 and got.keys() == want.keys()
  for key in want:
    np.testing.assert_array_equal(got[key], want[key], err_msg=key)
    kind = {"weights": np.float32, "prefix": bool}.get(key, np.int32)
    assert got[key].dtype == kind, key


def test_two_examples_in_a_row_keep_their_slots_apart():
  """The second example's soft tokens are those of the row's third entity: 2*2 and 2*2+1."""
  got, _ = packing.pack_groups([[A, B]], spec(rows=1, rows_per_group=1, length=13, targets=6))
  np.testing.assert_array_equal(got["slot"][0], [0, 1, -1, 2, 3, -1, -1, -1, -1, 4, 5, -1, -1])
  np.testing.assert_array_equal(got["entities"][0], [6, 7, 5])
  np.testing.assert_array_equal(got["target_at"][0], [4, 5, 6, 7, 11, 12])


def test_capacities_drop_and_count():
  """A and B need 13 tokens, 3 slots and 6 targets; one less of any, and A is dropped."""
  one_row = {"rows": 1, "rows_per_group": 1, "length": 13, "targets": 6, "slots": 3}
  assert packing.pack_groups([[A, B]], spec(**one_row))[1] == 0
  for name in ("length", "targets", "slots"):
    got, dropped = packing.pack_groups([[A, B]], spec(**{**one_row, name: one_row[name] - 1}))
    assert dropped == 1 and got["segment"].max() == 1, name


def test_no_queries_leave_the_slots_out():
  got, _ = packing.pack_groups([[B]], spec(rows=1, rows_per_group=1, queries=0, slots=0))
  np.testing.assert_array_equal(got["tokens"][0], [13, 22, 23, 24, 0, 0, 0, 0, 0, 0])
  assert (got["slot"] == -1).all() and got["entities"].shape == (1, 0)
  np.testing.assert_array_equal(got["target_at"][0], [0, 1, 2, 3, 0])


def test_widen_by_hand():
  tokens, slot = filling.widen([7, SLOT, 8], queries=2, slot_id=SLOT)
  assert tokens.tolist() == [7, 0, 0, 8] and slot.tolist() == [-1, 0, 1, -1]


def test_a_prompt_of_nothing_is_refused():
  """No inputs; and without soft tokens, slots alone."""
  for nothing, queries in ((example([], [], [2]), 2), (example([SLOT], [5], [2]), 0)):
    with pytest.raises(ValueError, match="inputs are empty"):
      packing.pack_groups([[A, nothing]], spec(queries=queries))


def test_too_long_is_an_error_that_names_the_cure():
  lengths = {"inputs": np.array([3, 30]), "entities": np.array([1, 2]), "targets": np.array([2, 2])}
  packing.check_fits("t", lengths, spec(length=33))
  with pytest.raises(errors.UserError, match=r"t: example 1 needs length=33 .*phase2.length=33"):
    packing.check_fits("t", lengths, spec(length=32))
  with pytest.raises(errors.UserError, match="raise these in phase2"):
    packing.one_a_row([B], spec(length=7))


def test_eval_and_prompt_batches():
  """Prompts are the training sequence up to the last input; spare rows repeat the last prompt."""
  got = batches.lm_eval_batch([A], spec())
  np.testing.assert_array_equal(got["tokens"][0], [11, 0, 0, 12, 21, 0, 0, 0, 0, 0])
  assert got["weights"].sum(axis=1).tolist() == [2, 0]
  prompt = batches.prompts_batch([B], spec())
  assert prompt["length"].tolist() == [5, 5]
  np.testing.assert_array_equal(prompt["tokens"], [[0, 0, 13, 0, 0, 0, 0, 0, 0, 0]] * 2)
  np.testing.assert_array_equal(prompt["valid"][0], [1] * 5 + [0] * 5)
  np.testing.assert_array_equal(prompt["entities"], [[6, 7, 0]] * 2)


def numbered(task, count):
  """Examples told apart by their only target."""
  return [example([task, SLOT], [i + 1], [100 * task + i]) for i in range(count)]


def stream_batches(**changes):
  tasks = {"one": numbered(1, 7), "two": numbered(2, 3)}
  options = {"seed": 3, **changes}
  return batches.lm_batches(tasks, {"one": 2.0, "two": 1.0}, spec(
      rows=4, rows_per_group=1, length=9, slots=3, targets=3, task_names=("one", "two")), **options)


def assert_same(a, b):
  assert a.keys() == b.keys()
  for key in a:
    np.testing.assert_array_equal(a[key], b[key], err_msg=key)


def test_a_batch_depends_on_its_step_alone():
  """Of many that are packed together, too, wherever they begin."""
  first = stream_batches()
  all_of_them = list(first.iterate(0, 37))
  assert len(all_of_them) == 37
  assert_same(first.at(7), stream_batches().at(7))
  for step, batch in enumerate(all_of_them):
    assert_same(batch, stream_batches().at(step))
  for a, b in zip(all_of_them[5:], stream_batches().iterate(5, 37), strict=True):
    assert_same(a, b)
  assert not np.array_equal(all_of_them[0]["targets"], all_of_them[1]["targets"])
  assert not np.array_equal(stream_batches(seed=4).at(0)["targets"], all_of_them[0]["targets"])


def test_every_epoch_sees_every_example_once_at_the_given_rates():
  """Step 0 holds 12 examples, 8 of task one and 4 of task two; 7 steps hold 8 epochs of one."""
  batch = stream_batches().at(0)
  assert not batch["dropped"].any()
  assert np.bincount(batch["task"][batch["weights"] > 0]).tolist() == [8, 4]
  seen = np.concatenate([b["targets"].ravel() for b in stream_batches().iterate(0, 7)])
  ones = seen[seen < 200]
  assert len(ones) == 56 and sorted(ones[:7]) != ones[:7].tolist()
  assert np.bincount(ones)[100:].tolist() == [8] * 7


def test_processes_make_the_same_global_batch():
  for count in (2, 4):
    parts = [stream_batches(process_index=i, process_count=count).at(5) for i in range(count)]
    whole = stream_batches().at(5)
    assert_same({k: np.concatenate([p[k] for p in parts]) for k in whole}, whole)
    many = zip(*(stream_batches(process_index=i, process_count=count).iterate(4, 7)
                 for i in range(count)), strict=True)
    together = [{k: np.concatenate([p[k] for p in parts]) for k in whole} for parts in many]
    assert_same(together[1], whole)
  with pytest.raises(errors.UserError, match=r"4 groups .* 3 processes"):
    stream_batches(process_count=3)


def test_mixture_mistakes_are_named():
  with pytest.raises(errors.UserError, match=r"no task of"):
    batches.Mixture({"a": numbered(1, 2)}, {"b": 1.0}, seed=0)
  with pytest.raises(errors.UserError, match=r"task a has no training examples"):
    batches.Mixture({"a": []}, {"a": 1.0}, seed=0)
  with pytest.raises(errors.UserError, match=r"rows=4 is not a multiple of rows_per_group=3"):
    assert spec(rows=4, rows_per_group=3).groups


def phase1(**changes):
  text = [{"entities": np.array([i]), "text": np.arange(1, i + 2)} for i in range(1, 4)]
  pairs = [{"entities": np.array([i, i + 1])} for i in range(1, 6)]
  users = [{"entities": np.array([10 + i, i])} for i in range(1, 8)]
  sizes = batches.Phase1Spec(batch_size=3, pair_batch_size=2, user_batch_size=4, max_text=5)
  return batches.phase1_batches(text, pairs, users, sizes, **{"seed": 1, **changes})


def test_phase1_batch():
  """Text of entity i is 1..i+1; the three parts are in the shapes of the spec."""
  got = phase1().at(2)
  assert sorted(got["text_entities"]) == [1, 2, 3]              # one epoch is one batch
  for row, text, mask in zip(got["text_entities"], got["text"], got["text_mask"]):
    np.testing.assert_array_equal(text, [*range(1, row + 2), *[0] * (4 - row)])
    np.testing.assert_array_equal(mask, text > 0)
  np.testing.assert_array_equal(got["pair_b"] - got["pair_a"], [1, 1])
  np.testing.assert_array_equal(got["upair_user"] - got["upair_item"], [10] * 4)
  assert_same(got, list(phase1().iterate(1, 3))[1])


def test_phase1_parts_may_be_empty_and_divide_over_processes():
  sizes = batches.Phase1Spec(batch_size=2, pair_batch_size=0, user_batch_size=0, max_text=3)
  text = [{"entities": np.array([1]), "text": np.array([4])}]
  got = batches.phase1_batches(text, [], [], sizes, seed=0).at(0)
  assert got["pair_a"].shape == (0,) and got["text_entities"].tolist() == [1, 1]
  with pytest.raises(errors.UserError, match=r"3 item_text examples .* 2 processes"):
    phase1(process_count=2)


def test_long_texts_are_cut_and_keep_their_end():
  """[1 5 6 7 2] in 4 places: 2 is [SEP] and stays."""
  got = batches.text_batch([{"entities": np.array([9]), "text": np.array([1, 5, 6, 7, 2])}], 2, 4)
  np.testing.assert_array_equal(got["text"], [[1, 5, 6, 2], [0, 0, 0, 0]])
  np.testing.assert_array_equal(got["text_mask"].sum(axis=1), [4, 0])


def test_whole_words_are_numbered_in_every_prompt_by_hand():
  starts = np.array([False, True, True, False, True, False, False, True, True, True])
  words = spec(whole_words=4, word_starts=starts, length=12, targets=4, slot_id=9)
  batch = packing.one_a_row([example([1, 3, 2, 9, 5, 4, 7], [6], [2])] * words.rows, words)
  # Token 9 is the slot: its soft tokens belong to the word before, and numbers stop at 3.
  at = np.flatnonzero(batch["segment"][0])
  want = [1, 1, 2] + [2] * words.queries + [2, 3, 3]
  assert batch["word"][0, at].tolist() == want
