"""The entity table: the named vectors of all items and users.

It has R rows: padding, items, users, numbered by `rows.EntityRows`. Where an entity lacks a vector,
the row is zero and marked absent: users have no `semantic` vector, and entities without a training
interaction have no `sequential` one and, unless a training dialog likes them (`cf.dialogs`), no
`behavioral` one.
"""
import dataclasses
from collections.abc import Mapping

import numpy as np

from ilm_jax import errors
from ilm_jax.data import arrays
from ilm_jax.data import rows as rows_lib


@dataclasses.dataclass(frozen=True)
class EntityTable:
  """Named vectors of all entities."""
  rows: rows_lib.EntityRows
  vectors: Mapping[str, np.ndarray]  # name -> float32 [R, C]
  present: dict[str, np.ndarray]     # name -> bool [R]
  fingerprint: str
  members: np.ndarray | None = None  # int32 [R, S]: entity rows that belong to each row, strongest
                                     # first, then 0; None: the table has no members

  def save(self, folder, made_from: dict) -> None:
    """Writes table.npz and manifest.json."""
    arrays.save(folder, "table", _stored(
        self.rows.num_items, self.vectors, self.present, self.members), made_from=made_from)


def make(num_items: int, num_users: int, members: np.ndarray | None = None, *,
         lacking: dict[str, np.ndarray] | None = None, **vectors) -> EntityTable:
  """A table from parts.

  Args:
    num_items, num_users: I and U.
    members: see `EntityTable`.
    lacking: name -> bool [R]: rows to mark absent, even if a vector is given for them; None: none.
    **vectors: name -> (item_I1C, user_UC): vectors of rows 0..I (row 0 is ignored) and of users;
      None for a kind without such vectors.

  Returns:
    The table, with its fingerprint.

  Raises:
    ValueError: vectors have a wrong shape or are not finite.
  """
  table, present, rows = {}, {}, rows_lib.EntityRows(num_items, num_users)
  for name, (item_I1C, user_UC) in vectors.items():
    width = next(part.shape[1] for part in (item_I1C, user_UC) if part is not None)
    table[name] = np.zeros((rows.total, width), np.float32)
    present[name] = np.zeros(len(table[name]), bool)
    parts = [(rows.items, None if item_I1C is None else item_I1C[1:], "items"),
             (rows.users, user_UC, "users")]
    for at, part, kind in parts:
      if part is None:
        continue
      if part.shape != table[name][at].shape:
        raise ValueError(f"{name} vectors of {kind} have shape {part.shape}, "
                         f"expected {table[name][at].shape}")
      table[name][at], present[name][at] = part, True
    if lacking and name in lacking:
      table[name][lacking[name]], present[name][lacking[name]] = 0, False
    if not np.isfinite(table[name]).all():
      raise ValueError(f"{name} vectors are not finite")
  return EntityTable(rows, table, present,
                     arrays.fingerprint(_stored(num_items, table, present, members)), members)


def load(folder) -> EntityTable:
  """The table that was saved in `folder`; UserError if it is absent or damaged."""
  stored, _, manifest = arrays.load(folder, "table", "run --stage=cf")
  split = {kind: {key.removeprefix(f"{kind}/"): array for key, array in stored.items()
                  if key.startswith(f"{kind}/")} for kind in ("vectors", "present")}
  num_items = int(stored["num_items"])
  members = stored.get("members")
  num_rows = {len(array) for array in split["present"].values()}
  num_rows |= set() if members is None else {len(members)}
  longest = max(map(len, split["vectors"].values()), default=0)
  num_rows |= {longest} if longest > max(num_rows, default=0) else set()
  if len(num_rows) != 1:
    raise errors.UserError(f"{folder} holds tables of {sorted(num_rows)} rows, expected one number:"
                           " delete it and run --stage=cf")
  rows = rows_lib.EntityRows.of_table(num_rows.pop(), num_items)
  return EntityTable(rows, _Filled(split["vectors"], rows.total), split["present"],
                     manifest["fingerprint"], members)


def _stored(num_items: int, vectors: Mapping, present: dict, members) -> dict[str, np.ndarray]:
  """The arrays of the file; the fingerprint covers the same arrays.

  Vectors end with the last entity that has one: users have no `semantic` vectors, and are many.
  """
  end = {name: 1 + int(np.flatnonzero(present[name])[-1:].sum()) for name in vectors}
  return {"num_items": np.int32(num_items),
          **({} if members is None else {"members": members}),
          **{f"vectors/{name}": array[:end[name]] for name, array in vectors.items()},
          **{f"present/{name}": array for name, array in present.items()}}


class _Filled(Mapping):
  """Arrays by name, each filled with rows of zeros up to `count` when it is first asked for: till
  then it stays mapped."""

  def __init__(self, arrays: dict[str, np.ndarray], count: int):
    self._arrays, self._count = arrays, count

  def __getitem__(self, name: str) -> np.ndarray:
    array = self._arrays[name]
    if len(array) < self._count:
      out = np.zeros((self._count, *array.shape[1:]), array.dtype)
      out[:len(array)] = array
      out.flags.writeable = False
      self._arrays[name] = array = out
    return array

  def __iter__(self):
    return iter(self._arrays)

  def __len__(self) -> int:
    return len(self._arrays)
