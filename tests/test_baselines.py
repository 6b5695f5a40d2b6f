"""Baselines: against brute force, by hand, and on planted structure."""
import jax
import numpy as np
import pytest
from flax import nnx

from ilm_jax import errors
from ilm_jax.baselines import bpr, ease, neighbours, popularity, sasrec, sasrec_blocks

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


def test_transition_is_smoothed_towards_the_share_of_each_successor():
  """Successors in all: 2 twice, 3 twice. With s more, 1 has 3 + s and 3, without any, just s."""
  histories = [[1, 2, 3], [1, 2], [1, 3]]
  for s in (0.5, 2.0):
    got = neighbours.transition(histories, 3, [[1], [3], []], smoothing=s)
    np.testing.assert_allclose(
        got[:, 1:], [[0, (2 + s / 2) / (3 + s), (1 + s / 2) / (3 + s)], [0, 1 / 2, 1 / 2],
                     [0, 0, 0]], rtol=1e-6)


def test_ease_weights_are_the_regressions_of_each_item_on_the_others():
  """The closed form equals ridge regressions, one an item, with the item itself left out."""
  histories = [RANDOM.permutation(6)[:3] + 1 for _ in range(25)]
  queries = [[1, 4], [6], []]
  got = ease.ease(histories, 6, queries, reg=3.0)
  chosen = np.array([[i in h for i in range(1, 7)] for h in histories], float)
  for item in range(6):
    others = np.delete(np.arange(6), item)
    x = chosen[:, others]
    solved = np.linalg.solve(x.T @ x + 3.0 * np.eye(5), x.T @ chosen[:, item])
    weight = dict(zip(others + 1, solved))
    want = [sum(weight.get(h, 0.0) for h in query) for query in queries]
    np.testing.assert_allclose(got[:, item + 1], want, rtol=1e-5, atol=1e-7)
  assert np.isneginf(got[:, 0]).all()


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
@pytest.mark.parametrize("block", sasrec_blocks.BLOCKS)
def test_sasrec_learns_a_wheel(loss, temperature, block):
  config = sasrec.Config(width=16, num_layers=1, length=6, dropout=0.0, loss=loss, negatives=8,
                         batch_size=40, learning_rate=1e-2, epochs=80, evaluate_every=10,
                         temperature=temperature, block=block, seed=0)
  target = np.array([h[-1] % 12 + 1 for h in WHEEL])
  params = sasrec.train(WHEEL, 12, config, target)
  rank = sasrec.ranks(params, config, WHEEL, target)
  assert (rank == 1).mean() > 0.9                     # by chance one in twelve
  blocked = [[t % 12 + 1] for t in target]
  again = sasrec.ranks(params, config, WHEEL, target, blocked)
  assert (again <= rank).all()


@pytest.mark.parametrize("block", sasrec_blocks.BLOCKS)
def test_sasrec_sees_no_later_item_and_no_padding(block):
  config = sasrec.Config(width=8, num_layers=2, num_heads=2, length=5, block=block, seed=0)
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
  got = sasrec._losses(config, item, hidden[None], np.arange(3), target,
                       jax.random.key(0))
  logits = hidden @ item.T
  want = [np.log(np.exp(row[1:]).sum()) - row[t] for row, t in zip(logits, target)]
  np.testing.assert_allclose(got, want, rtol=1e-5)


def test_with_a_temperature_scores_are_cosines_over_it():
  config = sasrec.Config(width=4, temperature=0.2, seed=0)
  item, hidden = RANDOM.normal(size=(6, 4)), RANDOM.normal(size=(3, 4))
  target = np.array([1, 5, 2])
  got = sasrec._losses(config, item, hidden[None], np.arange(3), target,
                       jax.random.key(0))
  unit = item / np.linalg.norm(item, axis=1, keepdims=True)
  logits = hidden @ unit.T / np.linalg.norm(hidden, axis=1, keepdims=True) / 0.2
  want = [np.log(np.exp(row[1:]).sum()) - row[t] for row, t in zip(logits, target)]
  np.testing.assert_allclose(got, want, rtol=1e-5)


def test_gbce_is_the_binary_loss_of_a_probability_to_a_power():
  """By probabilities, as the paper has it: 3 negatives of 6 others, t = .5, so beta = .75."""
  target, negative = RANDOM.normal(size=4), RANDOM.normal(size=(4, 3))
  got = sasrec_blocks.gbce(target, negative, 7, 0.5)
  p, q = 1 / (1 + np.exp(-target)), 1 / (1 + np.exp(-negative))
  np.testing.assert_allclose(got, -(np.log(p ** 0.75) + np.log(1 - q).sum(1)) / 4, rtol=1e-5)
  whole = sasrec_blocks.gbce(target, negative, 7, 0.0)
  np.testing.assert_allclose(whole, -(np.log(p) + np.log(1 - q).sum(1)) / 4, rtol=1e-5)


@pytest.mark.parametrize("loss", ["sampled", "gbce"])
def test_negatives_are_a_users_and_never_the_target(loss):
  """Of two items the only negative of one is the other; what equals the target is left out."""
  config = sasrec.Config(width=4, loss=loss, negatives=5, seed=0)
  item, hidden = RANDOM.normal(size=(3, 4)), RANDOM.normal(size=(2, 2, 4))
  at, target, key = np.array([0, 1, 3]), np.array([1, 2, 1]), jax.random.key(3)
  got, grad = jax.value_and_grad(lambda x: sasrec._losses(config, x, hidden, at, target,
                                                          key).sum())(item)
  negatives = np.asarray(jax.random.randint(key, (2, 5), 1, 3))
  want = 0.0
  for place, t in zip(at, target):
    h = hidden[place // 2, place % 2]
    others = [h @ item[n] for n in negatives[place // 2] if n != t]
    if loss == "sampled":
      want += np.log(np.exp([h @ item[t], *others]).sum()) - h @ item[t]
    else:
      beta = 5.0 * (0.75 * (1 - 1 / 5.0) + 1 / 5.0)
      want += (beta * np.log1p(np.exp(-h @ item[t])) + np.log1p(np.exp(others)).sum()) / 6
  np.testing.assert_allclose(got, want, rtol=1e-5)
  assert np.isfinite(grad).all()


def test_a_ligr_layer_adds_what_its_open_gates_let_through():
  """By numpy: one position attends to itself alone."""
  layer = sasrec_blocks.Ligr(4, 1, 0.0, rngs=nnx.Rngs(0))
  x = RANDOM.normal(size=(1, 1, 4)).astype(np.float32)
  sigmoid = lambda z: 1 / (1 + np.exp(-z))  # noqa: E731

  def linear(module, z):
    return z @ np.asarray(module.kernel[...]) + (
        0 if module.bias is None else np.asarray(module.bias[...]))

  norm = lambda z: (z - z.mean()) / np.sqrt(z.var() + 1e-6)  # noqa: E731
  y = x + sigmoid(linear(layer.attention_gate, x)) * linear(
      layer.out, linear(layer.value, norm(x)))
  h = norm(y)
  gated = linear(layer.mlp_in, h)
  want = y + sigmoid(linear(layer.mlp_gate, y)) * linear(
      layer.mlp_out, gated * sigmoid(gated) * linear(layer.mlp_up, h))
  np.testing.assert_allclose(layer(x, np.ones((1, 1, 1), bool), None), want, rtol=1e-4, atol=1e-5)
  assert layer.mlp_in.kernel[...].shape == (4, 16)


def test_mistakes_are_named():
  for wrong in ({"block": "hstu"}, {"calibration": 1.5}, {"negatives": 0}):
    with pytest.raises(errors.UserError, match=next(iter(wrong))):
      sasrec.Config(**wrong, seed=0)
  with pytest.raises(errors.UserError, match="reg=0"):
    ease.ease([[1]], 1, [[1]], reg=0)
  with pytest.raises(errors.UserError, match="40,001 items"):
    ease.ease([[1]], 40_001, [[1]])
  with pytest.raises(errors.UserError, match="loss='hinge'"):
    sasrec.Config(loss="hinge", seed=0)
  with pytest.raises(errors.UserError, match="temperature=-1"):
    sasrec.Config(temperature=-1, seed=0)
  with pytest.raises(errors.UserError, match="no user has two training"):
    sasrec.train([[1], []], 3, sasrec.Config(seed=0), np.array([0, 0]))
