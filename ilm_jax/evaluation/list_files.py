"""Lists of recommendations as a file: one row for each user and place, written piece by piece.

The columns are user, rank, item (ids as in the data; rank from 1), title and score. In CSV a cell
of text that begins with = + - @, in letters of either width, or a tab or a line break gets an
apostrophe in front: spreadsheets would run it as a formula. Parquet holds the text as it is. Lists
of an item's neighbours have the item in place of the user.
"""
import contextlib
import csv
import io
import json
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from ilm_jax import errors, files

SUFFIXES = (".csv", ".parquet")
_FORMULA = (*"=+-@\t\n", *"\uff1d\uff0b\uff0d\uff20")


class Row(NamedTuple):
  """One place of a user's list."""
  user: str
  rank: int
  item: str
  title: str
  score: float


def check(path: str) -> None:
  """Raises a UserError if lists cannot be written to `path`: before any work."""
  suffix = pathlib.PurePath(path).suffix.lower()
  if suffix not in SUFFIXES:
    raise errors.UserError(f"--out={path}: expected a name that ends in {' or '.join(SUFFIXES)}")
  if "://" not in path and pathlib.Path(path).is_dir():
    raise errors.UserError(f"--out={path} is a folder, expected a file: name one in it, e.g. "
                           f"--out={path}/lists{suffix}")
  if suffix == ".parquet":
    try:
      import pyarrow  # noqa: F401
    except ImportError as e:
      raise errors.UserError(f"--out={path}: writing Parquet needs pyarrow: pip install pyarrow, "
                             "or name a .csv file") from e


def claim(folder: pathlib.Path, made_from: dict, of: str, write: bool) -> None:
  """Says in a folder what its parts are made from, or refuses those of something else.

  Args:
    folder: of Parquet files.
    made_from: plain data.
    of: what the files hold, e.g. "neighbours".
    write: whether to say so, where nothing is said yet; of several processes one does.

  Raises:
    UserError: the folder holds other files, or parts made from something else.
  """
  path = folder / "made_from.json"
  if not path.exists():
    if folder.is_dir() and any(folder.glob("*.parquet")):
      raise errors.UserError(f"--out={folder}/ holds Parquet files that are no {of}: name another "
                             "folder")
    if write:
      files.write_text(path, json.dumps(made_from, indent=1))
  elif (was := files.read_json(path, f"name another folder, or delete {folder}")) != made_from:
    was = was if isinstance(was, dict) else {}
    what = [name for name in made_from if was.get(name) != made_from[name]] or ["fields"]
    raise errors.UserError(f"--out={folder}/ holds {of} by other settings ({', '.join(what)}): "
                           "name another folder, or delete it")


def parts(folder: pathlib.Path, count: int, size: int) -> list[tuple[pathlib.Path, range]]:
  """(file, the numbers below `count` that it is of) of all parts of a folder, in order."""
  digits = len(str(-(-count // size)))
  return [(folder / f"part-{number:0{digits}}.parquet", range(first, min(first + size, count)))
          for number, first in enumerate(range(0, count, size))]


@contextlib.contextmanager
def writing(path: str, columns: Sequence[str] = Row._fields
            ) -> Iterator[Callable[[list[Row]], None]]:
  """A function that appends rows to the file, which is there whole when the block ends, else not.

  Args:
    path: that `check` let pass.
    columns: names of the five columns.

  Raises:
    UserError: the file cannot be made, or the disk is full.
  """
  with _room(path), contextlib.ExitStack() as stack:
    try:
      file = stack.enter_context(files.writing(path))
    except OSError as e:
      raise errors.UserError(f"--out={path} cannot be written ({e.strerror or e}): name a file in "
                             "a folder that you may write in") from e
    make = _csv if path.lower().endswith(".csv") else _parquet
    yield stack.enter_context(make(file, columns))


@contextlib.contextmanager
def _room(path: str):
  try:
    yield
  except OSError as e:
    if e.errno in files.FULL_DISK:
      raise errors.UserError(f"--out={path}: no room to write it ({e.strerror}): free some space, "
                             "or name a file elsewhere") from e
    raise


@contextlib.contextmanager
def _csv(file, columns):
  text = io.TextIOWrapper(file, "utf-8", newline="", write_through=True)
  try:
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns)
    yield lambda rows: table.writerows(
        (_cell(r.user), r.rank, _cell(r.item), _cell(r.title), f"{r.score:.6g}") for r in rows)
  finally:
    text.detach()


def _cell(text: str) -> str:
  text = text.replace("\r", " ")       # which the writer leaves bare, as the end of a row
  return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) else text


@contextlib.contextmanager
def _parquet(file, columns):
  import pyarrow
  from pyarrow import parquet
  kinds = (pyarrow.string(), pyarrow.int32(), pyarrow.string(), pyarrow.string(),
           pyarrow.float32())
  schema = pyarrow.schema(list(zip(columns, kinds)))
  with parquet.ParquetWriter(file, schema) as table:
    yield lambda rows: table.write_table(pyarrow.table(
        [list(column) for column in zip(*rows)] or [[]] * len(schema), schema=schema))
