"""Tasks from interactions to prepared examples. The one file that imports SeqIO (5 s)."""
import dataclasses
import hashlib
import itertools
import json
import re
import types

import ml_collections
import numpy as np
import pytest
import real

pytest.importorskip("seqio", reason=real.NEEDS_DATA)

import seqio
import tensorflow as tf
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from ilm_jax import elm, errors
from ilm_jax.config import names, own_tasks
from ilm_jax.data import batches, interactions, store, targets, tokenizer
from tasks import (
    catalog,
    elm_requests,
    indexing,
    item_text,
    material,
    openp5,
    prepare,
    templates,
    vocabulary,
)
from tests import small_configs

ITEMS = interactions.Items(
    ids=list("abcdef"), titles=["Heat", "Alien", "Heat", "<slot>", "Big", "Up"],
    years=[1995, 1979, 1995, 2001, None, 2009],
    genres=[["Action", "Crime"], ["Horror"], ["Drama"], ["Comedy"], ["Comedy"], []])
# Users 0..4; entity rows of users are 7..11. The last two of each are validation and test.
TALK = (*names.CONVERSATIONS, *names.REDIAL)
ON_IMPORT = set(seqio.TaskRegistry.names())
WATCHED = [[1, 2, 3, 4, 5], [2, 1, 6], [6, 5, 4, 3, 2, 1], [3, 4], [5, 5, 1, 2]]


def characters():
  """A tokenizer of single characters; "Ġ" is the space, "Ċ" the new line, "~" ends a text."""
  text = "".join(map(chr, range(33, 126)))
  vocab = {c: i for i, c in enumerate("~" + text + "ĠĊ")}
  backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=[]))
  backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  backend.decoder = decoders.ByteLevel()
  return tokenizer.Tokenizer(backend, eos="~")


def config(**changes):
  c = ml_collections.ConfigDict({
      "seed": 0, "data": {"name": "toy-5", "heldout_fraction": 1 / 3, "domain": "movie"},
      "targets": {"tasks": (), "max_items": 0, "max_heldout": 0}, "lm": {"prefix_lm": False},
      "tasks": {"history": 2, "draws": 1, "max_train_examples": 0, "prompt_targets": 0,
                "eval_targets": 0,
                "index": "title", "index_words": False, "index_apart": False,
                "index_clusters": 2, "index_size": 3,
                "index_levels": 2, "index_codes": 2, "entities": "slots", "prompts": "",
                "module": "", "dialogs": "", "dialog_tokens": 0,
                "mixture": {"sequential": 2.0, "elm_title": 1.0, "elm_year": 0.0}}})
  c.tasks.update(changes)
  return c


def log():
  return interactions.Interactions(
      user_ids=list("vwxyz"), num_items=6,
      user_N=np.repeat(np.arange(5), [len(w) for w in WATCHED]).astype(np.int32),
      item_N=np.concatenate(WATCHED).astype(np.int32),
      time_N=np.arange(20, dtype=np.int64), value_N=np.ones(20, np.float32))


@pytest.fixture(scope="module")
def words():
  return characters()


@pytest.fixture
def workdir(tmp_path):
  interactions.save(tmp_path / "data", log(), ITEMS, {"toy": 1})
  return tmp_path


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, words):
  """A function from task and split to what `prepare` stored, and the returned names."""
  folder = tmp_path_factory.mktemp("prepared")
  interactions.save(folder / "data", log(), ITEMS, {"toy": 1})
  c = config()
  c.tasks.mixture.elm_year = 1.0
  names = prepare.prepare(folder, words, words, c)

  def read(task, split):
    return store.Prepared(folder / "prepared" / names[task] / split)

  return read, names


@pytest.fixture
def toy(workdir, words):
  return material.read(workdir / "data", words, words, config())


def spell(words, ids):
  """The text of ids with slots and the end in sight."""
  return "".join(tokenizer.SLOT if i == words.slot_id else "~" if i == 0 else words.decode([i])
                 for i in ids)


def only(monkeypatch, *tasks):
  """Leaves just these tasks in the catalog: to prepare all of them takes seconds."""
  whole = catalog.definitions
  monkeypatch.setattr(catalog, "definitions", lambda m: {
      name: task for name, task in whole(m).items() if name in tasks})


def every(prepared):
  return [prepared[i] for i in range(len(prepared))]


def test_titles_are_distinct():
  names = indexing.titles(ITEMS)
  assert names == ["", "Heat (1995)", "Alien", "Heat (1995) #2", "< slot>", "Big", "Up"]
  taken = dataclasses.replace(ITEMS, titles=["A", "A", "A #2", "A", "B", "C"], years=[None] * 6)
  assert indexing.titles(taken) == ["", "A", "A #3", "A #2", "A #4", "B", "C"]


def test_names_that_are_one_to_the_language_model(words):
  assert indexing.report(["", " Heat", " heat"], words) == {
      "items": 2, "mean_tokens": 5.0, "longest": 5, "prefixes": 0}

  class Lowering:
    def encode(self, text):
      return words.encode(text.lower())

  with pytest.raises(errors.UserError, match=r"items 1 and 2, 'Heat' and 'heat', have the same"):
    indexing.report(["", " Heat", " heat"], Lowering())


def test_vocabulary(words):
  vocab = vocabulary.SlotVocabulary(words)
  assert vocab.vocab_size == words.slot_id + 1 and vocab.eos_id == 0
  ids = words.encode("a<slot> b")
  assert vocab.encode("a<slot> b") == ids and vocab.decode(ids) == "a b"
  assert vocab.encode_tf(tf.constant("a<slot> b")).numpy().tolist() == ids
  assert vocab.encode_tf(tf.constant(["", "a<slot> b"])).to_list() == [[], ids]
  assert vocab.decode_tf(tf.constant(words.encode("a b"))).numpy() == b"a b"
  assert vocab == vocabulary.SlotVocabulary(characters())


def test_openp5_targets_and_histories(toy):
  """User 3 has two interactions: training only. Histories are the two items before, padded."""
  at = openp5.targets(toy)
  rows = {split: toy.interactions.item_N[places].tolist() for split, places in at.items()}
  assert rows == {"train": [2, 3, 5, 4, 3, 4, 5], "validation": [4, 1, 2, 1],
                  "test": [5, 6, 1, 2]}
  assert openp5.histories(toy, at["train"]).tolist() == [
      [0, 1], [1, 2], [0, 6], [6, 5], [5, 4], [0, 3], [0, 5]]
  assert openp5.histories(toy, at["validation"]).tolist() == [[2, 3], [0, 2], [4, 3], [5, 5]]
  assert openp5.histories(toy, at["test"]).tolist() == [[3, 4], [2, 1], [3, 2], [5, 1]]


def test_histories_of_several_blocks_are_those_of_one(toy, monkeypatch):
  """Places of training and of test, mixed: 20 in blocks of three."""
  at = np.random.default_rng(0).permutation(20)
  whole = openp5.histories(toy, at)
  monkeypatch.setattr(openp5, "_BLOCK", 3)
  np.testing.assert_array_equal(openp5.histories(toy, at), whole)
  assert whole.dtype == np.int32 and openp5.histories(toy, at[:0]).shape == (0, 2)


def test_histories_are_made_when_they_are_read(toy, monkeypatch):
  """A large log's fill the memory, and nobody trains on a task of rate 0."""
  made, histories = [], openp5.histories
  monkeypatch.setattr(openp5, "histories", lambda toy, at: made.append(len(at)) or histories(
      toy, at))
  source = openp5.definitions(toy)["sequential"].source
  assert not made and source.num_input_examples("train") == 7
  batch, = source.get_dataset("train", shuffle=False).batch(9).as_numpy_iterator()
  assert made == [7] and list(batch) == ["user", "target_entity", "prompt", "history"]
  np.testing.assert_array_equal(batch["history"], histories(toy, openp5.targets(toy)["train"]))


def test_phase1_pairs_by_hand(toy):
  """Training parts: 1 2 3 | 2 | 6 5 4 3 | 3 4 | 5 5."""
  assert item_text.watched_in_turn(toy).tolist() == [
      [1, 2], [2, 3], [6, 5], [5, 4], [4, 3], [3, 4], [5, 5]]
  assert item_text.trained_on(toy).tolist() == [
      [7, 1], [7, 2], [7, 3], [8, 2], [9, 6], [9, 5], [9, 4], [9, 3], [10, 3], [10, 4], [11, 5],
      [11, 5]]


def test_item_splits_follow_the_heldout_items(toy):
  held = interactions.heldout_items(ITEMS, 1 / 3, 0)
  splits = toy.item_splits
  assert not held[splits["train"]].any() and held[splits["test"]].all()
  assert len(splits["train"]) == 3 and len(splits["test"]) == 3 and not len(splits["validation"])
  many = dataclasses.replace(toy, heldout_fraction=1.0).item_splits
  assert many["validation"].tolist() == [4] and many["test"].tolist() == [1, 2, 3, 5, 6]


@pytest.mark.parametrize("lengths, least, few", [([2, 2, 1], "no target for test: ", False),
                                                 ([3, 3], "no target for train: ", True)])
def test_a_log_too_short_to_be_ranked_is_refused(
    tmp_path, monkeypatch, words, lengths, least, few):
  """Before anything is written; without tasks that rank, there is nothing to refuse."""
  if few:                   # the other log goes through all tasks
    only(monkeypatch, "sequential", "elm_title")
  short = interactions.Interactions(
      user_ids=[str(user) for user in range(len(lengths))], num_items=6,
      user_N=np.repeat(np.arange(len(lengths)), lengths).astype(np.int32),
      item_N=np.concatenate([np.arange(1, 1 + n) for n in lengths]).astype(np.int32),
      time_N=np.arange(sum(lengths)), value_N=np.ones(sum(lengths), np.float32))
  interactions.save(tmp_path / "data", short, ITEMS, {"toy": 1})
  c = config()
  c.data.split = "loo_stable"
  with pytest.raises(errors.UserError, match=f"{least}.*longest history has {max(lengths)}"):
    prepare.prepare(tmp_path, words, words, c)
  assert not (tmp_path / "prepared").exists()
  c.tasks.mixture.update(sequential=0.0)
  assert "sequential" in prepare.prepare(tmp_path, words, words, c)


def test_a_users_module_is_checked_before_long_work(tmp_path, monkeypatch, workdir, words):
  monkeypatch.syspath_prepend(str(tmp_path))
  (tmp_path / "twice_tasks.py").write_text(
      "from tasks import templates\nMIXTURE = {'t': 1.0}\n"
      "FAMILY = templates.Family(('item',), '', ('{item}{item}:',), (), 'x')\n")
  with pytest.raises(errors.UserError, match="--tasks_module=twice_tasks: template .*each once"):
    catalog.import_module("twice_tasks")
  (tmp_path / "empty_tasks.py").write_text("MIXTURE = {'t': 1.0}\n")
  with pytest.raises(errors.UserError, match="empty_tasks: .*no function definitions"):
    catalog.import_module("empty_tasks")
  (tmp_path / "late_tasks.py").write_text(
      "from tasks import templates\nMIXTURE = {'t': 1.0}\n"
      "def definitions(material):\n"
      "  return {'t': templates.Family(('item',), '', ('{item}{item}:',), (), 'x')}\n")
  with pytest.raises(errors.UserError, match="--tasks_module=late_tasks: template .*each once"):
    prepare.prepare(workdir, words, words, config(module="late_tasks"))
  assert not (workdir / "prepared").exists()


def test_metric_functions_of_a_users_task_are_registered_and_named(
    tmp_path, monkeypatch, workdir, words):
  monkeypatch.syspath_prepend(str(tmp_path))
  (tmp_path / "scored_tasks.py").write_text("""
import functools
import tensorflow as tf
from tasks import features, templates
MIXTURE = {"scored": 1.0}
FAMILY = templates.Family(("item",), "", ("{item}:",), (), "x")

def right(targets, predictions):
  return {"right": sum(t == p for t, p in zip(targets, predictions)) / len(targets)}

def definitions(material):
  ones = features.column([1, 2])
  split = {"item": ones, "target_entity": ones, "user": ones * 0, "prompt": ones * 0}
  ask = functools.partial(templates.ask, family=FAMILY, answers=tf.constant(["", " a", " b"]))
  return {"scored": features.Definition(
      source=features.in_memory({"train": split, "test": split}),
      preprocessors=[ask, features.tokenize], metric_fns=[right],
      output_features=features.language(material.lm, material.rows), prompts=FAMILY)}
""")
  only(monkeypatch, "scored", "sequential")
  names = prepare.prepare(workdir, words, words, config(
      module="scored_tasks", mixture={"elm_title": 0.0}))
  fn, = seqio.TaskRegistry.get(names["scored"]).metric_fns
  manifest = store.read_manifest(workdir / "prepared" / names["scored"] / "test")
  assert manifest["metric_fns"] == ["scored_tasks:right"]
  assert fn(["a"], ["a"]) == own_tasks.score(manifest["metric_fns"], ["a"], ["a"]) == {"right": 1}
  other = store.read_manifest(workdir / "prepared" / names["sequential"] / "test")
  assert other["metric_fns"] == []


def test_prepare_end_to_end(prepared, words):
  """Every task, read back from disk, against sentences written out."""
  read, names = prepared
  assert names["sequential"] == "toy5_sequential" and names["ilm"] == "toy5_ilm"
  test = read("sequential", "test")
  assert len(test) == 4
  assert spell(words, test[1]["inputs"]) == "User<slot> watched, in order:<slot><slot>. Next:"
  assert spell(words, test[1]["targets"]) == " Up~"
  assert test[1]["entities"].tolist() == [8, 2, 1]
  assert (test[1]["target_entity"], test[1]["user"], test[1]["prompt"]) == ([6], [8], [0])
  worded = read("sequential_prompts", "test")                  # each target with 11 templates
  assert len(worded) == 44 and [e["prompt"][0] for e in map(worded.__getitem__, range(11, 22))
                                ] == list(range(11))
  unseen = worded[21]
  assert unseen["user"] == [8] and unseen["entities"].tolist() == [8, 2, 1]
  assert spell(words, unseen["inputs"]) == templates.load("sequential").unseen[0].format(
      user="<slot>", history="<slot><slot>")
  straight = read("straightforward", "train")
  assert len(straight) == 7 and straight[3]["entities"].tolist() == [9]
  first = read("sequential", "train")[0]                       # a history of one item
  assert first["entities"].tolist() == [7, 1] and (first["inputs"] == words.slot_id).sum() == 2
  titles = every(read("elm_title", "train"))
  assert len(titles) == 3 * 5 and {int(e["prompt"][0]) for e in titles} == set(range(5))
  held = interactions.heldout_items(ITEMS, 1 / 3, 0)[1:]
  assert len(read("elm_year", "train")) == 5 * np.sum(~held & (np.arange(1, 7) != 5))
  catalogue = read("catalogue", "test")
  assert [spell(words, e["targets"]) for e in every(catalogue)] == [
      f" {name}~" for name in indexing.titles(ITEMS)[1:]]
  texts = [example for split in ("train", "test") for example in every(read("item_text", split))]
  text = {int(e["entities"][0]): spell(words, e["text"]) for e in texts}
  assert text[1] == "Heat (1995). Action, Crime" and text[4] == "< slot> (2001). Comedy"
  assert text[6] == "Up (2009)"


def test_nothing_is_registered_on_import():
  assert not ON_IMPORT


def test_prepare_again_skips_what_is_there(workdir, words, monkeypatch):
  """Of three tasks; the others take the same way."""
  written = []
  only(monkeypatch, "sequential", "elm_title", "elm_year")
  write = store.write
  monkeypatch.setattr(store, "write", lambda folder, *rest: (
      written.append(f"{folder.parent.name}/{folder.name}"), write(folder, *rest)))
  prepare.prepare(workdir, words, words, config())
  everything = set(written)
  assert everything == {f"toy5_{name}/{split}" for name in ("sequential", "elm_title", "elm_year")
                        for split in ("train", "validation", "test")} - {"toy5_elm_year/train"}
  assert len(written) == len(everything)
  prepare.prepare(workdir, words, words, config())
  assert len(written) == len(everything)
  (workdir / "prepared" / "toy5_elm_year" / "test" / "manifest.json").unlink()
  prepare.prepare(workdir, words, words, config())
  assert written[len(everything):] == ["toy5_elm_year/test"]
  shard = workdir / "prepared" / "toy5_elm_year" / "test" / "shard-00000-of-00001.array_record"
  shard.write_bytes(b"")
  (workdir / "prepared" / "toy5_elm_title" / "test" / "manifest.json").write_text("")
  prepare.prepare(workdir, words, words, config())
  assert set(written[len(everything) + 1:]) == {"toy5_elm_year/test", "toy5_elm_title/test"}
  store.Prepared(shard.parent)
  prepare.prepare(workdir, words, words, config(history=3))
  assert set(written[len(everything) + 3:]) == everything
  c = config(history=3)
  c.tasks.mixture.update(elm_year=1.0, elm_title=0.0)
  prepare.prepare(workdir, words, words, c)
  assert written[2 * len(everything) + 3:] == ["toy5_elm_year/train"]
  c.tasks.history = 4                     # of both, elm_title's is kept up to date
  prepare.prepare(workdir, words, words, c)
  assert set(written[2 * len(everything) + 4:]) == {*everything, "toy5_elm_year/train"}


def test_another_workdir_replaces_the_registered_tasks(workdir, tmp_path, words):
  names = catalog.register(workdir / "data", words, words, config())
  def count():
    return seqio.get_mixture_or_task(names["item_text"]).num_input_examples("train")

  assert count() == 3
  other = dataclasses.replace(log(), num_items=3, user_N=np.repeat(np.arange(5, dtype=np.int32), 4),
                              item_N=np.tile(np.array([1, 2, 3, 1], np.int32), 5))
  interactions.save(tmp_path / "other", other, ITEMS.take([0, 1, 2]), {"toy": 2})
  assert catalog.register(tmp_path / "other", words, words, config()) == names
  assert count() == 1                          # rows 1 and 3 are twins, held out together


def test_mixture_has_the_rates_of_the_config(workdir, words):
  names = catalog.register(workdir / "data", words, words, config())
  mixture = seqio.get_mixture_or_task(names["ilm"])
  rates = {task.name: mixture.get_rate(task) for task in mixture.tasks}
  assert rates == {"toy5_sequential": 2.0, "toy5_elm_title": 1.0}       # a rate of 0 is left out
  dataset = mixture.get_dataset(None, "train", shuffle=False, num_epochs=1)
  example = next(iter(dataset.as_numpy_iterator()))
  assert set(example) >= {"inputs", "targets", "entities", "target_entity", "user", "prompt"}


def test_draws_ask_different_templates(workdir, words):
  """Three draws of 7 targets: 21 examples, each target with three templates."""
  drawn = catalog.definitions(material.read(workdir / "data", words, words, config(draws=3)))
  example = drawn["sequential"].source.get_dataset("train", shuffle=False).batch(99)
  prompts = next(iter(example.as_numpy_iterator()))["prompt"].reshape(7, 3)
  assert all(len(set(row)) == 3 for row in prompts.tolist()) and len(set(prompts[:, 0])) > 1


def test_max_train_examples_cuts_the_training_split_only(workdir, words):
  cut = catalog.definitions(
      material.read(workdir / "data", words, words, config(max_train_examples=3)))
  counts = {name: [task.source.num_input_examples(split) for split in task.source.splits]
            for name, task in cut.items()}
  assert counts["sequential"] == [3, 4, 4] and counts["sequential_prompts"] == [44]
  assert counts["user_item"] == [3] and counts["elm_title"][0] == 3 and counts["catalogue"] == [6]
  assert counts["item_text"][0] == 3        # the texts are few and dear


def test_only_so_many_targets_are_asked_in_all_words(workdir, words):
  cut = catalog.definitions(material.read(workdir / "data", words, words, config(prompt_targets=3)))
  assert cut["next_item_prompts"].source.num_input_examples("test") == 33


def test_the_ranking_tasks_ask_for_the_same_few_targets(workdir, words):
  few, every = (catalog.definitions(material.read(
      workdir / "data", words, words, config(eval_targets=most))) for most in (2, 0))
  users = {}
  for name in ("sequential", "straightforward", "next_item"):
    for split in ("validation", "test"):
      kept, before = (next(iter(made[name].source.get_dataset(split, shuffle=False).batch(
          9).as_numpy_iterator()))["user"].ravel().tolist() for made in (few, every))
      assert len(kept) == 2 and len(before) == 4 and set(kept) < set(before)
      users.setdefault(split, []).append(kept)
    assert few[name].source.num_input_examples("train") == every[
        name].source.num_input_examples("train")
  assert all(kept == of[0] for of in users.values() for kept in of)


def test_how_many_targets_are_evaluated_leaves_training_examples_as_they_are(
    workdir, words, monkeypatch):
  only(monkeypatch, "sequential")

  def made(**changes):
    names = prepare.prepare(workdir, words, words, config(
        mixture={"elm_title": 0.0}, **changes))
    return {split: store.read_manifest(workdir / "prepared" / names["sequential"] / split)[
        "fingerprint"] for split in ("train", "test")}
  every, few = made(), made(eval_targets=2)
  assert every["train"] == few["train"] and every["test"] != few["test"]


@pytest.mark.parametrize(("history", "ends"), [(2, [5, 3, 1]), (3, [5, 2]), (9, [5])])
def test_windows_cut_a_history_from_its_end(history, ends):
  """One user of 8 items, six of them for training: every step between items is in one window."""
  one = interactions.Interactions(
      ["u"], 8, np.zeros(8, np.int32), np.arange(1, 9, dtype=np.int32), np.arange(8),
      np.ones(8, np.float32))
  held = types.SimpleNamespace(interactions=one, split=one.split, history=history, draws=1,
                               rng=lambda name: np.random.default_rng(0))
  np.testing.assert_array_equal(openp5.windows(held), ends[::-1])
  steps = [(a, b) for at, row in zip(ends[::-1], openp5.histories(held, np.array(ends[::-1])))
           for a, b in itertools.pairwise([*row[row > 0], one.item_N[at]])]
  assert steps == [(n, n + 1) for n in range(1, 6)]
  held.draws = 2
  assert len(openp5.windows(held)) > len(ends) or history == 9


def test_what_is_held_back_amid_training_is_not_shown_there():
  """One user: items 5 and 6 are cold, the first history only, the second the test target."""
  one = interactions.Interactions(
      ["u", "v"], 6, np.array([0] * 7 + [1] * 3, np.int32),
      np.array([5, 1, 2, 5, 3, 6, 4, 5, 1, 2], np.int32), np.arange(10), np.ones(10, np.float32),
      np.array([0, 1, 1, 2, 1, 3, 1, 0, 1, 1], np.int8))
  held = types.SimpleNamespace(interactions=one, split=one.split, history=3, draws=1,
                               rng=lambda name: np.random.default_rng(0))
  at = openp5.targets(held)
  assert {split: places.tolist() for split, places in at.items()} == {
      "train": [2, 4, 6, 9], "validation": [3], "test": [5]}
  assert openp5.histories(held, at["train"]).tolist() == [
      [0, 0, 1], [0, 1, 2], [1, 2, 3], [0, 0, 1]]
  assert openp5.histories(held, at["validation"]).tolist() == [[5, 1, 2]]
  assert openp5.histories(held, at["test"]).tolist() == [[2, 5, 3]]
  assert openp5.windows(held).tolist() == [6, 9]
  assert item_text.watched_in_turn(held).tolist() == [[1, 2], [1, 2]]


def test_all_templates_can_be_read_and_filled():
  for path in sorted(templates.FOLDER.glob("*.json")):
    family = templates.load(path.stem)
    assert len(set(family.all)) == len(family.all) and family.unseen
    for template in family.all:      # of a conversation: how it opens
      assert path.stem in TALK or (template.endswith(":") and len(template.split()) < 16)
      assert " {" not in template, f"{path.name}: a space before a slot costs a token"
  for name in openp5.TASKS:
    assert (len(templates.load(name).seen), len(templates.load(name).unseen)) == (10, 1)


@pytest.mark.parametrize(
    "wrong", ["User{user}:", "{user}{user}{history}", "{user}{history}<slot>:"])
def test_wrong_templates_are_named(tmp_path, wrong):
  (tmp_path / "bad.json").write_text(json.dumps({
      "fields": ["user", "history"], "separator": "", "seen": [wrong], "unseen": []}))
  with pytest.raises(errors.UserError, match=r"bad.json: template .* has the places"):
    templates.load("bad", tmp_path)


@pytest.mark.parametrize("seen, words", [
    (("Film{item} or{item}:",), r"'Film{item} or{item}:' has the places \('item', 'item'\), exp"),
    (("Which decade is it?",), r"has the places \(\), expected \('item',\), each once"),
    (("Film{item}. Answer like {decade}:",), r"has the places \('item', 'decade'\)"),
    (("{item} {{literally}} %s %d:",), r"has the places \('item', 'literally'\)"),
    (("Film{item}<slot>:",), "and no <slot>"), ((), "no template that is seen in training"),
    ("Film{item}:", r"seen='Film{item}:' is text, expected a tuple")])
def test_a_family_that_code_makes_is_checked_as_those_of_files(seen, words):
  with pytest.raises(errors.UserError, match=words):
    templates.Family(fields=("item",), separator="", seen=seen, unseen=(), fingerprint="x")


def test_braces_around_no_name_are_letters_and_a_prompt_may_have_no_place():
  example = {"item": [3], "target_entity": [3], "user": [0], "prompt": [0]}
  for fields, seen, inputs, rows in (
      (["item"], ['{"decade": {}} 100% of{item}:'], '{"decade": {}} 100% of<slot>:', [3]),
      ((), ["Name any film:"], "Name any film:", [])):
    family = templates.Family(fields=fields, separator="", seen=seen, unseen=(), fingerprint="x")
    asked, = templates.ask(tf.data.Dataset.from_tensors(example), family=family,
                           answers=tf.constant(list("abcd"))).batch(1)
    assert asked["inputs"].numpy() == [inputs.encode()] and asked["targets"].numpy() == [b"d"]
    assert asked["entities"].numpy().tolist() == [rows]


def test_prepared_examples_make_batches(prepared, words):
  """The whole way: a packed batch from the disk says what the task said."""
  read, _ = prepared
  tasks = {name: read(name, "train") for name in ("sequential", "elm_title")}
  spec = small_configs.lm_batch(
      rows=2, length=90, slots=3, targets=20, queries=2, slot_id=words.slot_id,
      task_names=tuple(tasks))
  batch = batches.lm_batches(tasks, {"sequential": 1.0, "elm_title": 1.0}, spec, seed=0).at(3)
  assert batch["dropped"].sum() == 0 and sorted(batch["task"].max(axis=1)) == [0, 1]
  for row in range(2):
    said = batch["targets"][row][batch["weights"][row] > 0]
    assert spell(words, said).startswith(" ") and said[-1] == words.eos_id
    assert batch["slot"][row].max() + 1 == 2 * (batch["entities"][row] > 0).sum()
  with pytest.raises(errors.UserError, match=r"sequential: example .* needs length="):
    batches.lm_batches(tasks, {"sequential": 1.0}, small_configs.lm_batch(
        rows=1, length=40, slots=3, targets=20, queries=2, slot_id=words.slot_id,
        task_names=tuple(tasks)), seed=0)


PROMPTS = """sequential; seen; {dataset} user_{user_id} took {history} and then ; {dataset} {target}
sequential; seen; After {history} of {dataset} , user_{user_id} takes ; {dataset} {target}
sequential; unseen; What follows {history} for user_{user_id} ? ; {dataset} {target}
straightforward; seen; A pick for user_{user_id} : ; {dataset} {target}
"""


@pytest.mark.parametrize("entities", ["slots", "names"])
def test_a_prompt_file_of_openp5s_kind(workdir, words, monkeypatch, entities):
  """Places in any order; entities stand in the order of the template, or are named by index."""
  (workdir / "prompt.txt").write_text(PROMPTS)
  only(monkeypatch, "sequential", "sequential_prompts", "straightforward",
       "straightforward_prompts")
  prepare.prepare(workdir, words, words, config(
      prompts=str(workdir / "prompt.txt"), entities=entities, index="random", draws=2,
      mixture={"elm_title": 0.0}))
  stored = store.Prepared(workdir / "prepared" / "toy5_sequential" / "train")
  said = {words.decode(e["inputs"]): e for e in every(stored)
          if e["target_entity"] == [3] and e["user"] == [7]}
  assert len(said) == 2
  index = json.loads((workdir / "prepared" / "index.json").read_text())["names"]
  history = " ," .join(index[ITEMS.ids[row - 1]] for row in (1, 2))
  if entities == "names":
    assert set(said) == {f"toy-5 user_1 took{history} and then",
                         f"After{history} of toy-5 , user_1 takes"}
    assert all(len(e["entities"]) == 0 for e in said.values())
  else:
    assert {tuple(e["entities"]) for e in said.values()} == {(7, 1, 2), (1, 2, 7)}
  assert all(words.decode(e["targets"][:-1]) == index["c"] for e in said.values())


# What a teacher writes.


def asked_of(workdir, words, task, **changes):
  c = config()
  c.targets.update(tasks=(task,), **changes)
  c.tasks.mixture.update({task: 1.0})
  found = material.read(workdir / "data", words, words, c)
  return elm_requests.requests(found, task), found


def test_a_request_tells_what_is_known_of_the_item(workdir, words):
  requests, found = asked_of(workdir, words, "elm_pitch")
  by_row = {r.rows[0]: r for r in requests}
  assert set(by_row) == {*found.item_splits["train"], *found.item_splits["test"]}
  assert {r.rows[0] for r in requests if r.split == "test"} == set(found.item_splits["test"])
  assert by_row[1].prompt == ("Write a short, lively sales pitch for the film below.\n\n"
                              "Film: Heat (1995). Action, Crime")


def test_pairs_stay_within_their_split_and_are_no_twins(workdir, words):
  """Rows 1 and 3 are twins (Heat, 1995), so held out together; any other item is a partner."""
  requests, found = asked_of(workdir, words, "elm_similarities")
  assert {r.split for r in requests} == {"train", "test"}
  for split in ("train", "test"):
    rows = set(found.item_splits[split].tolist())
    pairs = [r.rows for r in requests if r.split == split]
    assert {first for first, _ in pairs} <= rows and {other for _, other in pairs} <= rows
    assert all(first != other and {first, other} != {1, 3} for first, other in pairs)
  assert "\nSecond film: " in requests[0].text


def test_neighbours_by_hand(workdir, words):
  """Training parts 1 2 3 | 2 | 6 5 4 3 | 3 4 | 5 5: users of items 1..6 are 1 2 3 2 2 1.

  Of row 4: with 3 twice of sqrt(2*3), with 5 once of sqrt(2*2), with 6 once of sqrt(2*1).
  """
  requests, found = asked_of(workdir, words, "elm_common_neighbour")
  assert found.co_occurrence[1].tolist() == [1, 2, 3, 2, 2, 1]
  train = set(found.item_splits["train"].tolist())
  users = {1: {0}, 2: {0, 1}, 3: {0, 2, 3}, 4: {2, 3}, 5: {2, 4}, 6: {2}}
  for r in requests:
    first, neighbour = r.rows
    open_to = (train if r.split == "train" else set(users)) - {first}
    open_to -= {1, 3} if first in (1, 3) else set()
    best = max(sorted(open_to), key=lambda row: len(users[first] & users[row]) / np.sqrt(
        len(users[first]) * len(users[row])))
    assert neighbour == best and users[first] & users[best]
  if 4 not in train:
    assert next(r.rows for r in requests if r.rows[0] == 4) == (4, 3)


def test_profiles_hide_held_out_items(workdir, words):
  requests, found = asked_of(workdir, words, "elm_user_profile")
  held = [found.full_titles[row] for split in ("validation", "test")
          for row in found.item_splits[split]]
  assert {r.split for r in requests} == {"train", "test"}
  assert not any(f"{title}." in r.text or r.text.endswith(title)
                 for r in requests for title in held)
  assert all(r.rows[0] >= 7 for r in requests)


def test_a_larger_limit_keeps_what_a_smaller_one_chose(workdir, words):
  few, _ = asked_of(workdir, words, "elm_pitch", max_items=2, max_heldout=1)
  more, _ = asked_of(workdir, words, "elm_pitch", max_items=3, max_heldout=2)
  for split, sizes in (("train", (2, 3)), ("test", (1, 2))):
    a, b = ([r.rows for r in found if r.split == split] for found in (few, more))
    assert (len(a), len(b)) == sizes and set(a) < set(b)
  pairs, _ = asked_of(workdir, words, "elm_similarities", max_items=2, max_heldout=1)
  assert {r.rows[0] for r in pairs} <= {r.rows[0] for r in few}


def test_prepare_takes_what_the_teacher_wrote(workdir, words, monkeypatch):
  """Two tasks from answers to slots and targets; what was rejected is left out."""
  c = config()
  c.tasks.mixture.update({"sequential": 0.0, "elm_pitch": 1.0, "elm_why_neighbour": 1.0})
  only(monkeypatch, "elm_title", "elm_pitch", "elm_why_neighbour")
  prepare.write_requests(workdir, words, words, c)
  requests = targets.read_requests(workdir / "targets")
  assert {r.task for r in requests} == {"elm_pitch", "elm_why_neighbour"}
  bad = next(r for r in requests if r.task == "elm_pitch" and r.split == "train")

  def answer(request):
    return targets.Answer(f"Say {request.rows} <slot>", "echo" if request == bad else "")

  names = prepare.prepare(workdir, words, words, c, answer=answer)
  assert names["elm_24"] == "toy5_elm_24"
  mixture = seqio.get_mixture_or_task(names["elm_24"])
  assert {t.name for t in mixture.tasks} == {"toy5_elm_pitch", "toy5_elm_why_neighbour"}

  def read(task, split):
    return every(store.Prepared(workdir / "prepared" / names[task] / split))

  pitches = read("elm_pitch", "train")
  good = [r for r in requests if r.task == "elm_pitch" and r.split == "train" and r != bad]
  assert len(pitches) == 5 * len(good)
  row = good[0].rows[0]
  mine = [e for e in pitches if e["target_entity"] == [row]]
  assert {spell(words, e["targets"]) for e in mine} == {f" Say ({row},) < slot>~"}
  assert {spell(words, e["inputs"]) for e in mine} >= {"A sales pitch for<slot>:"}
  asked = [r for r in requests if r.task == "elm_why_neighbour" and r.split == "test"]
  stored = read("elm_why_neighbour", "test")
  assert [tuple(e["entities"]) for e in stored] == [r.rows for r in asked]
  assert all(e["prompt"] == [0] and e["target_entity"] == e["entities"][:1] for e in stored)
  written = workdir / "prepared" / names["elm_pitch"] / "train" / "manifest.json"
  before = written.stat().st_mtime_ns
  prepare.prepare(workdir, words, words, c, answer=answer)
  assert written.stat().st_mtime_ns == before
  prepare.prepare(workdir, words, words, c, answer=lambda r: targets.Answer("New.", ""))
  assert written.stat().st_mtime_ns != before       # another teacher's words: made again


def test_prepare_before_targets_says_so(workdir, words):
  c = config()
  c.tasks.mixture.update({"elm_pitch": 1.0})
  with pytest.raises(errors.UserError, match=r"6 of 6 targets of elm_pitch .* --stage=targets"):
    prepare.prepare(workdir, words, words, c)
  with pytest.raises(errors.UserError, match=r"none for training will do"):
    prepare.prepare(workdir, words, words, c, answer=lambda r: targets.Answer("", "empty"))


@pytest.mark.parametrize("domain", sorted(elm.DOMAINS))
def test_every_prompt_in_every_domain(domain):
  """All words of a domain are filled; none but a film is watched, or shown in a cinema."""
  for name in (*openp5.TASKS, *elm.KNOWN, *elm.WRITTEN):
    family = templates.load(name, words=elm.DOMAINS[domain])
    text = "\n".join((*family.all, family.teacher))
    assert not set(family.order(text)) - set(family.fields)
    of_films = re.findall(r"films?|movies?|cinemas?|video|viewer|watch\w*", text.lower())
    assert domain == "movie" or not of_films, (name, of_films)
    assert not re.search(r"\b[Aa] [aeiou]|\b[Aa]n [^aeiou]", text), text
    assert bool(family.teacher) == (name in elm.WRITTEN)
    assert (len(family.seen), len(family.unseen)) == (10 if name in openp5.TASKS else 5, 1)


def test_the_prompts_of_films_are_those_of_the_measurements():
  """Byte by byte, and so is their fingerprint: what was measured and prepared with them stands."""
  texts = []
  for path in sorted(path for path in templates.FOLDER.glob("*.json") if path.stem not in TALK):
    family = templates.load(path.stem, words=elm.DOMAINS["movie"])
    texts.append([path.stem, family.fingerprint, family.fields, family.separator, family.seen,
                  family.unseen, family.teacher])
  assert hashlib.sha256(json.dumps(texts).encode()).hexdigest() == (
      "3ccd7b6ba84189ca313ffe13de7b103f700a97fd0e6ebe27a6a74f2b01ea221b")


def test_the_mixture_of_a_shop_speaks_of_buying():
  shop, library = elm.DOMAINS["product"], elm.DOMAINS["book"]
  seen = templates.load("sequential", words=shop).seen
  assert seen[0] == "User{user} bought, in order:{history}. Next:"
  assert seen[2] == "Given the products{user} has bought,{history}, name the next one:"
  assert seen[3] == "{user} bought{history} and then chose:"
  assert templates.load("sequential", words=shop).unseen == (
      "Predict which product customer{user} picks once{history} are bought:",)
  read = templates.load("straightforward", words=library)
  assert read.seen[0] == "Recommend a book to user{user}:"
  assert read.unseen == ("Pick something that reader{user} has yet to read:",)
  item = templates.load("straightforward", words=elm.DOMAINS["item"])
  assert item.seen[0] == "Recommend an item to user{user}:"
