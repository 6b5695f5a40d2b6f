import numpy as np

from ilm_jax.baselines import popularity


def test_popularity_counts_users_not_events():
  """Item 2 is in two histories; item 1 twice, but in one."""
  score_I = popularity.popularity([[2, 1, 1], [2], []], num_items=3)
  np.testing.assert_array_equal(score_I, [-np.inf, 1, 2, 0])


def test_factors_by_hand():
  score_UI = popularity.factors([[1, 2]], [[0, 0], [3, 1], [-1, 1]])
  np.testing.assert_array_equal(score_UI, [[-np.inf, 5, 1]])
