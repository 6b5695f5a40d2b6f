"""The decoder: packing, cache and masks must not change what is computed."""
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ilm_jax.models import decoder

CONFIG = decoder.DecoderConfig(num_layers=3, width=24, num_heads=6, num_kv_heads=2, head_dim=8,
                               mlp_width=40, vocab_size=50)
TOKENS = np.asarray([[7, 3, 3, 41, 0, 12, 9], [1, 2, 30, 49, 5, 5, 8]])


@pytest.fixture(scope="module")
def model():
  return decoder.Decoder(CONFIG, rngs=nnx.Rngs(0))


def run(model, tokens):
  """Hidden states of rows of tokens, each row one segment from position 0."""
  tokens = jnp.atleast_2d(jnp.asarray(tokens))
  position = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
  graphdef, params = nnx.split(model)
  return forward(graphdef, params, tokens, position, jnp.ones_like(tokens))


@functools.partial(jax.jit, static_argnums=0)
def forward(graphdef, params, tokens, position, segment):
  model = nnx.merge(graphdef, params)
  return model.hidden(model.embed(tokens), position, segment)


def test_packed_segments_equal_separate_runs(model):
  first, second = [7, 3, 41], [9, 0, 12, 5, 8]
  packed = jnp.asarray([first + second + [0, 0]])
  segment = jnp.asarray([[1] * 3 + [2] * 5 + [0] * 2])
  position = jnp.asarray([[0, 1, 2, 0, 1, 2, 3, 4, 0, 0]])
  hidden = forward(*nnx.split(model), packed, position, segment)[0]
  np.testing.assert_allclose(hidden[:3], run(model, first)[0], atol=2e-5)
  np.testing.assert_allclose(hidden[3:8], run(model, second)[0], atol=2e-5)
  assert np.isfinite(hidden).all()


def test_later_tokens_change_nothing_before_them(model):
  changed = TOKENS.copy()
  changed[:, 5] = 33
  before, after = run(model, TOKENS), run(model, changed)
  np.testing.assert_array_equal(before[:, :5], after[:, :5])
  assert np.abs(before[:, 5:] - after[:, 5:]).min(axis=-1).max() > 1e-4


def test_extending_a_cache_equals_one_pass(model):
  """Four tokens, then two, then one, into a cache longer than needed."""
  cache, places = model.init_cache(2, 9), jnp.arange(9)
  step = jax.jit(model.extend)
  got = []
  for at, stop in ((0, 4), (4, 6), (6, 7)):
    new = jnp.arange(at, stop)
    mask = places[None, None, :] <= new[None, :, None]
    position = jnp.broadcast_to(new, (2, stop - at))
    hidden, cache = step(model.embed(TOKENS[:, at:stop]), position, mask, cache, jnp.int32(at))
    got.append(hidden)
  np.testing.assert_allclose(jnp.concatenate(got, axis=1), run(model, TOKENS), atol=2e-5)
  assert not cache.k[:, :, 7:].any()


def test_a_tree_mask_equals_separate_causal_runs(model):
  """A prompt of two, then a tree of five nodes at once: parents -1, 0, 0, 2, -1."""
  prompt, nodes, parents = [7, 3], [11, 12, 13, 14, 15], [-1, 0, 0, 2, -1]
  paths = [[0], [0, 1], [0, 2], [0, 2, 3], [4]]
  assert all(len(p) == 1 or p[-2] == parents[p[-1]] for p in paths)
  _, cache = model.extend(model.embed(jnp.asarray([prompt])), jnp.asarray([[0, 1]]),
                          jnp.asarray([[[1, 0] + [0] * 5, [1, 1] + [0] * 5]], bool),
                          model.init_cache(1, 7), 0)
  mask = np.zeros((1, 5, 7), bool)
  mask[:, :, :2] = True
  for node, path in enumerate(paths):
    mask[0, node, [2 + n for n in path]] = True
  position = jnp.asarray([[1 + len(path) for path in paths]])
  hidden, _ = model.extend(model.embed(jnp.asarray([nodes])), position, jnp.asarray(mask),
                           cache, 2)
  for node, path in enumerate(paths):
    alone = run(model, prompt + [nodes[n] for n in path])[0, -1]
    np.testing.assert_allclose(hidden[0, node], alone, atol=2e-5)


@pytest.mark.parametrize("change", [{"remat": True}, {"unroll": 3}])
def test_remat_and_unroll_change_no_gradient(model, change):
  params = nnx.to_pure_dict(nnx.state(model, nnx.Param))

  def grad(config):
    def loss(embeds):
      bound = decoder.bind(config, params)
      hidden = bound.hidden(embeds, jnp.arange(7)[None].repeat(2, 0), jnp.ones((2, 7), int))
      return bound.token_nll(hidden, jnp.asarray(TOKENS))[0].sum()
    return jax.jit(jax.grad(loss))(model.embed(TOKENS))

  want = grad(CONFIG)
  assert float(jnp.abs(want).max()) > 0
  np.testing.assert_allclose(grad(dataclasses.replace(CONFIG, **change)), want, atol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_token_nll_in_chunks(tied):
  """14 positions in chunks of at most 4: four turns of 4, two places of padding."""
  model = decoder.Decoder(dataclasses.replace(CONFIG, tied=tied), rngs=nnx.Rngs(1))
  hidden = jax.random.normal(jax.random.key(3), (2, 7, 24))
  best = jnp.argmax(model.logits(hidden), axis=-1)
  targets = jnp.asarray(TOKENS).at[1, 2].set(best[1, 2])
  want = -jax.nn.log_softmax(model.logits(hidden))[
      np.arange(2)[:, None], np.arange(7)[None], targets]
  nll, hit = model.token_nll(hidden, targets, chunk=4)
  np.testing.assert_allclose(nll, want, atol=1e-5)
  np.testing.assert_array_equal(hit, targets == best)
  assert hit[1, 2]
  grads = [jax.grad(lambda h, n=n: model.token_nll(h, targets, chunk=n)[0].sum())(hidden)
           for n in (4, 14)]
  np.testing.assert_allclose(*grads, atol=1e-5)


def test_token_nll_holds_one_chunk_of_logits_at_a_time(model):
  """Forward and backward: no array of the program is larger than [chunk, V] but hidden itself."""
  hidden = jnp.zeros((30, 24))
  text = str(jax.make_jaxpr(jax.grad(
      lambda h: model.token_nll(h, jnp.zeros(30, int), chunk=10)[0].sum()))(hidden))
  assert "f32[10,50]" in text
  assert "f32[30,50]" not in text and "f32[3,10,50]" not in text


def test_bfloat16_stays_bfloat16():
  config = dataclasses.replace(CONFIG, dtype="bfloat16")
  model = decoder.Decoder(config, rngs=nnx.Rngs(0))
  params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
  assert {p.dtype for p in jax.tree.leaves(params)} == {jnp.bfloat16.dtype}
  hidden = run(model, TOKENS)
  assert hidden.dtype == jnp.bfloat16 and model.logits(hidden).dtype == jnp.float32


def test_abstract_params_are_what_a_model_holds(model):
  params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
  shapes = jax.tree.map(lambda x: x.shape, params)
  assert jax.tree.map(lambda x: x.shape, decoder.abstract_params(CONFIG)) == shapes
