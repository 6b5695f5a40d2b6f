"""Prepared examples: round trip, damage, and writers that die."""
import pickle

import numpy as np
import pytest

from ilm_jax import errors
from ilm_jax.data import store


def examples(count=5):
  return [{"inputs": np.arange(i), "targets": np.array([i, -i])} for i in range(count)]


@pytest.mark.parametrize("shards", [1, 2])
def test_round_trip(tmp_path, shards):
  manifest = store.write(tmp_path / "task" / "train", examples(), {"made_from": {"x": "y"}}, shards)
  prepared = store.Prepared(tmp_path / "task" / "train")
  assert len(prepared) == 5 and prepared.manifest == manifest
  assert prepared.manifest["made_from"] == {"x": "y"}
  for copy in (prepared, pickle.loads(pickle.dumps(prepared))):
    for i in (3, 0, 4, 1, 2):
      np.testing.assert_array_equal(copy[i]["inputs"], np.arange(i))
      np.testing.assert_array_equal(copy[i]["targets"], [i, -i])
      assert copy[i]["targets"].dtype == np.int32
  np.testing.assert_array_equal(prepared.lengths()["inputs"], np.arange(5))
  with pytest.raises(IndexError):
    prepared[5]


def test_fingerprint_follows_the_contents(tmp_path):
  one = store.write(tmp_path / "a", examples(), {})
  assert store.write(tmp_path / "b", examples(), {})["fingerprint"] == one["fingerprint"]
  assert store.write(tmp_path / "b", examples(4), {})["fingerprint"] != one["fingerprint"]
  assert len(store.Prepared(tmp_path / "b")) == 4             # replaced as a whole


def test_no_examples(tmp_path):
  store.write(tmp_path / "a", [], {})
  assert len(store.Prepared(tmp_path / "a")) == 0


def test_damaged_shard_is_named(tmp_path):
  store.write(tmp_path / "task" / "train", examples(), {})
  shard = tmp_path / "task" / "train" / "shard-00000-of-00001.array_record"
  data = bytearray(shard.read_bytes())
  data[len(data) // 2] ^= 1
  shard.write_bytes(data)
  with pytest.raises(errors.UserError, match=r"00000-of-00001.*damaged.* run --stage=prepare"):
    store.Prepared(tmp_path / "task" / "train")
  shard.unlink()
  with pytest.raises(errors.UserError, match=r"found no file"):
    store.Prepared(tmp_path / "task" / "train")


@pytest.mark.parametrize("damage", [('"count": 5', '"count": 4'), ("made_from", "made_frpm"),
                                    ("fingerprint", "fingerpsint")])
def test_damaged_manifest_is_named(tmp_path, damage):
  store.write(tmp_path, examples(), {"made_from": {"x": "y"}})
  path = tmp_path / "manifest.json"
  path.write_text(path.read_text().replace(*damage))
  with pytest.raises(errors.UserError, match=r"manifest.json is damaged: .*run --stage=prepare"):
    store.Prepared(tmp_path)


def test_absent_or_foreign_folder(tmp_path):
  with pytest.raises(errors.UserError, match=r"run --stage=prepare"):
    store.Prepared(tmp_path / "nothing")
  (tmp_path / "manifest.json").write_text("{ half")
  with pytest.raises(errors.UserError, match=r"run --stage=prepare"):
    store.Prepared(tmp_path)


def test_a_writer_that_fails_leaves_nothing(tmp_path):
  def failing():
    yield from examples(2)
    raise KeyboardInterrupt
  with pytest.raises(KeyboardInterrupt):
    store.write(tmp_path / "a", failing(), {})
  assert not list(tmp_path.iterdir())


def test_what_a_killed_writer_left_is_cleared(tmp_path):
  """SIGKILL leaves the temporary folder; it is never taken for prepared examples."""
  (tmp_path / ".a.writing").mkdir()        # as it was called when all writers shared the name
  (tmp_path / ".a.writing" / "shard-00000-of-00009.array_record").write_bytes(b"half")
  (store.begin(tmp_path / "a") / "shard-00000-of-00009.array_record").write_bytes(b"half")
  store.begin(tmp_path / "a.b").rename(tmp_path / ".a.b.0123456789ab.writing")     # of another
  store.write(tmp_path / "a", examples(), {})
  assert sorted(p.name for p in tmp_path.iterdir()) == [".a.b.0123456789ab.writing", "a"]
  assert len(list((tmp_path / "a").iterdir())) == 3


def test_a_writer_whose_job_was_killed_cannot_reach_the_next_ones_folder(tmp_path):
  """It is still at work when the same folder is written again."""
  def overtaken():
    yield from examples(2)
    again = store.write(tmp_path / "a", examples(), {})
    assert store.Prepared(tmp_path / "a").manifest == again
    yield from examples(2)
  with pytest.raises((OSError, errors.UserError)):
    store.write(tmp_path / "a", overtaken(), {})
  assert len(store.Prepared(tmp_path / "a")) == 5


def test_examples_must_agree(tmp_path):
  with pytest.raises(ValueError, match=r"example 1 has"):
    store.write(tmp_path / "a", [{"x": [1]}, {"y": [1]}], {})
  with pytest.raises(ValueError, match=r"x has shape \(\)"):
    store.write(tmp_path / "a", [{"x": 1}], {})
