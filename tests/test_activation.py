"""Directions along which a property of vectors grows."""
import numpy as np

from ilm_jax.cf import activation


def test_between_goes_the_dimension_that_tells_and_not_the_loud_one():
  """Dimension 0 tells, dimension 1 is noise of ten times the size."""
  rng = np.random.default_rng(0)
  x = rng.normal(size=(4000, 3)) * [1.0, 10.0, 1.0]
  way = activation.between(x[:2000] + [3.0, 0, 0], x[2000:], ridge=1e-3)
  assert abs(way[0] - 3) < 0.2 and np.abs(way[1:]).max() < 0.2


def test_both_sets_weigh_the_same():
  rng = np.random.default_rng(0)
  some, others = rng.normal(size=(5, 3)) + [1.0, 2, 0], rng.normal(size=(50, 3))
  once = activation.between(some, others)
  np.testing.assert_allclose(activation.between(np.tile(some, (7, 1)), others), once, rtol=1e-5)


def test_along_is_the_distance_while_the_number_grows_by_one():
  """The vectors follow the year by 0.1 a year in dimension 0; dimension 1 is noise."""
  rng = np.random.default_rng(0)
  year_N = rng.integers(1950, 2018, 3000)
  x_NC = np.stack([0.1 * year_N, rng.normal(size=3000)], axis=1)
  np.testing.assert_allclose(activation.along(x_NC, year_N, ridge=1e-4), [0.1, 0], atol=5e-3)
  np.testing.assert_allclose(activation.along(x_NC, -year_N, ridge=1e-4), [-0.1, 0], atol=5e-3)
