"""The entity table by hand."""
import numpy as np
import pytest

from ilm_jax import errors
from ilm_jax.data import entities

ITEM_I1C = np.array([[9, 9], [1, 2], [3, 4], [5, 6]], np.float32)   # row 0 must not get through
USER_UC = np.array([[-1, 0], [0, -2]], np.float32)
TEXT_I1C = np.arange(12, dtype=np.float32).reshape(4, 3)


def table(**other):
  return entities.make(3, 2, behavioral=(ITEM_I1C, USER_UC), **other)


def test_rows_by_hand():
  got = table(semantic=(TEXT_I1C, None))
  np.testing.assert_array_equal(
      got.vectors["behavioral"], [[0, 0], [1, 2], [3, 4], [5, 6], [-1, 0], [0, -2]])
  np.testing.assert_array_equal(got.vectors["semantic"][4:], np.zeros((2, 3)))
  np.testing.assert_array_equal(got.present["behavioral"], [0, 1, 1, 1, 1, 1])
  np.testing.assert_array_equal(got.present["semantic"], [0, 1, 1, 1, 0, 0])
  assert got.num_rows == 6 and got.user_row(1) == 5


def test_fingerprint_follows_every_part():
  base = table().fingerprint
  changed = ITEM_I1C.copy()
  changed[2, 1] += 1e-3
  others = [entities.make(3, 2, behavioral=(changed, USER_UC)),
            entities.make(3, 2, other=(ITEM_I1C, USER_UC)),
            entities.make(3, 2, behavioral=(ITEM_I1C, None)),
            table(semantic=(TEXT_I1C, None))]
  assert len({base, *(other.fingerprint for other in others)}) == 5
  padding = np.vstack([[[7, 7]], ITEM_I1C[1:]])
  assert entities.make(3, 2, behavioral=(padding, USER_UC)).fingerprint == base


def test_items_and_users_are_told_apart():
  """The same five rows as 3 + 2 and as 2 + 3 are different tables."""
  rows = np.vstack([ITEM_I1C[1:], USER_UC])
  two = entities.make(2, 3, behavioral=(np.vstack([[[0, 0]], rows[:2]]), rows[2:]))
  np.testing.assert_array_equal(two.vectors["behavioral"], table().vectors["behavioral"])
  assert two.fingerprint != table().fingerprint


def test_save_and_load(tmp_path):
  saved = table(semantic=(TEXT_I1C, None))
  saved.save(tmp_path, {"interactions": "1a2b"})
  loaded = entities.load(tmp_path)
  assert (loaded.num_items, loaded.num_users) == (3, 2)
  assert loaded.fingerprint == saved.fingerprint
  for name in ("behavioral", "semantic"):
    np.testing.assert_array_equal(loaded.vectors[name], saved.vectors[name])
    np.testing.assert_array_equal(loaded.present[name], saved.present[name])


def test_a_missing_table_names_the_cure(tmp_path):
  with pytest.raises(errors.UserError, match="run --stage=cf"):
    entities.load(tmp_path)


def test_wrong_shapes_and_values_are_refused():
  with pytest.raises(ValueError, match=r"users have shape \(3, 2\), expected \(2, 2\)"):
    entities.make(3, 2, behavioral=(ITEM_I1C, np.zeros((3, 2))))
  with pytest.raises(ValueError, match="not finite"):
    entities.make(3, 2, behavioral=(ITEM_I1C * np.nan, USER_UC))
