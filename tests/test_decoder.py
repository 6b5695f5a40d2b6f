"""The decoder: packing, cache and masks must not change what is computed."""
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ilm_jax.models import attention, decoder, language_model

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


FAMILIES = {
    "llama": {},
    "llama3": {"rope_scaling": attention.RopeScaling(4.0, 1.0, 4.0, 16)},
    "palm": {"norm": "layer", "parallel": True, "num_kv_heads": 1},
    "t5x": {"rope_base": 0.0, "relative_buckets": 8, "relative_distance": 6, "scale": 1.0,
            "activation": "gelu_tanh", "logit_scale": 0.2},
    "plain mlp": {"gated": False, "activation": "relu", "rope_base": 0.0},
    "qwen2": {"qkv_bias": True, "tied": False},
    "gemma2": {"local_layers": (True, False, True), "window": 3, "softcap": 5.0, "post_norms": True,
               "logit_softcap": 3.0, "embed_scale": 5.0, "activation": "gelu_tanh"},
    "gemma3": {"local_layers": (True, True, False), "window": 2, "local_rope_base": 10.0,
               "rope_scaling": attention.RopeScaling(8.0), "qk_norm": True, "post_norms": True},
}


@functools.cache
def family(name):
  config = dataclasses.replace(CONFIG, **FAMILIES[name])
  return decoder.Decoder(config, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("name", FAMILIES)
def test_extending_a_cache_equals_one_pass(name):
  """Four tokens, then two, then one, into a cache longer than needed."""
  model = family(name)
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


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_causal_and_sees_order(name):
  model = family(name)
  changed, swapped = TOKENS.copy(), TOKENS.copy()
  changed[:, 5] = 33
  swapped[:, [0, 1]] = TOKENS[:, [1, 0]]
  want = run(model, TOKENS)
  np.testing.assert_array_equal(run(model, changed)[:, :5], want[:, :5])
  assert np.abs(run(model, swapped)[1, 2:] - want[1, 2:]).max() > 1e-4


def test_a_local_layer_looks_back_its_window_and_no_further():
  """Two layers of window 2: the last token of seven is reached from 4, 5 and 6, not from 3."""
  config = dataclasses.replace(CONFIG, num_layers=2, local_layers=(True, True), window=2)
  model = decoder.Decoder(config, rngs=nnx.Rngs(0))
  want = run(model, TOKENS)[:, 6]
  for at, reaches in ((3, False), (4, True)):
    changed = TOKENS.copy()
    changed[:, at] = 33
    assert (np.abs(run(model, changed)[:, 6] - want).max() > 1e-5) == reaches


def test_a_prefix_lm_sees_its_whole_prompt():
  model = decoder.Decoder(dataclasses.replace(CONFIG, prefix_lm=True), rngs=nnx.Rngs(0))
  position, segment = jnp.arange(7)[None], jnp.ones((1, 7), int)
  prefix = jnp.arange(7)[None] < 4

  def hidden(at):
    tokens = jnp.asarray(TOKENS[:1]) if at is None else jnp.asarray(TOKENS[:1]).at[0, at].set(33)
    return np.asarray(model.hidden(model.embed(tokens), position, segment, prefix)[0])

  want = hidden(None)
  assert np.abs(hidden(3)[0] - want[0]).max() > 1e-4     # the prompt's end, seen by its first token
  np.testing.assert_array_equal(hidden(5)[:5], want[:5])  # what is said stays causal
  start = model.prefill(model.embed(TOKENS[:1, :4]), position[:, :4], prefix[:, :4], 2)
  np.testing.assert_allclose(start.last_BD[0], want[3], atol=2e-5)


def test_new_words_are_float32_where_the_old_are_bfloat16():
  config = dataclasses.replace(CONFIG, tied=False, new_tokens=4, dtype="bfloat16")
  dtypes = {name: x.dtype.name for name, x in language_model.abstract_params(config).items()
            if not isinstance(x, dict)}
  assert dtypes["new_embedding"] == dtypes["new_head"] == "float32"
  assert dtypes["embedding"] == dtypes["head"] == "bfloat16"


@pytest.mark.parametrize("tied", [True, False])
def test_new_words_are_one_vocabulary_with_the_old(tied):
  """A table of 50 with 4 new words is a table of 54."""
  config = dataclasses.replace(CONFIG, tied=tied, new_tokens=4)
  params = language_model.init(config, 2)
  whole = dict(params)
  for name, axis in (("embedding", 0), ("head", 1)) if not tied else (("embedding", 0),):
    whole[name] = jnp.concatenate([params[name], whole.pop(f"new_{name}")], axis=axis)
  want = language_model.bind(dataclasses.replace(config, vocab_size=54, new_tokens=0), whole)
  got, tokens = language_model.bind(config, params), jnp.array([[3, 50, 53, 49]])
  np.testing.assert_array_equal(got.embed(tokens), want.embed(tokens))
  hidden = run(got, tokens)
  np.testing.assert_allclose(got.logits(hidden), want.logits(hidden), atol=1e-6)
  frozen, trained = language_model.split_trained(params, "index_tokens")
  assert set(trained) == ({"new_embedding"} if tied else {"new_embedding", "new_head"})
  assert {**frozen, **trained}.keys() == params.keys() and not frozen.keys() & trained.keys()


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


@pytest.mark.parametrize("change", [{"remat": "full"}, {"remat": "none"}, {"unroll": 3}])
def test_remat_and_unroll_change_no_gradient(model, change):
  params = nnx.to_pure_dict(nnx.state(model, nnx.Param))

  def grad(config):
    def loss(embeds):
      bound = language_model.bind(config, params)
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
  assert "f32[1,10,50]" in text
  assert "f32[1,30,50]" not in text and "f32[3,1,10,50]" not in text


def test_bfloat16_stays_bfloat16():
  config = dataclasses.replace(CONFIG, dtype="bfloat16")
  model = decoder.Decoder(config, rngs=nnx.Rngs(0))
  params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
  dtypes = {k: p.dtype for k, p in (params.pop("layers") | params).items()}
  assert {k for k, dtype in dtypes.items() if dtype != jnp.bfloat16} == {
      "attention_norm", "mlp_norm", "final_norm"}
  hidden = run(model, TOKENS)
  assert hidden.dtype == jnp.bfloat16 and model.logits(hidden).dtype == jnp.float32


def test_abstract_params_are_what_a_model_holds(model):
  params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
  shapes = jax.tree.map(lambda x: x.shape, params)
  assert jax.tree.map(lambda x: x.shape, language_model.abstract_params(CONFIG)) == shapes
