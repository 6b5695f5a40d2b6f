"""The features of the tasks' examples, and the parts of a SeqIO task."""
import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import seqio
import tensorflow as tf

from ilm_jax.data import rows as rows_lib
from ilm_jax.tasks import templates, vocabulary

_TOGETHER = 256                  # examples tokenised in one call


@dataclasses.dataclass(frozen=True, kw_only=True)
class Definition:
  """A task before it is registered: data and functions, no name."""
  source: seqio.DataSource
  preprocessors: list[Callable]
  output_features: dict[str, seqio.Feature]
  prompts: templates.Family | None = None
  targets: str = ""                        # fingerprint of a teacher's texts
  # SeqIO's, each (targets, predictions) -> {metric: number}, of two lists of texts.
  metric_fns: Sequence[Callable] = ()
  # No preprocessor reads two examples at once, so Beam may make the pieces of a split separately.
  by_example: bool = False


def entities(rows: rows_lib.EntityRows) -> seqio.Feature:
  """Rows of the entity table. They pass through as they are."""
  return _numbers(rows.total)


def language(vocab: vocabulary.SlotVocabulary,
             rows: rows_lib.EntityRows) -> dict[str, seqio.Feature]:
  """The features of all phase 2 tasks, equal because a mixture requires it."""
  return {"inputs": seqio.Feature(vocab, add_eos=False), "targets": seqio.Feature(vocab),
          "entities": entities(rows), "target_entity": entities(rows), "user": entities(rows),
          "prompt": _numbers(0)}


def conversation(vocab: vocabulary.SlotVocabulary,
                 rows: rows_lib.EntityRows) -> dict[str, seqio.Feature]:
  """Those of multi-turn tasks: also earlier replies, and positions for the item head (packing.py).
  """
  return {**language(vocab, rows), "reply_at": _numbers(0), "ask_at": _numbers(0),
          "ask_item": entities(rows)}


def _numbers(below: int) -> seqio.Feature:
  return seqio.Feature(seqio.PassThroughVocabulary(below), add_eos=False, dtype=tf.int32, rank=1)


def in_memory(splits: Mapping[str, Mapping[str, np.ndarray]]) -> seqio.FunctionDataSource:
  """A source over arrays.

  Args:
    splits: split -> feature -> array [N, ...], or `ragged`; examples are slices along N.
  """
  def dataset(split, shuffle_files, seed=None):
    del shuffle_files, seed                  # prepared examples are shuffled when batches are made
    return tf.data.Dataset.from_tensor_slices(dict(splits[split]))

  sizes = {split: int(next(iter(arrays.values())).shape[0]) for split, arrays in splits.items()}
  return seqio.FunctionDataSource(dataset, splits=list(splits), num_input_examples=sizes)


def ragged(arrays: Sequence[np.ndarray]) -> tf.RaggedTensor:
  """int32 [N, None] of N arrays of any lengths."""
  values = np.concatenate([np.zeros(0, np.int32), *arrays]).astype(np.int32)
  return tf.RaggedTensor.from_row_lengths(values, [len(array) for array in arrays])


def column(values) -> np.ndarray:
  """[N] -> int32 [N, 1]: SeqIO requires features with at least one axis."""
  return np.asarray(values, np.int32)[:, None]


@seqio.map_over_dataset
def no_replies(example):
  """The example with the features of a conversation, empty."""
  # Its length is unknown to TensorFlow, which cannot batch the static shape [0].
  nothing = tf.boolean_mask(example["user"], example["user"] < 0)
  return {**example, "reply_at": nothing, "ask_at": nothing, "ask_item": nothing}


def tokenize(dataset, output_features):
  """SeqIO's tokenize and append_eos, many examples per call: one per call takes thrice as long."""
  dataset = seqio.preprocessors.tokenize(
      dataset.ragged_batch(_TOGETHER), output_features, copy_pretokenized=False)
  return seqio.preprocessors.append_eos(dataset, output_features).unbatch()
