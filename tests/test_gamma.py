"""Gamma between groups in order and scores."""
import numpy as np
import pytest

from ilm_jax.evaluation import gamma, paired

BOOTSTRAP = paired.Bootstrap(resamples=200, seed=0)


def test_pairs_are_of_different_groups_and_go_upwards():
  assert gamma.pairs([(1, 2), (3,), ()]).tolist() == [[1, 3], [2, 3]]
  assert gamma.pairs([(1,), (1, 2), (3,)]).tolist() == [[1, 2], [1, 3], [1, 3], [2, 3]]
  assert gamma.pairs([(), (5,), ()]).shape == (0, 2)


def test_counts_leave_ties_out():
  score = np.array([0, 1.0, 2.0, 2.0, 0.5])
  low, high = gamma.pairs([(1, 4), (2, 3)]).T      # 1<2, 1<3 alike; 4<2 and 4<3 alike
  assert gamma.counts(score[low], score[high]) == (4, 4)
  assert gamma.counts(score[high], score[low]) == (-4, 4)
  assert gamma.counts([1.0, 1.0, 3.0], [1.0, 2.0, 2.0]) == (0, 2)


def test_the_mean_over_attributes_does_not_weigh_by_pairs():
  got = gamma.estimate(BOOTSTRAP, [[10, 10], [0, 0]], [[10, 10], [1, 1]])
  assert got == {"value": 0.5, "lo": 0.5, "hi": 0.5, "n": 2}


def test_a_difference_is_over_attributes_that_both_order():
  """The other has equal scores everywhere in the first attribute: .6 and .2 there are no pair."""
  count = np.full((2, 40), 10)
  tied = (np.array([[0] * 40, [2] * 40]), np.array([[0] * 40, [10] * 40]))
  got = gamma.difference(BOOTSTRAP, (np.array([[6] * 40, [8] * 40]), count), tied)
  assert [got[name] for name in ("value", "lo", "hi")] == pytest.approx([0.6] * 3)
  with pytest.raises(ValueError, match="no attribute of which both order a pair"):
    gamma.difference(BOOTSTRAP, (count, count), (0 * count, 0 * count))


def test_a_difference_is_paired():
  """Raters differ, but by each rater one scores 0.5 higher: the interval has no width."""
  count = np.full((2, 40), 100)
  other = np.random.default_rng(0).integers(-50, 50, (2, 40))
  got = gamma.difference(BOOTSTRAP, (other + 50, count), (other, count))
  assert [got[name] for name in ("value", "lo", "hi")] == pytest.approx([0.5] * 3)
