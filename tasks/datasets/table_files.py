"""Reads your own interactions and items: CSV, TSV, JSON lines or Parquet. No TensorFlow.

`config.data.columns` names the columns (configs/base.py, docs/reference/data_fields.md). Text files
have a header, or their columns are named by numbers; .gz is unpacked. Ids are text: 7, "7" and 7.0
are the same id (`cells`).
"""
from collections.abc import Iterator

from ilm_jax import errors
from ilm_jax.config import names
from ilm_jax.data import interactions
from ilm_jax.tasks.datasets import cells, delimited, lines

_FEW, _PER_BYTE = 1_000_000, 2     # cells of Parquet that are read, and further ones for each byte
_TOGETHER = 1 << 14                # rows of Parquet that are unpacked at a time


def read_log(paths: dict, columns):
  """(user_ids, item_ids, times, values).

  Args:
    paths: the file of interactions first.
    columns: user, item, time, time_unit, value; see configs/base.py.

  Returns:
    Events in the order of time (equal times as in the file); without a time column, in the order of
    the file, with times None.
  """
  path = next(iter(paths.values()))
  log = lines.Log(timed=bool(columns.time), per_second=cells.PER_SECOND["ns"])
  wanted = [columns.user, columns.item, columns.time, columns.value]
  for number, (user, item, time, value) in _rows(path, wanted, wanted, columns,
                                                 columns.delimiter):
    if columns.time:
      time = cells.nanoseconds(path, number, columns.time, time, columns.time_unit,
                               first=not len(log))
    log.add(cells.identity(path, number, columns.user, user),
            cells.identity(path, number, columns.item, item), time,
            lines.number_of(path, number, columns.value, value) if columns.value else 1.0)
  return log.done(path)


def read_items(paths: dict, columns) -> interactions.Items:
  """All items of the items file, last in `paths`.

  Args:
    paths: files.
    columns: items_file, id, title, year, genres, separator. Without items_file, the items of the
      log, without words.
  """
  if not columns.items_file:
    raw_ids = sorted(read_log(paths, columns).item_ids.names)
    return lines.items(next(iter(paths.values())), [(raw_id, "", None, []) for raw_id in raw_ids])
  path, items = list(paths.values())[-1], {}
  for number, (raw, title, year, genres) in _rows(
      path, [columns.id, columns.title, columns.year, columns.genres], [columns.id], columns,
      columns.items_delimiter or columns.delimiter):
    raw_id = cells.identity(path, number, columns.id, raw)
    if raw_id in items:
      raise errors.UserError(f"{path}, line {number}: item {raw_id!r} is in the file twice")
    items[raw_id] = (raw_id, " ".join(cells.word(path, number, columns.title, title).split()),
                     cells.year(path, number, columns.year, year),
                     cells.words(path, number, columns.genres, genres, columns.separator))
  return lines.items(path, items.values())


def _rows(path, columns: list[str], needed: list[str], settings,
          delimiter: str) -> Iterator[tuple[int, list]]:
  """(line number, values) of the columns; None for one without a name. `settings`: data.columns."""
  named = [name for name in columns if name]
  kind = path.name.lower().removesuffix(".gz").rpartition(".")[2]
  if kind == "parquet":
    rows = _parquet(path, named)
  elif kind == "jsonl":
    rows = _jsonl(path, named, {name for name in needed if name})
  else:
    rows = delimited.table(path, named, delimiter or names.DELIMITED[f".{kind}"],
                           settings.encoding)
  at = [named.index(name) if name else None for name in columns]
  for number, values in rows:
    yield number, [None if i is None else values[i] for i in at]


def _jsonl(path, names: list[str], needed: set[str]):
  """An object may lack a column, but a column that all objects lack is a UserError."""
  absent, keys = dict.fromkeys(names), {}
  for count, (number, fields) in enumerate(lines.objects(path)):
    if absent:
      keys.update(dict.fromkeys(fields))
      absent = {name: None for name in absent if name not in fields}
    for name in absent if not count else ():
      if name in needed:
        delimited.place(f"{path}, line {number},", list(fields), name)
    yield number, [fields.get(name) for name in names]
  for name in absent:
    delimited.place(path, list(keys), name)


def _parquet(path, names: list[str]):
  try:
    from pyarrow import parquet
  except ImportError as e:
    raise errors.UserError(f"{path}: reading Parquet needs pyarrow: pip install pyarrow") from e
  try:
    with path.open("rb") as file:
      table = parquet.ParquetFile(file)
      for name in names:
        delimited.place(path, table.schema_arrow.names, name)
      _check_cells(path, table, names)
      table = parquet.ParquetFile(file, metadata=table.metadata,      # equal texts are kept once
                                  read_dictionary=_texts(table.metadata, names))
      number = 0
      for batch in table.iter_batches(_TOGETHER, columns=names):
        for values in zip(*(_listed(batch.column(name)) for name in names)):
          number += 1
          yield number, list(values)
  except FileNotFoundError as e:
    raise errors.UserError(f"{path} does not exist") from e
  except errors.UserError:
    raise
  except Exception as e:    # of a damaged file: pyarrow's own, Python's, or that of a codec
    raise errors.UserError(f"{path} cannot be read as Parquet ({type(e).__name__}: "
                           f"{str(e)[:200]}): write it again") from e


def _check_cells(path, table, names: list[str]) -> None:
  """Raises a UserError for far more cells than a file of that size can hold, unless nearly all are
  equal. Logs of people take two bytes and more a row, and few of them are so long."""
  data = table.metadata
  columns = [at for at in range(data.num_columns)
             if data.schema.column(at).path.split(".")[0] in names]
  count = sum(data.row_group(group).column(at).num_values
               for group in range(data.num_row_groups) for at in columns)
  if (many := max(count, data.num_rows * len(names))) > (
      most := _FEW + _PER_BYTE * path.stat().length):
    raise errors.UserError(f"{path} has {many:,} cells in {path.stat().length:,} bytes, expected "
                           f"{most:,} at most, as logs of people have: check it, or write it as "
                           "CSV")


def _texts(metadata, names: list[str]) -> list[str]:
  """The columns of text, or of bytes without a meaning, that are not inside lists."""
  columns = map(metadata.schema.column, range(metadata.num_columns))
  return [column.path for column in columns
          if column.path in names and column.physical_type == "BYTE_ARRAY"
          and column.logical_type.type in ("STRING", "NONE")]


def _listed(column) -> list:
  """A column of Parquet as Python values. Timestamps keep all their digits."""
  from pyarrow import types
  if types.is_dictionary(column.type):
    used = column.indices.unique()
    known = dict(zip(used.to_pylist(), _listed(column.dictionary.take(used))))
    return [known[at] for at in column.indices.to_pylist()]
  if not types.is_timestamp(column.type):
    return column.to_pylist()
  scale = cells.PER_SECOND["ns"] // cells.PER_SECOND[column.type.unit]
  return [None if time is None else cells.Nanoseconds(time * scale)
          for time in column.cast("int64").to_pylist()]
