"""Conversations in packed rows: which tokens are learned, and where the item head reads."""
import dataclasses
import types

import jax
import numpy as np
import pytest

from ilm_jax import errors
from ilm_jax.config import mixture, reading, rules
from ilm_jax.data import filling, interactions, packing
from ilm_jax.models import language_model
from ilm_jax.objectives import phase2
from ilm_jax.stages.evals import talks
from tests import small_configs, test_item_head, test_objectives, test_rank_rows

SLOT, LAST = test_item_head.SLOT, test_rank_rows.LAST


def spec(**changes):
  return small_configs.lm_batch(**{**dict(
      rows=1, length=24, slots=4, targets=8, queries=2, slot_id=SLOT, num_items=6,
      task_names=("conv_next", "elm"), head_tasks=("conv_next",), examples_per_group=2), **changes})


def talk(slot=SLOT):
  """7 <3> 8 | 11 12 | 9 | 13 14: the replies are 11 12, about items 5 and 6, and 13 14, about 4."""
  return {"inputs": np.array([7, slot, 8, 11, 12, 9]), "entities": np.array([3]),
          "targets": np.array([13, 14]), "target_entity": np.array([4]), "task": 0,
          "reply_at": np.array([3, 4]), "ask_at": np.array([2, 2, 5]),
          "ask_item": np.array([5, 6, 4])}


def other():
  """A task that is no conversation; its mixture gives it empty arrays."""
  return {"reply_at": np.zeros(0, int), "ask_at": np.zeros(0, int),
          "inputs": np.array([7, SLOT, 8]), "entities": np.array([2]), "task": 1,
          "targets": np.array([5, 1]), "target_entity": np.array([2])}


def test_every_reply_is_learned_and_nothing_else():
  """tokens    7  3 3  8 11 12  9 | 13 |  7  2 2  8 | 5
     position  0  1 2  3  4  5  6    7    8  9 10 11  12"""
  batch, dropped = packing.pack_groups([[talk(), other()]], spec())
  assert dropped == 0
  np.testing.assert_array_equal(batch["tokens"][0, :14], [
      7, 0, 0, 8, 11, 12, 9, 13, 7, 0, 0, 8, 5, 0])
  used = batch["weights"][0] > 0
  np.testing.assert_array_equal(batch["targets"][0, used], [11, 12, 13, 14, 5, 1])
  np.testing.assert_array_equal(batch["target_at"][0, used], [3, 4, 6, 7, 11, 12])
  np.testing.assert_array_equal(batch["target_position"][0, used], [0, 1, 2, 3, 0, 1])
  np.testing.assert_array_equal(batch["task"][0, used], [0, 0, 0, 0, 1, 1])


def test_the_head_reads_where_a_reply_begins():
  """More items than slots take slots of the row; a task without asks is as ever."""
  batch, _ = packing.pack_groups([[talk(), other()]], spec())
  np.testing.assert_array_equal(batch["next_at"], [[3, 3, 6, 0]])
  np.testing.assert_array_equal(batch["next_item"], [[5, 6, 4, 0]])
  np.testing.assert_array_equal(batch["entities"], [[3, 0, 0, 2]])
  silent, _ = packing.pack_groups([[talk(), other()]], spec(head_tasks=(), slots=2))
  assert "next_at" not in silent


def test_rows_of_the_head_alone_say_nothing():
  shape = spec(head_only=True, targets=0, length=7)
  batch, dropped = packing.pack_groups([[talk()]], shape)
  assert dropped == 0 and "targets" not in batch
  np.testing.assert_array_equal(batch["next_at"], [[3, 3, 6, 0]])
  asked = packing.one_a_row([talk(), other()], dataclasses.replace(shape, rows=2, head_tasks=()))
  np.testing.assert_array_equal(
      filling.read_at([talk(), other()], asked["slot"], shape), [6, 2])


def test_what_does_not_fit_counts_replies_and_asks():
  lengths = {"inputs": np.array([6]), "entities": np.array([1]), "targets": np.array([2]),
             "reply_at": np.array([2]), "ask_at": np.array([3])}
  for what, size in (("targets", 4), ("slots", 3), ("length", 8)):
    with pytest.raises(errors.UserError, match=f"needs {what}={size} .*tasks.dialog_tokens"):
      packing.check_fits("conv_next", lengths, spec(**{what: size - 1}))
    assert packing.check_fits("conv_next", lengths, spec(**{what: size})) is None
    with pytest.raises(errors.UserError, match=f"{what}={size - 1}"):
      packing.one_a_row([talk()], spec(**{what: size - 1}))


def test_a_conversation_is_learned_as_its_turns_one_by_one():
  """The loss of all replies in one row is that of an example for each reply."""
  graphdef, trainable, held = test_item_head.model()
  lm = test_objectives.LM
  frozen = {**held, "lm": language_model.init(lm, 5)}
  loss = jax.jit(phase2.phase2_loss(graphdef, lm, ("conv_next", "elm"), test_item_head.HEAD),
                 static_argnames="rng")
  shape, e = spec(slot_id=LAST), talk(LAST)
  first = {**e, "inputs": e["inputs"][:3], "targets": e["inputs"][3:5],
           "reply_at": np.array([], int), "ask_at": e["ask_at"][:2], "ask_item": e["ask_item"][:2]}
  last = {**e, "reply_at": np.array([], int), "ask_at": e["ask_at"][2:],
          "ask_item": e["ask_item"][2:]}
  sums = []
  for group in ([e], [first, last]):
    batch, _ = packing.pack_groups([group], shape)
    _, metrics = loss(trainable, frozen, batch, rng=None)
    sums.append([float(metrics[name][0]) for name in ("nll/conv_next", "head_nll")])
    assert float(metrics["head_nll"][1]) == 3 and float(metrics["nll/conv_next"][1]) == 4
  np.testing.assert_allclose(*sums, rtol=1e-5)


def test_which_tasks_the_head_reads():
  from configs import base
  c = base.get_config()
  c.tasks.mixture.update(dict.fromkeys(c.tasks.mixture, 0.0) | {
      "next_item": 1.0, "conv_next": 1.0, "redial_respond": 1.0})
  c.phase2.head.update(weight=1.0, rows=8)
  assert set(mixture.rank_tasks(c)) == {"next_item", "conv_next"}
  assert mixture.said_tasks(c) == ("redial_respond",) and mixture.ranks_items_only(c)
  c.tasks.mixture.straightforward = 1.0
  assert not mixture.ranks_items_only(c)


def test_each_item_of_a_reply_has_its_rank():
  """What the prompt shows is taken out, but not what is asked for."""
  e = {"entities": np.array([2, 3, 8]), "ask_item": np.array([3, 5])}
  blocked = talks.shown([e], 6)
  np.testing.assert_array_equal(blocked[0], [True, False, True, False, False, False, False])
  score_I = np.array([9.0, 1.0, 8.0, 7.0, 2.0, 3.0, 4.0])
  (ranks,) = talks.ranks(score_I[None], [e["ask_item"]], blocked)
  np.testing.assert_array_equal(ranks, [1, 3])


@pytest.mark.parametrize("changes, line", [
    ({"tasks.mixture.conv_next": 1.0}, "tasks.mixture.conv_next=1.0 with tasks.dialogs='': the "
     "task learns from dialogs; name a file of JSON lines, or 'synthetic'"),
    ({"tasks.mixture.redial_respond": 1.0, "tasks.dialogs": "synthetic", "dialogs.count": 9},
     "redial_respond=1.0 with tasks.dialogs='synthetic': .* by 'redial:PATH'"),
    ({"tasks.dialogs": "synthetic"}, "tasks.dialogs='synthetic' with dialogs.count=0: no synth"),
    ({"data.dialog_items": True}, "data.dialog_items=True with tasks.dialogs='': only ReDial's"),
    ({"data.dialog_items": True, "tasks.dialogs": "redial:x"},
     r"data.dialog_items=True with cf.dialogs=0 and vectors=\('behavioral',\): the items"),
    ({"tasks.dialogs": "talks.json, redial:there"}, "tasks.dialogs: 'talks.json' does not exist"),
    ({"tasks.dialog_tokens": -1}, "tasks.dialog_tokens=-1: expected 0 .no dialog is cut. or more"),
    ({"lm.chat_template": "chatlm"}, "lm.chat_template='chatlm' is unknown: .* mean 'chatml'"),
    ({"tasks.mixture.conv_next": 1.0, "tasks.dialogs": "synthetic", "dialogs.count": 9,
      "phase2.head.weight": 1.0, "phase2.head.distil": 1.0}, "teacher cannot read conv")])
def test_what_cannot_be_is_known_before_any_work(changes, line):
  from configs import base
  c = base.get_config()
  for name, value in changes.items():
    rules.get(c, name.rpartition(".")[0])[name.rpartition(".")[2]] = value
  with pytest.raises(errors.UserError, match=line):
    reading.validate(c, 1)


def test_replies_of_one_dialog_belong_together():
  """Of three dialogs: two replies; two with one in between that is not learned; one."""
  def e(inputs, targets):
    return {"inputs": np.array(inputs), "targets": np.array([*targets, 1])}
  examples = [e([7, 8], [5]), e([7, 8, 5, 9], [6]), e([3, 8, 4], [5]),
              e([3, 8, 4, 5, 2, 2, 9], [7]), e([7, 8, 6, 9], [6])]
  np.testing.assert_array_equal(talks.dialog_numbers(examples), [0, 0, 1, 1, 2])
  sums, counts = talks.of_groups(np.array([4, 4, 7]), [1.0, 2.0, 5.0], [1, 1, 3])
  assert sums.tolist() == [3.0, 5.0] and counts.tolist() == [2, 3]


def test_without_words_a_prompt_has_its_slots_and_where_the_reply_begins():
  e = {**talk(), "ask_at": np.array([5, 5]), "ask_item": np.array([4, 2])}
  alone, words = (talks.part_alone(e, SLOT, slots) for slots in (True, False))
  np.testing.assert_array_equal(alone["inputs"], [SLOT, 9])
  np.testing.assert_array_equal(alone["ask_at"], [1, 1])
  np.testing.assert_array_equal(words["inputs"], [7, 8, 11, 12, 9])
  assert words["ask_at"].tolist() == [4, 4]
  assert len(words["entities"]) == len(words["reply_at"]) == 0
  batch, _ = packing.pack_groups([[words, other()]], spec())
  np.testing.assert_array_equal(batch["next_at"][0, :2], [4, 4])


def test_tokens_that_spell_titles_are_read_and_not_counted():
  words = ["Try", " Big", " He", "at", " (19", "95)", ", big", " Bigger", "."]
  decode = lambda ids: "".join(words[i] for i in ids)  # noqa: E731
  places = talks.spelling(range(9), ["Heat (1995)", "Heat", "Big", ""], decode)
  assert places.tolist() == [1, 2, 3, 4, 5]
  # The reply's own items are found in its words: neither the prompt nor a target tells them.
  run = types.SimpleNamespace(
      data=types.SimpleNamespace(log=types.SimpleNamespace(num_items=1), items=interactions.Items(
          ["1"], ["Heat"], [1995], [[]])), lm_tokenizer=types.SimpleNamespace(decode=decode))
  found, = talks.title_tokens(run, [{"targets": range(9), **dict.fromkeys(
      ("entities", "ask_item", "target_entity"), np.zeros(0, int))}])
  assert found.tolist() == [2, 3, 4, 5]
  e = {**talk(), "uncounted": np.array([1])}
  batch, _ = packing.pack_groups([[other(), e]], spec())
  whole, _ = packing.pack_groups([[other(), talk()]], spec())
  for name in ("tokens", "targets", "target_at"):
    np.testing.assert_array_equal(batch[name], whole[name])
  counted = whole["targets"][0][(whole["weights"] - batch["weights"])[0] > 0]
  np.testing.assert_array_equal(counted, [14])
