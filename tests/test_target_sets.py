"""Rankings with several targets: values by hand, intervals over what belongs together."""
import numpy as np
import pytest

from ilm_jax.evaluation import paired, target_sets

RANKS = [[1.0, np.inf], [3.0], [2.0, 1.0, 11.0]]


def test_values_by_hand():
  got = target_sets.values(RANKS)
  np.testing.assert_allclose(got["R@1"], [1 / 2, 0, 1 / 3])
  np.testing.assert_allclose(got["R@10"], [1 / 2, 1, 2 / 3])
  np.testing.assert_allclose(got["MRR"], [1, 1 / 3, 1])
  second, third = 1 / np.log2(3), 1 / np.log2(4)
  np.testing.assert_allclose(got["NDCG@10"], [
      1 / (1 + second), third, (1 + second) / (1 + second + third)])


def test_more_targets_than_places_can_still_be_perfect():
  np.testing.assert_allclose(target_sets.ndcg([[1.0, 2.0, 3.0]], 2), [1.0])


def test_the_mean_is_over_rankings_and_the_interval_over_groups():
  bootstrap = paired.Bootstrap(200, 0)
  value_N = np.array([0.0, 0.0, 0.0, 1.0])
  got = target_sets.estimates(bootstrap, {"R@1": value_N}, [7, 7, 7, 9])["R@1"]
  assert (got["value"], got["n"]) == (0.25, 2)
  # Only three samples exist: both of one group, or one of each.
  assert (got["lo"], got["hi"]) == (0.0, 1.0)
  alone = target_sets.estimates(bootstrap, {"R@1": np.tile(value_N, 50)}, np.arange(200))["R@1"]
  assert alone["value"] == 0.25 and alone["hi"] - alone["lo"] == pytest.approx(0.12, abs=0.03)
