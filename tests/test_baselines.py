"""Baselines: against brute force, by hand, and on planted structure."""
import jax
import numpy as np
import pytest
from flax import nnx

from ilm_jax import errors
from ilm_jax.baselines import bpr, neighbours, popularity, sasrec

RANDOM = np.random.default_rng(0)
# A wheel of 12 items: after item i comes i + 1, after 12 comes 1.
WHEEL = [(start + np.arange(6)) % 12 + 1 for start in RANDOM.integers(12, size=80)]


def test_item_knn_is_the_shrunk_cosine_of_the_nearest():
  histories = [RANDOM.permutation(7)[:3] + 1 for _ in range(20)]
  asked = [[1, 2], [7]]
  got = neighbours.item_knn(histories, 7, asked, neighbours=2, shrinkage=3.0)
  seen = np.array([[i in h for i in range(1, 8)] for h in histories], float)
  both = seen.T @ seen
  near = both / (np.sqrt(np.outer(np.diag(both), np.diag(both))) + 3.0)
  np.fill_diagonal(near, 0)
  for i in range(7):
    weakest = sorted(range(7), key=lambda j: (-near[i, j], j))[2:]
    near[i, weakest] = 0
  for row, history in zip(got, asked):
    want = [sum(near[i, h - 1] for h in history) for i in range(7)]
    np.testing.assert_allclose(row[1:], want, rtol=1e-6)
    assert row[0] == -np.inf


def test_transition_by_hand():
  """After 1 came 2 twice and 3 once; after 2 came 3."""
  got = neighbours.transition([[1, 2, 3], [1, 2], [1, 3]], 3, [[1], [1, 2], []], decay=0.5)
  np.testing.assert_allclose(got[:, 1:], [[0, 2 / 3, 1 / 3], [0, 1 / 3, 1 / 6 + 1], [0, 0, 0]],
                             rtol=1e-6)


def test_bpr_finds_planted_blocks():
  """Two crowds, two shelves: what a user has not chosen of the own shelf stands first."""
  histories = [RANDOM.permutation(10)[:6] + 1 + 10 * (u % 2) for u in range(60)]
  users, items = bpr.bpr(histories, 20, 8, epochs=150, batch_size=64)
  score = popularity.factors(users, items)
  own = np.array([score[u, 1 + 10 * (u % 2):11 + 10 * (u % 2)].mean() for u in range(60)])
  other = np.array([score[u, 11 - 10 * (u % 2):21 - 10 * (u % 2)].mean() for u in range(60)])
  assert (own > other + 1).mean() > 0.95


@pytest.mark.parametrize("loss, temperature", [*((loss, 0.0) for loss in sasrec.LOSSES),
                                               ("sampled", 0.1)])
def test_sasrec_learns_a_wheel(loss, temperature):
  config = sasrec.Config(width=16, num_layers=1, length=6, dropout=0.0, loss=loss, negatives=8,
                         batch_size=40, learning_rate=1e-2, epochs=40, evaluate_every=10,
                         temperature=temperature, seed=0)
  target = np.array([h[-1] % 12 + 1 for h in WHEEL])
  params = sasrec.train(WHEEL, 12, config, target)
  rank = sasrec.ranks(params, config, WHEEL, target)
  assert (rank == 1).mean() > 0.9                     # by chance one in twelve
  blocked = [[t % 12 + 1] for t in target]
  again = sasrec.ranks(params, config, WHEEL, target, blocked)
  assert (again <= rank).all()


def test_sasrec_sees_no_later_item_and_no_padding():
  config = sasrec.Config(width=8, num_layers=2, num_heads=2, length=5, seed=0)
  model = sasrec.SASRec(config, 9, rngs=nnx.Rngs(0))
  a, b = np.array([[0, 0, 3, 4, 5]]), np.array([[0, 0, 3, 4, 6]])
  np.testing.assert_array_equal(model.hidden(a)[:, 2:4], model.hidden(b)[:, 2:4])
  assert np.abs(model.hidden(a)[:, 4] - model.hidden(b)[:, 4]).max() > 1e-3
  model.item[...] = model.item[...].at[0].set(100.0)
  np.testing.assert_allclose(model.hidden(a)[:, 2:], sasrec.SASRec(
      config, 9, rngs=nnx.Rngs(0)).hidden(a)[:, 2:], rtol=1e-5, atol=1e-6)


def test_the_full_loss_is_the_softmax_over_items_without_padding():
  config = sasrec.Config(width=4, loss="full", seed=0)
  item, hidden = RANDOM.normal(size=(6, 4)), RANDOM.normal(size=(3, 4))
  target = np.array([1, 5, 2])
  got = sasrec._losses(config, item, hidden, target, jax.random.key(0))
  logits = hidden @ item.T
  want = [np.log(np.exp(row[1:]).sum()) - row[t] for row, t in zip(logits, target)]
  np.testing.assert_allclose(got, want, rtol=1e-5)


def test_with_a_temperature_scores_are_cosines_over_it():
  config = sasrec.Config(width=4, temperature=0.2, seed=0)
  item, hidden = RANDOM.normal(size=(6, 4)), RANDOM.normal(size=(3, 4))
  target = np.array([1, 5, 2])
  got = sasrec._losses(config, item, hidden, target, jax.random.key(0))
  unit = item / np.linalg.norm(item, axis=1, keepdims=True)
  logits = hidden @ unit.T / np.linalg.norm(hidden, axis=1, keepdims=True) / 0.2
  want = [np.log(np.exp(row[1:]).sum()) - row[t] for row, t in zip(logits, target)]
  np.testing.assert_allclose(got, want, rtol=1e-5)


def test_mistakes_are_named():
  with pytest.raises(errors.UserError, match="loss='hinge'"):
    sasrec.Config(loss="hinge", seed=0)
  with pytest.raises(errors.UserError, match="temperature=-1"):
    sasrec.Config(temperature=-1, seed=0)
  with pytest.raises(errors.UserError, match="nothing to learn from"):
    sasrec.train([[1], []], 3, sasrec.Config(seed=0), np.array([0, 0]))
