"""benchmarks/folded.py on a handful of users."""
import numpy as np
import pytest

from benchmarks import folded
from ilm_jax.cf import ials
from ilm_jax.data import interactions


@pytest.fixture
def log():
  """Every other user likes 1 to 4, the others 5 to 8, all in different orders."""
  users, items = zip(*[(f"u{n}", str(1 + 4 * (n % 2) + (n // 2 + step) % 4))
                       for n in range(8) for step in range(4)])
  made = interactions.Items([str(n) for n in range(1, 9)], list("ABCDEFGH"), [None] * 8, [[]] * 8)
  return interactions.build(users, items, range(len(users)), [1.0] * len(users), made, 0)[0]


def test_folded_in_users_have_the_ranks_of_their_trained_rows(log):
  factors = ials.ials(interactions.train_histories(log), log.num_items, 4, reg=0.1, alpha=2.0,
                      iterations=10, seed=0)
  of = folded.ranks(log, *factors, 0.1, 2.0)
  trained, history, before = of.values()
  np.testing.assert_array_equal(trained, history)
  assert (before == 1).all()                 # the only item left of its group
  of = folded.ranks(log, np.roll(factors[0], 1, axis=0), factors[1], 0.1, 2.0)
  assert (of[folded.TRAINED] != history).any()
