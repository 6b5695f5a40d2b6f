"""Tests whether a difference between two systems on the same users is more than chance."""
import numpy as np


def randomisation_test(a_U, b_U, *, permutations: int = 10_000, seed: int = 0) -> float:
  """Two-sided p value of the paired randomisation test on the difference of means.

  Under the null hypothesis a coin toss decides which of a user's two values belongs to which system
  (Smucker, Allan and Carterette, CIKM 2007). The observed assignment counts as one of the draws, so
  p is never 0.

  Args:
    a_U, b_U: one value per user, for the same users in the same order.
    permutations: number of draws.
    seed: for the draws.
  """
  difference_U = np.asarray(a_U, np.float64) - np.asarray(b_U, np.float64)
  moved_U = difference_U[difference_U != 0]      # equal values change no sum
  observed = abs(moved_U.sum())
  rng, extreme, done = np.random.default_rng(seed), 0, 0
  while done < permutations:
    count = min(permutations - done, max(1, (1 << 22) // max(len(moved_U), 1)))
    sign = rng.integers(0, 2, (count, len(moved_U)), dtype=np.int8) * 2 - 1
    # A sum that differs from the observed one only by rounding counts as equally extreme.
    extreme += int(np.sum(np.abs(sign @ moved_U) >= observed - 1e-9 * max(observed, 1.0)))
    done += count
  return (extreme + 1) / (permutations + 1)


def holm(p_values) -> np.ndarray:
  """Holm's step-down correction: p values that control the family-wise error rate.

  Args:
    p_values: [N] p values.

  Returns:
    float64 [N], in the given order, at most 1.
  """
  p = np.asarray(p_values, np.float64)
  order = np.argsort(p, kind="stable")
  stepped = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
  corrected = np.empty_like(p)
  corrected[order] = np.minimum(stepped, 1.0)
  return corrected
