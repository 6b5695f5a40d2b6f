"""benchmarks/query_outputs.py: how far queries differ, by hand."""
import numpy as np

from benchmarks import query_outputs


def test_spread_by_hand():
  """Two items, two queries, one number each: (3, 1) and (-1, 1)."""
  size, differs, between = query_outputs.spread(np.array([[[3.0], [1.0]], [[-1.0], [1.0]]]))
  np.testing.assert_allclose(size, 3 ** 0.5)
  np.testing.assert_allclose(differs, 2 ** 0.5)       # (2, 0) and (-2, 0) without the items' mean
  np.testing.assert_allclose(between, 0.5 ** 0.5)     # (1, -1) and (-1, 1) without the queries'


def test_equal_queries_differ_by_nothing_and_unrelated_ones_by_most_of_it():
  random = np.random.default_rng(0)
  one = random.normal(size=(500, 1, 8))
  assert query_outputs.spread(np.repeat(one, 4, axis=1) + 7.0)[2] < 1e-6
  unrelated = query_outputs.spread(random.normal(size=(500, 4, 8)))[2]
  np.testing.assert_allclose(unrelated, 0.75 ** 0.5, rtol=0.02)
