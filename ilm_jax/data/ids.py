"""Raw ids of the events of a log: four bytes an event, and each distinct id once."""
import array
from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np


class Ids(Sequence[str]):
  """The raw id of each event, like a list of str.

  names: list[str], the distinct ids; every one occurs.
  code_N: int32, each event's index into `names`.
  """

  def __init__(self, names: list[str], code_N: np.ndarray):
    self.names, self.code_N = names, code_N

  @classmethod
  def of(cls, raw_ids: Iterable[str]) -> "Ids":
    """`raw_ids` themselves if they are `Ids`, else the same ids in this form."""
    if isinstance(raw_ids, cls):
      return raw_ids
    collected = Collector()
    for raw in raw_ids:
      collected.add(raw)
    return collected.done()

  def __len__(self) -> int:
    return len(self.code_N)

  @overload
  def __getitem__(self, at: int) -> str: ...

  @overload
  def __getitem__(self, at: slice | np.ndarray) -> list[str]: ...

  def __getitem__(self, at):
    """The id of an event; with a slice or an array of indices, the list of their ids."""
    if isinstance(at, slice | np.ndarray):
      return [self.names[code] for code in self.code_N[at].tolist()]
    return self.names[self.code_N[at]]

  def __eq__(self, other) -> bool:
    """Whether `other` is a sequence of the same ids in the same order."""
    if not isinstance(other, Sequence):
      return NotImplemented
    return len(self) == len(other) and all(a == b for a, b in zip(self, other))

  def take(self, order_N: np.ndarray) -> "Ids":
    """The events in another order; `order_N` has each index once."""
    return Ids(self.names, self.code_N[order_N])

  def followed_by(self, more: Iterable[str]) -> "Ids":
    """These events and then one for each id of `more`."""
    number_of = {raw: code for code, raw in enumerate(self.names)}
    codes = [number_of.setdefault(raw, len(number_of)) for raw in more]
    return Ids(list(number_of), np.concatenate([self.code_N, np.array(codes, np.int32)]))


class Collector:
  """Collects the ids of events, one by one."""

  def __init__(self) -> None:
    self._number_of: dict[str, int] = {}
    self._codes = array.array("i")

  def add(self, raw) -> None:
    """The id of one more event, as text."""
    raw = str(raw)
    self._codes.append(self._number_of.setdefault(raw, len(self._number_of)))

  def done(self) -> Ids:
    """All ids. Nothing can be added afterwards."""
    return Ids(list(self._number_of), np.frombuffer(self._codes, np.int32))
