"""Implicit ALS against its closed form, written out densely."""
import os
import pathlib
import subprocess
import sys
import tracemalloc

import jax
import numpy as np
import pytest
import real

from ilm_jax.cf import histories as histories_lib
from ilm_jax.cf import ials, layout, solve
from ilm_jax.data import interactions as interactions_lib
from ilm_jax.runtime import axes

# 4 users, 5 items; user 3 met nothing, item 4 was met by nobody.
HISTORIES = [np.array([1, 2, 5]), np.array([2]), np.array([5, 3, 2, 1]), np.array([], int)]
MET = np.array([[1, 1, 0, 0, 1], [0, 1, 0, 0, 0], [1, 1, 1, 0, 1], [0, 0, 0, 0, 0]], float)

ONE = axes.make_mesh({"data": 1, "fsdp": 1}, jax.devices()[:1])


def dense_half_step(other_OC, met_HO, reg, alpha):
  """x_h = (Y' C_h Y + reg I)^-1 Y' C_h p_h, one row after the other."""
  solved = []
  for met_O in met_HO:
    confidence = np.diag(1.0 + alpha * met_O)
    left = other_OC.T @ confidence @ other_OC + reg * np.eye(other_OC.shape[1])
    solved.append(np.linalg.solve(left, other_OC.T @ confidence @ met_O))
  return np.stack(solved)


def table(side, rows_I1C, mesh):
  """The sharded table with those rows."""
  found = np.zeros((side.layout.shards * side.layout.local, rows_I1C.shape[1]), np.float32)
  found[side.layout.slot_H1[1:]] = rows_I1C[1:]
  return jax.device_put(found, jax.sharding.NamedSharding(mesh, solve.ROWS))


def solved(histories, item_I1C, mesh, **form):
  """[U + 1, C]: one half step from zeros, rows in order."""
  by_user, by_item = ials.sides(histories, len(item_I1C) - 1, item_I1C.shape[1], mesh)
  whole = form.pop("whole", None)
  user = ials.half_step(ials.zeros(by_user, mesh, item_I1C.shape[1]),
                        table(by_item, item_I1C, mesh), by_user, ials.Form(**form), mesh, whole)
  return ials.to_host(user, by_user)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("solver, steps", [("cholesky", 0), ("cg", 3)])   # 3 = C: exact
def test_half_step_is_the_closed_form(solver, steps, whole):
  item_I1C = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)
  got = solved(HISTORIES, item_I1C, ONE, reg=0.3, alpha=2.5, solver=solver, steps=steps,
               whole=whole)
  want = dense_half_step(item_I1C[1:].astype(float), MET, 0.3, 2.5)
  np.testing.assert_allclose(got[1:], want, rtol=1e-4, atol=1e-5)
  np.testing.assert_array_equal(got[0], 0)
  np.testing.assert_array_equal(got[4], 0)      # the user without history


def test_ials_is_dense_als():
  user_UC, item_I1C = ials.ials(HISTORIES, 5, 3, reg=0.4, alpha=1.5, iterations=6, seed=3)
  dense_IC = np.asarray(jax.random.normal(jax.random.key(3), (6, 3)) / 3)[1:].astype(float)
  for _ in range(6):
    dense_UC = dense_half_step(dense_IC, MET, 0.4, 1.5)
    dense_IC = dense_half_step(dense_UC, MET.T, 0.4, 1.5)
  dense_UC = dense_half_step(dense_IC, MET, 0.4, 1.5)
  np.testing.assert_allclose(item_I1C[1:], dense_IC, rtol=1e-3, atol=1e-5)
  np.testing.assert_allclose(user_UC, dense_UC, rtol=1e-3, atol=1e-5)
  assert user_UC.dtype == item_I1C.dtype == np.float32


def some_histories(most=20, users=21, items=30):
  rng = np.random.default_rng(0)
  return [rng.choice(np.arange(1, items + 1), size=n, replace=False)
          for n in rng.integers(0, most, users)]


def test_a_layout_holds_every_history_once_in_its_slot():
  """Lengths 3, 9, 1, 17, 8, 0 on two shards, 16 entries a batch: one bucket of each length."""
  lists = [np.arange(1, 1 + n) for n in (3, 9, 1, 17, 8, 0)]
  found = layout.plan(histories_lib.of_lists(lists), 2, 16, most_rows=8)
  assert [p.length for p in found.pieces] == [8, 16, 32]
  slot_O1 = 100 + np.arange(18)
  held = {}
  for piece in found.pieces:
    for shard in range(2):
      other_RT = found.batches(piece, shard, slot_O1).reshape(-1, piece.length)
      for place, other_T in enumerate(other_RT):
        held[shard * found.local + piece.offset + place] = other_T[other_T != 100] - 100
  for h, history in enumerate(lists[:-1]):
    np.testing.assert_array_equal(held.pop(found.slot_H1[h + 1]), history)
  assert all(len(filler) == 0 for filler in held.values())
  unsolved = {int(found.slot_H1[0]), int(found.slot_H1[6])}        # padding; the empty history
  assert unsolved.isdisjoint({s * found.local + np.arange(found.row_SL.shape[1])[k]
                              for s in range(2) for k in range(found.row_SL.shape[1])})


def test_padding_is_what_the_best_buckets_need(monkeypatch):
  """Two buckets for lengths 8, 8, 8, 16, 64: {8, 8, 8, 16} and {64} pad 8 entries, others more."""
  monkeypatch.setattr(layout, "BUCKETS", 2)
  np.testing.assert_array_equal(layout.lengths(np.array([8, 64, 8, 16, 8]), 64), [16, 64])
  monkeypatch.setattr(layout, "BUCKETS", 3)
  np.testing.assert_array_equal(layout.lengths(np.array([8, 64, 8, 16, 8]), 64), [8, 16, 64])
  np.testing.assert_array_equal(layout.lengths(np.array([8, 9]), 64), [16])     # not worth two
  np.testing.assert_array_equal(layout.lengths(np.array([65, 200]), 64), [128, 256])


def test_users_of_items_are_sorted_and_chunks_do_not_show(monkeypatch, tmp_path):
  users = histories_lib.of_lists(some_histories())
  whole = histories_lib.transposed(users, 30)
  for item in range(30):
    met = [u + 1 for u, h in enumerate(some_histories()) if item + 1 in h]
    np.testing.assert_array_equal(whole.other_N[slice(*whole.start_H1[item:item + 2])], met)
  monkeypatch.setattr(histories_lib, "CHUNK", 7)
  for folder in (None, tmp_path):
    for a, b in zip(whole, histories_lib.transposed(users, 30, folder)):
      np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("count", [0, 3])
def test_histories_behind_others(monkeypatch, tmp_path, count):
  monkeypatch.setattr(histories_lib, "CHUNK", 7)
  first, more = some_histories(), some_histories()[:count]
  for folder in (None, tmp_path):
    found = histories_lib.concatenated(*map(histories_lib.of_lists, (first, more)), folder)
    for a, b in zip(found, histories_lib.of_lists([*first, *more])):
      np.testing.assert_array_equal(a, b)


def test_only_what_is_kept_becomes_a_history(monkeypatch, tmp_path):
  monkeypatch.setattr(histories_lib, "CHUNK", 2)
  user_N, item_N = np.array([0, 0, 1, 3, 3]), np.array([4, 2, 2, 1, 3])
  keep_N = np.array([True, False, True, True, True])
  found = histories_lib.kept(user_N, item_N, lambda a, b: keep_N[a:b], 4, tmp_path)
  np.testing.assert_array_equal(found.start_H1, [0, 1, 2, 2, 4])
  np.testing.assert_array_equal(found.other_N, [4, 2, 1, 3])


def test_an_item_that_somebody_met_twice_is_kept_once(monkeypatch):
  """Also where the second time lies behind the end of a chunk."""
  user_N, item_N = np.array([0, 0, 0, 2, 2, 2]), np.array([4, 2, 4, 1, 1, 3])
  for chunk in (1, 2, 10):
    monkeypatch.setattr(histories_lib, "CHUNK", chunk)
    found = histories_lib.kept(user_N, item_N, lambda a, b: np.ones(b - a, bool), 3)
    np.testing.assert_array_equal(found.start_H1, [0, 2, 2, 4])
    np.testing.assert_array_equal(found.other_N, [4, 2, 1, 3])


@pytest.mark.parametrize("solver", ["cholesky", "cg"])
@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 2, 2)])
def test_eight_devices_give_the_same_vectors(solver, shape, monkeypatch):
  """Within 1e-4 of one device, relative to the largest number of a table."""
  monkeypatch.setitem(ials.ENTRIES, "cpu", 16)      # several batches, and histories above a batch
  options = dict(reg=1.0, alpha=2.0, iterations=2, seed=0, solver=solver)
  one = ials.ials(some_histories(), 30, 8, **options)
  mesh = axes.make_mesh(dict(zip(("data", "fsdp", "tensor"), shape)))
  for alone, spread in zip(one, ials.ials(some_histories(), 30, 8, mesh=mesh, **options)):
    np.testing.assert_allclose(alone, spread, atol=1e-4 * np.abs(alone).max())


@pytest.mark.parametrize("solver, dtype, tolerance", [
    ("cg", "float32", 1e-4), ("cg", "bfloat16", 2e-2), ("cholesky", "float32", 1e-4)])
def test_a_table_too_large_for_a_device_is_gathered_by_batches(solver, dtype, tolerance,
                                                               monkeypatch):
  monkeypatch.setitem(ials.ENTRIES, "cpu", 16)
  options = dict(reg=1.0, alpha=2.0, iterations=2, seed=0, solver=solver, dtype=dtype)
  mesh = axes.make_mesh({"data": 4, "fsdp": 2})
  one = ials.ials(some_histories(), 30, 8, **options)
  monkeypatch.setattr(ials, "WHOLE", 0)
  for alone, spread in zip(one, ials.ials(some_histories(), 30, 8, mesh=mesh, **options)):
    np.testing.assert_allclose(alone, spread, atol=tolerance * np.abs(alone).max())


def test_bfloat16_tables_give_nearly_the_same_scores():
  """Tables have 8 bits; the systems have 24, or the errors would be of another size."""
  options = dict(reg=1.0, alpha=2.0, iterations=3, seed=0)
  user_UC, item_IC = ials.ials(some_histories(), 30, 8, **options)
  user16_UC, item16_IC = ials.ials(some_histories(), 30, 8, dtype="bfloat16", **options)
  assert user16_UC.dtype == np.float32
  error = np.abs(user_UC @ item_IC.T - user16_UC @ item16_IC.T).max()
  assert 1e-5 < error < 0.03


def test_streaming_changes_no_bit_and_bounds_memory(monkeypatch, tmp_path):
  """A log of 400,000 meetings in files: no more of it is ever in memory than some pieces."""
  monkeypatch.setattr(layout, "PIECE", 1 << 13)
  monkeypatch.setattr(layout, "WORK", 1 << 11)
  monkeypatch.setattr(histories_lib, "CHUNK", 1 << 13)
  rng = np.random.default_rng(0)
  user_N = np.sort(rng.integers(0, 2000, 400_000)).astype(np.int32)
  item_N = rng.integers(1, 1001, 400_000).astype(np.int32)
  for name, array in (("user", user_N), ("item", item_N)):
    array.tofile(tmp_path / name)
  options = dict(reg=1.0, alpha=2.0, iterations=1, seed=0)

  def run(stream):
    mapped = [np.memmap(tmp_path / n, np.int32, "r") for n in ("user", "item")]
    users = histories_lib.kept(*mapped, lambda a, b: np.ones(b - a, bool), 2000, stream)
    return ials.ials(users, 1000, 4, stream=stream, **options)

  held = run(None)                      # also compiles, which takes memory of its own
  tracemalloc.start()
  streamed = run(tmp_path)
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  jax.tree.map(np.testing.assert_array_equal, held, streamed)
  assert peak < 400_000 * 4 / 2, "half of one side's histories"


FACTORISES = """
import numpy as np
from ilm_jax.runtime import distributed
distributed.start()
import jax
from ilm_jax.runtime import axes
from ilm_jax.cf import ials
mesh = axes.make_mesh({"data": jax.device_count(), "fsdp": 1})
histories = [np.arange(1 + u % 3, 9, 1 + u % 2) for u in range(7)]
found = ials.ials(histories, 9, 3, reg=1.0, alpha=2.0, iterations=2, seed=0, mesh=mesh)
print("sums", *(f"{np.abs(x).sum():.5f}" for x in found), flush=True)
distributed.wait("end")
"""


def test_two_processes_factorise_as_one():
  """Each makes and solves its own rows, and both get all vectors."""
  root = pathlib.Path(__file__).parents[1]
  done = subprocess.run(
      [sys.executable, root / "launch" / "local_pod.py", "-n", "2", "--devices=2", "--",
       sys.executable, "-c", FACTORISES], capture_output=True, text=True, check=False, timeout=300,
      env={**os.environ, "PYTHONPATH": str(root)})
  assert done.returncode == 0, done.stdout + done.stderr
  said = [line[4:] for line in done.stdout.splitlines() if "sums" in line]
  histories = [np.arange(1 + u % 3, 9, 1 + u % 2) for u in range(7)]
  one = ials.ials(histories, 9, 3, reg=1.0, alpha=2.0, iterations=2, seed=0)
  assert len(said) == 2 and said[0] == said[1]
  numbers = [float(n) for n in said[0].split()[1:]]
  np.testing.assert_allclose(numbers, [np.abs(x).sum() for x in one], rtol=1e-4)


def test_beats_popularity_on_movielens():
  """Leave-one-out, seen items left out: .140 against .087 for popularity (margins for rounding)."""
  interactions, _ = interactions_lib.build(*real.movielens_log(), k=5)
  histories = interactions_lib.train_histories(interactions)
  split = interactions.split
  valid_U, test_U = interactions.item_N[split.valid], interactions.item_N[split.test]
  seen = [np.append(history, item) for history, item in zip(histories, valid_U)]
  vectors = ials.ials(histories, interactions.num_items, 64, reg=20.0, alpha=2.0, iterations=15,
                      seed=0)
  count_I1 = np.bincount(np.concatenate(histories), minlength=interactions.num_items + 1)
  hit = []
  for user_UC, item_I1C in (vectors, (np.ones((len(histories), 1)), count_I1[:, None])):
    score_UI1 = user_UC @ item_I1C.T
    for score_I1, rows in zip(score_UI1, seen):
      score_I1[[0, *rows]] = -np.inf
    hit.append(np.mean((score_UI1 > score_UI1[np.arange(len(seen)), test_U][:, None]).sum(1) < 10))
  assert hit[0] == pytest.approx(0.140, abs=0.012)
  assert hit[1] == pytest.approx(0.087, abs=0.002)
