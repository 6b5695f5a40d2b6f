"""A table on the terminal, in parts side by side where it is wider than that."""
import os
import sys
from collections.abc import Sequence

from rich import cells, console
from rich import table as rich_table

FILE = 80           # columns where no terminal is
_BORDER = 3         # columns that one column of a table takes beside its text
_LABEL = 12         # the first column gets so many at least: its words are wrapped


def columns_of_terminal() -> int:
  """Columns of the terminal that somebody looks at; 0: there is none.

  $COLUMNS has the first word. After `| cat` stdout is no terminal, but stderr or stdin still is.
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
  """Columns that fit side by side behind the first, which each part repeats.

  >>> parts([30, 8, 8, 8], 40)
  [[1, 2], [3]]

  Args:
    sizes: columns of text that each column of the table needs, the first one's included.
    room: columns of the terminal.
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
  """Prints a table; no number is cut, whatever the terminal.

  Args:
    title: above it.
    header: a text a column; the first column names the rows.
    rows: a text a column, of one line or several.
    note: under it; None: nothing.
  """
  room = columns_of_terminal() or FILE
  # Titles, columns and names hold words of a user's: "[..]" in them is no markup.
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
