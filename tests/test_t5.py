"""T5: the cache, packing and greedy text must not change what is computed."""
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ilm_jax.data import packing
from ilm_jax.decode import beam, exact, generate, prompt, trie
from ilm_jax.models import language_model, t5
from tests import small_configs

CONFIG = t5.T5Config(num_layers=2, num_encoder_layers=3, width=24, num_heads=3, head_dim=6,
                     mlp_width=20, vocab_size=31, relative_buckets=8, relative_distance=6)
ASKED = jnp.array([[5, 9, 3, 7, 0], [8, 4, 6, 11, 12]])
VALID = ASKED > 0
SAID = jnp.array([[4, 9, 9, 2, 1], [7, 1, 3, 8, 30]])


def model_of(**changes):
  return t5.T5(dataclasses.replace(CONFIG, **changes), rngs=nnx.Rngs(0))


def positions(x):
  return jnp.broadcast_to(jnp.arange(x.shape[1]), x.shape)


@functools.partial(jax.jit, static_argnums=0)
def whole(graphdef, params, said=SAID):
  """[B, X, D] by one pass over all targets."""
  model = nnx.merge(graphdef, params)
  batch = {"targets": said, "position": positions(ASKED), "segment": VALID.astype(int),
           "target_position": positions(said), "target_segment": jnp.ones(said.shape, int)}
  return model.target_hidden(model.embed(ASKED), batch)


VARIANTS = [{}, {"bias_per_layer": True}, {"gated": False, "activation": "relu", "tied": True},
            {"remat": "full", "unroll": 2}]


@pytest.mark.parametrize("changes", VARIANTS)
def test_extending_a_cache_equals_one_pass(changes):
  """The start token by prefill, then two tokens, then two: hidden states of all five."""
  model = model_of(**changes)
  start = model.prefill(model.embed(ASKED), positions(ASKED), VALID, 4)
  hidden, cache, places = [start.last_BD[:, None]], start.cache, jnp.arange(5)
  np.testing.assert_array_equal(start.next_B, [1, 1])
  for at in (1, 3):
    new = jnp.arange(at, at + 2)
    mask = places[None, None] <= new[None, :, None]
    step, cache = jax.jit(model.extend)(
        model.embed(SAID[:, at - 1:at + 1]), jnp.broadcast_to(new, (2, 2)), mask, cache, at)
    hidden.append(step)
  np.testing.assert_allclose(jnp.concatenate(hidden, axis=1), whole(*nnx.split(model)), atol=2e-5)


def test_targets_are_causal_and_see_the_prompt_but_not_its_padding():
  model = model_of()
  graphdef, params = nnx.split(model)
  want = whole(graphdef, params)
  later = whole(graphdef, params, SAID.at[:, 3].set(20))
  np.testing.assert_array_equal(later[:, :4], want[:, :4])   # target 3 enters behind itself
  assert np.abs(later[:, 4] - want[:, 4]).max() > 1e-4

  def first(asked):
    batch = {"targets": SAID, "position": positions(ASKED), "segment": VALID.astype(int),
             "target_position": positions(SAID), "target_segment": jnp.ones(SAID.shape, int)}
    return np.asarray(model.target_hidden(model.embed(asked), batch))

  np.testing.assert_array_equal(first(ASKED.at[0, 4].set(9))[0], first(ASKED)[0])
  assert np.abs(first(ASKED.at[0, 0].set(9))[0] - first(ASKED)[0]).max() > 1e-4


def test_packed_examples_equal_examples_alone():
  model = model_of()
  examples = [{"inputs": np.array(i), "entities": np.array([], int), "targets": np.array(t)}
              for i, t in (([5, 9, 3], [4, 1]), ([8, 4, 6, 11], [7, 3, 1]))]

  def hidden(group):
    spec = small_configs.lm_batch(rows=1, length=9, slots=1, targets=6, queries=0, slot_id=-1,
                                  encoder_decoder=True)
    batch, dropped = packing.pack_groups([group], spec)
    assert dropped == 0
    return np.asarray(model.target_hidden(model.embed(jnp.asarray(batch["tokens"])), batch))[0]

  together = hidden(examples)      # longest first: the second example, then the first
  np.testing.assert_allclose(together[:3], hidden(examples[1:])[:3], atol=2e-5)
  np.testing.assert_allclose(together[3:5], hidden(examples[:1])[:2], atol=2e-5)


def test_greedy_text_is_the_plain_arg_max():
  model = model_of()
  graphdef, params = nnx.split(model)
  asked = prompt.Prompt(model.embed(ASKED), positions(ASKED), VALID)
  text_BT, _ = generate.generate(graphdef, params, asked, max_new=5, eos_id=-1)
  said = jnp.zeros((2, 5), int)
  for t in range(5):
    said = said.at[:, t].set(jnp.argmax(model.logits(whole(graphdef, params, said)[:, t]), axis=-1))
  np.testing.assert_array_equal(text_BT, said)


def test_exact_scores_and_a_wide_beam_rank_the_catalogue_alike():
  """And the exact score of an item is the sum of its index's log-probabilities."""
  indices = [[5, 6, 1], [5, 1], [8, 2, 1], [5, 6, 7, 1]]
  model, catalogue = model_of(), trie.build(indices, 1)
  graphdef, params = nnx.split(model)
  asked = prompt.Prompt(model.embed(ASKED), positions(ASKED), VALID)
  score_BI = exact.score_catalogue(graphdef, params, catalogue, exact.plan(catalogue, 8), asked)
  items_BW, scores_BW = beam.beam_search(graphdef, params, catalogue, asked, width=4)
  for row, index in enumerate(indices, start=1):
    padded = jnp.broadcast_to(jnp.pad(jnp.array(index), (0, 5 - len(index))), (2, 5))
    logp = jax.nn.log_softmax(model.logits(whole(graphdef, params, padded)))
    want = sum(logp[:, t, token] for t, token in enumerate(index))
    np.testing.assert_allclose(score_BI[:, row], want, atol=1e-4)
  np.testing.assert_array_equal(items_BW, np.argsort(-score_BI[:, 1:], axis=1) + 1)
  np.testing.assert_allclose(scores_BW, -np.sort(-score_BI[:, 1:], axis=1), atol=1e-4)


def test_whole_words_are_added_to_the_encoders_input():
  model = model_of(whole_words=6)
  words = jnp.array([[0, 1, 1, 2, 0], [1, 1, 2, 2, 3]])
  embeds = model.embed(ASKED)
  np.testing.assert_allclose(model.add_whole_words(embeds, words),
                             embeds + model.whole_word[...][words])


def test_abstract_params_are_what_a_model_holds():
  params = nnx.to_pure_dict(nnx.state(model_of(), nnx.Param))
  assert jax.tree.map(lambda x: x.shape, params) == jax.tree.map(
      lambda x: x.shape, language_model.abstract_params(CONFIG))
