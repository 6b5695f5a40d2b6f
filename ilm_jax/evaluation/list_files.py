"""Writes lists of recommendations to a CSV or Parquet file: one row per user and rank.

The columns are user, rank, item (ids as in the data; rank from 1), title and score. In CSV a text
cell gets an apostrophe in front if it begins with = + - @ (half-width or full-width), a tab or a
line break: spreadsheets would run it as a formula. Parquet holds the text unchanged. Lists of an
item's neighbours have the item in place of the user.
"""
import contextlib
import csv
import io
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from ilm_jax import errors, files

SUFFIXES = (".csv", ".parquet")
_FORMULA = (*"=+-@\t\n", *"\uff1d\uff0b\uff0d\uff20")


class Row(NamedTuple):
  """One recommendation in a user's list."""
  user: str
  rank: int
  item: str
  title: str
  score: float


def check(path: str) -> None:
  """Raises a UserError if lists cannot be written to `path`; call it before any work."""
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


@contextlib.contextmanager
def writing(path: str, columns: Sequence[str] = Row._fields
            ) -> Iterator[Callable[[list[Row]], None]]:
  """Yields a function that appends rows; the complete file appears when the block ends.

  After an exception in the block there is no new file.

  Args:
    path: a path that passed `check`.
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
  text = text.replace("\r", " ")       # csv.writer does not quote it: readers see a new row
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
