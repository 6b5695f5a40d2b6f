"""Losses: pure, per example, in nats. Callers mask, weight and average (`weighted_mean`).

The contrastive losses work on a similarity matrix and two boolean matrices of the same shape:
`positive` marks known positives beside the diagonal (equal entities, equal texts), `excluded`
pairs that are neither positive nor negative. With a catalogue of thousands, batches often hold
both.

Sources: BLIP-2 (arXiv 2301.12597; salesforce/LAVIS blip2_qformer.py) for ITC, ITM, ITG; ILM (arXiv
2406.02844) for item-item and user-item; Hadsell et al. 2006 for the margin form.
"""
import jax
import jax.numpy as jnp

_NEVER = -1e9  # as a logit: probability 0 in float32, and finite


def unit(x) -> jax.Array:
  """x / |x| along the last axis; zeros stay zeros, with a finite gradient."""
  square = jnp.sum(x * x, axis=-1, keepdims=True)
  return x * jax.lax.rsqrt(jnp.maximum(square, 1e-24))


def weighted_mean(values, weights, of=None) -> jax.Array:
  """sum(w * x) / sum(w); 0 if no weight is positive.

  For one part of a batch, `of` holds the weights of the whole batch. The result is then the part's
  share of the batch's mean: the shares of all parts add up to the mean.
  """
  weights = weights.astype(values.dtype)
  total = jnp.sum((weights if of is None else of).astype(values.dtype))
  return jnp.sum(values * weights) / jnp.maximum(total, 1e-9)


def item_text_similarity(item_BQP, text_TP) -> jax.Array:
  """[B, T] cosine of each text with the closest query of each item (unit vectors in)."""
  return jnp.max(jnp.einsum("bqp,tp->btq", item_BQP, text_TP), axis=-1)


def bag_similarity(left_BQP, right_CQP) -> jax.Array:
  """[B, C] largest cosine over all pairs (query i of left, query j of right) (unit vectors in).

  Our choice is ITC's rule on both sides: the ILM paper gives no rule for its pair losses.
  """
  return jnp.max(jnp.einsum("bip,cjp->bcij", left_BQP, right_CQP), axis=(-2, -1))


def pair_similarity(left_BQP, right_BQP) -> jax.Array:
  """[B]: the diagonal of `bag_similarity`."""
  return jnp.max(jnp.einsum("bip,bjp->bij", left_BQP, right_BQP), axis=(-2, -1))


def contrastive(logits_BB, positive_BB=None, excluded_BB=None, smoothing: float = 0.0) -> jax.Array:
  """Symmetric InfoNCE with spread targets.

  For row b, with p the positives (the diagonal and `positive_BB`) and c the candidates (all but
  the excluded), targets t_bj = (1 - s) p_bj / sum_j p_bj + s c_bj / sum_j c_bj and

    row_b = - sum_j t_bj log softmax_j(logits_bj over the candidates);

  columns likewise, loss_b = (row_b + column_b) / 2. Without positives and exclusions this is
  cross-entropy with label smoothing s; with equal ids as positives it is LAVIS's ITC.

  Args:
    logits_BB: [batch, batch] similarities over temperature; the diagonal holds the pairs.
    positive_BB: boolean, further positives.
    excluded_BB: boolean, neither positive nor negative; ignored on the diagonal.
    smoothing: s.
  """
  diagonal_BB, candidate_BB = _candidates(logits_BB, excluded_BB)
  positive_BB = diagonal_BB if positive_BB is None else (positive_BB | diagonal_BB) & candidate_BB
  logits_BB = jnp.where(candidate_BB, logits_BB, _NEVER)

  def one_way(axis):
    target_BB = ((1.0 - smoothing) * positive_BB / jnp.sum(positive_BB, axis=axis, keepdims=True)
                 + smoothing * candidate_BB / jnp.sum(candidate_BB, axis=axis, keepdims=True))
    nll_BB = jnp.where(candidate_BB, -jax.nn.log_softmax(logits_BB, axis=axis), 0.0)
    return jnp.sum(target_BB * nll_BB, axis=axis)

  return 0.5 * (one_way(1) + one_way(0))


def over_catalogue(logits_BK, target_BK, stands_BK, smoothing: float = 0.0) -> jax.Array:
  """[B] cross-entropy of a target among candidates, smoothed over all of them.

  Args:
    logits_BK: float [batch, candidates].
    target_BK: boolean, true once in each row.
    stands_BK: how many items of the catalogue each candidate stands for. 1 if all items are
      candidates; 1 / (probability of the draw) if they are drawn, so that the softmax's sum is on
      average that over the catalogue. 0: not a candidate of this row, e.g. the querying entity.
    smoothing: share of the target that is spread over the catalogue.
  """
  spread_BK = stands_BK / jnp.sum(stands_BK, axis=1, keepdims=True)
  wanted_BK = (1.0 - smoothing) * target_BK + smoothing * spread_BK
  return jax.nn.logsumexp(logits_BK, axis=1, b=stands_BK) - jnp.sum(wanted_BK * logits_BK, axis=1)


def handed_on(logits_BK, given_BK, stands_BK) -> jax.Array:
  """[B] cross-entropy of the softmax of `logits_BK` against the softmax of `given_BK`, a teacher's
  logits; the rest as in `over_catalogue`.

  Over drawn candidates both softmaxes are normalised over the drawn ones alone, which biases the
  gradient: with 60 items by .57 of its size if 10 are drawn, .36 if 20, .13 if 40
  (tests/test_drawing.py).
  """
  given_BK = given_BK - jax.nn.logsumexp(given_BK, axis=1, b=stands_BK, keepdims=True)
  wanted_BK = stands_BK * jnp.exp(given_BK)
  return jax.nn.logsumexp(logits_BK, axis=1, b=stands_BK) - jnp.sum(wanted_BK * logits_BK, axis=1)


def uniformity(unit_NP) -> jax.Array:
  """log of the mean of exp(-2 |x - y|^2) over pairs of different rows. The lower it is, the
  more evenly unit vectors fill the sphere (Wang and Isola, arXiv 2005.10242, section 4.1.2)."""
  square_NN = 2.0 - 2.0 * unit_NP @ unit_NP.T
  apart_NN = ~jnp.eye(len(unit_NP), dtype=bool)
  return jax.nn.logsumexp(jnp.where(apart_NN, -2.0 * square_NN, -jnp.inf)) - jnp.log(
      apart_NN.sum())


def margin(similarity_BB, positive_BB=None, excluded_BB=None, width: float = 1.0) -> jax.Array:
  """Hadsell's margin loss on distances d = |x - y| = sqrt(2 - 2 cosine) of unit vectors.

    loss_b = d_bb^2 / 2 + mean over negatives j of max(0, width - d_bj)^2 / 2,

  with negatives from the row and from the column of b. Positives and excluded pairs are not
  negatives. Orthogonal vectors are sqrt(2) apart.
  """
  diagonal_BB, candidate_BB = _candidates(similarity_BB, excluded_BB)
  negative_BB = candidate_BB & ~diagonal_BB
  if positive_BB is not None:
    negative_BB = negative_BB & ~positive_BB
  square_BB = jnp.maximum(2.0 - 2.0 * similarity_BB, 1e-6)
  push_BB = jnp.where(negative_BB, jnp.maximum(0.0, width - jnp.sqrt(square_BB)) ** 2, 0.0)
  total_B = jnp.sum(push_BB, axis=1) + jnp.sum(push_BB, axis=0)
  count_B = jnp.sum(negative_BB, axis=1) + jnp.sum(negative_BB, axis=0)
  return 0.5 * jnp.diagonal(square_BB) + 0.5 * total_B / jnp.maximum(count_B, 1)


def in_batch_hits(logits_BB, positive_BB) -> jax.Array:
  """[B] share of the two directions (row, column) whose best candidate is a positive.

  It compares maxima: an argmax along an axis that is spread over devices would gather the matrix.
  """
  own_BB = jnp.where(positive_BB, logits_BB, -jnp.inf)
  return 0.5 * sum((jnp.max(own_BB, axis=axis) >= jnp.max(logits_BB, axis=axis)).astype(jnp.float32)
                   for axis in (1, 0))


def draw_negatives(key, logits_BB, positive_BB) -> tuple[jax.Array, jax.Array]:
  """For each row one hard negative, drawn with probability softmax(logits) over non-positives.

  Returns:
    (int [B] columns, boolean [B] whether the row has any non-positive: if not, the column is
    arbitrary and the caller gives the row no weight).
  """
  logits_BB = jax.lax.stop_gradient(jnp.where(positive_BB, _NEVER, logits_BB))
  return jax.random.categorical(key, logits_BB, axis=1), ~jnp.all(positive_BB, axis=1)


def classification(logits_BC, label_B) -> jax.Array:
  """[B] cross-entropy of integer labels (ITM: 1 match, 0 no match)."""
  picked_B = jnp.take_along_axis(logits_BC, label_B[:, None], axis=1)[:, 0]
  return jax.nn.logsumexp(logits_BC, axis=1) - picked_B


def token_cross_entropy(logits_BTV, target_BT, smoothing: float) -> tuple[jax.Array, jax.Array]:
  """(smoothed loss, negative log likelihood), each [B, T].

  nll = logsumexp(z) - z_target; the smoothed target spreads s over all V tokens, so
  loss = (1 - s) nll + s (logsumexp(z) - mean(z)).
  """
  total_BT = jax.nn.logsumexp(logits_BTV, axis=-1)
  picked_BT = jnp.take_along_axis(logits_BTV, target_BT[..., None], axis=-1)[..., 0]
  nll_BT = total_BT - picked_BT
  spread_BT = total_BT - jnp.mean(logits_BTV, axis=-1)
  return (1.0 - smoothing) * nll_BT + smoothing * spread_BT, nll_BT


def _candidates(matrix_BB, excluded_BB):
  diagonal_BB = jnp.eye(matrix_BB.shape[0], dtype=bool)
  if excluded_BB is None:
    return diagonal_BB, jnp.ones_like(diagonal_BB)
  return diagonal_BB, ~excluded_BB | diagonal_BB
