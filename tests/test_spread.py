"""The start of phase 2: every direction of the Q-Former's outputs is shown, the mean is not."""
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ilm_jax.objectives import inputs, whitening
from tests import small_configs, test_phase2_training

CONFIG = small_configs.qformer(
    vectors={"behavioral": 5}, num_layers=1, width=8, num_heads=2, mlp_width=8, vocab_size=9,
    num_queries=2, cross_init="width", cross_every=1, query_path_only=True)
R = 700                    # more than two batches of rows


def frozen():
  table = jax.random.normal(jax.random.key(3), (R, 5)).at[0].set(50.0)
  return {"vectors": {"behavioral": table}, "present": {"behavioral": jnp.ones(R, bool)}}


@pytest.mark.parametrize(("sizes", "queries"), [((1, 1, 1), 2), ((4, 1, 2), 1)])
def test_soft_tokens_and_keys_are_centred_and_of_the_asked_size(sizes, queries):
  config = dataclasses.replace(CONFIG, num_queries=queries)
  graphdef, fresh = small_configs.phase2(config, 6, 0.2, seed=0, head_width=3)
  got = whitening.spread(graphdef, fresh, frozen(), test_phase2_training.mesh_of(*sizes))
  jax.tree.map(np.testing.assert_array_equal, got["qformer"], fresh["qformer"])
  model, given = nnx.merge(graphdef, got), inputs.entity_inputs(frozen(), jnp.arange(1, R))
  soft_ND = np.asarray(model.soft_tokens(*given)).reshape(-1, 6)
  np.testing.assert_allclose(soft_ND.mean(axis=0), 0.0, atol=1e-6)
  assert 0.1 < np.sqrt(np.mean(soft_ND ** 2)) < 0.4
  key_IP, _ = model.head.items(model.features(*given), jnp.zeros(R - 1))
  np.testing.assert_allclose(np.mean(key_IP, axis=0), 0.0, atol=1e-6)


def test_what_fills_the_table_up_is_no_entity():
  """Zeros behind the last row, as on a mesh that the rows do not divide over."""
  graphdef, fresh = small_configs.phase2(CONFIG, 6, 0.2, seed=0)
  filled = jax.tree.map(lambda x: jnp.pad(x, [(0, 60)] + [(0, 0)] * (x.ndim - 1)), frozen())
  mesh = test_phase2_training.mesh_of(1, 1, 1)
  want = whitening.spread(graphdef, fresh, frozen(), mesh)["projection"]
  got = whitening.spread(graphdef, fresh, filled, mesh, rows=R)["projection"]
  other = whitening.spread(graphdef, fresh, filled, mesh)["projection"]
  np.testing.assert_array_equal(got["kernel"], want["kernel"])
  assert np.abs(np.asarray(other["kernel"]) - np.asarray(want["kernel"])).max() > 1e-4


def test_whitening_by_hand():
  """Variances 4 and 1 become 1 and 1; one below the floor is scaled as if it were at it."""
  x_N3 = np.array([[2, 1, 3], [2, -1, 3], [-2, 1, 3], [-2, -1, 3]]) + np.array([10.0, 0, 0])
  mean_3, matrix_33 = whitening.whitening(whitening.Moments(
      4, (x_N3 - 1).sum(0), (x_N3 - 1).T @ (x_N3 - 1), np.ones(3)))
  np.testing.assert_allclose(mean_3, [10, 0, 3])
  y_N3 = (x_N3 - mean_3) @ matrix_33
  np.testing.assert_allclose(y_N3.T @ y_N3 / 4, np.diag([1.5, 1.5, 0]), atol=1e-9)


def test_whitening_does_not_hang_on_rounding():
  """Two directions of one variance: their axes may be any in their plane, the matrix is one."""
  covariance_33 = np.diag([4.0, 1.0, 1.0])
  noise_33 = 1e-9 * np.random.default_rng(0).normal(size=(3, 3))
  one, other = (whitening.whitening(whitening.Moments(1, np.zeros(3), x_33, np.zeros(3)))[1]
                for x_33 in (covariance_33, covariance_33 + noise_33 + noise_33.T))
  np.testing.assert_allclose(other, one, atol=1e-7)
  np.testing.assert_allclose(np.sign(np.diag(one)), 1)


def test_what_is_all_the_same_is_left_alone():
  """As where every vector is taken away."""
  x_N2 = np.tile([[1.0, 2.0]], (5, 1))
  mean_2, matrix_22 = whitening.whitening(
      whitening.Moments(5, x_N2.sum(0), x_N2.T @ x_N2, np.zeros(2)))
  np.testing.assert_array_equal(mean_2, [0, 0])
  np.testing.assert_array_equal(matrix_22, np.eye(2))
