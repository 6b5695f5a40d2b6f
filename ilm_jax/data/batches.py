"""Batches as a pure function of (seed, step).

A mixture is one endless stream of examples, addressed by index: each task's examples are shuffled
anew in every epoch, and tasks are interleaved at their rates. Batch `step` is a fixed part of the
stream, cut into groups; each process makes its share of the groups. So a run resumes by starting at
a step, and any number of processes that divides the groups makes the same global batch.
"""
import dataclasses
import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import grain
import numpy as np

from ilm_jax import errors
from ilm_jax.data import order, packing, store

LmBatchSpec = packing.LmBatchSpec
_THREADS, _AHEAD = 2, 8      # threads that make batches; batches that wait finished, at least
_TOGETHER = 64               # rows of phase 2 that are packed at once, of several steps if possible


class Examples(Protocol):
  """Examples by index, e.g. `store.Prepared` or a list."""

  def __len__(self) -> int: ...

  def __getitem__(self, index: int, /) -> Any: ...


class Batches:
  """Numbered batches: `at` makes one, `iterate` makes many ahead of time in threads."""

  def __init__(self, make: Callable[[range], list[dict]], *, together: int = 1):
    """Wraps `make`, a pure function from steps to their batches, dicts of arrays.

    Args:
      make: the batch of a step must not depend on the other steps of the call.
      together: number of steps that `iterate` asks for at once; for small batches, a call costs as
        much as its batches.
    """
    self.make, self.together = make, together
    self._options = grain.ReadOptions(
        num_threads=_THREADS, prefetch_buffer_size=max(2, _AHEAD // together))

  def at(self, step: int) -> dict[str, np.ndarray]:
    """The batch of one step."""
    return self.make(range(int(step), int(step) + 1))[0]

  def iterate(self, start: int, stop: int) -> Iterator[dict[str, np.ndarray]]:
    """The batches of steps start, ..., stop - 1."""
    if stop <= start:
      return iter(())
    made = grain.MapDataset.range(start, stop, self.together).map(
        lambda first: self.make(range(first, min(first + self.together, stop))))
    return itertools.chain.from_iterable(made.to_iter_dataset(self._options))


class Mixture:
  """The endless stream of a mixture. Examples get a field "task": the task's number in `tasks`.

  Args:
    tasks: name -> examples by index.
    rates: name -> share of the stream, any scale; tasks without a rate or with rate 0 are left out.
    seed: decides the order within each task, which does not depend on the other tasks.

  Raises:
    UserError: no task has a rate, or one that has a rate has no examples.
  """

  def __init__(self, tasks: Mapping[str, Examples], rates: Mapping[str, float], seed: int):
    self._parts = [(number, examples) for number, (name, examples) in enumerate(tasks.items())
                   if rates.get(name, 0)]
    names = [list(tasks)[number] for number, _ in self._parts]
    for name, (_, examples) in zip(names, self._parts):
      if not len(examples):
        raise errors.UserError(f"task {name} has no training examples but a rate of "
                               f"{rates[name]}: set its rate in tasks.mixture, or its loss in "
                               "phase1.losses, to 0")
    if not names:
      raise errors.UserError(f"no task of {sorted(tasks)} has a positive rate in {dict(rates)}: "
                             "give one a rate above 0 in tasks.mixture")
    self._order = order.Stream([len(examples) for _, examples in self._parts],
                               [float(rates[name]) for name in names],
                               [_task_seed(seed, name) for name in names])

  def at(self, *stretches: range) -> list[dict]:
    """The examples at these places of the stream, in order; each task is read in one call."""
    part_N, index_N = np.concatenate(
        [self._order.at(places.start, places.stop) for places in stretches], axis=1)
    drawn: list[dict] = [{}] * len(part_N)
    for part in np.unique(part_N):
      number, examples = self._parts[part]
      places = np.flatnonzero(part_N == part)
      read = getattr(examples, "many", lambda indices, of=examples: [of[i] for i in indices])
      for place, example in zip(places.tolist(), read(index_N[places].tolist())):
        drawn[place] = {**example, "task": number}
    return drawn


def lm_batches(tasks: Mapping[str, Examples], rates: Mapping[str, float], spec: LmBatchSpec, *,
               seed: int, process_index: int = 0, process_count: int = 1) -> Batches:
  """Packed batches for phase 2.

  The field "dropped", int32 [rows], counts in the first row of each group the examples that did
  not fit into the group.

  Args:
    tasks: name -> Prepared; spec.task_names must be these names in order.
    rates: name -> share of the examples.
    spec: shapes of the GLOBAL batch; this process makes rows / process_count of its rows.
    seed: decides the order of examples.
    process_index: this process's share of the groups, 0 ... process_count - 1; see
      `axes.batch_share`.
    process_count: number of shares; must divide spec.groups.

  Raises:
    UserError: an example does not fit into a row, or as `Mixture`.
  """
  if tuple(tasks) != spec.task_names:
    raise ValueError(f"spec.task_names={spec.task_names} are not the tasks {tuple(tasks)}")
  for name, examples in tasks.items():
    if isinstance(examples, store.Prepared):
      packing.check_fits(name, examples.lengths(), spec)
  stream = Mixture(tasks, rates, seed)
  groups = _share(spec.groups, process_index, process_count, "groups")

  def make(steps: range) -> list[dict]:
    size, rows = spec.examples_per_group, len(groups) * spec.rows_per_group
    firsts = [step * spec.groups + groups.start for step in steps]
    examples = stream.at(*(range(g * size, (g + len(groups)) * size) for g in firsts))
    batch, left = packing.pack_groups(
        [examples[i:i + size] for i in range(0, len(examples), size)], spec)
    batch["dropped"] = np.zeros(len(left) * spec.rows_per_group, np.int32)
    batch["dropped"][::spec.rows_per_group] = left
    return [{k: v[at:at + rows] for k, v in batch.items()}
            for at in range(0, len(steps) * rows, rows)]

  return Batches(make, together=max(1, _TOGETHER // (len(groups) * spec.rows_per_group)))


def with_ranking(said: Batches | None, ranked: Batches) -> Batches:
  """The batches of `said` (None: empty ones), with those of `ranked` (`head_only`) under "rank"."""
  def make(steps: range) -> list[dict]:
    others = said.make(steps) if said else [{}] * len(steps)
    return [{**other, "rank": rank} for other, rank in zip(others, ranked.make(steps))]

  return Batches(make, together=ranked.together)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Phase1Spec:
  """Shapes of a phase 1 batch; a size of 0 leaves a part empty."""
  batch_size: int              # item-text examples
  pair_batch_size: int         # item-item pairs
  user_batch_size: int         # user-item pairs
  max_text: int                # T, tokens of a text


def phase1_batches(text: Examples, item_pairs: Examples, user_pairs: Examples, spec: Phase1Spec, *,
                   seed: int, process_index: int = 0, process_count: int = 1) -> Batches:
  """Batches for phase 1, from the prepared tasks item_text, item_item and user_item.

  Returns:
    Batches of text_entities [B], text [B, T], text_mask bool [B, T], pair_a [B2], pair_b [B2],
    upair_user [B3], upair_item [B3].
  """
  parts = [("item_text", text, spec.batch_size), ("item_item", item_pairs, spec.pair_batch_size),
           ("user_item", user_pairs, spec.user_batch_size)]
  streams = [Mixture({name: examples}, {name: 1.0}, seed) if size else None
             for name, examples, size in parts]
  shares = [_share(size, process_index, process_count, f"{name} examples")
            for name, _, size in parts]

  def make(step: int) -> dict:
    texts, pairs, upairs = [
        stream.at(range(step * size + share.start, step * size + share.stop)) if stream else []
        for stream, share, (_, _, size) in zip(streams, shares, parts)]
    pair_N2, upair_N2 = _pairs(pairs), _pairs(upairs)
    return {**text_batch(texts, len(texts), spec.max_text),
            "pair_a": pair_N2[:, 0], "pair_b": pair_N2[:, 1],
            "upair_user": upair_N2[:, 0], "upair_item": upair_N2[:, 1]}

  return Batches(lambda steps: [make(step) for step in steps])


def text_batch(examples: Sequence[dict], rows: int, max_text: int) -> dict[str, np.ndarray]:
  """text_entities [rows], text [rows, T] and text_mask [rows, T] of item_text examples.

  A longer text is cut to T tokens but keeps its last token, [SEP] (like BLIP-2, which cuts at 32).
  """
  batch = {"text_entities": np.zeros(rows, np.int32), "text": np.zeros((rows, max_text), np.int32),
           "text_mask": np.zeros((rows, max_text), bool)}
  for b, example in enumerate(examples):
    ids = example["text"]
    ids = ids if len(ids) <= max_text else np.append(ids[:max_text - 1], ids[-1])
    n = len(ids)
    batch["text_entities"][b] = example["entities"][0]
    batch["text"][b, :n] = ids
    batch["text_mask"][b, :n] = True
  return batch


def lm_eval_batch(examples: Sequence[dict], spec: LmBatchSpec) -> dict[str, np.ndarray]:
  """A batch like those of training, with one example in each row; further rows have weight 0."""
  return packing.one_a_row(examples, spec)


def prompts_batch(examples: Sequence[dict], spec: LmBatchSpec) -> dict[str, np.ndarray]:
  """Prompts without targets, for decoding, padded on the right.

  Returns:
    tokens, slot, position [B, L] (and word, if spec.whole_words) and entities [B, S] as in
    training; valid bool [B, L]; length int32 [B], tokens in each prompt. Rows past the examples
    repeat the last one, so that no row is empty.
  """
  fill = [examples[min(b, len(examples) - 1)] for b in range(spec.rows)]
  end = np.array([spec.pad_id], np.int32)      # a single target adds nothing to the sequence
  batch = packing.one_a_row([{**e, "targets": end} for e in fill], spec)
  valid_BL = batch["segment"] > 0
  names = ("tokens", "slot", "position", "entities", "word")
  keep: dict[str, np.ndarray] = {k: batch[k] for k in names if k in batch}
  return {**keep, "valid": valid_BL, "length": valid_BL.sum(axis=1, dtype=np.int32)}


def _task_seed(seed: int, name: str) -> int:
  return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:4], "big")


def _share(size: int, index: int, count: int, what: str) -> range:
  if size % count:
    raise errors.UserError(f"{size} {what} in a batch do not divide over {count} processes: make "
                           f"them a multiple of {count}")
  return range(index * size // count, (index + 1) * size // count)


def _pairs(examples: Sequence[dict]) -> np.ndarray:
  return np.array([e["entities"] for e in examples], np.int32).reshape(-1, 2)
