"""Implicit ALS against its closed form, written out densely."""
import jax
import numpy as np
import pytest
import real

from ilm_jax import axes
from ilm_jax.cf import ials
from ilm_jax.data import interactions as interactions_lib

# 4 users, 5 items; user 3 met nothing, item 4 was met by nobody.
HISTORIES = [np.array([1, 2, 5]), np.array([2]), np.array([5, 3, 2, 1]), np.array([], int)]
MET = np.array([[1, 1, 0, 0, 1], [0, 1, 0, 0, 0], [1, 1, 1, 0, 1], [0, 0, 0, 0, 0]], float)


def dense_half_step(other_OC, met_HO, reg, alpha):
  """x_h = (Y' C_h Y + reg I)^-1 Y' C_h p_h, one row after the other."""
  solved = []
  for met_O in met_HO:
    confidence = np.diag(1.0 + alpha * met_O)
    left = other_OC.T @ confidence @ other_OC + reg * np.eye(other_OC.shape[1])
    solved.append(np.linalg.solve(left, other_OC.T @ confidence @ met_O))
  return np.stack(solved)


def test_half_step_is_the_closed_form():
  item_I1C = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)
  item_I1C[0] = 0
  got = ials.half_step(item_I1C, ials.buckets(HISTORIES), 4, reg=0.3, alpha=2.5)
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


def test_buckets_hold_every_history_once(monkeypatch):
  """Lengths 3, 9, 1, 17, 8 pad to 8, 16, 8, 32, 8; at 16 entries a batch, two rows of 8 at most."""
  monkeypatch.setattr(ials, "ENTRIES", 16)
  histories = [np.arange(1, 1 + n) for n in (3, 9, 1, 17, 8)]
  found = ials.buckets(histories)
  assert [b.other_nBT.shape for b in found] == [(2, 2, 8), (1, 1, 16), (1, 1, 32)]
  np.testing.assert_array_equal(found[0].row_nB, [[1, 3], [5, 0]])
  np.testing.assert_array_equal(found[0].other_nBT[0, 0], [1, 2, 3, 0, 0, 0, 0, 0])
  rows = np.concatenate([b.row_nB.ravel() for b in found])
  assert sorted(rows[rows > 0]) == [1, 2, 3, 4, 5]


def test_filling_rows_do_not_disturb(monkeypatch):
  item_I1C = np.random.default_rng(2).normal(size=(18, 4)).astype(np.float32)
  item_I1C[0] = 0
  histories = [np.arange(1, 1 + n) for n in (3, 9, 1, 17, 8)]
  whole = ials.half_step(item_I1C, ials.buckets(histories), 5, reg=0.1, alpha=1.0)
  monkeypatch.setattr(ials, "ENTRIES", 16)
  pieces = ials.half_step(item_I1C, ials.buckets(histories), 5, reg=0.1, alpha=1.0)
  np.testing.assert_allclose(whole, pieces, rtol=1e-4, atol=1e-6)


def test_a_mesh_gives_the_same_vectors():
  rng = np.random.default_rng(0)
  histories = [rng.choice(np.arange(1, 31), size=n, replace=False) for n in rng.integers(1, 20, 21)]
  options = dict(reg=1.0, alpha=2.0, iterations=2, seed=0)
  one = ials.ials(histories, 30, 8, **options)
  mesh = axes.make_mesh({"data": 4, "fsdp": 1, "tensor": 2})
  for alone, spread in zip(one, ials.ials(histories, 30, 8, mesh=mesh, **options)):
    np.testing.assert_allclose(alone, spread, rtol=1e-3, atol=1e-5)


def test_scores_leave_out_padding_and_seen():
  item_I1C = np.array([[0, 0], [1, 2], [3, -1], [0, 1]], np.float32)
  got = ials.scores(np.array([[2, 1], [0, -1]], np.float32), item_I1C, [np.array([2]), []])
  np.testing.assert_array_equal(got, [[-np.inf, 4, -np.inf, 1], [-np.inf, -2, 1, -1]])


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
  popularity = ials.scores(np.ones((len(histories), 1)), count_I1[:, None], seen)
  hit = [np.mean((s > s[np.arange(len(s)), test_U][:, None]).sum(1) < 10)
         for s in (ials.scores(*vectors, seen), popularity)]
  assert hit[0] == pytest.approx(0.140, abs=0.012)
  assert hit[1] == pytest.approx(0.087, abs=0.002)
