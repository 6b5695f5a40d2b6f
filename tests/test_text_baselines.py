"""Baselines that know items by their texts alone."""
import numpy as np

from ilm_jax.baselines import texts as by_text


def test_factors_are_read_off_texts_by_hand():
  """Texts 1 and -1 have factors 2 and 0: slope 2 / (2 + 10) about a mean of 1."""
  score_UI = by_text.factors(
      np.array([[0.0], [1], [-1], [5]], np.float32), np.array([[0.0], [2], [0], [-7]]),
      np.array([[3.0]]), np.array([False, True, True, False]))
  np.testing.assert_allclose(score_UI, [[-np.inf, 6, 0, 3.5]], rtol=1e-6)


def test_the_text_neighbour_compares_the_mean_of_the_last_ten():
  texts = np.array([[0, 0], [4, 0], [0, 2], [3, 3]], np.float32)
  score_UI = by_text.neighbour(texts, [[2] + [1] * 10, [1, 1, 2, 2]])
  np.testing.assert_allclose(score_UI[:, 1:], [[1, 0, 0.5 ** 0.5], [
      2 / 5 ** 0.5, 1 / 5 ** 0.5, 3 / 10 ** 0.5]], rtol=1e-6)
  assert np.isneginf(score_UI[:, 0]).all()
