"""Tables of delimited text: CSV, which may quote, and TSV, which seldom does. No TensorFlow.

An unclosed quote mark would turn all following rows into one cell. So it is a UserError that names
the line or, in a file without quoting, an ordinary letter.
"""
import csv
import difflib
import itertools
import shlex
from collections.abc import Iterator

from ilm_jax import errors
from ilm_jax.tasks.datasets import lines

_LONGEST = 1 << 27               # letters of a quoted cell: in a longer one a mark is not closed
_WORDS = {",": "comma", "\t": "tab"}


def table(path, columns: list[str], delimiter: str = ",",
          encoding: str = lines.UTF_8) -> Iterator[tuple[int, list[str]]]:
  """(line number, values of `columns`) of a table whose first line names the columns, or of one
  without such a line where `columns` are numbers ("1": the first).

  Commas and other single letters: cells may be quoted; a quote mark that is not closed, or that
  swallowed whole rows, is a UserError. Tabs: quote marks are part of a cell, unless the first line
  begins with one; then all cells may be quoted. Longer delimiters ("::"): marks are part of a cell.
  """
  with lines.text(path, encoding) as file:
    first = next(file, "")
    quoted = len(delimiter) == 1 and (delimiter != "\t" or first.startswith('"'))
    rows = (_quoted if quoted else _tabbed)(path, itertools.chain([first], file), delimiter)
    top = next(rows, (1, []))
    if columns and all(name.isdecimal() for name in columns):
      header = [f"column {n}" for n in range(1, len(top[1]) + 1)]
      places = [_counted(path, header, int(name), delimiter) for name in columns]
      rows = itertools.chain([top] if top[1] else [], rows)
    else:
      header = [name.strip() for name in top[1]]
      places = [place(path, header, name) for name in columns]
    for number, row in rows:
      if len(row) != len(header):
        raise errors.UserError(f"{path}, line {number}: found {len(row)} fields, expected "
                               f"{len(header)}: {', '.join(header)}")
      yield number, [row[at] for at in places]


def _tabbed(path, file, delimiter: str) -> Iterator[tuple[int, list[str]]]:
  """(line number, cells) of a file without quoting."""
  del path
  for number, line in enumerate(file, 1):
    if line := line.rstrip("\r\n"):
      yield number, [_undoubled(cell) for cell in line.split(delimiter)]


def _undoubled(cell: str) -> str:
  """Unquotes a cell in which all inner quote marks are doubled, as a quoting writer does.

  "12"" pan" is 12" pan. All other marks stay: "Heroes" is the name of an album.
  """
  inner = cell[1:-1]
  if '""' in inner and cell[0] == cell[-1] == '"' and '"' not in inner.replace('""', ""):
    return inner.replace('""', '"')
  return cell


def _quoted(path, file, delimiter: str) -> Iterator[tuple[int, list[str]]]:
  """(line number where it begins, cells) of every row of a quoted file."""
  csv.field_size_limit(_LONGEST)
  taken = []                      # the lines of the row that is being read
  rows = csv.reader((taken.append(line) or line for line in file), delimiter=delimiter, strict=True)
  count = 0
  while True:
    taken.clear()
    number = rows.line_num + 1
    try:
      row = next(rows, None)
    except csv.Error as e:
      raise errors.UserError(
          f"{path}, line {number}: a quote mark that opens here is not closed before the next "
          f"{_WORDS.get(delimiter, repr(delimiter))} ({e}): quote the whole cell and double the "
          'marks in it ("12"" pan"), or save the table as .tsv') from e
    if row is None:
      return
    count = count or len(row)
    if len(taken) > 1 and all(line.count(delimiter) == count - 1 for line in taken):
      raise errors.UserError(
          f"{path}, line {number}: a quote mark opens a cell of {len(taken)} lines, each of which "
          f"could be a row of {count} cells: close or double the mark, or take the line breaks out")
    if row:
      yield number, row


def _counted(path, header: list[str], number: int, delimiter: str) -> int:
  """The place of the column with a number, from 1, or a UserError."""
  if number <= len(header):
    return number - 1
  raise errors.UserError(f"{path}, line 1 has {len(header)} cells separated by {delimiter!r}, "
                         f"expected at least {number}")


def place(path, header: list[str], name: str) -> int:
  """The place of the column `name`, or a UserError that lists the columns."""
  if name in header:
    return header.index(name)
  close = difflib.get_close_matches(name, header, 1)
  hint = f"; did you mean {close[0]!r}?" if close else ""
  other = next((d for d in ("::", ";", "\t", "|") if len(header) == 1 and d in header[0]), "")
  if other:
    hint = (f"; are its cells separated by {other!r}? Then --config.data.columns.delimiter="
            f"{shlex.quote(other)}, without a header also user=1, item=2 and so on")
  raise errors.UserError(f"{path} has no column {name!r}: it has {', '.join(header)}{hint}")
