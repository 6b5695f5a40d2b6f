"""Metrics of texts, worked by hand."""
import numpy as np
import pytest
import scipy.stats

from ilm_jax.evaluation import consistency, metrics


def test_spearman_against_scipy_with_ties_and_constants():
  a = np.array([[1.0, 5, 2, 2], [3, 1, 2, 0], [7, 7, 7, 7]])
  b = np.array([[2.0, 9, 1, 4], [0, 2, 1, 3], [1, 2, 3, 4]])
  want = [scipy.stats.spearmanr(x, y).statistic for x, y in zip(a[:2], b[:2])]
  np.testing.assert_allclose(metrics.spearman(a, b), [*want, 0.0], atol=1e-12)
  assert want[1] == pytest.approx(-1)


def test_distinct_by_hand():
  texts = ["A b a b", "a B"]         # ab ba ab | ab: two of four
  assert metrics.distinct(texts, 2) == 2 / 4 and metrics.distinct(texts, 1) == 2 / 6
  assert metrics.distinct(["one"], 2) == 0


def test_mean_over_tasks_is_of_ratios_and_resamples_items():
  """Task 0: (2 + 6) / (1 + 3) = 2; task 1 has only item 0: 5 / 1. Mean 3.5."""
  sums, counts = [[2.0, 6.0], [5.0, 0.0]], [[1.0, 3.0], [1.0, 0.0]]
  found = metrics.bootstrap_mean(sums, counts, resamples=200, seed=0)
  assert found.value == 3.5 and found.n == 2
  # Resamples: item 0 twice, (2 + 5) / 2; item 1 twice, task 0 alone, 2; both, 3.5.
  assert (found.lo, found.hi) == (2.0, 3.5)


def test_tasks_that_share_items_do_not_narrow_the_interval():
  """Ten copies of a task say no more than one: items are drawn, not examples."""
  values = np.random.default_rng(0).normal(size=(1, 40))
  one = metrics.bootstrap_mean(values, np.ones_like(values), resamples=300, seed=0)
  ten = metrics.bootstrap_mean(values.repeat(10, 0), np.ones((10, 40)), resamples=300, seed=0)
  np.testing.assert_allclose(one, ten)


def test_behaviour_is_found_where_texts_tell_it_and_not_where_they_do_not():
  """Sentence vectors that hold the factors, linearly mixed; then those of other items."""
  rng = np.random.default_rng(0)
  item_NC, user_UC = rng.normal(size=(300, 4)), rng.normal(size=(50, 4))
  text_NP = item_NC @ rng.normal(size=(4, 12)) + 0.1 * rng.normal(size=(300, 12)) + 3.0
  rows = np.arange(1, 251)
  told = consistency.fit(text_NP[:250], item_NC[:250] + 2.0, rows, user_UC, seed=0)
  own = told.consistency(text_NP[250:], item_NC[250:] + 2.0)
  centred = item_NC[250:]
  other = consistency.fit(text_NP[:250], item_NC[:250], rows, user_UC, seed=0).consistency(
      text_NP[250:], np.roll(centred, 1, axis=0))
  assert own.shape == (50,) and own.mean() > 0.95 and abs(other.mean()) < 0.2
