"""Rows of the entity table, worked by hand: 3 items are rows 1..3, 2 users are rows 4 and 5."""
import numpy as np

from ilm_jax.data import interactions, rows

ROWS = rows.EntityRows(num_items=3, num_users=2)
TABLE_R = np.array(["padding", "item 1", "item 2", "item 3", "user 0", "user 1"])


def test_padding_then_items_then_users():
  assert ROWS.total == len(TABLE_R)
  assert TABLE_R[ROWS.items].tolist() == ["item 1", "item 2", "item 3"]
  assert TABLE_R[ROWS.users].tolist() == ["user 0", "user 1"]


def test_the_row_of_a_user_and_back():
  assert (ROWS.user(0), ROWS.user(1)) == (4, 5)
  assert (ROWS.user_number(4), ROWS.user_number(5)) == (0, 1)
  assert type(ROWS.user(0)) is type(ROWS.user_number(4)) is int


def test_arrays_of_users_keep_their_dtype():
  user_N = np.array([[1, 0], [0, 0]], np.int32)
  row_N = ROWS.user(user_N)
  np.testing.assert_array_equal(row_N, [[5, 4], [4, 4]])
  np.testing.assert_array_equal(ROWS.user_number(row_N), user_N)
  assert row_N.dtype == ROWS.user_number(row_N).dtype == np.int32


def test_only_rows_behind_the_items_are_users():
  np.testing.assert_array_equal(ROWS.is_user(np.arange(6)), [0, 0, 0, 0, 1, 1])
  assert ROWS.is_user(4) is True and ROWS.is_user(3) is False


def test_without_items_or_users():
  assert rows.EntityRows(0, 0).total == 1
  assert rows.EntityRows(0, 2).user(0) == 1
  nobody = rows.EntityRows(2, 0)
  assert np.arange(nobody.total)[nobody.users].tolist() == []


def test_users_are_what_padding_and_items_leave_of_a_table():
  assert rows.EntityRows.of_table(6, num_items=3) == ROWS


def test_interactions_give_the_rows_of_their_items_and_users():
  """User "b" met items 3 and 1, user "a" item 2."""
  log = interactions.Interactions(
      user_ids=["b", "a"], num_items=3, user_N=np.array([0, 0, 1], np.int32),
      item_N=np.array([3, 1, 2], np.int32), time_N=np.zeros(3, np.int64),
      value_N=np.ones(3, np.float32))
  assert log.rows == ROWS
