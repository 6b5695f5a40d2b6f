"""JAX's flash attention for TPUs, interpreted here, beside our own attention."""
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilm_jax.models import attention, decoder, language_model, splash
from ilm_jax.monitoring import utilization
from ilm_jax.runtime import axes

L = 128
CONFIG = decoder.DecoderConfig(num_layers=2, width=16, num_heads=4, num_kv_heads=2, head_dim=8,
                               mlp_width=24, vocab_size=32, attention="auto")


@pytest.fixture
def interpreted(monkeypatch):
  monkeypatch.setattr(splash, "INTERPRET", True)


def inputs(heads=4, groups=2, rows=2, width=8):
  rng = np.random.default_rng(0)
  draw = lambda n: jnp.asarray(rng.normal(size=(rows, L, n, width)), jnp.float32)  # noqa: E731
  segment_BL = np.sort(rng.integers(0, 3, size=(rows, L)))
  return draw(heads), draw(groups), draw(groups), jnp.asarray(segment_BL, jnp.int32)


@pytest.mark.parametrize(("heads", "groups", "form"), [
    (4, 4, {}), (4, 2, {"scale": 0.3}), (4, 1, {"softcap": 2.0}), (2, 2, {"window": 5})])
def test_the_kernel_computes_our_attention_and_its_gradients(interpreted, heads, groups, form):
  q, k, v, segment_BL = inputs(heads, groups)
  place_L = jnp.arange(L)
  back_LL = place_L[:, None] - place_L[None]
  mask_BLL = attention.causal_mask(segment_BL) & (back_LL < form.get("window", L))[None]
  same = {name: value for name, value in form.items() if name != "window"}
  weight = jnp.asarray(np.random.default_rng(1).normal(size=q.shape), jnp.float32)

  def ours(q, k, v):
    return jnp.sum(weight * attention.attend(q, k, v, mask_BLL, **same))

  def kernel(q, k, v):
    return jnp.sum(weight * splash.attend(q, k, v, segment_BL, **form))

  want, want_grads = jax.jit(jax.value_and_grad(ours, (0, 1, 2)))(q, k, v)
  got, got_grads = jax.jit(jax.value_and_grad(kernel, (0, 1, 2)))(q, k, v)
  np.testing.assert_allclose(got, want, rtol=1e-5)
  for x, y in zip(got_grads, want_grads):
    np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4)


def test_each_device_computes_its_rows_and_heads(interpreted):
  mesh = axes.make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
  q, k, v, segment_BL = inputs(rows=4)

  @jax.jit
  def kernel(*arrays):
    with axes.tracing(mesh):
      return splash.attend(*arrays)

  at = axes.sharding(mesh, "batch", None, "heads", None)
  placed = (*(jax.device_put(x, at) for x in (q, k, v)),
            jax.device_put(segment_BL, axes.sharding(mesh, "batch", None)))
  got = kernel(*placed)
  assert got.sharding.is_equivalent_to(at, 4)
  assert "all-gather" not in kernel.lower(*placed).compile().as_text()
  np.testing.assert_allclose(got, attention.attend(q, k, v, attention.causal_mask(segment_BL)),
                             atol=1e-5)


def hidden(config, length=L, prefix=False, fork=False):
  """(function of embeddings to [B, L, D] of a random decoder, the embeddings)."""
  params = language_model.init(config, 0)
  rng = np.random.default_rng(2)
  segment_BL = jnp.asarray(np.sort(rng.integers(0, 3, size=(2, length))), jnp.int32)
  position_BL = jnp.asarray([[np.sum(row[:n] == row[n]) for n in range(length)]
                             for row in np.asarray(segment_BL)], jnp.int32)
  zeros_BL = jnp.zeros((2, length), jnp.int32)

  def of(embeds_BLD):
    return language_model.bind(config, params).hidden(
        embeds_BLD, position_BL, segment_BL, zeros_BL > 0 if prefix else None,
        fork_BL=zeros_BL if fork else None)

  return of, jnp.asarray(rng.normal(size=(2, length, config.width)), jnp.float32)


@pytest.mark.parametrize("form", [
    {}, {"remat": "full"}, {"local_layers": (True, False), "window": 9, "local_rope_base": 100.0}])
def test_a_decoder_computes_the_same_with_the_kernel(interpreted, form):
  config = dataclasses.replace(CONFIG, **form)
  found = []
  for implementation in ("auto", "plain"):
    of, embeds_BLD = hidden(dataclasses.replace(config, attention=implementation))
    program = jax.jit(jax.value_and_grad(lambda x, of=of: jnp.sum(jnp.sin(of(x)))))
    assert ("pallas_call" in str(program.trace(embeds_BLD).jaxpr)) == (implementation == "auto")
    found.append(program(embeds_BLD))
  np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-5)
  np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("form", "batch"), [
    ({}, {"length": 96}), ({}, {"fork": True}), ({"prefix_lm": True}, {"prefix": True}),
    ({"relative_buckets": 8, "rope_base": 0.0}, {}), ({"attention": "plain"}, {}),
    ({"attention": "xla"}, {})])
def test_other_masks_and_lengths_are_left_to_our_attention(interpreted, form, batch):
  of, embeds_BLD = hidden(dataclasses.replace(CONFIG, **form), **batch)
  assert "pallas_call" not in str(jax.make_jaxpr(of)(embeds_BLD))


def test_a_plan_counts_what_the_kernel_multiplies(interpreted):
  q, k, v, segment_BL = inputs()
  once = 2.0 * q.size * L                # scores, or their product with the values
  loss = lambda *x: jnp.sum(splash.attend(*x, segment_BL))  # noqa: E731
  of = lambda f: utilization.kernel_flops(jax.make_jaxpr(f)(q, k, v).jaxpr)  # noqa: E731
  assert of(loss) == 2 * once
  # Backward: the scores again, and gradients of scores, queries, keys and values.
  assert of(jax.grad(loss, (0, 1, 2))) == (2 + 5) * once
  local = jnp.bool_(True)
  assert of(lambda *x: jax.lax.cond(local, lambda: loss(*x), lambda: 2 * loss(*x))) == 2 * once
  assert of(lambda *x: attention.attend(*x, attention.causal_mask(segment_BL))) == 0


def test_only_tpus_have_the_kernel():
  assert not splash.usable("auto", L)
  with axes.tracing(axes.make_mesh({"data": 8})):
    assert axes.platform() == "cpu" and not splash.usable("auto", L)
  device = jax.sharding.AbstractDevice(device_kind="TPU v5", num_cores=1, platform="tpu")
  mesh = axes.abstract_mesh({"data": 1}).update(abstract_device=device)
  with jax.sharding.use_abstract_mesh(mesh):
    assert splash.usable("auto", L) and not splash.usable("auto", L + 1)
    assert not splash.usable("plain", L)
