"""The entity table by hand."""
import json
import struct
import zipfile

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


def test_a_flipped_bit_of_a_file_without_manifest_is_one_line(tmp_path):
  saved = {"user_UC": USER_UC, "item_I1C": ITEM_I1C}
  path = tmp_path / "factors.npz"
  arrays.save_file(path, saved)
  whole = path.read_bytes()
  for bit in range(0, 8 * len(whole), 61):
    damaged = bytearray(whole)
    damaged[bit // 8] ^= 1 << bit % 8
    path.write_bytes(damaged)
    try:          # a bit that no reader looks at, such as the time of a member, does no harm
      loaded = arrays.load_file(path, "run --stage=cf")
      assert loaded.keys() == saved.keys()
      assert all((loaded[name] == saved[name]).all() for name in saved)
    except errors.UserError as error:
      assert str(error).startswith(f"{path} is damaged") and "--stage=cf" in str(error)
  np.savez(path, **saved)         # of a run before fingerprints
  np.testing.assert_array_equal(arrays.load_file(path, "")["user_UC"], USER_UC)
  np.savez(path, **{**saved, "user_UC": USER_UC + 1}, fingerprint=np.frombuffer(
      bytes.fromhex(arrays.fingerprint(saved)), np.uint8))
  with pytest.raises(errors.UserError, match="its content has fingerprint .* run --stage=cf"):
    arrays.load_file(path, "run --stage=cf")
  path.unlink()
  with pytest.raises(errors.UserError, match="factors.npz is missing: run --stage=cf"):
    arrays.load_file(path, "run --stage=cf")


def test_two_fingerprints_of_a_refusal_differ(tmp_path):
  arrays.save(tmp_path, "t", {"a": ITEM_I1C}, made_from={})
  path = tmp_path / "manifest.json"
  whole = arrays.fingerprint({"a": ITEM_I1C})
  other = whole[:40] + ("0" if whole[40] != "0" else "1") + whole[41:]
  path.write_text(path.read_text().replace(whole, other))
  with pytest.raises(errors.UserError, match=f"fingerprint {whole[:41]}, .* says {other[:41]}"):
    arrays.load(tmp_path, "t", "cure")
  assert errors.short("a" * 64, "b" * 64) == ("a" * 12, "b" * 12)
  assert errors.short(None, "b" * 64) == ("none", "b" * 12)
  assert errors.short("abc", "abcd") == ("abc", "abcd")


@pytest.mark.parametrize("name", ["table.npz", "manifest.json", "words.json"])
def test_no_flipped_bit_of_a_folder_is_used(tmp_path, name):
  saved, made_from = {"a": ITEM_I1C, "b": USER_UC}, {"data": "abc", "split": "loo_stable"}
  arrays.save(tmp_path, "table", saved, made_from=made_from, documents={"words": ["x", "y"]})
  whole = (tmp_path / name).read_bytes()
  refused = 0
  for bit in range(0, 8 * len(whole), 13):
    damaged = bytearray(whole)
    damaged[bit // 8] ^= 1 << bit % 8
    (tmp_path / name).write_bytes(damaged)
    try:
      loaded, documents, manifest = arrays.load(tmp_path, "table", "run --stage=cf")
      assert loaded.keys() == saved.keys()
      assert all((loaded[key] == saved[key]).all() for key in saved)
      assert documents == {"words": ["x", "y"]} and manifest["made_from"] == made_from
    except errors.UserError as error:
      assert "run --stage=cf" in str(error)
      refused += 1
  assert refused > 5
  manifest = tmp_path / "manifest.json"      # as it was before manifests spoke of themselves
  arrays.save(tmp_path, "table", saved, made_from=made_from, documents={"words": ["x", "y"]})
  old = json.loads(manifest.read_text())
  del old["manifest"]
  manifest.write_text(json.dumps(old))
  assert arrays.load(tmp_path, "table", "")[2]["made_from"] == made_from


def test_an_archive_of_another_writer_is_read_or_refused(tmp_path):
  arrays.save(tmp_path, "t", {"a": ITEM_I1C}, made_from={})
  np.savez(tmp_path / "t.npz", a=ITEM_I1C)                  # not aligned on purpose
  np.testing.assert_array_equal(arrays.load(tmp_path, "t", "cure")[0]["a"], ITEM_I1C)
  np.savez_compressed(tmp_path / "t.npz", a=ITEM_I1C)
  with pytest.raises(errors.UserError, match=r"a.npy is compressed.*cure"):
    arrays.load(tmp_path, "t", "cure")


def test_the_file_has_no_rows_of_text_vectors_for_users(tmp_path):
  table(semantic=(TEXT_I1C, None)).save(tmp_path, {})
  with np.load(tmp_path / "table.npz") as stored:
    assert stored["vectors/semantic"].shape == (4, 3)
    assert stored["vectors/behavioral"].shape == (6, 2) == (len(stored["present/semantic"]), 2)
  vectors = entities.load(tmp_path).vectors
  assert list(vectors) == ["behavioral", "semantic"] and vectors["semantic"] is vectors["semantic"]
  assert vectors["semantic"].shape == (6, 3) and not vectors["semantic"].flags.writeable
  assert "sequential" not in vectors


def test_a_table_with_all_rows_in_the_file_is_still_read(tmp_path):
  """As earlier versions wrote it."""
  saved = table(semantic=(TEXT_I1C, None))
  arrays.save(tmp_path, "table", {
      "num_items": np.int32(3), **{f"{kind}/{name}": array for kind, of in (
          ("vectors", saved.vectors), ("present", saved.present)) for name, array in of.items()}},
              made_from={})
  np.testing.assert_array_equal(
      entities.load(tmp_path).vectors["semantic"], saved.vectors["semantic"])


def test_arrays_above_two_gib_have_longer_headers(tmp_path, monkeypatch):
  monkeypatch.setattr("zipfile.ZIP64_LIMIT", 500)
  saved = table(semantic=(TEXT_I1C, None))
  saved.save(tmp_path, {})
  assert entities.load(tmp_path).fingerprint == saved.fingerprint
  raw = (tmp_path / "table.npz").read_bytes()
  with zipfile.ZipFile(tmp_path / "table.npz") as archive:
    for info in archive.infolist():
      name, extra = struct.unpack_from("<HH", raw, info.header_offset + 26)
      assert (info.header_offset + 30 + name + extra) % 64 == 0
  with np.load(tmp_path / "table.npz") as stored:
    np.testing.assert_array_equal(stored["vectors/behavioral"], saved.vectors["behavioral"])
