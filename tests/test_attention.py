"""Attention against loops in numpy, on lopsided shapes."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilm_jax.models import attention


def test_grouped_queries_against_a_loop():
  """Six query heads over two key heads: heads 0-2 read key head 0, heads 3-5 key head 1."""
  rng = np.random.default_rng(0)
  q, k, v = (rng.normal(size=s).astype(np.float32)
             for s in ((2, 3, 6, 4), (2, 5, 2, 4), (2, 5, 2, 4)))
  mask = rng.random((2, 3, 5)) < 0.6
  mask[:, :, 0] = True
  want = np.zeros_like(q)
  for b, t, h in np.ndindex(2, 3, 6):
    seen = np.flatnonzero(mask[b, t])
    score = k[b, seen, h // 3] @ q[b, t, h] / np.sqrt(4)
    weight = np.exp(score) / np.exp(score).sum()
    want[b, t, h] = weight @ v[b, seen, h // 3]
  np.testing.assert_allclose(attention.attend(q, k, v, jnp.asarray(mask)), want, atol=1e-5)


def test_a_query_that_sees_nothing_is_finite():
  v = jnp.asarray([1.0, 3.0, 8.0]).reshape(1, 3, 1, 1)
  one = jnp.ones((1, 3, 1, 1))
  out = attention.attend(one[:, :1], one, v, jnp.zeros((1, 1, 3), bool))
  assert float(out[0, 0, 0, 0]) == pytest.approx((1 + 3 + 8) / 3)
  grad = jax.grad(lambda q: attention.attend(q, one, v, jnp.zeros((1, 1, 3), bool)).sum())
  assert np.isfinite(grad(one[:, :1])).all()


def test_heads_that_do_not_divide_are_refused():
  with pytest.raises(ValueError, match="3 query heads do not divide over 2"):
    attention.attend(jnp.ones((1, 1, 3, 2)), jnp.ones((1, 1, 2, 2)), jnp.ones((1, 1, 2, 2)),
                     jnp.ones((1, 1, 1), bool))


def turned(x, position, base):
  return attention.rotate(
      x, *attention.rope_angles(jnp.asarray([[position]]), x.shape[-1], base))


def test_rope_by_hand():
  """Width 4: channels (0, 2) turn by the position, (1, 3) by position / 100**(1/2)."""
  x = jnp.asarray([1.0, 2.0, 5.0, 7.0]).reshape(1, 1, 1, 4)
  got = turned(x, 3, 100.0).reshape(4)
  a, b = 3.0, 3.0 / 10.0
  want = [1 * np.cos(a) - 5 * np.sin(a), 2 * np.cos(b) - 7 * np.sin(b),
          5 * np.cos(a) + 1 * np.sin(a), 7 * np.cos(b) + 2 * np.sin(b)]
  np.testing.assert_allclose(got, want, rtol=1e-5)


def test_rope_scores_depend_on_distance_alone():
  q, k = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 8))

  def score(at_q, at_k):
    return float((turned(q, at_q, 50.0) * turned(k, at_k, 50.0)).sum())

  assert score(9, 4) == pytest.approx(score(25, 20), abs=1e-4)
  assert score(9, 4) != pytest.approx(score(9, 5), abs=1e-2)


def test_causal_mask_by_hand():
  got = attention.causal_mask(jnp.asarray([[1, 1, 2, 0]]))[0]
  np.testing.assert_array_equal(got, [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
