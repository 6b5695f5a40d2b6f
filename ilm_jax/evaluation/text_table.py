"""Prints a table to the terminal; a table wider than the terminal is printed in several parts."""
import os
import sys
from collections.abc import Sequence

from rich import cells, console
from rich import table as rich_table

FILE = 80           # width in characters where there is no terminal
_BORDER = 3         # characters that a column of a table takes besides its text
_LABEL = 12         # least width of the first column, whose words are wrapped


def columns_of_terminal() -> int:
  """Width of the terminal in characters; 0: there is no terminal.

  $COLUMNS wins. With `| cat` stdout is no terminal, but stderr or stdin still is.
  """
  if os.environ.get("COLUMNS", "").isdecimal():
    return int(os.environ["COLUMNS"])
  for stream in (sys.__stdout__, sys.__stderr__, sys.__stdin__):
    try:
      return os.get_terminal_size(stream.fileno()).columns
    except (AttributeError, ValueError, OSError):      # closed, or none
      continue
  return 0


def parts(sizes: Sequence[int], room: int) -> list[list[int]]:
  """Splits a table into parts that fit the terminal; every part repeats the first column.

  >>> parts([30, 8, 8, 8], 40)
  [[1, 2], [3]]

  Args:
    sizes: characters that each column of the table needs, the first column included.
    room: width of the terminal in characters.

  Returns:
    For each part the indices of its columns, without the first (0).
  """
  left = room - 1 - _BORDER - min(sizes[0], max(_LABEL, room // 3))
  out, free = [], 0
  for column, size in enumerate(sizes[1:], 1):
    if not out or size + _BORDER > free:
      out.append([])
      free = left
    out[-1].append(column)
    free -= size + _BORDER
  return out


def show(title: str, header: Sequence[str], rows: Sequence[Sequence[str]],
         note: str | None = None) -> None:
  """Prints a table; numbers are never cut, however narrow the terminal is.

  Args:
    title: the line above the table.
    header: one text per column; the first column names the rows.
    rows: one text per column, of one line or several.
    note: the text under the table; None: no text.
  """
  room = columns_of_terminal() or FILE
  # Titles, headers and names hold text from the user's data: "[..]" in them is not markup.
  out = console.Console(width=room, markup=False, emoji=False)
  pieces = [[*header[c].split(), *(line for row in rows for line in row[c].splitlines())]
            for c in range(len(header))]
  sizes = [max(map(cells.cell_len, piece), default=0) for piece in pieces]
  shown = parts(sizes, room) or [[]]
  for i, columns in enumerate(shown):
    of = f" ({i + 1} of {len(shown)})" if len(shown) > 1 else ""
    table = rich_table.Table(
        title=f"{title}{of}", caption=note if i == len(shown) - 1 else None, title_justify="left",
        caption_justify="left")
    table.add_column(header[0], overflow="fold")
    for c in columns:
      table.add_column(header[c], justify="right", min_width=sizes[c], overflow="fold")
    for row in rows:
      table.add_row(row[0], *(row[c] for c in columns))
    out.print(table)
