"""Metrics worked by hand."""
import numpy as np
import pytest

from ilm_jax.evaluation import metrics

INF = np.inf


def test_ranks_from_scores_by_hand():
  """Ties go to the lower column: of the two 5s in row 0, column 1 is first and column 3 second."""
  score_UI = np.array([[-INF, 5, 1, 5], [-INF, 2, 9, 4], [-INF, 3, 3, 3]])
  np.testing.assert_array_equal(metrics.ranks_from_scores(score_UI, np.array([3, 1, 1])), [2, 3, 1])


def test_a_filter_moves_targets_up_and_a_filtered_target_is_missed():
  score_UI = np.array([[-INF, 5, 1, 5], [-INF, 2, 9, 4]])
  blocked_UI = np.array([[0, 1, 0, 0], [0, 1, 0, 0]], bool)
  rank_U = metrics.ranks_from_scores(score_UI, np.array([3, 1]), blocked_UI)
  np.testing.assert_array_equal(rank_U, [1, INF])


def test_a_history_with_the_target_in_it_is_not_filtered():
  """A filter that spared the target alone would give it away to whoever ranks old items first."""
  histories = [np.array([3, 1, 3]), np.array([3, 1, 3]), np.array([], np.int32)]
  rows = metrics.rows_to_filter(histories, np.array([2, 3, 1]))
  assert [listed.tolist() for listed in rows] == [[1, 3], [], []]
  assert metrics.repeated(histories, np.array([2, 3, 1])).tolist() == [False, True, False]


def test_who_ranks_old_items_first_is_right_as_often_as_chance():
  """180 users, 9 items in each history, each of them the target once: HR@1 is 1 / 9."""
  rng = np.random.default_rng(0)
  histories = [history for _ in range(20) for history in [rng.permutation(20)[:9] + 1] * 9]
  target_U = np.array([history[n % 9] for n, history in enumerate(histories)])
  score_UI = np.zeros((180, 21))
  for score_I, history in zip(score_UI, histories):
    score_I[history] = 1
  blocked_UI = np.zeros((180, 21), bool)
  for blocked_I, rows in zip(blocked_UI, metrics.rows_to_filter(histories, target_U)):
    blocked_I[rows] = True
  score_UI[:, 0] = -INF
  rank_U = metrics.ranks_from_scores(score_UI, target_U, blocked_UI)
  assert metrics.hit_rate(rank_U, 1).mean() == pytest.approx(1 / 9)


def test_a_protocol_counts_repeated_targets():
  histories = [np.array([3, 1]), np.array([2, 4])]
  clean = metrics.filter_protocol(histories, np.array([2, 3]))
  assert clean == {"filter": "items of the user's history are taken out",
                   "repeated targets": "none"}
  found = metrics.filter_protocol(histories, np.array([1, 3]))
  assert found["filter"] == clean["filter"]
  assert found["repeated targets"].startswith("1 of 2 ") and "without" in found["repeated targets"]


def test_nan_scores_are_refused():
  with pytest.raises(FloatingPointError, match="NaN"):
    metrics.ranks_from_scores(np.array([[0.0, np.nan]]), np.array([0]))


def test_ranks_from_items_by_hand():
  items_UW = np.array([[7, 3, 9], [4, 0, 0]])
  np.testing.assert_array_equal(metrics.ranks_from_items(items_UW, np.array([9, 5])), [3, INF])


def test_values_by_hand():
  rank_U = np.array([1, 3, 5, INF])
  np.testing.assert_array_equal(metrics.hit_rate(rank_U, 3), [1, 1, 0, 0])
  np.testing.assert_allclose(metrics.ndcg(rank_U, 4), [1, 1 / 2, 0, 0])
  np.testing.assert_allclose(metrics.reciprocal_rank(rank_U), [1, 1 / 3, 1 / 5, 0])


def test_rank_estimates_leave_out_what_a_short_list_cannot_tell():
  found = metrics.rank_estimates(np.array([1, 2, INF, INF]), hits=(1, 5), ndcgs=(2, 10), depth=3,
                                 resamples=20, seed=0)
  assert list(found) == ["hr@1", "ndcg@2", "mrr@3"]
  assert found["hr@1"].value == 1 / 4 and found["mrr@3"].value == (1 + 1 / 2) / 4
  assert found["ndcg@2"].value == pytest.approx((1 + 1 / np.log2(3)) / 4)
  assert "mrr" in metrics.rank_estimates(np.array([2.0]), resamples=2, seed=0)


def test_bootstrap_interval_of_a_rate():
  """300 of 1000: the interval is 1.96 standard errors of sqrt(.3 * .7 / 1000) to both sides."""
  value, lo, hi, n = metrics.bootstrap(np.arange(1000) < 300, resamples=2000, seed=1)
  error = 1.96 * np.sqrt(0.3 * 0.7 / 1000)
  assert (value, n) == (0.3, 1000)
  np.testing.assert_allclose([lo, hi], [0.3 - error, 0.3 + error], atol=0.004)
  assert metrics.bootstrap(np.arange(1000) < 300, resamples=2000, seed=1).lo == lo


def test_bootstrap_of_a_ratio_weighs_examples_by_their_counts():
  assert metrics.bootstrap([6.0, 1.0], [3, 1], resamples=5, seed=0).value == 7 / 4


def test_bootstrap_of_nothing_is_nan():
  assert np.isnan(metrics.bootstrap([], resamples=5, seed=0).value)
