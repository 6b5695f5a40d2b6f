"""A split made in pieces equals one made at once, file for file. No Beam: `test_beam` has it."""

import importlib.util
import pathlib
import subprocess
import sys

import pytest
import real
from logs import listed

pytest.importorskip("seqio", reason=real.NEEDS_DATA)

import seqio
import tensorflow as tf
from etils import epath
from etils.epath import backend, gpath
from test_tasks import ITEMS, characters, config, log

from configs import base
from ilm_jax import errors
from ilm_jax.data import interactions, rows, store
from launch import registered
from tasks import (
    beam_options,
    catalog,
    features,
    material,
    pieces,
    prepare,
    vocabulary,
)
from tasks.datasets import delimited, lines, registry


def files_of(folder) -> dict:
  """Name below `folder` -> bytes."""
  return {str(path.relative_to(folder)): path.read_bytes()
          for path in sorted(folder.rglob("*")) if path.is_file()}


def by_hand(work):
  """What a pipeline does, in an order that no pipeline promises: backwards."""
  records = {piece: pieces.make(work, piece) for piece in reversed(range(work.count))}
  gathered = {}
  for piece in reversed(range(work.count)):
    first = sum(len(records[before]) for before in range(piece))
    for shard, found in pieces.by_shard(work, first, records[piece]).items():
      gathered.setdefault(shard, []).append((piece, found))
  for shard, found in gathered.items():
    pieces.write_shard(work, shard, found)


@pytest.fixture(params=[1, 3])
def shards(request, monkeypatch):
  """Files of a split of 12 examples."""
  monkeypatch.setattr(store, "_SHARD", -(-12 // request.param))
  monkeypatch.setattr(pieces, "_PIECE", 5)
  return request.param


def definition(words, by_example=True, preprocessors=()):
  """12 examples: entities of 0 to 3 rows, a text, a number of them to say."""
  def dataset(split, shuffle_files, seed=None):
    rows = tf.RaggedTensor.from_row_lengths(tf.range(18), [0, 1, 2, 3] * 3)
    numbers = tf.range(12) if split == "train" else tf.range(0)
    return tf.data.Dataset.from_tensor_slices({"entities": rows[:len(numbers)], "number": numbers})

  @seqio.map_over_dataset
  def say(example):
    number = tf.strings.as_string(example["number"])
    return {"entities": example["entities"], "targets": tf.strings.join([" no. ", number])}

  return features.Definition(
      source=seqio.FunctionDataSource(dataset, ["train", "test"], {"train": 12, "test": 0}),
      preprocessors=[*preprocessors, say, features.tokenize],
      output_features={"entities": features.entities(rows.EntityRows(20, 9)),
                       "targets": seqio.Feature(vocabulary.SlotVocabulary(words))},
      by_example=by_example)


def both_ways(folder, found, split):
  """(folder made at once, folder made in pieces, work)."""
  task = seqio.Task("here", source=found.source, preprocessors=found.preprocessors,
                    output_features=found.output_features, metric_fns=[])
  size = found.source.num_input_examples(split)
  store.write(folder / "once" / split,
              (e for some in pieces.examples(task, split) for e in some), {"a": 1},
              store.shards_of(size))
  work = pieces.cut(folder / "cut" / split, found)
  by_hand(work)
  pieces.join(work, {"a": 1})
  pieces.clear(work)
  return folder / "once", folder / "cut", work


@pytest.mark.parametrize("split", ["train", "test"])
def test_pieces_make_the_same_files(tmp_path, shards, split):
  once, cut, work = both_ways(tmp_path, definition(characters()), split)
  assert work.count == (3 if split == "train" else 0)
  assert work.shards == (shards if split == "train" else 1)
  assert files_of(once) == files_of(cut)          # the manifest with the fingerprint among them
  found = store.Prepared(cut / split)
  assert len(found) == (12 if split == "train" else 0)
  assert [len(found[i]["entities"]) for i in range(len(found))] == [0, 1, 2, 3] * (len(found) // 4)


class Bucket:
  """Stands for an object store: what epath is asked of gs:// is found in a folder."""

  def __init__(self, folder):
    self._folder = folder

  def __getattr__(self, name):
    def call(*args, **kwargs):
      return getattr(backend.os_backend, name)(*(
          arg.replace("gs://", f"{self._folder}/") if isinstance(arg, str) else arg
          for arg in args), **kwargs)
    return call


def test_in_a_bucket(tmp_path, shards, monkeypatch):
  """All by epath: no path gs:// is taken for a file of this machine."""
  stand_in = Bucket(tmp_path)
  monkeypatch.setitem(gpath._PREFIX_TO_BACKEND, "gs", stand_in)
  monkeypatch.setattr(gpath, "_GCS_BACKENDS", {stand_in})
  monkeypatch.setattr(gpath, "_is_tf_installed", lambda: False)
  bucket = epath.Path("gs://bucket/run")
  once, cut, _ = both_ways(bucket, definition(characters()), "train")
  both_ways(tmp_path, definition(characters()), "train")
  want = {name.removeprefix("train/"): data for name, data in files_of(tmp_path / "once").items()}
  for folder in (once / "train", cut / "train"):
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == want
  assert (tmp_path / "bucket" / "run" / "cut" / "train" / "manifest.json").exists()
  here, there = store.Prepared(tmp_path / "once" / "train"), store.Prepared(cut / "train")
  assert [str(there[i]) for i in range(12)] == [str(here[i]) for i in range(12)]
  assert {k: v.tolist() for k, v in there.lengths().items()} == {
      k: v.tolist() for k, v in here.lengths().items()}


def test_examples_may_be_left_out_on_the_way(tmp_path, shards):
  """Then a record's number is not known until all pieces before it are made."""
  odd = [lambda dataset: dataset.filter(lambda e: e["number"] % 4 == 1)]
  once, cut, _ = both_ways(tmp_path, definition(characters(), preprocessors=odd), "train")
  assert files_of(once) == files_of(cut) and len(store.Prepared(cut / "train")) == 3


def test_one_piece_where_examples_are_not_made_one_by_one(tmp_path, shards):
  """A preprocessor that looks at neighbours sees all of them."""
  last_first = [lambda dataset: dataset.batch(12).map(
      lambda batch: {"entities": batch["entities"][::-1], "number": batch["number"][::-1]}
  ).unbatch()]
  found = definition(characters(), by_example=False, preprocessors=last_first)
  found.source._dataset_fn = lambda split, shuffle_files, seed=None: (
      tf.data.Dataset.from_tensor_slices({"entities": tf.zeros([12, 1], tf.int32),
                                          "number": tf.range(12)}))
  once, cut, work = both_ways(tmp_path, found, "train")
  assert work.count == 1 and files_of(once) == files_of(cut)


def test_functions_of_a_users_module_travel(tmp_path, monkeypatch):
  """A worker makes examples of a task whose module it cannot import."""
  (tmp_path / "far_tasks.py").write_text("""
import seqio
import tensorflow as tf
from ilm_jax.data import rows
from tasks import features

def _twice(number):
  return 2 * number

@seqio.map_over_dataset
def double(example):
  return {"entities": _twice(example["entities"])}

def found():
  return features.Definition(
      source=features.in_memory({"train": {"entities": features.column([1, 2])}}),
      preprocessors=[double],
      output_features={"entities": features.entities(rows.EntityRows(5, 3))})
""")
  monkeypatch.syspath_prepend(tmp_path)
  work = pieces.cut(tmp_path / "train", importlib.import_module("far_tasks").found(), "far_tasks")
  monkeypatch.delitem(sys.modules, "far_tasks")
  (tmp_path / "far_tasks.py").unlink()
  by_hand(work)
  pieces.join(work, {})
  made = store.Prepared(tmp_path / "train")
  assert [made[i]["entities"].tolist() for i in range(2)] == [[2], [4]]


def test_workers_that_write_elsewhere_are_an_error(tmp_path, shards):
  work = pieces.cut(tmp_path / "train", definition(characters()))
  with pytest.raises(errors.UserError, match="workers of Beam do not write where"):
    pieces.join(work, {})


def test_every_task_of_ours_can_be_cut(tmp_path, monkeypatch):
  """By the recipe that travels, against what `prepare` stores; one split of each kind of task."""
  monkeypatch.setattr(pieces, "_PIECE", 4)
  words = characters()
  interactions.save(tmp_path / "data", log(), ITEMS, {"toy": 1})
  c = config(mixture={"sequential": 0.0, "elm_title": 0.0})
  made = catalog.definitions(material.read(tmp_path / "data", words, words, c))
  assert all(found.by_example for found in made.values())
  made = {short: made[short] for short in ("item_text", "user_item", "sequential_prompts",
                                           "elm_genres", "catalogue")}
  monkeypatch.setattr(catalog, "definitions", lambda m: made)
  names = prepare.prepare(tmp_path, words, words, c)
  for short, found in made.items():
    split = found.source.splits[-1]
    folder = tmp_path / "prepared" / names[short] / split
    work = pieces.cut(tmp_path / "cut" / short / split, found)
    by_hand(work)
    kept = ("task", "split", "made_from", "templates", "seen", "metric_fns")
    pieces.join(work, {k: v for k, v in store.read_manifest(folder).items() if k in kept})
    pieces.clear(work)
    assert files_of(folder) == files_of(tmp_path / "cut" / short / split), short
    assert [p.name for p in (tmp_path / "cut" / short).iterdir()] == [split]     # nothing beside it
  task = seqio.get_mixture_or_task(names["catalogue"])
  assert task.supports_caching                       # the cache holds what is prepared
  cached = task.preprocess_precache(task.source.get_dataset("test", shuffle=False))
  stored = store.Prepared(tmp_path / "prepared" / names["catalogue"] / "test")
  for number, example in enumerate(cached.as_numpy_iterator()):
    assert {k: v.tolist() for k, v in stored[number].items()} == {
        k: v.tolist() for k, v in example.items()}


@pytest.mark.parametrize("end", ["\n", ""])
def test_parts_of_a_file_have_every_line_once(tmp_path, end):
  """Cut at any byte, within lines of several lengths."""
  (tmp_path / "a.csv").write_text("user,time\nx,1\n\nyy,22\nz,3\nwwww,44444" + end)
  whole = [values for _, values in delimited.table(tmp_path / "a.csv", ["user", "time"])]
  for size in range(1, 40):
    parts = lines.parts(epath.Path(tmp_path / "a.csv"), True, size)
    found = [values for part in parts for _, values in delimited.table(part, ["user", "time"])]
    assert found == whole, size
    bare = lines.parts(epath.Path(tmp_path / "a.csv"), False, size)
    assert b"".join(part.open("rb").read() for part in bare) == (tmp_path / "a.csv").read_bytes()
  (tmp_path / "a.csv").write_text("user,time\nx,1\ny\n")
  part = lines.parts(epath.Path(tmp_path / "a.csv"), True, 12)[1]
  with pytest.raises(errors.UserError, match=r"a.csv from byte 12, line 2: found 1 fields"):
    list(delimited.table(part, ["user", "time"]))


def test_readers_of_parts_give_the_log(tmp_path):
  (tmp_path / "UserBehavior.csv").write_text(
      "".join(f"{n % 3},{n},9,{'buy' if n % 2 else 'pv'},{99 - n}\n" for n in range(20)))
  c = base.get_config().data
  c.update(name="taobao", path=str(tmp_path))
  found = registry.find(c)
  readers = found.log_readers(9)
  logs = [read() for read in readers]
  assert len(readers) > 20 and [] in [list(users) for users, *_ in logs]    # without a purchase
  joined = tuple([x for part in parts for x in part] for parts in zip(*logs))
  assert joined == listed(found.read_log())


def test_files_of_tensorflow_are_read_like_others(tmp_path):
  """epath gives those where a path is of a bucket; they have no readinto, and iterate as text."""
  (tmp_path / "u.data").write_text("1\t2\n3\té\n")

  class Path:
    name = "u.data"

    def open(self, mode):
      return tf.io.gfile.GFile(str(tmp_path / "u.data"), mode)

  assert list(lines.separated(Path(), "\t", "a, b")) == [(1, ["1", "2"]), (2, ["3", "é"])]
  parts = [lines.Part(Path(), start, start + 3, False) for start in (0, 3, 6)]
  assert b"".join(part.open("rb").read() for part in parts) == "1\t2\n3\té\n".encode()
  here = epath.Path(tmp_path / "u.data")
  assert (registry._fingerprint({"u.data": Path()}, {})
          == registry._fingerprint({"u.data": here}, {}))


def test_what_is_said_to_beam(monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  beam_options.check(())
  with pytest.raises(errors.UserError, match="--beam_runner=FlinkRunner needs Apache Beam, which"):
    beam_options.check(("--runner=FlinkRunner",))
  with pytest.raises(errors.UserError, match=r"^u.data, line 3: no time$"):
    with beam_options.mistakes_told():
      raise RuntimeError("Traceback:\n  File x\nilm_jax.errors.UserError: u.data, line 3: no time "
                         "[while running 'read']\n\nmore")
  with pytest.raises(RuntimeError, match="a fault"), beam_options.mistakes_told():
    raise RuntimeError("a fault")


def test_flags_for_beam(capsys):
  program = [sys.executable, "-m", "ilm_jax.main", "--config=configs/tiny.py", "--workdir=/nowhere"]
  done = subprocess.run([*program, "--beam_options=--region=r"], capture_output=True, text=True,
                        check=False, cwd=pathlib.Path(__file__).parents[1])
  assert done.returncode == 1 and "--beam_options is set without --beam_runner" in done.stderr


def test_a_workdir_that_was_not_prepared_is_not_registered(tmp_path):
  with pytest.raises(errors.UserError, match="a workdir where stage prepare has not run"):
    registered.register(tmp_path)
