"""The arrays that a phase trains and those that it only reads: placement and memory."""
import dataclasses
import math

import jax
import tqdm
from rich import console as rich_console
from rich import table as rich_table

from ilm_jax import files
from ilm_jax.runtime import axes

_WIDTH = 80      # columns of a table in a log, if it fits
_SHOWN = 40      # rows on a terminal or in a log; the file has all


@dataclasses.dataclass(frozen=True)
class Row:
  """One array, or several whose paths begin alike."""
  group: str              # "trained" or "frozen"
  path: str
  shape: str
  dtype: str
  placement: str          # mesh axes of each axis, e.g. "-, fsdp, tensor"; "" on one device
  size: int               # elements
  bytes: int              # in all
  on_device: int          # bytes on one device


def rows(trained, frozen) -> list[Row]:
  """One row per array, trained arrays first.

  Args:
    trained: tree of arrays.
    frozen: likewise.
  """
  return [_row(group, axes.path_name(path), x)
          for group, tree in (("trained", trained), ("frozen", frozen))
          for path, x in jax.tree_util.tree_leaves_with_path(tree)]


def report(arrays: list[Row], path, name: str) -> None:
  """Writes all rows to `path`, and prints the table, shortened where it is long."""
  files.write_text(path, to_text(arrays))
  shown = arrays if len(arrays) <= _SHOWN else folded(arrays)
  note = "" if shown is arrays else f"; every array is in {path}"
  title = f"{name}: {totals(arrays)}{note}"
  # A path may contain rich's markup: print it as it is.
  out = rich_console.Console(markup=False, emoji=False, highlight=False)
  if not out.is_terminal:
    print(title, *_lines(shown), sep="\n", flush=True)
    return
  table = rich_table.Table()
  for i, column in enumerate(_COLUMNS):
    table.add_column(column, justify="right" if i >= 5 else "left")
  for row in shown:
    table.add_row(*_cells(row))
  with tqdm.tqdm.external_write_mode():
    out.print(title, table, sep="\n", soft_wrap=True)    # a table's title would break the path


def totals(arrays: list[Row]) -> str:
  """'trained 1,234 numbers in 4.9 KiB, frozen ...; 5.1 MiB on each device'."""
  parts = []
  for group in ("trained", "frozen"):
    of_group = [r for r in arrays if r.group == group]
    parts.append(f"{group} {sum(r.size for r in of_group):,} numbers in "
                 f"{amount(sum(r.bytes for r in of_group))}")
  return f"{', '.join(parts)}; {amount(sum(r.on_device for r in arrays))} on each device"


def folded(arrays: list[Row]) -> list[Row]:
  """Arrays whose paths share their first two parts become one row."""
  groups = {}
  for row in arrays:
    groups.setdefault((row.group, "/".join(row.path.split("/")[:2])), []).append(row)
  return [part[0] if len(part) == 1 else Row(
      group, f"{start}/..", f"{len(part)} arrays", ", ".join(sorted({r.dtype for r in part})), "",
      sum(r.size for r in part), sum(r.bytes for r in part), sum(r.on_device for r in part))
          for (group, start), part in groups.items()]


def to_text(arrays: list[Row]) -> str:
  """Aligned columns, and a last line with the totals."""
  return "\n".join([*_lines(arrays), totals(arrays), ""])


def _lines(arrays: list[Row]) -> list[str]:
  cells = [_COLUMNS, *map(_cells, arrays)]
  widths = [max(len(row[i]) for row in cells) for i in range(len(_COLUMNS))]
  gap = "  " if sum(widths) + 2 * (len(widths) - 1) <= _WIDTH else " "
  return [gap.join(c.rjust(w) if i >= 5 else c.ljust(w)
                   for i, (c, w) in enumerate(zip(row, widths))).rstrip() for row in cells]


def amount(size: float) -> str:
  """'1.5 MiB'."""
  power = next((n for n in range(4) if size < 1024 ** (n + 1)), 4)
  return f"{size / 1024 ** power:.{1 if power else 0}f} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"


_COLUMNS = ("", "array", "shape", "dtype", "placement", "bytes", "each device")


def _cells(row: Row) -> tuple[str, ...]:
  return (row.group, row.path, row.shape, row.dtype, row.placement, amount(row.bytes),
          amount(row.on_device))


def _row(group: str, path: str, x) -> Row:
  width = x.dtype.itemsize
  spec = getattr(x.sharding, "spec", ())
  placement = ", ".join("-" if a is None else a if isinstance(a, str) else "*".join(a)
                        for a in spec) if any(spec) else ""
  dtype = "bfloat16" if x.dtype.name == "uint16" else x.dtype.name     # `products.packed`
  return Row(group, path, " x ".join(map(str, x.shape)) or "scalar", dtype, placement,
             math.prod(x.shape), math.prod(x.shape) * width,
             math.prod(x.sharding.shard_shape(x.shape)) * width)
