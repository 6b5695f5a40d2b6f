"""Every expected value is the formula, worked by hand on lopsided inputs."""
import jax
import jax.numpy as jnp
import numpy as np

from ilm_jax import losses
from ilm_jax.planning import hlo


def lse(*xs):
  return np.log(np.sum(np.exp(xs)))


def test_item_text_similarity_takes_the_closest_query():
  item_BQP = jnp.array([[[1.0, 0.0], [0.0, 1.0]], [[0.0, -1.0], [-1.0, 0.0]]])
  text_TP = jnp.array([[0.6, 0.8], [1.0, 0.0], [0.0, -1.0]])
  np.testing.assert_allclose(losses.item_text_similarity(item_BQP, text_TP),
                             [[0.8, 1.0, 0.0], [-0.6, 0.0, 1.0]], atol=1e-6)


def test_bag_similarity_takes_the_best_pair_of_queries():
  left_BQP = jnp.array([[[1.0, 0.0], [0.0, 1.0]], [[-1.0, 0.0], [-0.6, -0.8]]])
  right_CQP = jnp.array([[[0.6, 0.8], [0.0, -1.0]]])
  np.testing.assert_allclose(losses.bag_similarity(left_BQP, right_CQP), [[0.8], [0.8]], atol=1e-6)
  # The other way round it is the transpose.
  np.testing.assert_allclose(losses.bag_similarity(right_CQP, left_BQP), [[0.8, 0.8]], atol=1e-6)


def test_contrastive_by_hand():
  """Logits [[2, 1.2], [0, 1.6]]: rows and columns differ."""
  logits_BB = jnp.array([[2.0, 1.2], [0.0, 1.6]])
  row = np.log([1 + np.exp(1.2 - 2.0), 1 + np.exp(0.0 - 1.6)])
  column = np.log([1 + np.exp(0.0 - 2.0), 1 + np.exp(1.2 - 1.6)])
  np.testing.assert_allclose(losses.contrastive(logits_BB), (row + column) / 2, rtol=1e-6)


def test_contrastive_smoothing_by_hand():
  """s = .1 over two candidates: the target is .95 on the pair and .05 on the other."""
  logits_BB = jnp.array([[2.0, 1.2], [0.0, 1.6]])
  row_0 = lse(2.0, 1.2) - 0.95 * 2.0 - 0.05 * 1.2
  column_0 = lse(2.0, 0.0) - 0.95 * 2.0 - 0.05 * 0.0
  loss_B = losses.contrastive(logits_BB, smoothing=0.1)
  np.testing.assert_allclose(loss_B[0], (row_0 + column_0) / 2, rtol=1e-6)


def test_contrastive_spreads_over_equal_entities():
  """Rows 0 and 2 show the same item: each takes half of the other's text as its own."""
  logits_BB = jnp.array([[3.0, 1.0, 2.0], [0.5, 1.5, -1.0], [0.0, 2.5, 1.0]])
  same_BB = jnp.array([[1, 0, 1], [0, 1, 0], [1, 0, 1]], bool)
  row_0 = lse(3.0, 1.0, 2.0) - 0.9 * (3.0 + 2.0) / 2 - 0.1 * (3.0 + 1.0 + 2.0) / 3
  column_0 = lse(3.0, 0.5, 0.0) - 0.9 * (3.0 + 0.0) / 2 - 0.1 * (3.0 + 0.5 + 0.0) / 3
  loss_B = losses.contrastive(logits_BB, same_BB, smoothing=0.1)
  np.testing.assert_allclose(loss_B[0], (row_0 + column_0) / 2, rtol=1e-6)


def test_contrastive_excluded_is_no_negative():
  """Row 0 may not use column 1: only columns 0 and 2 are its candidates."""
  logits_BB = jnp.array([[3.0, 50.0, 2.0], [0.5, 1.5, -1.0], [0.0, 2.5, 1.0]])
  excluded_BB = jnp.zeros((3, 3), bool).at[0, 1].set(True).at[1, 1].set(True)
  loss_B = losses.contrastive(logits_BB, None, excluded_BB, smoothing=0.1)
  row_0 = lse(3.0, 2.0) - 0.95 * 3.0 - 0.05 * 2.0
  column_0 = lse(3.0, 0.5, 0.0) - 0.9 * 3.0 - 0.1 * 3.5 / 3
  np.testing.assert_allclose(loss_B[0], (row_0 + column_0) / 2, rtol=1e-6)
  row_1 = lse(0.5, 1.5, -1.0) - 0.9 * 1.5 - 0.1 * 1.0 / 3  # the diagonal is never excluded
  column_1 = lse(1.5, 2.5) - 0.95 * 1.5 - 0.05 * 2.5
  np.testing.assert_allclose(loss_B[1], (row_1 + column_1) / 2, rtol=1e-6)


def test_contrastive_gradient_is_finite_with_exclusions():
  excluded_BB = ~jnp.eye(3, dtype=bool)
  grad = jax.grad(lambda x: losses.contrastive(x, None, excluded_BB, 0.1).sum())(jnp.ones((3, 3)))
  assert np.all(np.isfinite(grad))


def test_margin_by_hand():
  """Squared distances 2 - 2 cos are [[.2, .5], [1.6, .4]]; negatives within 1 are pushed."""
  similarity_BB = jnp.array([[0.9, 0.75], [0.2, 0.8]])
  push = (1 - np.sqrt(0.5)) ** 2  # the pair (0, 1); (1, 0) is sqrt(1.6) > 1 away
  expected = [0.2 / 2 + (push + 0.0) / 2 / 2, 0.4 / 2 + (0.0 + push) / 2 / 2]
  np.testing.assert_allclose(losses.margin(similarity_BB), expected, rtol=1e-5)
  positive_BB = jnp.array([[False, True], [False, False]])
  np.testing.assert_allclose(losses.margin(similarity_BB, positive_BB), [0.1, 0.2], rtol=1e-5)


def test_in_batch_hits_counts_both_directions():
  logits_BB = jnp.array([[2.0, 1.2, 0.0], [3.0, 1.6, 0.0], [0.0, 1.0, 0.5]])
  np.testing.assert_allclose(  # rows hit: 0; columns hit: 1, 2
      losses.in_batch_hits(logits_BB, jnp.eye(3, dtype=bool)), [0.5, 0.5, 0.5])


def test_in_batch_hits_send_no_matrix_between_devices():
  """Rows over 8 devices: what is sent is as long as the batch, not its square."""
  B, mesh = 64, jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
  rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
  matrices = [jax.ShapeDtypeStruct((B, B), d, sharding=rows) for d in (jnp.float32, bool)]
  sent = hlo.collectives(
      jax.jit(losses.in_batch_hits).lower(*matrices).compile().as_text(), 8)
  assert sent and max(one.bytes for one in sent) <= 2 * 4 * B


def test_draw_negatives_prefers_hard_ones_and_never_a_positive():
  """Row 0: own text 0, equal text 2, so 1 or 3 with odds e^0 : e^3. Row 1: nothing left."""
  logits_BB = jnp.array([[9.0, 0.0, 9.0, 3.0], [1.0, 1.0, 1.0, 1.0]])
  positive_BB = jnp.array([[True, False, True, False], [True] * 4])
  keys = jax.random.split(jax.random.key(0), 2000)
  drawn, valid = jax.vmap(lambda k: losses.draw_negatives(k, logits_BB, positive_BB))(keys)
  share = np.mean(np.asarray(drawn)[:, 0] == 3)
  assert set(np.unique(drawn[:, 0])) == {1, 3}
  assert abs(share - np.exp(3) / (1 + np.exp(3))) < 0.02
  assert valid[:, 0].all() and not valid[:, 1].any()


def test_classification_by_hand():
  np.testing.assert_allclose(
      losses.classification(jnp.array([[0.0, 2.0], [1.0, -1.0]]), jnp.array([1, 1])),
      [np.log(1 + np.exp(-2.0)), np.log(1 + np.exp(2.0))], rtol=1e-6)


def test_token_cross_entropy_by_hand():
  loss, nll = losses.token_cross_entropy(jnp.array([[[1.0, 2.0, 4.0]]]), jnp.array([[1]]), 0.1)
  np.testing.assert_allclose(nll, [[lse(1, 2, 4) - 2]], rtol=1e-6)
  np.testing.assert_allclose(loss, [[lse(1, 2, 4) - 0.9 * 2 - 0.1 * (1 + 2 + 4) / 3]], rtol=1e-6)


def test_unit_and_weighted_mean_at_zero():
  np.testing.assert_allclose(losses.unit(jnp.array([[3.0, 4.0], [0.0, 0.0]])),
                             [[0.6, 0.8], [0.0, 0.0]], rtol=1e-6)
  assert np.all(np.isfinite(jax.grad(lambda x: losses.unit(x).sum())(jnp.zeros((1, 2)))))
  assert losses.weighted_mean(jnp.array([5.0, 7.0]), jnp.array([0, 0])) == 0.0
  assert losses.weighted_mean(jnp.array([5.0, 8.0]), jnp.array([1.0, 2.0])) == 7.0


def test_over_catalogue_by_hand():
  """Entities 3, 1, 2 are the columns; row 1 is asked by item 2, no candidate of its own."""
  logits_BK = jnp.array([[2.0, 1.2, 0.5], [0.0, 1.6, 9.0]])
  loss_B = losses.over_catalogue(logits_BK, jnp.array([1, 3]), jnp.array([3, 1, 2]),
                                 jnp.array([8, 2]), smoothing=0.3)
  row_0 = lse(2.0, 1.2, 0.5) - 0.8 * 1.2 - 0.1 * (2.0 + 0.5)
  row_1 = lse(0.0, 1.6) - 0.85 * 0.0 - 0.15 * 1.6
  np.testing.assert_allclose(loss_B, [row_0, row_1], rtol=1e-6)
  # A target that asks for itself stays a candidate.
  same = losses.over_catalogue(logits_BK[:1], jnp.array([1]), jnp.array([3, 1, 2]), jnp.array([1]))
  np.testing.assert_allclose(same, [lse(2.0, 1.2, 0.5) - 1.2], rtol=1e-6)


def test_uniformity_by_hand():
  """Squares of distances over ordered pairs: 2, 4 and 2, each twice."""
  unit_NP = jnp.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
  want = np.log(np.mean([np.exp(-4.0), np.exp(-8.0), np.exp(-4.0)]))
  np.testing.assert_allclose(losses.uniformity(unit_NP), want, rtol=1e-5)
  np.testing.assert_allclose(losses.uniformity(jnp.ones((4, 1))), 0.0, atol=1e-6)
