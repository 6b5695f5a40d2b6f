"""Opens files and splits and parses lines, for all readers. Imports no TensorFlow.

A line that cannot be parsed is a UserError that names the file and the line.
"""
import array
import ast
import codecs
import contextlib
import dataclasses
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from etils import epath

from ilm_jax import errors, files
from ilm_jax.data import ids, interactions

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
UTF_8 = "utf-8-sig"               # drops the byte order mark that Windows programs write
_LONGEST = 1 << 24                # letters of a line
_MOST = 1 << 63                   # a number, whole or not, is smaller: arrays hold it
_SURROGATE = re.compile(r"\\[uU](0000)?[dD][89a-fA-F]")


@dataclasses.dataclass(frozen=True)
class Part:
  """The lines of a file that begin in [start, stop); readers can open it like the file.

  `header`: the first line of the file names the columns, and every part begins with it.
  """
  path: epath.Path
  start: int
  stop: int
  header: bool

  @property
  def name(self) -> str:
    return self.path.name

  def __str__(self) -> str:
    return f"{self.path} from byte {self.start:,}"

  def open(self, mode: str):
    """Like `open` of the file."""
    with self.path.open(mode) as file:
      first = file.readline() if self.header and self.start else b""
      file.seek(max(0, self.start - 1))
      if self.start:
        file.readline()                     # the rest of a line that began before
      lines = file.read(max(0, self.stop - file.tell()))
      if lines and not lines.endswith(b"\n"):
        lines += file.readline()
    return io.BytesIO(first + lines)


def parts(path, header: bool, size: int = 64 << 20) -> list[Part]:
  """A file that is not packed, as parts of about `size` bytes."""
  length = path.stat().length
  return [Part(path, start, min(start + size, length), header)
          for start in range(0, length, size)] or [Part(path, 0, 0, header)]


def packed(path) -> bool:
  """Whether a file must be unpacked: its name ends in .gz or .GZ."""
  return path.name.lower().endswith(".gz")


@contextlib.contextmanager
def text(path, encoding: str = UTF_8):
  """The lines of a file; a file that ends in .gz is unpacked. If the encoding is UTF-8, byte order
  marks of UTF-8 and UTF-16 are obeyed.

  Raises:
    UserError: the file is absent, cut short, no gzip, or in another encoding; a line is longer
      than `_LONGEST`; or it unpacks to far more than a table of its size can.
  """
  encoding = UTF_8 if codecs.lookup(encoding).name == "utf-8" else encoding
  try:
    with contextlib.ExitStack() as stack:
      file = stored = stack.enter_context(files.reading(path))
      if packed(path):
        file = stack.enter_context(gzip.GzipFile(fileobj=file))
      file = io.BufferedReader(file)
      if encoding == UTF_8 and file.peek(2)[:2] in _UTF_16:
        encoding = "utf-16"
      file = stack.enter_context(io.TextIOWrapper(file, encoding=encoding, newline=""))
      yield _bounded(path, file, stored if packed(path) else None)
  except FileNotFoundError as e:
    raise errors.UserError(f"{path} does not exist") from e
  except (UnicodeError, gzip.BadGzipFile, EOFError, zlib.error) as e:
    if isinstance(e, UnicodeError) and "BOM" in str(e):      # UTF-16 without its mark
      raise errors.UserError(f"{path} cannot be read ({e}): expected text in {encoding}; say which "
                             "it is, e.g. --config.data.columns.encoding=utf-16-le") from e
    name = "UTF-8" if encoding == UTF_8 else encoding
    kind = f"text in {name}{', packed by gzip' * packed(path)}"
    cure = ("fetch it again" if not isinstance(e, UnicodeError) else
            f"fetch it again, or convert it, e.g. by iconv -f ISO-8859-1 -t {name} (of a table of "
            "yours: or say which, e.g. --config.data.columns.encoding=latin-1)")
    raise errors.UserError(f"{path} cannot be read ({e}): expected {kind}; {cure}") from e


def _bounded(path, file, stored) -> Iterator[str]:
  """The lines of `file`; `stored`: the packed file, if any."""
  letters = 0
  while line := file.readline(_LONGEST):
    if len(line) == _LONGEST and line[-1] not in "\r\n":
      raise errors.UserError(f"{path} has a line of more than {_LONGEST:,} letters, expected a row "
                             "of a table a line: is it the right file?")
    letters += len(line)
    if stored is not None and letters > files.SMALL + files.UNPACKED * stored.tell():
      raise errors.UserError(f"{path} has more than {files.UNPACKED} times its size unpacked, as "
                             "no table of people has: fetch it again, or unpack it yourself")
    yield line


def separated(path, separator: str, fields: str, *, header: bool = False,
              encoding: str = UTF_8) -> Iterator[tuple[int, list[str]]]:
  """(line number, fields) of a file without quoting; empty lines are left out.

  Args:
    path: the file.
    separator: between fields, of any length.
    fields: what a line has, for the error: "user, item, rating, time".
    header: whether the first line names the columns.
    encoding: of the text.
  """
  count = fields.count(",") + 1
  with text(path, encoding) as file:
    for number, line in enumerate(file, 1):
      line = line.rstrip("\r\n")
      if not line or (header and number == 1):
        continue
      parts = line.split(separator)
      if len(parts) != count:
        raise errors.UserError(f"{path}, line {number}: found {len(parts)} fields, expected "
                               f"{fields}, separated by {separator!r}")
      yield number, parts


def objects(path, *, literals: bool = False) -> Iterator[tuple[int, dict]]:
  """(line number, object) of a file with one JSON object a line.

  Args:
    path: the file.
    literals: whether lines are Python's dict literals, as in Amazon's 2014 metadata.
  """
  parse, kind = (ast.literal_eval, "Python dict") if literals else (json.loads, "JSON object")
  with text(path) as file:
    for number, line in enumerate(file, 1):
      if not line.strip():
        continue
      try:
        value = parse(line.strip())
        value = _whole(value) if _SURROGATE.search(line) else value
      # A literal can also be {{1}}, whose parts have no hash, or a sum beyond complex numbers.
      except (ValueError, SyntaxError, TypeError, OverflowError, MemoryError, RecursionError) as e:
        raise errors.UserError(f"{path}, line {number} is no {kind}: {e}") from e
      if not isinstance(value, dict):
        raise errors.UserError(f"{path}, line {number} is no {kind} but {type(value).__name__}")
      yield number, value


def _whole(value):
  """`value` with U+FFFD in place of each lone surrogate, which UTF-8 cannot encode."""
  if isinstance(value, str):
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
  if isinstance(value, list | tuple):
    return [_whole(part) for part in value]
  return {key: _whole(part) for key, part in value.items()} if isinstance(value, dict) else value


def field(path, number: int, fields: dict, *names: str):
  """The first of the fields `names` that the object has, or a UserError."""
  for name in names:
    if fields.get(name) not in (None, ""):
      return fields[name]
  had = ", ".join(name if isinstance(name, str) else errors.shown(name) for name in fields)
  raise errors.UserError(f"{path}, line {number} has no {' or '.join(names)}: it has {had}")


def number_of(path, number: int, name: str, raw, kind=float, most: int = _MOST):
  """`raw` as a number whose size is below `most`, or a UserError."""
  try:
    if isinstance(raw, bool):
      raise TypeError
    value = kind(raw)
    if not abs(value) < most:
      raise ValueError
    return value
  except (ValueError, TypeError, OverflowError) as e:
    raise errors.UserError(f"{path}, line {number}: {name} is {errors.shown(raw)}, "
                           "expected a number") from e


def items(path, rows) -> interactions.Items:
  """Items from rows of (id, title, year, genres), or a UserError if there is none."""
  if not (columns := [list(column) for column in zip(*rows)]):
    raise errors.UserError(f"{path} describes no item")
  return interactions.Items(*columns)


class Events(NamedTuple):
  """N events of a log; `user_ids[i]`, `item_ids[i]` and so on belong to the same event."""
  user_ids: ids.Ids
  item_ids: ids.Ids
  time_N: np.ndarray | None      # int64, seconds; None: the log has no times
  value_N: np.ndarray            # float64, e.g. a rating


class Log:
  """Collects events, in at most 28 bytes each.

  Args:
    timed: whether events have times.
    per_second: units of the times per second, at most 10^9. Fractions of a second decide the order,
      in which equal times stay as they came, and are then dropped. 0: times are whole seconds, and
      the order of the file is kept.
  """

  def __init__(self, timed: bool = True, per_second: int = 0):
    self._users, self._items, self._values = ids.Collector(), ids.Collector(), array.array("d")
    self._seconds = array.array("q") if timed else None
    self._per_second, self._fractions = per_second, array.array("i")

  def __len__(self) -> int:
    return len(self._values)

  def add(self, user: str, item: str, time: int | None, value: float) -> None:
    """One event; the time of a log without times is left out."""
    self._users.add(user)
    self._items.add(item)
    self._values.append(value)
    if self._seconds is None:
      return
    if self._per_second:
      time, fraction = divmod(time, self._per_second)
      self._fractions.append(fraction)
    self._seconds.append(time)

  def done(self, path) -> Events:
    """All events. Nothing can be added afterwards.

    Raises:
      UserError: there are none, and `path` is no `Part`, which may have none.
    """
    if not len(self) and not isinstance(path, Part):
      raise errors.UserError(f"{path} holds no interaction")
    users, items, value_N = self._users.done(), self._items.done(), np.frombuffer(self._values)
    if self._seconds is None:
      return Events(users, items, None, value_N)
    second_N = np.frombuffer(self._seconds, np.int64)
    if not self._per_second:
      return Events(users, items, second_N, value_N)
    order_N = np.lexsort((np.frombuffer(self._fractions, np.int32), second_N))
    return Events(users.take(order_N), items.take(order_N), second_N[order_N], value_N[order_N])
