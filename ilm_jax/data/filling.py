"""Writes packed examples into the arrays of a language-model batch, all examples at once.

Pure, numpy only. Letters: E examples placed, B rows, L tokens of a row.
"""
import dataclasses

import numpy as np

_NONE = np.zeros(0, int)


def widen(inputs, queries: int, slot_id: int) -> tuple[np.ndarray, np.ndarray]:
  """Replaces every slot in `inputs` by `queries` soft tokens.

  ([7, slot, 8], queries=2) -> tokens [7, 0, 0, 8], slot [-1, 0, 1, -1]

  Returns:
    (tokens, slot): tokens, 0 at soft tokens; at each place the index of its soft token among all,
    or -1.
  """
  inputs = np.asarray(inputs)
  is_slot = inputs == slot_id
  times = np.where(is_slot, queries, 1)
  soft = np.repeat(is_slot, times)
  slot = np.where(soft, np.cumsum(soft) - 1, -1)
  return np.where(soft, 0, np.repeat(inputs, times)), slot


def places(inputs, at, spec) -> np.ndarray:
  """int: positions in the sequence of tokens of a prompt; for a slot, that of its last soft token.

  Args:
    inputs: int tokens of the prompt.
    at: int indices into `inputs`.
    spec: `packing.LmBatchSpec`.
  """
  slots = np.cumsum(np.asarray(inputs) == spec.slot_id)
  return len(spec.before) + np.asarray(at, int) + (spec.queries - 1) * slots[np.asarray(at, int)]


def read_at(examples, slot_BL, spec) -> np.ndarray:
  """int [B]: the position where the item head reads each prompt, with one prompt in each row: the
  beginning of the last reply, or in a prompt without dialog the last soft token.

  Args:
    examples: B examples.
    slot_BL: the array "slot" of their batch.
    spec: shapes of the batch.
  """
  return np.array([places(e["inputs"], e["ask_at"][-1], spec) if len(e.get("ask_at", ()))
                   else last_slot(slot_BL[b:b + 1])[0] for b, e in enumerate(examples)])


def last_slot(slot_BL) -> np.ndarray:
  """int [B]: the position of each row's last soft token; ValueError for a row without one."""
  at_BL = np.where(np.asarray(slot_BL) >= 0, np.arange(np.shape(slot_BL)[1])[None], -1)
  if (at_BL.max(axis=1) < 0).any():
    raise ValueError("a prompt without slots: the item head has nothing to read")
  return at_BL.max(axis=1)


def write(batch: dict, examples, placed: list[tuple], spec) -> None:
  """Writes examples to the places in `placed`.

  Args:
    batch: arrays of `packing.empty`; changed in place.
    examples: all examples.
    placed: for each example to write: (its index, row, segment, first token, first slot, first
      target).
    spec: `packing.LmBatchSpec`.
  """
  if not placed:
    return
  which, *columns = np.array(placed).T
  chosen, at = [examples[i] for i in which.tolist()], _Places(*columns)
  flat = {k: v.reshape(-1) for k, v in batch.items()}
  wide_E, slot = _write_prompts(flat, chosen, at, spec)
  ahead = _write_entities(flat, chosen, at, wide_E, slot, spec) if spec.queries else None
  length_E = wide_E
  if spec.branches is None and not spec.head_only:
    length_E = wide_E + _write_targets(flat, chosen, at, wide_E, spec)
  to = _places(at.row_E * spec.length + at.token_E, length_E)
  flat["segment"][to] = at.segment_E.repeat(length_E)
  flat["position"][to] = _places(0 * length_E, length_E)
  if ahead is not None and spec.branches is not None:
    _write_branches(flat, chosen, at, wide_E, ahead, spec)


@dataclasses.dataclass(frozen=True)
class _Places:
  """int [E] each: row and segment of every example, and where its parts begin in the row."""
  row_E: np.ndarray
  segment_E: np.ndarray
  token_E: np.ndarray
  slot_E: np.ndarray
  target_E: np.ndarray


def _write_prompts(flat: dict, chosen, at: _Places, spec) -> tuple[np.ndarray, np.ndarray]:
  """Writes all input tokens, with soft tokens in place of slots.

  Returns:
    int [E]: number of tokens of each prompt; and for the tokens of all prompts in turn, the number
    of the soft token among all soft tokens, or -1.
  """
  prompts = [x for e in chosen for x in (spec.before, e["inputs"], spec.after)]
  said = np.concatenate(prompts).astype(np.int32)
  said_E = np.array([len(e["inputs"]) for e in chosen]) + len(spec.before) + len(spec.after)
  slots_E = _per(said == spec.slot_id, said_E)
  tokens, slot = widen(said, spec.queries, spec.slot_id)
  wide_E = said_E + slots_E * (spec.queries - 1)
  if not wide_E.all():
    raise ValueError("an example's inputs are empty: nothing can predict its first target")
  to = _places(at.row_E * spec.length + at.token_E, wide_E)
  flat["tokens"][to] = tokens
  shift_E = (at.slot_E - (slots_E.cumsum() - slots_E)) * spec.queries
  flat["slot"][to] = np.where(slot < 0, -1, slot + shift_E.repeat(wide_E))
  flat["prefix"][to] = True
  if spec.whole_words:
    starts = np.where(slot < 0, spec.word_starts[tokens], False)
    before_E = _per(starts, wide_E).cumsum() - _per(starts, wide_E)
    word = starts.cumsum() - before_E.repeat(wide_E)
    flat["word"][to] = np.minimum(word, spec.whole_words - 1)
  return wide_E, slot


def _write_targets(flat: dict, chosen, at: _Places, wide_E, spec) -> np.ndarray:
  """Writes the tokens of earlier replies and the targets as tokens to predict. For a decoder, also
  writes all targets but the last into the sequence.

  Returns:
    int [E]: number of tokens that this adds to each example's sequence.
  """
  inner = [e.get("reply_at", _NONE) for e in chosen]
  inner_E, own_E = (np.array([len(x) for x in of])
                    for of in (inner, [e["targets"] for e in chosen]))
  count_E = inner_E + own_E
  targets = np.concatenate([part for e, at_K in zip(chosen, inner)
                            for part in (e["inputs"][at_K], e["targets"])])
  nth = _places(0 * count_E, count_E)
  to = _places(at.row_E * spec.targets + at.target_E, count_E)
  flat["targets"][to], flat["target_position"][to] = targets, nth
  flat["target_segment"][to], flat["weights"][to] = at.segment_E.repeat(count_E), 1.0
  # Places in an example's targets that are read but have weight 0 in the loss.
  skipped = [e.get("uncounted", _NONE) for e in chosen]
  if any(map(len, skipped)):
    flat["weights"][to[np.concatenate([start + skip for skip, start in zip(
        skipped, count_E.cumsum() - own_E)]).astype(int)]] = 0.0
  flat["task"][to] = np.repeat([e.get("task", 0) for e in chosen], count_E)
  if spec.encoder_decoder:
    return 0 * count_E
  first = (at.token_E + wide_E).repeat(count_E)
  behind = nth - inner_E.repeat(count_E)           # below 0: a token of the prompt
  fed = (behind >= 0) & (behind < (own_E - 1).repeat(count_E))
  flat["tokens"][((at.row_E * spec.length).repeat(count_E) + first + behind)[fed]] = targets[fed]
  before = first - 1 + behind
  if inner_E.any():
    before[behind < 0] = np.concatenate([
        start + places(e["inputs"], at_K, spec) - 1
        for e, at_K, start in zip(chosen, inner, at.token_E) if len(at_K)])
  flat["target_at"][to] = before
  return own_E - 1


def _write_branches(flat: dict, chosen, at: _Places, wide_E, ahead: "_Ahead", spec) -> None:
  """Writes the index of the item that follows each slot. Its tokens are targets; all but the last
  also go after the prompt, in a branch that leaves the prompt at the slot (`attention.forked`).

  Letters: N slots of all examples, K tokens of all their branches.
  """
  count_N = (spec.branches >= 0).sum(axis=1)[ahead.item_N]
  fed_N = np.maximum(count_N - 1, 0)
  example_N = np.arange(len(chosen)).repeat(ahead.held_E)
  of_example = lambda x_N: x_N.cumsum() - x_N - (x_N.cumsum() - x_N)[  # noqa: E731
      (ahead.held_E.cumsum() - ahead.held_E)[example_N]]
  start_N = (at.token_E + wide_E)[example_N] + of_example(fed_N)       # of the branch in its row
  nth_K, of_K = _places(0 * count_N, count_N), np.arange(len(count_N)).repeat(count_N)
  token_K = spec.branches[ahead.item_N[of_K], nth_K]
  row_K, segment_K = at.row_E[example_N[of_K]], at.segment_E[example_N[of_K]]
  to = row_K * spec.targets + (at.target_E[example_N] + of_example(count_N))[of_K] + nth_K
  before_K = np.where(nth_K == 0, ahead.at_N[of_K], start_N[of_K] + nth_K - 1)
  flat["targets"][to], flat["target_at"][to], flat["weights"][to] = token_K, before_K, 1.0
  flat["target_segment"][to], flat["target_position"][to] = segment_K, nth_K
  flat["task"][to] = np.array([e.get("task", 0) for e in chosen])[example_N[of_K]]
  fed = nth_K < fed_N[of_K]
  place = (row_K * spec.length + start_N[of_K] + nth_K)[fed]
  fork_K = (ahead.at_N - at.token_E[example_N] + 1)[of_K]
  flat["tokens"][place], flat["segment"][place] = token_K[fed], segment_K[fed]
  flat["fork"][place], flat["position"][place] = fork_K[fed], (fork_K + nth_K)[fed]


@dataclasses.dataclass(frozen=True)
class _Ahead:
  """The items that follow the N slots of all examples.

  at_N: int: position of the slot's last soft token in its row.
  item_N: int: item row that follows; 0: no item is predicted here.
  held_E: int: number of slots of each example.
  """
  at_N: np.ndarray
  item_N: np.ndarray
  held_E: np.ndarray


def _write_entities(flat: dict, chosen, at: _Places, wide_E, slot, spec) -> "_Ahead | None":
  """Writes the entity of every slot; for the item head, also the next item and where to read."""
  entities = np.concatenate([e["entities"] for e in chosen])
  held_E = np.array([len(e["entities"]) for e in chosen])
  to = _places(at.row_E * spec.slots + at.slot_E, held_E)
  flat["entities"][to] = entities
  if not spec.head_tasks and spec.branches is None:
    return None
  ends = (slot >= 0) & (slot % spec.queries == spec.queries - 1)
  position = _places(at.token_E, wide_E)[ends]
  next_at, next_item = _next_items(chosen, entities, held_E, position, spec)
  if spec.head_tasks:
    flat["next_at"][to], flat["next_item"][to] = next_at, next_item
    _write_asks(flat, chosen, at, spec)
  return _Ahead(next_at, next_item, held_E)


def _write_asks(flat: dict, chosen, at: _Places, spec) -> None:
  """Writes the positions where the head reads conversations: asks overwrite next_at and next_item
  of the example's first slots."""
  for e, row, slot, token in zip(chosen, at.row_E, at.slot_E, at.token_E):
    if len(e.get("ask_at", ())) and spec.task_names[e.get("task", 0)] in spec.head_tasks:
      to = row * spec.slots + slot + np.arange(len(e["ask_at"]))
      flat["next_at"][to] = token + places(e["inputs"], e["ask_at"], spec)
      flat["next_item"][to] = e["ask_item"]


def _next_items(chosen, entities, held_E, position, spec) -> tuple[np.ndarray, np.ndarray]:
  """(position, next item row) for each slot of all examples in turn.

  A slot's last soft token predicts the item of the next slot, if both slots hold items; that of the
  last slot predicts the target. Both numbers are 0 in tasks without the item head and in
  conversations.

  Args:
    chosen: the examples.
    entities: int [N] entity rows of their slots.
    held_E: int [E] number of slots of each example.
    position: int [N] position of the last soft token of each slot.
    spec: shapes of the batch.
  """
  asks_E = np.array([spec.branches is not None
                     or (spec.task_names[e.get("task", 0)] in spec.head_tasks
                         and not len(e.get("ask_at", ()))) for e in chosen])
  is_item = entities <= spec.num_items
  after = np.append(entities[1:], 0)
  follows = np.where(is_item & np.append(is_item[1:], False), after, 0)
  last_E, some_E = held_E.cumsum() - 1, held_E > 0
  for i in np.flatnonzero(some_E):
    follows[last_E[i]] = chosen[i]["target_entity"][0] if asks_E[i] else 0
  asks = asks_E.repeat(held_E)
  return np.where(asks, position, 0), np.where(asks, follows, 0)


def _places(start_E, count_E) -> np.ndarray:
  """start, start + 1, ..: `count` numbers from each `start`, joined."""
  end_E = count_E.cumsum()
  return np.arange(end_E[-1]) + (start_E - end_E + count_E).repeat(count_E)


def _per(marks, count_E) -> np.ndarray:
  """int [E]: the number of true `marks` in each example's part, of `count_E` marks each."""
  total, end_E = np.zeros(len(marks) + 1, int), count_E.cumsum()
  marks.cumsum(out=total[1:])
  return total[end_E] - total[end_E - count_E]
