"""Rows of the entity table: row 0 is padding, rows 1..I are items, rows I + 1..I + U are users."""
import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class EntityRows:
  """The rows of items and users in the entity table. Nothing checks that a row is in the table."""
  num_items: int     # I
  num_users: int     # U

  @classmethod
  def of_table(cls, total: int, num_items: int) -> "EntityRows":
    """The rows of a table of `total` rows, `num_items` of which are items."""
    return cls(num_items, total - 1 - num_items)

  @property
  def total(self) -> int:
    """R = 1 + I + U: the length of the table, padding included."""
    return 1 + self.num_items + self.num_users

  @property
  def items(self) -> slice:
    """The rows of all items; `np.r_[rows.items]` is int64 [I]."""
    return slice(1, 1 + self.num_items)

  @property
  def users(self) -> slice:
    """The rows of all users; `np.r_[rows.users]` is int64 [U]."""
    return slice(1 + self.num_items, self.total)

  def user(self, number: int | np.ndarray) -> int | np.ndarray:
    """The row of user `number`, counted from 0. An array keeps its shape and integer dtype."""
    return 1 + self.num_items + number

  def user_number(self, row: int | np.ndarray) -> int | np.ndarray:
    """The number, from 0, of the user in `row`. An array keeps its shape and integer dtype."""
    return row - 1 - self.num_items

  def is_user(self, row: int | np.ndarray) -> bool | np.ndarray:
    """Whether `row` is a user's: bool, of the shape of `row`. Padding and items are not."""
    return row > self.num_items
