"""A split made in pieces equals one made at once, file for file. No Beam: `test_beam` has it."""

import pytest
import seqio
import tensorflow as tf
from test_tasks import ITEMS, characters, config, log

from ilm_jax import errors
from ilm_jax.data import interactions, store
from tasks import catalog, features, material, pieces, prepare, vocabulary


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
      output_features={"entities": features.entities(30),
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
  assert [len(found[i]["entities"]) for i in range(len(found))] == [0, 1, 2, 3] * 3 * (len(found) > 0)


def test_examples_may_be_left_out_on_the_way(tmp_path, shards):
  """Then a record's number is not known until all pieces before it are made."""
  odd = [lambda dataset: dataset.filter(lambda e: e["number"] % 4 == 1)]
  once, cut, work = both_ways(tmp_path, definition(characters(), preprocessors=odd), "train")
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


def test_workers_that_write_elsewhere_are_an_error(tmp_path, shards):
  work = pieces.cut(tmp_path / "train", definition(characters()))
  with pytest.raises(errors.UserError, match="workers of Beam do not write where"):
    pieces.join(work, {})


def test_every_task_of_ours_can_be_cut(tmp_path, monkeypatch):
  """All definitions of the toy data set, by the recipe that travels, against `prepare`."""
  monkeypatch.setattr(pieces, "_PIECE", 4)
  words = characters()
  interactions.save(tmp_path / "data", log(), ITEMS, {"toy": 1})
  names = prepare.prepare(tmp_path, words, words, config())
  made = catalog.definitions(material.read(tmp_path / "data", words, words, config()))
  assert all(found.by_example for found in made.values())
  for short, found in made.items():
    for split in found.source.splits:
      folder = tmp_path / "prepared" / names[short] / split
      work = pieces.cut(tmp_path / "cut" / short / split, found)
      by_hand(work)
      kept = ("task", "split", "made_from", "templates")
      pieces.join(work, {k: v for k, v in store.read_manifest(folder).items() if k in kept})
      pieces.clear(work)
      assert files_of(folder) == files_of(tmp_path / "cut" / short / split), (short, split)
