"""Packs prepared examples into the arrays of one language-model batch. Pure, numpy only.

An example's sequence is its inputs, with every slot widened to Q soft tokens, followed by its
targets without the last. The hidden state at the last input predicts the first target. For an
encoder-decoder the sequence is the inputs alone. Several examples share a row; segments keep them
apart.

Examples of conversations may have further arrays: reply_at, the places in inputs of the tokens of
earlier replies, which are targets, too; ask_at and ask_item, the places in inputs whose hidden
state the item head reads, and the item rows that it must predict there.
"""
import dataclasses
from collections.abc import Sequence

import numpy as np

from ilm_jax import errors
from ilm_jax.data import filling

# Arrays whose lengths decide how much of a row an example takes: arguments of `LmBatchSpec.sizes`.
LENGTHS = ("inputs", "entities", "targets", "reply_at", "ask_at")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LmBatchSpec:
  """Shapes of a language-model batch (see axes.py for the letters)."""
  rows: int                    # B
  length: int                  # L, tokens in a row
  slots: int                   # S, entities in a row
  targets: int                 # X, predicted tokens in a row
  queries: int                 # Q, soft tokens of each slot; 0: no slots
  slot_id: int
  examples_per_group: int      # a group packs exactly so many examples ...
  rows_per_group: int          # ... into so many rows
  task_names: tuple[str, ...]
  whole_words: int             # most words of a prompt that P5's whole-word embeddings number
  word_starts: np.ndarray | None = dataclasses.field(default=None, compare=False)  # bool [V + 1]
  pad_id: int = 0
  encoder_decoder: bool = False  # targets are a sequence of their own
  before: tuple[int, ...] = ()   # ids in front of every prompt, e.g. BOS
  after: tuple[int, ...] = ()    # ids behind every prompt, e.g. EOS for T5
  head_tasks: tuple[str, ...] = ()   # tasks whose prompts predict items at every slot (item head)
  num_items: int = 0                 # with head_tasks: entity rows up to it are items
  head_only: bool = False            # prompts without targets, for the item head alone
  # The model generates only the words of item indices: prompts end at their last slot, and indices
  # have no EOS. With `branches`, int32 [num_items + 1, T], the index of each item and then -1, the
  # index of the next item is a target at every slot: filling.py.
  index_only: bool = False
  branches: np.ndarray | None = dataclasses.field(default=None, compare=False)

  @property
  def groups(self) -> int:
    """The number of groups in a batch."""
    if self.rows % self.rows_per_group:
      raise errors.UserError(f"rows={self.rows} is not a multiple of rows_per_group="
                             f"{self.rows_per_group}: change one of them")
    return self.rows // self.rows_per_group

  def sizes(self, inputs, slots, targets, replies=0, asks=0) -> dict:
    """{"length", "slots", "targets"} that examples take of a row. Arguments: numbers or arrays.

    Args:
      inputs: tokens of the prompt, a slot counting one; without `before` and `after`.
      slots: number of slots in the prompt.
      targets: number of tokens to predict after the prompt.
      replies: number of tokens to predict inside the prompt.
      asks: number of items that the item head must predict.
    """
    said = 0 * targets if self.encoder_decoder or self.head_only else targets - 1
    targets = 0 * targets if self.head_only else targets + replies
    wide = slots * (self.queries - 1)
    slots = np.maximum(slots, asks) if self.head_tasks else slots
    if self.branches is not None:
      longest = self.branches.shape[1]
      targets, said = slots * longest, slots * (longest - 1)
    return {"length": inputs + wide + said + len(self.before) + len(self.after),
            "slots": slots * (self.queries > 0), "targets": targets}

  def sizes_of(self, example: dict) -> dict:
    """`sizes` of one example."""
    return self.sizes(*(len(example.get(key, ())) for key in LENGTHS))

  def shown(self, examples: Sequence[dict]) -> Sequence[dict]:
    """The examples as they go into rows; see `index_only`."""
    if not self.index_only:
      return examples
    end = [np.flatnonzero(np.append(e["inputs"], -1) == self.slot_id)[-1:] + 1 for e in examples]
    return [{**e, "inputs": e["inputs"][:at[0]] if len(at) else e["inputs"],
             "targets": e["targets"][:max(1, len(e["targets"]) - 1)]}
            for e, at in zip(examples, end)]


def check_fits(name: str, lengths: dict[str, np.ndarray], spec: LmBatchSpec):
  """Raises UserError if any example of a prepared task does not fit into an empty row.

  Args:
    name: name of the task, for the message.
    lengths: `Prepared.lengths()`.
    spec: shapes of the batch.
  """
  sizes = spec.sizes(*(lengths.get(key, 0) for key in LENGTHS))
  for what, size in sizes.items():
    if len(size) and size.max() > getattr(spec, what):
      raise errors.UserError(
          f"{name}: example {size.argmax()} needs {what}={size.max()} with {spec.queries} soft "
          f"tokens for each slot, a row has {what}={getattr(spec, what)}. Set "
          f"--config.phase2.{what}={size.max()} or more, or shorten the task (tasks.history, "
          "tasks.dialog_tokens, prompts)")


def pack_groups(groups: Sequence[Sequence[dict]], spec: LmBatchSpec) -> tuple[dict, np.ndarray]:
  """Packs each group into its own `rows_per_group` rows: longest examples first, first row to fit.

  Returns:
    The arrays of `empty(groups x rows_per_group, spec)`, filled, and int32 [groups]: the number of
    examples of each group that did not fit.
  """
  batch = empty(len(groups) * spec.rows_per_group, spec)
  examples = spec.shown([e for group in groups for e in group])
  sizes = _sizes(examples, spec)
  placed, dropped, first = [], np.zeros(len(groups), np.int32), 0
  for g, group in enumerate(groups):
    room = [_Row(g * spec.rows_per_group + b, spec) for b in range(spec.rows_per_group)]
    of_group = range(first, first + len(group))
    for i in sorted(of_group, key=lambda i: -sizes[i][0]):     # stable
      for row in room:
        if (place := row.take(sizes[i])) is not None:
          placed.append((i, *place))
          break
      else:
        dropped[g] += 1
    first += len(group)
  filling.write(batch, examples, placed, spec)
  return batch, dropped


def one_a_row(examples: Sequence[dict], spec: LmBatchSpec) -> dict[str, np.ndarray]:
  """A batch with one example in each row; further rows are empty.

  Raises:
    UserError: an example does not fit into a row.
    ValueError: there are more examples than rows.
  """
  batch = empty(spec.rows, spec)
  if len(examples) > spec.rows:
    raise ValueError(f"{len(examples)} examples, expected at most {spec.rows}, one for each row")
  examples, placed = spec.shown(examples), []
  for b, size in enumerate(_sizes(examples, spec)):
    if (place := _Row(b, spec).take(size)) is None:
      raise errors.UserError(
          f"an example needs {dict(zip(('length', 'slots', 'targets'), size))}, a row has length="
          f"{spec.length}, slots={spec.slots}, targets={spec.targets}: raise these in phase2")
    placed.append((b, *place))
  filling.write(batch, examples, placed, spec)
  return batch


def empty(rows: int, spec: LmBatchSpec) -> dict[str, np.ndarray]:
  """A batch of `rows` rows without examples."""
  in_row, predicted = (rows, spec.length), (rows, spec.targets)
  said = {} if spec.head_only else {
      "target_at": np.zeros(predicted, np.int32),        # position whose hidden state predicts it
      "targets": np.full(predicted, spec.pad_id, np.int32),
      "target_segment": np.zeros(predicted, np.int32),   # segment of the example; 0 for padding
      "target_position": np.zeros(predicted, np.int32),  # from 0 in every example
      "weights": np.zeros(predicted, np.float32),
      "task": np.zeros(predicted, np.int32)}
  words = {"word": np.zeros(in_row, np.int32)} if spec.whole_words else {}
  head = {name: np.zeros((rows, spec.slots), np.int32) for name in ("next_at", "next_item")}
  forks = {} if spec.branches is None else {"fork": np.zeros(in_row, np.int32)}
  return {
      **forks,                                           # attention.forked
      **words,                                           # number of the token's word in its prompt
      **(head if spec.head_tasks else {}),               # position, and next item row
      "tokens": np.full(in_row, spec.pad_id, np.int32),
      "slot": np.full(in_row, -1, np.int32),             # index into the row's S*Q soft tokens
      "segment": np.zeros(in_row, np.int32),             # 1.. for the examples, 0 for padding
      "position": np.zeros(in_row, np.int32),            # from 0 in every example
      "prefix": np.zeros(in_row, bool),                  # inputs, not targets
      "entities": np.zeros((rows, spec.slots), np.int32),
      **said,
  }


class _Row:
  """Tracks the used room of one row of a batch."""

  def __init__(self, b: int, spec: LmBatchSpec):
    self._b, self._room = b, (spec.length, spec.slots, spec.targets)
    self._used, self._examples = (0, 0, 0), 0

  def take(self, size: tuple[int, int, int]) -> tuple[int, int, int, int, int] | None:
    """(row, segment, first token, first slot, first target) for an example; None: no room."""
    used = self._used
    after = (used[0] + size[0], used[1] + size[1], used[2] + size[2])
    if after[0] > self._room[0] or after[1] > self._room[1] or after[2] > self._room[2]:
      return None
    self._used, self._examples = after, self._examples + 1
    return (self._b, self._examples, *used)


def _sizes(examples: Sequence[dict], spec: LmBatchSpec) -> list[tuple[int, int, int]]:
  """(length, slots, targets) that each example needs in a row."""
  counts = [np.array([len(e.get(key, ())) for e in examples], int) for key in LENGTHS]
  sizes = spec.sizes(*counts)
  return list(zip(*(sizes[key].tolist() for key in ("length", "slots", "targets"))))
