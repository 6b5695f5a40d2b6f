"""A split of a task is cut into pieces, which any machine can make, and joined as if never cut.

    work = pieces.cut(folder, definition)              one machine: the source's examples, in files
    pieces.make(work, k) for each k < work.count       anywhere: the records of a piece
    pieces.write_shard(work, shard, records)           anywhere: those of a shard, in their order
    pieces.join(work, manifest)                        one machine: the folder of `store.write`

Intermediate files lie next to the folder, so all machines must reach it. They contain all that a
piece needs: a worker needs our packages, but no data set, config or checkpoint. Nothing here
depends on Beam; `beam_prepare` distributes the work.
"""
import collections
import dataclasses
import functools
import hashlib
import importlib
import io
import pickle
import tempfile

import cloudpickle
import numpy as np
import seqio
import tensorflow as tf
from etils import epath

from ilm_jax import errors, files
from ilm_jax.data import store
from ilm_jax.tasks import features

_PIECE = 8192                    # examples of the source


@dataclasses.dataclass(frozen=True)
class Work:
  """A split that is being made. Strings and numbers only: it is sent to the workers."""
  folder: str                    # of the prepared split
  source: str                    # folder with the source's examples, in pieces
  shard_folder: str              # folder of its shards until it is published
  recipe: str                    # file with preprocessors and features
  count: int                     # pieces
  shards: int


def examples(task: seqio.Task, split: str, together: int = 512):
  """Lists of the examples of a task, as dicts of arrays, in order."""
  dataset = task.get_dataset(sequence_length=None, split=split, shuffle=False)
  # Batched only to leave TensorFlow: one example at a time costs ten times as much.
  for batch in dataset.ragged_batch(together).as_numpy_iterator():
    columns = [batch[key] for key in task.output_features]
    yield [dict(zip(task.output_features, row)) for row in zip(*columns)]


def cut(folder, definition: features.Definition, module: str = "") -> Work:
  """Reads the source of a split once and writes it in pieces, with the recipe of their examples.

  Args:
    folder: of the prepared split, whose name is the split's.
    definition: the task.
    module: of a user's tasks; its functions are part of the recipe.
  """
  folder = epath.Path(folder)
  split, source = folder.name, store.begin(folder, "pieces")
  if module:
    cloudpickle.register_pickle_by_value(importlib.import_module(module))
  recipe = cloudpickle.dumps((definition.preprocessors, definition.output_features))
  # Named by its content, so that a process that makes pieces of several runs reads each once.
  path = source / f"recipe-{hashlib.sha256(recipe).hexdigest()[:16]}.pkl"
  files.write_bytes(path, recipe)
  dataset = definition.source.get_dataset(split, shuffle=False)
  count, size = 0, definition.source.num_input_examples(split)
  for batch in dataset.ragged_batch(_PIECE if definition.by_example else max(1, size or 1 << 62)):
    content = {key: _to_arrays(value) for key, value in batch.items()}
    files.write_bytes(source / f"source-{count:06d}.pkl", pickle.dumps(content))
    count += 1
  return Work(str(folder), str(source), str(store.begin(folder)), str(path), count,
              store.shards_of(size))


def _to_arrays(value):
  """A tensor as an array; a ragged one as its values and row splits."""
  if isinstance(value, tf.RaggedTensor):
    return value.flat_values.numpy(), [splits.numpy() for splits in value.nested_row_splits]
  return value.numpy()


def _to_tensor(content):
  if isinstance(content, tuple):
    return tf.RaggedTensor.from_nested_row_splits(*content, validate=False)
  return tf.constant(content)


def make(work: Work, piece: int) -> list[bytes]:
  """The records of a piece, in order; their lengths are written next to the piece."""
  batch = pickle.loads((epath.Path(work.source) / f"source-{piece:06d}.pkl").read_bytes())
  batch = {key: _to_tensor(content) for key, content in batch.items()}
  preprocessors, output_features = _recipe(work.recipe)
  task = seqio.Task(
      "piece", seqio.FunctionDataSource(
          lambda split, shuffle_files, seed=None: tf.data.Dataset.from_tensors(batch).unbatch(),
          splits=["piece"]),
      output_features=output_features, preprocessors=preprocessors, metric_fns=[])
  records, lengths = [], collections.defaultdict(list)
  for some in examples(task, "piece"):
    for example in some:
      record, length = store.encode(example, len(records))
      records.append(record)
      for key, value in length.items():
        lengths[key].append(value)
  written = io.BytesIO()
  np.savez(written, **{key: np.asarray(values, np.int32) for key, values in lengths.items()})
  files.write_bytes(epath.Path(work.source) / f"lengths-{piece:06d}.npz", written.getvalue())
  return records


@functools.lru_cache(maxsize=4)
def _recipe(path: str):
  return pickle.loads(epath.Path(path).read_bytes())


def by_shard(work: Work, first: int, records: list[bytes]) -> dict[int, list[bytes]]:
  """Shard -> its records among those of a piece whose first is number `first` of the split."""
  return {(first + start) % work.shards: records[start::work.shards]
          for start in range(min(work.shards, len(records)))}


def write_shard(work: Work, shard: int, pieces) -> None:
  """Writes a shard.

  Args:
    work: the split.
    shard: its number.
    pieces: (number of a piece, the shard's records in it), in any order.
  """
  name = store.shard_name(shard, work.shards)
  with tempfile.TemporaryDirectory() as local:     # ArrayRecord writes files of this machine only
    path = epath.Path(local) / name
    store.write_shard(path, (record for _, records in sorted(pieces) for record in records))
    files.write_bytes(epath.Path(work.shard_folder) / name, path.read_bytes())


def join(work: Work, manifest: dict) -> dict:
  """Publishes a split whose pieces are all made and written; returns its manifest."""
  source, unfinished = epath.Path(work.source), epath.Path(work.shard_folder)
  lengths = collections.defaultdict(list)
  for piece in range(work.count):
    path = source / f"lengths-{piece:06d}.npz"
    if not path.exists():
      raise errors.UserError(f"{path} is missing: the workers of Beam do not write where this "
                             "process reads. Give a --workdir that all of them reach")
    with np.load(io.BytesIO(path.read_bytes())) as arrays:
      for key in arrays.files:
        lengths[key].append(arrays[key])
  for shard in range(work.shards):                 # shards without an example
    if not (unfinished / store.shard_name(shard, work.shards)).exists():
      write_shard(work, shard, [])
  lengths = {key: np.concatenate(parts) for key, parts in lengths.items()}
  return store.publish(unfinished, work.folder, lengths, manifest, work.shards)


def clear(work: Work) -> None:
  """Removes the intermediate files next to the folder, published or not."""
  for path in (epath.Path(work.source), epath.Path(work.shard_folder)):
    if path.exists():
      path.rmtree()
