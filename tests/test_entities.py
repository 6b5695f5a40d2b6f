"""The entity table by hand."""
import numpy as np
import pytest

from ilm_jax import errors
from ilm_jax.data import arrays, entities
from ilm_jax.data import rows as rows_lib

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
  assert got.rows == rows_lib.EntityRows(3, 2)


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
  assert loaded.rows == saved.rows == rows_lib.EntityRows(3, 2)
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


def test_what_was_saved_is_mapped_and_numpy_reads_it_too(tmp_path):
  """Arrays of all ranks and odd sizes, so that none would be aligned by chance."""
  saved = {"a": np.arange(3, dtype=np.int8), "vectors/b": ITEM_I1C, "n": np.int32(7),
           "none": np.zeros((0, 4)), "c": np.arange(6.0).reshape(2, 3).T}
  fingerprint = arrays.save(tmp_path, "t", saved, made_from={})
  found, _, manifest = arrays.load(tmp_path, "t", "run --stage=cf")
  with np.load(tmp_path / "t.npz") as by_numpy:
    for name, array in saved.items():
      for again in (found[name], by_numpy[name]):
        np.testing.assert_array_equal(again, array)
        assert again.dtype == array.dtype and again.shape == array.shape
  mapped = [found[name] for name in ("a", "vectors/b", "n", "c")]
  assert all(isinstance(a.base, np.memmap) and not a.flags.writeable for a in mapped)
  assert all(a.ctypes.data % 64 == 0 for a in mapped)
  assert manifest["fingerprint"] == fingerprint


def test_an_archive_of_another_writer_is_read_or_refused(tmp_path):
  arrays.save(tmp_path, "t", {"a": ITEM_I1C}, made_from={})
  np.savez(tmp_path / "t.npz", a=ITEM_I1C)                  # not aligned on purpose
  np.testing.assert_array_equal(arrays.load(tmp_path, "t", "cure")[0]["a"], ITEM_I1C)
  np.savez_compressed(tmp_path / "t.npz", a=ITEM_I1C)
  with pytest.raises(errors.UserError, match=r"a.npy is compressed.*cure"):
    arrays.load(tmp_path, "t", "cure")
