"""Neighbours of items: exact, in blocks, in parts that resume and that processes share."""
import tracemalloc

import numpy as np
import pytest

from ilm_jax import errors
from ilm_jax.data import interactions
from ilm_jax.evaluation import nearest
from ilm_jax.runtime import distributed
from ilm_jax.stages import neighbours


def plain(vector_IE, k):
  unit = vector_IE / np.maximum(np.linalg.norm(vector_IE, axis=1, keepdims=True), 1e-12)
  cosine_II = unit @ unit.T
  np.fill_diagonal(cosine_II, -np.inf)
  order = np.argsort(-cosine_II, axis=1, kind="stable")[:, :k]
  return order, np.take_along_axis(cosine_II, order, axis=1)


@pytest.mark.parametrize(("together", "block"), [(1, 3), (7, 5), (64, 64), (5, 100)])
def test_neighbours_in_blocks_are_those_of_the_whole(together, block):
  vector_IE = np.random.default_rng(0).normal(size=(41, 6)).astype(np.float32)
  vector_IE[3] = 0
  parts = list(nearest.neighbours(vector_IE, 2, 41, 4, together=together, block=block))
  want_IK, cosine_IK = plain(vector_IE, 4)
  rows = [item for item in range(2, 41) if item != 3]      # item 3 is as near to all
  got_IK = np.concatenate([np.zeros((2, 4)), *(near for _, near, _ in parts)])
  assert (got_IK[rows] == want_IK[rows]).all()
  got = np.concatenate([cosine for _, _, cosine in parts])
  np.testing.assert_allclose(got, cosine_IK[2:], atol=1e-6)
  assert [item for items, _, _ in parts for item in items] == list(range(2, 41))


def test_of_equal_ones_the_earlier_stand_first():
  vector_IE = np.ones((9, 2), np.float32)
  (_, near_NK, _), = nearest.neighbours(vector_IE, 0, 9, 3, block=4)
  assert near_NK[0].tolist() == [1, 2, 3] and near_NK[8].tolist() == [0, 1, 2]


def test_memory_does_not_grow_with_the_catalogue():
  """Scores of 64 queries on 40,000 items are 10 MB; two blocks of 1,024 are half a MB."""
  vector_IE = np.random.default_rng(0).normal(size=(40_000, 8)).astype(np.float32)
  tracemalloc.start()
  for _ in nearest.neighbours(vector_IE, 0, 64, 10, together=64, block=1024):
    pass
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert peak < 4e6


@pytest.fixture
def items():
  return interactions.Items([f"i{n}" for n in range(10)], [f"T{n}" for n in range(10)], [None] * 10,
                            [[]] * 10)


def test_parts_are_shared_by_processes_and_resumed(items, tmp_path, monkeypatch):
  parquet = pytest.importorskip("pyarrow.parquet")
  vector_IE = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
  monkeypatch.setattr(neighbours, "PART", 4)
  monkeypatch.setattr(distributed, "wait", lambda name: None)
  for index, made in ((0, 6), (1, 4), (1, 0)):           # the last has nothing left to do
    monkeypatch.setattr(distributed, "here", lambda index=index: distributed.Place(index, 2))
    assert neighbours.write(f"{tmp_path}/near/", vector_IE, items, 2) == made
  parts = sorted((tmp_path / "near").glob("*.parquet"))
  rows = [row for part in parts for row in parquet.read_table(part).to_pylist()]
  want_IK, _ = plain(vector_IE, 2)
  assert [row["neighbour"] for row in rows] == [f"i{n}" for n in want_IK.reshape(-1)]
  assert rows[1] | {"score": 0} == {"item": "i0", "rank": 2, "neighbour": f"i{want_IK[0, 1]}",
                                    "title": f"T{want_IK[0, 1]}", "score": 0}
  parts[1].unlink()
  assert neighbours.write(f"{tmp_path}/near/", vector_IE, items, 2) == 4
  with pytest.raises(errors.UserError, match=r"other settings \(vectors, k\): name another"):
    neighbours.write(f"{tmp_path}/near/", vector_IE + 1, items, 3)


def test_one_file_and_a_folder_of_something_else(items, tmp_path):
  vector_IE = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
  assert neighbours.write(f"{tmp_path}/near.csv", vector_IE, items, 1) == 10
  said = (tmp_path / "near.csv").read_text().splitlines()
  assert said[0] == "item,rank,neighbour,title,score" and len(said) == 11
  (tmp_path / "x.parquet").write_text("")
  with pytest.raises(errors.UserError, match="no neighbours"):
    neighbours.write(f"{tmp_path}/", vector_IE, items, 1)
