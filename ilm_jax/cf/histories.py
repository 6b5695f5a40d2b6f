"""Interactions by user and by item, as arrays that may lie in files.

`Histories` stores compressed rows: the rows that row h + 1 of one side met are one slice of one
array. Rows count from 1 on both sides, since row 0 of every table is padding. For logs larger than
memory, the arrays are written to files, a chunk of the log at a time.
"""
import pathlib
from typing import NamedTuple

import numpy as np

CHUNK = 1 << 22     # interactions worked on at a time


class Histories(NamedTuple):
  """H histories; the history of row h + 1 is other_N[start_H1[h]:start_H1[h + 1]]."""
  start_H1: np.ndarray   # int64
  other_N: np.ndarray    # int32, rows (from 1) of the other side; may be mapped from a file

  def __len__(self) -> int:
    return len(self.start_H1) - 1

  @property
  def length_H(self) -> np.ndarray:
    return np.diff(self.start_H1)


def of_lists(histories) -> Histories:
  """`Histories` from a list with one array of rows for each history, each row once."""
  histories = [list(dict.fromkeys(np.asarray(h).tolist())) for h in histories]
  start_H1 = np.cumsum([0, *(len(h) for h in histories)])
  if not start_H1[-1]:
    return Histories(start_H1, np.zeros(0, np.int32))
  return Histories(start_H1, np.concatenate([np.asarray(h, np.int32) for h in histories]))


def transposed(histories: Histories, num_others: int, folder=None) -> Histories:
  """For each row of the other side, the rows that met it, ascending.

  Args:
    histories: histories of one side.
    num_others: number of rows of the other side.
    folder: folder of a file that holds the large array, which is mapped; None: memory.
  """
  length_O = np.zeros(num_others, np.int64)
  for _, other_N in _chunks(histories):
    length_O += np.bincount(other_N - 1, minlength=num_others)
  start_O1 = np.concatenate([[0], np.cumsum(length_O)])
  row_N, free_O = _array(folder, "transposed", start_O1[-1]), start_O1[:-1].copy()
  for own_N, other_N in _chunks(histories):
    order_N = np.argsort(other_N, kind="stable")
    other_N, count_O = other_N[order_N] - 1, np.bincount(other_N - 1, minlength=num_others)
    # Within a chunk, the k-th interaction of an other goes k places after its first free place.
    first_O = np.cumsum(count_O) - count_O
    row_N[free_O[other_N] + np.arange(len(other_N)) - first_O[other_N]] = own_N[order_N]
    free_O += count_O
  return Histories(start_O1, row_N)


def kept(user_N, item_N, keep, num_users: int, folder=None) -> Histories:
  """Histories of users, made of the interactions that `keep` selects, each item once.

  Args:
    user_N: int, 0..num_users - 1, ascending.
    item_N: int, entity rows from 1. Both arrays may be mapped from files.
    keep: (start, stop) -> bool [stop - start]: which of these interactions to keep.
    num_users: U.
    folder: as in `transposed`.
  """
  length_U = np.zeros(num_users, np.int64)
  for users, _ in _selected(user_N, item_N, keep):
    length_U += np.bincount(users, minlength=num_users)
  start_U1 = np.concatenate([[0], np.cumsum(length_U)])
  other_N, at = _array(folder, "kept", start_U1[-1]), 0
  for _, items in _selected(user_N, item_N, keep):
    other_N[at:at + len(items)] = items
    at += len(items)
  return Histories(start_U1, other_N)


def _selected(user_N, item_N, keep):
  """Yields (users, items) of whole users, about CHUNK interactions at a time, each pair once."""
  start = 0
  while start < len(user_N):
    stop = min(start + CHUNK, len(user_N))
    stop = int(np.searchsorted(user_N, user_N[stop - 1], side="right"))
    kept_n = keep(start, stop)
    users, items = user_N[start:stop][kept_n], item_N[start:stop][kept_n].astype(np.int64)
    if len(users):
      pair = (users - users[0]).astype(np.int64) * (items.max() + 1) + items
      first = np.sort(np.unique(pair, return_index=True)[1])
      yield users[first], items[first]
    start = stop


def concatenated(histories: Histories, more: Histories, folder=None) -> Histories:
  """`histories` followed by `more`; `folder` as in `transposed`."""
  if not len(more):
    return histories
  count, start_H1 = int(histories.start_H1[-1]), more.start_H1[1:] + histories.start_H1[-1]
  other_N = _array(folder, "concatenated", count + int(more.start_H1[-1]))
  for at in range(0, count, CHUNK):
    other_N[at:min(at + CHUNK, count)] = histories.other_N[at:min(at + CHUNK, count)]
  other_N[count:] = more.other_N
  return Histories(np.concatenate([histories.start_H1, start_H1]), other_N)


def _chunks(histories: Histories):
  """Yields (rows of this side, rows of the other) of CHUNK interactions at a time."""
  start_H1, other_N = histories
  for at in range(0, len(other_N), CHUNK):
    stop = min(at + CHUNK, len(other_N))
    first, last = np.searchsorted(start_H1, [at, stop - 1], side="right")
    bounds = np.clip(start_H1[first - 1:last + 1], at, stop)
    yield np.repeat(np.arange(first, last + 1, dtype=np.int32), np.diff(bounds)), other_N[at:stop]


def _array(folder, name: str, size: int) -> np.ndarray:
  if folder is None or not size:
    return np.empty(size, np.int32)
  return np.memmap(pathlib.Path(folder) / f"{name}.int32", np.int32, "w+", shape=(int(size),))
