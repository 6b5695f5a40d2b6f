"""From prepared examples to the arrays of one language-model batch. Pure, numpy only.

An example's sequence is its inputs, every slot widened to Q soft tokens, followed by its targets
without the last; the hidden state at the last input predicts the first target. For an
encoder-decoder the sequence is the inputs alone. Several examples share a row; segments keep them
apart.
"""
import dataclasses
from collections.abc import Sequence

import numpy as np

from ilm_jax import errors


@dataclasses.dataclass(frozen=True, kw_only=True)
class LmBatchSpec:
  """Shapes of a language-model batch (see axes.py for the letters)."""
  rows: int                    # B
  length: int                  # L, tokens in a row
  slots: int                   # S, entities in a row
  targets: int                 # X, predicted tokens in a row
  queries: int                 # Q, soft tokens a slot; 0 leaves the slots out
  slot_id: int
  examples_per_group: int = 1  # a group packs exactly so many examples ...
  rows_per_group: int = 1      # ... into so many rows
  pad_id: int = 0
  task_names: tuple[str, ...] = ()
  encoder_decoder: bool = False  # targets stand in a sequence of their own
  before: tuple[int, ...] = ()   # ids around every prompt, e.g. BOS; T5: EOS behind it
  after: tuple[int, ...] = ()
  whole_words: int = 0           # P5's: prompts are told which word each token belongs to, at most
  word_starts: np.ndarray | None = dataclasses.field(default=None, compare=False)  # bool [V + 1]
  head_tasks: tuple[str, ...] = ()   # those whose prompts predict items at every slot (item head)
  num_items: int = 0                 # with head_tasks: entity rows up to it are items

  @property
  def groups(self) -> int:
    """Groups in a batch."""
    if self.rows % self.rows_per_group:
      raise errors.UserError(f"rows={self.rows} is not a multiple of rows_per_group="
                             f"{self.rows_per_group}: change one of them")
    return self.rows // self.rows_per_group

  def sizes(self, inputs, slots, targets) -> dict:
    """What examples of these array lengths take of a row. Numbers or arrays.

    Args:
      inputs: tokens of the prompt, a slot counting one; without `before` and `after`.
      slots: number of slots in the prompt.
      targets: tokens to predict.
    """
    said = len(self.before) + len(self.after) + (0 if self.encoder_decoder else targets - 1)
    return {"length": inputs + slots * (self.queries - 1) + said,
            "slots": slots * (self.queries > 0), "targets": targets}


def check_fits(name: str, lengths: dict[str, np.ndarray], spec: LmBatchSpec):
  """Raises UserError if any example of a prepared task does not fit into an empty row.

  Args:
    name: the task, for the message.
    lengths: `Prepared.lengths()`.
    spec: shapes of the batch.
  """
  sizes = spec.sizes(lengths["inputs"], lengths["entities"], lengths["targets"])
  for what, size in sizes.items():
    if len(size) and size.max() > getattr(spec, what):
      raise errors.UserError(
          f"{name}: example {size.argmax()} needs {what}={size.max()} with {spec.queries} soft "
          f"tokens a slot, a row has {what}={getattr(spec, what)}. Set --config.phase2.{what}="
          f"{size.max()} or more, or shorten the task (tasks.history, prompts)")


def pack_group(examples: Sequence[dict], spec: LmBatchSpec) -> tuple[dict, int]:
  """Packs examples into `rows_per_group` rows, first fit, longest first.

  Returns:
    The arrays of `empty(rows_per_group, spec)`, filled, and how many examples did not fit.
  """
  sizes = [spec.sizes(len(e["inputs"]), len(e["entities"]), len(e["targets"])) for e in examples]
  order = sorted(range(len(examples)), key=lambda i: -sizes[i]["length"])   # stable
  batch = empty(spec.rows_per_group, spec)
  rows = [_Row(batch, b, spec) for b in range(spec.rows_per_group)]
  dropped = 0
  for i in order:
    row = next((row for row in rows if row.has_room(sizes[i])), None)
    if row is None:
      dropped += 1
    else:
      row.add(examples[i], sizes[i])
  return batch, dropped


def one_a_row(examples: Sequence[dict], spec: LmBatchSpec) -> dict[str, np.ndarray]:
  """The same arrays with one example in each row and the rest of the rows empty."""
  batch = empty(spec.rows, spec)
  if len(examples) > spec.rows:
    raise ValueError(f"{len(examples)} examples for {spec.rows} rows")
  for b, example in enumerate(examples):
    size = spec.sizes(len(example["inputs"]), len(example["entities"]), len(example["targets"]))
    row = _Row(batch, b, spec)
    if not row.has_room(size):
      raise errors.UserError(f"an example needs {size}, a row has length={spec.length}, "
                             f"slots={spec.slots}, targets={spec.targets}: raise them")
    row.add(example, size)
  return batch


def empty(rows: int, spec: LmBatchSpec) -> dict[str, np.ndarray]:
  """A batch of `rows` rows without examples."""
  in_row, predicted = (rows, spec.length), (rows, spec.targets)
  words = {"word": np.zeros(in_row, np.int32)} if spec.whole_words else {}
  head = {name: np.zeros((rows, spec.slots), np.int32) for name in ("next_at", "next_item")}
  return {
      **words,                                           # number of the token's word in its prompt
      **(head if spec.head_tasks else {}),               # position, item row that follows
      "tokens": np.full(in_row, spec.pad_id, np.int32),
      "slot": np.full(in_row, -1, np.int32),             # index into the row's S*Q soft tokens
      "segment": np.zeros(in_row, np.int32),             # 1.. for the examples, 0 for padding
      "position": np.zeros(in_row, np.int32),            # from 0 in every example
      "prefix": np.zeros(in_row, bool),                  # inputs, not targets
      "entities": np.zeros((rows, spec.slots), np.int32),
      "target_at": np.zeros(predicted, np.int32),        # position whose hidden state predicts it
      "targets": np.full(predicted, spec.pad_id, np.int32),
      "target_segment": np.zeros(predicted, np.int32),   # of their example; 0 for padding
      "target_position": np.zeros(predicted, np.int32),  # from 0 in every example
      "weights": np.zeros(predicted, np.float32),
      "task": np.zeros(predicted, np.int32),
  }


def widen(inputs, queries: int, slot_id: int, first_slot: int) -> tuple[np.ndarray, np.ndarray]:
  """Gives every slot in `inputs` its `queries` places.

  ([7, slot, 8], queries=2, first_slot=1) -> tokens [7, 0, 0, 8], slot [-1, 2, 3, -1]

  Returns:
    tokens, 0 at soft tokens; and at each place the index of the soft token in the row, or -1.
  """
  inputs = np.asarray(inputs)
  is_slot = inputs == slot_id
  times = np.where(is_slot, queries, 1)
  soft = np.repeat(is_slot, times)
  slot = np.where(soft, first_slot * queries + np.cumsum(soft) - 1, -1)
  return np.where(soft, 0, np.repeat(inputs, times)), slot


def last_slot(slot_BL) -> np.ndarray:
  """int [B]: the position of each row's last soft token, where the item head reads a prompt."""
  at_BL = np.where(np.asarray(slot_BL) >= 0, np.arange(np.shape(slot_BL)[1])[None], -1)
  if (at_BL.max(axis=1) < 0).any():
    raise ValueError("a prompt without slots: the item head has nothing to read")
  return at_BL.max(axis=1)


class _Row:
  """One row of a batch being filled."""

  def __init__(self, batch: dict, b: int, spec: LmBatchSpec):
    self.arrays = {k: v[b] for k, v in batch.items()}
    self.spec = spec
    self.used = {"length": 0, "slots": 0, "targets": 0}
    self.examples = 0

  def has_room(self, size: dict) -> bool:
    return all(self.used[k] + size[k] <= getattr(self.spec, k) for k in size)

  def add(self, example: dict, size: dict):
    """Writes `example` behind what the row holds."""
    row, at, target = self.arrays, self.used["length"], self.used["targets"]
    prompt = np.concatenate([self.spec.before, example["inputs"], self.spec.after]).astype(int)
    tokens, slot = widen(prompt, self.spec.queries, self.spec.slot_id, self.used["slots"])
    if not len(tokens):
      raise ValueError("an example's inputs are empty: nothing can predict its first target")
    targets = example["targets"]
    end, n = at + size["length"], len(tokens)
    self.examples += 1
    row["tokens"][at:at + n] = tokens
    row["tokens"][at + n:end] = targets[:end - at - n]
    row["slot"][at:at + n] = slot
    if self.spec.whole_words:
      starts = np.where(slot < 0, self.spec.word_starts[tokens], False)
      row["word"][at:at + n] = np.minimum(np.cumsum(starts), self.spec.whole_words - 1)
    row["segment"][at:end] = self.examples
    row["position"][at:end] = np.arange(size["length"])
    row["prefix"][at:at + n] = True
    span = slice(target, target + len(targets))
    if not self.spec.encoder_decoder:
      row["target_at"][span] = at + n - 1 + np.arange(len(targets))
    row["target_segment"][span] = self.examples
    row["target_position"][span] = np.arange(len(targets))
    row["targets"][span] = targets
    row["weights"][span] = 1.0
    row["task"][span] = example.get("task", 0)
    if size["slots"]:
      slots = slice(self.used["slots"], self.used["slots"] + size["slots"])
      row["entities"][slots] = example["entities"]
      if self.spec.head_tasks:
        row["next_at"][slots], row["next_item"][slots] = self._next_items(example, at, slot)
    for key in self.used:
      self.used[key] += size[key]

  def _next_items(self, example: dict, at: int, slot) -> tuple:
    """(position, item row that follows there) for each slot of an example that begins at `at`.

    A slot's last soft token predicts the next slot's item, where both are items; the last slot's
    predicts the target.
    """
    spec, rows = self.spec, np.asarray(example["entities"])
    if spec.task_names[example.get("task", 0)] not in spec.head_tasks:
      return 0, 0
    position = at + np.flatnonzero((slot >= 0) & (slot % spec.queries == spec.queries - 1))
    is_item = rows <= spec.num_items
    follows = np.append(np.where(is_item[:-1] & is_item[1:], rows[1:], 0),
                        example["target_entity"][0])
    return position, follows
