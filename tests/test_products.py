"""Products in bfloat16: values and gradients, and what XLA's compiler for CPUs makes of them."""
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilm_jax.models import decoder, language_model, products

RNG = np.random.default_rng(0)
X, KERNEL = RNG.normal(size=(2, 8, 48)), RNG.normal(size=(48, 80))


def arrays(axis=0):
  kernel = KERNEL.T if axis else KERNEL
  return jnp.asarray(X, jnp.bfloat16), jnp.asarray(kernel, jnp.bfloat16)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("axis", [0, 1])
def test_values_and_gradients_are_those_of_float32_but_for_rounding(axis, wide):
  x, kernel = arrays(axis)
  exact_x, exact_kernel = x.astype(jnp.float32), kernel.astype(jnp.float32)
  exact = jnp.einsum("bti,oi->bto" if axis else "bti,io->bto", exact_x, exact_kernel)
  weight = jnp.asarray(RNG.normal(size=exact.shape), jnp.bfloat16).astype(jnp.float32)
  got = products.matmul(x, kernel, axis=axis, wide=wide)
  assert got.dtype == (jnp.float32 if wide else jnp.bfloat16)
  np.testing.assert_allclose(np.float32(got), exact, rtol=1e-6 if wide else 4e-3, atol=1e-5)

  def loss(x, kernel):
    return jnp.sum(weight * products.matmul(x, kernel, axis=axis, wide=wide))

  def exact_loss(x, kernel):
    return jnp.sum(weight * jnp.einsum("bti,oi->bto" if axis else "bti,io->bto", x, kernel))

  wanted = jax.grad(exact_loss, (0, 1))(exact_x, exact_kernel)
  for one, other in zip(jax.grad(loss, (0, 1))(x, kernel), wanted, strict=True):
    assert one.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(one), other, rtol=4e-3, atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1])
def test_trained_layers_multiply_rounded_factors_and_keep_float32_gradients(axis):
  x, kernel = (array.astype(jnp.float32) * 1.001 for array in arrays(axis))
  weight = jnp.asarray(RNG.normal(size=(2, 8, 80)), jnp.float32)
  dimensions = (((2,), (axis,)), ((), ()))

  def rounded(array):
    return array.astype(jnp.bfloat16).astype(jnp.float32)

  got, back = jax.vjp(lambda x, kernel: products.dot_general(x, kernel, dimensions), x, kernel)
  wanted, exact_back = jax.vjp(lambda x, kernel: jax.lax.dot_general(x, kernel, dimensions),
                               rounded(x), rounded(kernel))
  np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)
  assert np.abs(got - jax.lax.dot_general(x, kernel, dimensions)).max() > 1e-3
  for one, other in zip(back(weight), exact_back(rounded(weight)), strict=True):
    assert one.dtype == jnp.float32
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
  step = compiled(jax.grad(lambda x, kernel: jnp.sum(
      weight * products.dot_general(x, kernel, dimensions)), (0, 1)), x, kernel)
  assert re.findall(r"bf16\[[^ ]* convert\(", step)


def compiled(function, *arguments) -> str:
  return jax.jit(function).lower(*arguments).compile().as_text()


def test_a_frozen_kernel_gets_no_gradient_and_is_never_float32():
  x, kernel = arrays()
  text = compiled(jax.grad(lambda x: jnp.sum(products.matmul(x, kernel) ** 2)), x)
  assert len(re.findall(r" dot\(", text)) == 2
  text = compiled(jax.grad(lambda x, k: jnp.sum(products.matmul(x, k) ** 2)), x, kernel)
  assert "bf16[48,80]" in text and "f32[48,80]" not in text
  both = compiled(jax.grad(lambda x, k: jnp.sum(products.matmul(x, k) ** 2), (0, 1)), x, kernel)
  assert len(re.findall(r" dot\(", both)) == 3


@pytest.mark.parametrize("policy", ["none", "dots", "weights", "full"])
def test_a_layer_runs_as_many_products(policy):
  """As in float32, where a policy sees the products themselves."""
  def dots(dtype):
    config = decoder.DecoderConfig(num_layers=2, width=32, num_heads=2, num_kv_heads=1,
                                   head_dim=16, mlp_width=48, vocab_size=16, dtype=dtype,
                                   remat=policy)
    params = language_model.init(config, 0)
    place = jnp.tile(jnp.arange(8)[None], (2, 1))

    def loss(embeds):
      model = language_model.bind(config, params)
      return jnp.sum(model.hidden(embeds, place, place * 0 + 1).astype(jnp.float32) ** 3)

    text = compiled(jax.grad(loss), jnp.ones((2, 8, 32), dtype))
    return len(re.findall(r" dot\(", text))

  assert dots("bfloat16") == dots("float32")


@pytest.mark.parametrize("policy", ["none", "dots"])
def test_packed_kernels_are_the_same_model_and_no_copy_is_float32(policy):
  config = decoder.DecoderConfig(num_layers=3, width=32, num_heads=2, num_kv_heads=1, head_dim=16,
                                 mlp_width=48, vocab_size=16, dtype="bfloat16", remat=policy,
                                 qkv_bias=True)
  params, place = language_model.init(config, 0), jnp.tile(jnp.arange(8)[None], (2, 1))

  def value_and_text(params):
    def loss(embeds, params):
      model = language_model.bind(config, params)
      return jnp.sum(model.hidden(embeds, place, place * 0 + 1).astype(jnp.float32) ** 3)

    run = jax.jit(jax.value_and_grad(loss)).lower(embeds, params).compile()
    return run(embeds, params), run.as_text()

  embeds = jnp.asarray(RNG.normal(size=(2, 8, 32)), jnp.bfloat16)
  (value, grad), text = value_and_text(params)
  (same, also), packed = value_and_text(products.packed(params))
  assert value == same and (grad == also).all() and float(jnp.abs(grad).max()) > 0
  assert "f32[3,32,48]" in text and "f32[3,32,48]" not in packed     # up and gate
  if policy == "dots":       # what they give, which the backward pass reads
    assert "f32[3,2,8,48]" in text and "f32[3,2,8,48]" not in packed


def test_what_is_packed():
  params = {"embedding": jnp.ones((5, 4), jnp.bfloat16), "layers": {
      "up": jnp.ones((2, 3, 4), jnp.bfloat16), "scale": jnp.ones((2, 3), jnp.bfloat16),
      "low": jnp.ones((2, 3, 1))}}
  got = products.packed(params)
  up = got["layers"].pop("up")
  assert up.dtype == jnp.uint16 and (products.unpacked(up) == 1).all()
  assert got["embedding"] is params["embedding"]
  assert all(x is params["layers"][name] for name, x in got["layers"].items())
