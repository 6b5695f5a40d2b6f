"""Beam, exact scoring and greedy text against the plain forward pass, on a tiny random decoder."""
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ilm_jax import errors
from ilm_jax.decode import beam, exact, generate, trie
from ilm_jax.decode import prompt as prompt_lib
from ilm_jax.models import decoder as decoder_lib

EOS = 1
CONFIG = decoder_lib.DecoderConfig(num_layers=2, width=16, num_heads=4, num_kv_heads=2, head_dim=4,
                                   mlp_width=24, vocab_size=13)
# Row 1 is the beginning of row 2, row 4 begins rows 1, 2 and 5 but for its end; row 7 is EOS alone.
INDICES = [[5, 6, EOS], [5, 6, 7, EOS], [8, EOS], [5, EOS], [5, 6, 8, 9, 2, EOS], [12, 5, EOS],
           [EOS], [12, 7, 3, EOS], [12, 7, 4, EOS]]


@pytest.fixture(scope="module")
def model():
  decoder = decoder_lib.Decoder(CONFIG, rngs=nnx.Rngs(3))
  graphdef, params = nnx.split(decoder)
  return graphdef, jax.tree.map(lambda x: 3 * x, nnx.to_pure_dict(params))


@pytest.fixture(scope="module")
def prompt():
  """Three prompts of 4, 2 and 5 soft tokens, padded with noise."""
  length_B = np.array([4, 2, 5])
  embeds_BLD = jax.random.normal(jax.random.key(0), (3, 5, 16))
  return prompt_lib.Prompt(embeds_BLD, jnp.tile(jnp.arange(5)[None], (3, 1)),
                           jnp.arange(5)[None] < length_B[:, None])


def plain_logits(model, prompt, b, tokens):
  """[1 + len(tokens), V] logits from the end of prompt b on; a forward pass without cache."""
  n, length = int(prompt.valid_BL[b].sum()), 12
  said_D = nnx.merge(*model).embed(jnp.array([*tokens, 0], jnp.int32))[:-1]
  embeds_LD = jnp.concatenate([prompt.embeds_BLD[b, :n], said_D])
  embeds_LD = jnp.pad(embeds_LD, ((0, length - len(embeds_LD)), (0, 0)))
  return _forward(*model, embeds_LD)[n - 1:n + len(tokens)]


@functools.partial(jax.jit, static_argnums=0)
def _forward(graphdef, params, embeds_LD):
  decoder, L = nnx.merge(graphdef, params), len(embeds_LD)
  hidden = decoder.hidden(embeds_LD[None], jnp.arange(L)[None], jnp.ones((1, L), jnp.int32))
  return decoder.logits(hidden[0])


@pytest.fixture(scope="module")
def plain_scores(model, prompt):
  """[B, I + 1]: every item after every prompt, one forward pass each."""
  scores = np.full((3, len(INDICES) + 1), -np.inf)
  for b, (row, index) in itertools.product(range(3), enumerate(INDICES, start=1)):
    logp = jax.nn.log_softmax(plain_logits(model, prompt, b, index), axis=-1)
    scores[b, row] = sum(logp[t, token] for t, token in enumerate(index))
  return scores


def test_trie_by_hand():
  """[3 4 E], [3 E], [2 E]: pre-order walks token 2 first, EOS before 4."""
  made = trie.build([[3, 4, EOS], [3, EOS], [2, EOS]], EOS)
  np.testing.assert_array_equal(made.token_Z, [0, 2, EOS, 3, EOS, 4, EOS])
  np.testing.assert_array_equal(made.parent_Z, [0, 0, 1, 0, 3, 3, 5])
  np.testing.assert_array_equal(made.depth_Z, [0, 1, 2, 1, 2, 2, 3])
  np.testing.assert_array_equal(made.end_Z, [7, 3, 3, 7, 5, 7, 7])
  np.testing.assert_array_equal(made.item_Z, [0, 0, 3, 0, 2, 0, 1])
  np.testing.assert_array_equal(made.lowest_Z, [1, 3, 3, 1, 2, 1, 1])
  np.testing.assert_array_equal(made.items_Z, [3, 1, 1, 2, 1, 1, 1])
  np.testing.assert_array_equal(made.child_count_Z, [2, 1, 0, 2, 0, 1, 0])
  np.testing.assert_array_equal(made.child_E, [1, 3, 2, 4, 5, 6])
  np.testing.assert_array_equal(made.path_IT, [[3, 5, 6], [3, 4, 0], [1, 2, 0]])
  assert (made.num_items, made.max_depth, made.root_fanout, made.fanout) == (3, 3, 2, 2)


def test_trie_refuses_two_items_of_one_index():
  with pytest.raises(errors.UserError, match="'Solaris' and 'Solaris again' have the same index"):
    trie.build([[3, EOS], [2, EOS], [3, EOS]], EOS, ["Solaris", "Stalker", "Solaris again"])


@pytest.mark.parametrize("index", [[], [4], [EOS, 4, EOS]])
def test_trie_refuses_an_index_not_closed_by_one_eos(index):
  with pytest.raises(errors.UserError, match="item 'row 2' is .* closed by one EOS"):
    trie.build([[3, EOS], index], EOS)


def test_trie_refuses_an_empty_catalogue():
  with pytest.raises(errors.UserError, match="empty"):
    trie.build([], EOS)


def test_a_filter_leaves_what_leads_to_an_open_item():
  made = trie.build([[3, 4, EOS], [3, EOS], [2, EOS]], EOS)
  leaf_BK = trie.blocked_leaves(made, [[3], [1, 2], []])
  np.testing.assert_array_equal(leaf_BK, [[2, 7], [4, 6], [7, 7]])
  open_BZ = trie.is_open(made, leaf_BK, jnp.tile(jnp.arange(7)[None], (3, 1)))
  np.testing.assert_array_equal(np.asarray(open_BZ).astype(int), [
      [1, 0, 0, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1]])


@pytest.mark.parametrize(("chunk", "held"), [(12, 15), (64, 512)])
def test_exact_is_the_plain_forward_pass(model, prompt, plain_scores, chunk, held, monkeypatch):
  """Whole, and cut into chunks whose logits are made 5 tokens of 3 rows at a time."""
  monkeypatch.setattr(exact, "HELD", held)
  made = trie.build(INDICES, EOS)
  cut = exact.plan(made, chunk)
  scores = exact.score_catalogue(*model, made, cut, prompt)
  np.testing.assert_allclose(scores, plain_scores, atol=2e-4)


def test_plan_repeats_ancestors_where_it_cuts():
  """A chain 2 3 4 with a twig 9 10 below 2: chunks of 8 hold it all; a cut is worked by hand.

  Inner nodes in pre-order: 2, 3, 4 (nodes 1, 2, 3) and 9, 10 (nodes 5, 6); node 4 and 7 are leaves.
  """
  made = trie.build([[2, 3, 4, EOS], [2, 9, 10, EOS]], EOS)
  np.testing.assert_array_equal(exact.plan(made, 8).node_CT, [[1, 2, 3, 5, 6, 0, 0, 0]])
  cut = exact._pack(made, [np.array([1, 2, 3]), np.array([1, 5, 6])], [0, 1], 4)
  np.testing.assert_array_equal(cut.node_CT, [[1, 2, 3, 0], [1, 5, 6, 0]])
  np.testing.assert_array_equal(np.asarray(cut.past_CTT[1]).astype(int), [
      [1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 1]])
  np.testing.assert_array_equal(cut.slot_CX, [[0, 0, 1, 2], [1, 2, 0, 0]])
  np.testing.assert_array_equal(cut.child_CX, [[2, 5, 3, 4], [6, 7, 8, 8]])


def test_plan_refuses_a_chunk_too_small_for_the_longest_index():
  with pytest.raises(errors.UserError, match="chunk=7 is too small for an index of 4"):
    exact.plan(trie.build([[2, 3, 4, EOS], [2, 9, 10, EOS]], EOS), 7)


def test_beam_as_wide_as_the_catalogue_is_exact(model, prompt):
  made = trie.build(INDICES, EOS)
  scores_BI = exact.score_catalogue(*model, made, exact.plan(made, 16), prompt)
  items_BW, scores_BW = beam.beam_search(*model, made, prompt, width=12)
  best_BI = np.argsort(-np.asarray(scores_BI), axis=1, kind="stable")[:, :9]
  np.testing.assert_array_equal(items_BW, np.pad(best_BI, ((0, 0), (0, 3))))
  np.testing.assert_allclose(scores_BW[:, :9], np.take_along_axis(scores_BI, best_BI, 1), atol=2e-4)
  assert np.all(np.isneginf(scores_BW[:, 9:]))


def test_beam_never_enters_a_blocked_branch(model, prompt, plain_scores):
  """Of row 0 only items 8 and 9, under the worst branch, may come; of row 1 none; of row 2 all."""
  made = trie.build(INDICES, EOS)
  blocked = [[1, 2, 3, 4, 5, 6, 7], range(1, 10), []]
  blocked_BI = np.array([[row in listed for row in range(10)] for listed in blocked])
  items_BW, scores_BW = beam.beam_search(
      *model, made, prompt, trie.blocked_leaves(made, blocked), width=2)
  scores = np.where(blocked_BI, -np.inf, plain_scores)
  np.testing.assert_array_equal(items_BW[0], np.argsort(-scores[0])[:2])
  assert set(np.asarray(items_BW[0])) == {8, 9}
  np.testing.assert_array_equal(items_BW[1], [0, 0])
  assert np.all(np.isneginf(scores_BW[1])) and np.all(np.asarray(items_BW[2]) > 0)


def test_narrow_beam_gives_distinct_items_with_their_true_scores(model, prompt, plain_scores):
  made = trie.build(INDICES, EOS)
  items_BW, scores_BW = map(np.asarray, beam.beam_search(*model, made, prompt, width=3))
  assert all(len(set(row)) == 3 and row.min() > 0 for row in items_BW)
  want = np.take_along_axis(plain_scores, items_BW, axis=1)
  np.testing.assert_allclose(scores_BW, want, atol=2e-4)
  assert np.all(np.diff(scores_BW, axis=1) <= 0)


def test_equal_scores_come_in_order_of_item_rows(prompt):
  """With all parameters 0 every token has probability 1/13: only the length of an index counts."""
  graphdef, params = nnx.split(decoder_lib.Decoder(CONFIG, rngs=nnx.Rngs(0)))
  params = jax.tree.map(jnp.zeros_like, nnx.to_pure_dict(params))
  made = trie.build(INDICES, EOS)
  items_BW, scores_BW = beam.beam_search(graphdef, params, made, prompt, width=9)
  np.testing.assert_array_equal(items_BW, [[7, 3, 4, 1, 6, 2, 8, 9, 5]] * 3)
  np.testing.assert_allclose(scores_BW[0], -np.log(13) * np.array([1, 2, 2, 3, 3, 4, 4, 4, 6]),
                             rtol=1e-6)


def test_sampling_follows_temperature_and_top_p():
  """Probabilities .5, .3, .2: at top-p .7 the third is never drawn, the others 5 to 3."""
  logits_BV = jnp.tile(jnp.log(jnp.array([[0.3, 0.2, 0.5]])), (8000, 1))
  share = lambda **how: np.bincount(  # noqa: E731
      generate.draw(logits_BV, generate.Sampling(**how), jax.random.key(0)), minlength=3) / 8000
  np.testing.assert_allclose(share(temperature=1.0), [0.3, 0.2, 0.5], atol=0.02)
  np.testing.assert_allclose(share(temperature=1.0, top_p=0.7), [0.375, 0, 0.625], atol=0.02)
  squares = np.array([0.09, 0.04, 0.25]) / 0.38
  np.testing.assert_allclose(share(temperature=0.5), squares, atol=0.02)
  np.testing.assert_array_equal(share(temperature=1.0, top_p=0.01), [0, 0, 1])


def test_samples_repeat_with_their_key_and_differ_with_another(model, prompt):
  draw = functools.partial(generate.generate, *model, prompt, max_new=6, eos_id=2,
                           sampling=generate.Sampling(temperature=1.0))
  first, again, other = (np.asarray(draw(key=jax.random.key(k))[0]) for k in (0, 0, 1))
  np.testing.assert_array_equal(first, again)
  assert (first != other).any()


def test_greedy_is_the_plain_arg_max(model, prompt):
  eos = 2
  text_BT, length_B = generate.generate(*model, prompt, max_new=7, eos_id=eos)
  lengths = []
  for b in range(3):
    said = []
    while len(said) < 7 and eos not in said:
      said.append(int(jnp.argmax(plain_logits(model, prompt, b, said)[-1])))
    lengths.append(len(said) - (eos in said))
    np.testing.assert_array_equal(text_BT[b], said + [eos] * (7 - len(said)))
  np.testing.assert_array_equal(length_B, lengths)


def test_greedy_stops_at_eos_and_pads_with_it(model, prompt):
  """Whatever row 0 says first becomes EOS: row 0 is empty."""
  first = int(generate.generate(*model, prompt, max_new=1, eos_id=0)[0][0, 0])
  text_BT, length_B = generate.generate(*model, prompt, max_new=4, eos_id=first)
  assert length_B[0] == 0 and np.all(np.asarray(text_BT[0]) == first)


def test_any_end_stops_a_text_and_is_written_as_eos(model, prompt):
  """A model may end in another of its ends than targets do: the text is as long, padded alike."""
  free, _ = generate.generate(*model, prompt, max_new=5, eos_id=-1)
  other, eos = int(free[0, 2]), next(t for t in range(13) if t not in np.asarray(free))
  text_BT, length_B = generate.generate(*model, prompt, max_new=5, eos_id=eos, ends=(eos, other))
  for b, row in enumerate(np.asarray(free).tolist()):
    length = row.index(other) if other in row else 5
    assert length_B[b] == length
    np.testing.assert_array_equal(text_BT[b], row[:length] + [eos] * (5 - length))
