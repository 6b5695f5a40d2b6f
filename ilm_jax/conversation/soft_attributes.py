"""SoftAttributes (Balog et al., SIGIR 2021; CC BY 4.0): raters order films by an attribute.

Each row has a rater, an attribute and a reference film, and says which films have less of the
attribute, about as much, and more.
"""
import csv
import io
import itertools
import re
from typing import NamedTuple

from ilm_jax import errors, files
from ilm_jax.conversation import titles as titles_lib

COLUMNS = ("rater_id", "reference_title", "soft_attribute", "less_than", "about_as", "more_than")
_LESS, _ABOUT, _MORE = COLUMNS[3:]
_ARTICLE_LAST = re.compile(r"^(.+), (\w+)$")
_BRACKETS = re.compile(r"(?<!\s)\s*\(([^()]*)\)")


class Sorting(NamedTuple):
  """One rater's groups of item rows for one attribute, from less to more of it.

  The reference is in the middle group. Films that are not in the catalogue are left out.
  """
  rater: str
  attribute: str
  groups: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


def read(path, titles: titles_lib.Titles) -> tuple[list[Sorting], list[str]]:
  """(the rows of soft-attributes.csv, titles that are not in the catalogue).

  Args:
    path: the file.
    titles: the catalogue.

  Raises:
    UserError: a column is missing, or a cell is no list of titles; with file and line.
  """
  text = files.text(path)
  csv.field_size_limit(max(csv.field_size_limit(), len(text)))     # else a long cell is csv.Error
  with io.StringIO(text, newline="") as file:
    rows = csv.DictReader(file)
    if lacking := [name for name in COLUMNS if name not in (rows.fieldnames or ())]:
      raise errors.UserError(f"{path} lacks the column {lacking[0]!r}, expected "
                             f"{', '.join(COLUMNS)}")
    sortings, absent, row_of = [], {}, {}
    for cells in rows:
      where = f"{path}, line {rows.line_num}"
      if short := [name for name in COLUMNS if cells[name] is None]:
        raise errors.UserError(f"{where} ends before {short[0]!r}, expected {', '.join(COLUMNS)}")
      named = [_names(cells[column], f"{where}: {column}") for column in (_LESS, _ABOUT, _MORE)]
      named[1].append(cells["reference_title"])
      for name in itertools.chain(*named):
        if name not in row_of:
          row_of[name] = _row(name, titles)
          if not row_of[name]:
            absent[name] = None
      less, about, more = (tuple(dict.fromkeys(row_of[name] for name in group if row_of[name]))
                           for group in named)
      sortings.append(Sorting(cells["rater_id"], cells["soft_attribute"], (less, about, more)))
  return sortings, list(absent)


def _names(cell: str, where: str) -> list[str]:
  try:
    names = files.parse_json(cell) if cell.strip() else []
  except ValueError:
    names = None
  if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
    shown = str(cell)
    raise errors.UserError(f"{where} is {shown if len(shown) <= 60 else shown[:57] + '...'}, "
                           'expected a list of titles, e.g. ["Heat (1995)"]')
  return names


def _row(name: str, titles: titles_lib.Titles) -> int:
  """The item row of a title, 0: none. Tries the title as it is, without brackets (one has broken
  letters), the words in brackets, and each with the article in front."""
  title, year = titles_lib.split(name)
  other = [_BRACKETS.sub("", title), *(re.sub(r"^a\.k\.a\. ", "", inner)
                                       for inner in _BRACKETS.findall(title))]
  with_year = f" ({year})" if year else ""
  tried = [each + with_year for one in (title, *other)
           for each in (one, _ARTICLE_LAST.sub(r"\2 \1", one))]
  return next(filter(None, map(titles.row, tried)), 0)
