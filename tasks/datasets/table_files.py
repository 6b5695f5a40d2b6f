"""Reads interactions and items of your own: CSV, TSV, JSON lines or Parquet. No TensorFlow.

What stands where is `config.data.columns` (configs/base.py, docs/bring_your_data.md). A CSV or TSV
has a header and may quote; .gz is unpacked. Ids are text: 7, "7" and 7.0 are the same id.
"""
import datetime
from collections.abc import Iterator

from ilm_jax import errors
from ilm_jax.data import interactions
from tasks.datasets import lines

_PER_SECOND = {"s": 1, "ms": 1000}


def read_log(paths: dict, columns):
  """(user_ids, item_ids, times, values).

  Args:
    paths: the file of interactions first.
    columns: user, item, time, time_unit, value; see configs/base.py.

  Returns:
    Events in the order of time where there is one (equal times as in the file), else in the order
    of the file, and times None.
  """
  path = next(iter(paths.values()))
  log = lines.Log(timed=bool(columns.time))
  unit = _PER_SECOND[columns.time_unit]
  for number, (user, item, time, value) in _rows(
      path, [columns.user, columns.item, columns.time, columns.value]):
    log.add(_id(path, number, columns.user, user), _id(path, number, columns.item, item),
            _time(path, number, columns.time, time, unit) if columns.time else None,
            lines.number_of(path, number, columns.value, value) if columns.value else 1.0)
  return log.done(path, per_second=unit)


def read_items(paths: dict, columns) -> interactions.Items:
  """All items of the items file, last in `paths`.

  Args:
    paths: files.
    columns: items_file, id, title, year, genres, separator. Without items_file, the items of the
      log, without words.
  """
  if not columns.items_file:
    ids = sorted(set(read_log(paths, columns)[1]))
    return lines.items(next(iter(paths.values())), [(raw_id, "", None, []) for raw_id in ids])
  path, found = list(paths.values())[-1], {}
  for number, (raw, title, year, genres) in _rows(
      path, [columns.id, columns.title, columns.year, columns.genres]):
    raw_id = _id(path, number, columns.id, raw)
    if raw_id in found:
      raise errors.UserError(f"{path}, line {number}: item {raw_id!r} stands in the file twice")
    found[raw_id] = (raw_id, " ".join(_word(title).split()),
                     _year(path, number, columns.year, year), _genres(genres, columns.separator))
  return lines.items(path, found.values())


def _rows(path, columns: list[str]) -> Iterator[tuple[int, list]]:
  """(line number, values) of the columns; None for one without a name."""
  named = [name for name in columns if name]
  kind = path.name.removesuffix(".gz").rpartition(".")[2].lower()
  if kind == "parquet":
    rows = _parquet(path, named)
  elif kind == "jsonl":
    rows = _jsonl(path, named)
  else:
    rows = lines.table(path, named, "\t" if kind == "tsv" else ",")
  at = [named.index(name) if name else None for name in columns]
  for number, values in rows:
    yield number, [None if i is None else values[i] for i in at]


def _jsonl(path, names: list[str]):
  """An object may leave out what is not known, but no column is missing from the first."""
  for count, (number, found) in enumerate(lines.objects(path)):
    if not count:
      for name in names:
        lines.place(path, list(found), name)
    yield number, [found.get(name) for name in names]


def _parquet(path, names: list[str]):
  try:
    import pyarrow
    from pyarrow import parquet
  except ImportError as e:
    raise errors.UserError(f"{path}: reading Parquet needs pyarrow: pip install pyarrow") from e
  try:
    with path.open("rb") as file:
      found = parquet.ParquetFile(file)
      for name in names:
        lines.place(path, found.schema_arrow.names, name)
      number = 0
      for batch in found.iter_batches(columns=names):
        columns = batch.to_pydict()
        for values in zip(*(columns[name] for name in names)):
          number += 1
          yield number, list(values)
  except FileNotFoundError as e:
    raise errors.UserError(f"{path} does not exist") from e
  except pyarrow.ArrowException as e:
    raise errors.UserError(f"{path} cannot be read as Parquet: {e}") from e


def _word(value) -> str:
  """Text of a cell; "" for nothing. Whole floats, as tables with gaps have them, lose their .0."""
  if value is None or value != value:
    return ""
  return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def _id(path, number: int, name: str, value) -> str:
  if not (word := _word(value)):
    raise errors.UserError(f"{path}, line {number}: {name} is empty")
  whole = word.removesuffix(".0")
  return whole if whole.isdecimal() else word


def _time(path, number: int, name: str, value, unit: int) -> float:
  """In units: a number as it is; a date, or ISO 8601, of UTC if it does not say of where."""
  if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
    value = datetime.datetime(value.year, value.month, value.day)
  if isinstance(value, str) and not value.strip().lstrip("-").replace(".", "", 1).isdecimal():
    try:
      value = datetime.datetime.fromisoformat(value.strip())
    except ValueError as e:
      raise errors.UserError(f"{path}, line {number}: {name} is {value!r}, expected a number or "
                             "ISO 8601, e.g. '2024-05-01T12:00:00Z'") from e
  if isinstance(value, datetime.datetime):
    value = value if value.tzinfo else value.replace(tzinfo=datetime.UTC)
    return value.timestamp() * unit
  return lines.number_of(path, number, name, value)


def _year(path, number: int, name: str, value) -> int | None:
  word = _word(value).removesuffix(".0")
  return lines.number_of(path, number, name, word, int) if word else None


def _genres(value, separator: str) -> list[str]:
  """A list as it is; text cut at the separator."""
  words = value if isinstance(value, list | tuple) else _word(value).split(separator or None)
  return [word for raw in words if (word := _word(raw))]
