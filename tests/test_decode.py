"""Beam, exact scoring and greedy text against the plain forward pass, on a tiny random decoder."""
import itertools

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

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


def plain_scores(model, prompt):
  """[B, I + 1]: every item after every prompt, one forward pass each."""
  decoder = nnx.merge(*model)
  scores = np.full((3, len(INDICES) + 1), -np.inf)
  for b, (row, index) in itertools.product(range(3), enumerate(INDICES, start=1)):
    n = int(prompt.valid_BL[b].sum())
    embeds = jnp.concatenate([prompt.embeds_BLD[b, :n], decoder.embed(jnp.array(index))])[None]
    position = jnp.arange(n + len(index))[None]
    hidden = decoder.hidden(embeds, position, jnp.ones_like(position))[0, n - 1:-1]
    logp = jax.nn.log_softmax(decoder.logits(hidden), axis=-1)
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


def test_allowed_counts_what_a_filter_leaves():
  made = trie.build([[3, 4, EOS], [3, EOS], [2, EOS]], EOS)
  open_BZ = trie.allowed(made, trie.blocked_rows([[3], [1, 2], []], 3))
  np.testing.assert_array_equal(np.asarray(open_BZ).astype(int), [
      [1, 0, 0, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1]])


@pytest.mark.parametrize("chunk", [12, 13, 64])
def test_exact_is_the_plain_forward_pass(model, prompt, chunk):
  made = trie.build(INDICES, EOS)
  cut = exact.plan(made, chunk)
  scores = exact.score_catalogue(*model, made, cut, prompt)
  np.testing.assert_allclose(scores, plain_scores(model, prompt), atol=2e-4)


def test_exact_repeats_ancestors_when_it_cuts():
  """18 inner nodes of one chain and twigs, 14 a chunk: the second chunk starts deep."""
  indices = [[*range(2, 2 + n), EOS] for n in range(1, 8)] + [[11, *range(2, 12), EOS]]
  made = trie.build(indices, EOS)
  cut = exact.plan(made, 24)
  small = exact.plan(made, 2 * made.max_depth)
  assert cut.node_CT.shape[0] == 1 and small.node_CT.shape[1] == 24
  with pytest.raises(errors.UserError, match="exact_chunk=23 is too small"):
    exact.plan(made, 23)


def test_beam_as_wide_as_the_catalogue_is_exact(model, prompt):
  made = trie.build(INDICES, EOS)
  scores_BI = exact.score_catalogue(*model, made, exact.plan(made, 16), prompt)
  items_BW, scores_BW = beam.beam_search(*model, made, prompt, width=12)
  best_BI = np.argsort(-np.asarray(scores_BI), axis=1, kind="stable")[:, :9]
  np.testing.assert_array_equal(items_BW, np.pad(best_BI, ((0, 0), (0, 3))))
  np.testing.assert_allclose(scores_BW[:, :9], np.take_along_axis(scores_BI, best_BI, 1), atol=2e-4)
  assert np.all(np.isneginf(scores_BW[:, 9:]))


def test_beam_never_enters_a_blocked_branch(model, prompt):
  """Of row 0 only items 8 and 9, under the worst branch, may come; of row 1 none; of row 2 all."""
  made = trie.build(INDICES, EOS)
  blocked_BI = trie.blocked_rows([[1, 2, 3, 4, 5, 6, 7], range(1, 10), []], 9)
  items_BW, scores_BW = beam.beam_search(*model, made, prompt, blocked_BI, width=2)
  scores = np.where(blocked_BI, -np.inf, plain_scores(model, prompt))
  np.testing.assert_array_equal(items_BW[0], np.argsort(-scores[0])[:2])
  assert set(np.asarray(items_BW[0])) == {8, 9}
  np.testing.assert_array_equal(items_BW[1], [0, 0])
  assert np.all(np.isneginf(scores_BW[1])) and np.all(np.asarray(items_BW[2]) > 0)


def test_narrow_beam_gives_distinct_items_with_their_true_scores(model, prompt):
  made = trie.build(INDICES, EOS)
  items_BW, scores_BW = map(np.asarray, beam.beam_search(*model, made, prompt, width=3))
  assert all(len(set(row)) == 3 and row.min() > 0 for row in items_BW)
  want = np.take_along_axis(plain_scores(model, prompt), items_BW, axis=1)
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


def test_greedy_is_the_plain_arg_max(model, prompt):
  decoder = nnx.merge(*model)
  eos = 2
  text_BT, length_B = generate.greedy(*model, prompt, max_new=7, eos_id=eos)
  lengths = []
  for b in range(3):
    said = []
    while len(said) < 7 and eos not in said:
      n = int(prompt.valid_BL[b].sum())
      embeds = prompt.embeds_BLD[b, :n]
      if said:
        embeds = jnp.concatenate([embeds, decoder.embed(jnp.array(said))])
      position = jnp.arange(len(embeds))[None]
      hidden = decoder.hidden(embeds[None], position, jnp.ones_like(position))
      said.append(int(jnp.argmax(decoder.logits(hidden[0, -1]))))
    lengths.append(len(said) - (eos in said))
    np.testing.assert_array_equal(text_BT[b], said + [eos] * (7 - len(said)))
  np.testing.assert_array_equal(length_B, lengths)


def test_greedy_stops_at_eos_and_pads_with_it(model, prompt):
  """Whatever row 0 says first becomes EOS: row 0 is empty."""
  first = int(generate.greedy(*model, prompt, max_new=1, eos_id=0)[0][0, 0])
  text_BT, length_B = generate.greedy(*model, prompt, max_new=4, eos_id=first)
  assert length_B[0] == 0 and np.all(np.asarray(text_BT[0]) == first)
