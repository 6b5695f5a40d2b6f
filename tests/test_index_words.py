"""Items said in words of their own: branches of a history, and nothing else that can be said."""
import dataclasses
import itertools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs import ml100k_index
from ilm_jax import errors
from ilm_jax.config import reading
from ilm_jax.data import batches as batches_lib
from ilm_jax.data import packing
from ilm_jax.decode import beam, exact, trie
from ilm_jax.decode import prompt as prompt_lib
from ilm_jax.models import attention, ilm, language_model
from ilm_jax.objectives import inputs, phase2
from ilm_jax.stages.evals import speaker
from ilm_jax.weights import load
from tests import test_item_head, test_objectives

LM = dataclasses.replace(test_objectives.LM, num_layers=2, new_tokens=4, index_only=True)
WORD, SLOT = 19, 18                 # the first added word; the small model's last old one
# Items 1..6: pairs of the words 0..3, and 6 a single one.
CODES = np.array([[-1, -1], [0, 1], [0, 2], [1, 1], [1, 0], [2, 1], [3, -1]])
INDEX_IT = np.where(CODES < 0, -1, WORD + CODES).astype(np.int32)
EXAMPLES = [{"inputs": np.array([7, SLOT, SLOT, 9]), "entities": np.array([2, 6]),
             "targets": np.array([*INDEX_IT[3], 1]), "target_entity": np.array([3])},
            {"inputs": np.array([SLOT, 5, SLOT, 8, 8]), "entities": np.array([1, 4]),
             "targets": np.array([WORD + 3, 1]), "target_entity": np.array([6])}]


def spec(**changes):
  return test_item_head.spec(**{**dict(
      rows=1, length=16, slots=4, targets=8, queries=1, slot_id=SLOT, task_names=("next_item",),
      head_tasks=(), index_only=True, branches=INDEX_IT, examples_per_group=2), **changes})


def test_what_follows_each_slot_is_said_in_a_branch():
  """The first history goes on with items 6 (one word) and 3 (two), the second with 4 and 6.

  place     0  1  2  3  4   5  6  7  8  9          A branch has room for the longest index. Word 1
  holds     7 [2][6] w1    [1] 5 [4] w1            is fed to say word 1 of item 3, word 0 of item 4.
  """
  batch, dropped = packing.pack_groups([EXAMPLES], spec())
  assert dropped == 0
  rows = {name: x[0].tolist() for name, x in batch.items()}
  assert rows["tokens"][:9] == [7, 0, 0, WORD + 1, 0, 0, 5, 0, WORD + 1]
  assert rows["segment"] == [1] * 4 + [0] + [2] * 4 + [0] * 7
  assert rows["position"][:9] == [0, 1, 2, 3, 0, 0, 1, 2, 1]
  assert rows["fork"][:9] == [0, 0, 0, 3, 0, 0, 0, 0, 1]
  assert rows["weights"] == [1, 1, 1, 0, 1, 1, 1, 0]
  said = np.flatnonzero(rows["weights"])
  assert np.array(rows["targets"])[said].tolist() == [
      WORD + 3, WORD + 1, WORD + 1, WORD + 1, WORD, WORD + 3]
  assert np.array(rows["target_at"])[said].tolist() == [1, 2, 3, 5, 8, 7]
  assert np.array(rows["target_position"])[said].tolist() == [0, 0, 1, 0, 1, 0]


def test_a_branch_sees_what_is_before_it_and_itself():
  fork, position = jnp.array([[0, 0, 1, 1, 2]]), jnp.array([[0, 1, 1, 2, 2]])
  seen = attention.causal_mask(jnp.ones((1, 5), int)) & attention.forked(fork, position)
  np.testing.assert_array_equal(np.asarray(seen[0]).astype(int), [
      [1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 0, 1, 0, 0], [1, 0, 1, 1, 0], [1, 1, 0, 0, 1]])


def small(lm=LM):
  graphdef, trainable, held = test_item_head.model(mlp=True)
  params = jax.tree.map(lambda x: 3 * x, language_model.init(lm, 5))
  return graphdef, trainable, held | {"lm": params}


def exact_scores(graphdef, trainable, held, examples):
  """[len(examples), I + 1] by the decoder that answers, from prompts alone."""
  batch = batches_lib.prompts_batch(examples, spec(branches=None, rows=len(examples), queries=2))
  model = language_model.bind(LM, held["lm"])
  embeds_BLD = ilm.splice(
      language_model.embed_prompt(model, batch),
      inputs.soft_tokens(nnx.merge(graphdef, trainable), held, batch["entities"]), batch["slot"])
  prompt = prompt_lib.Prompt(embeds_BLD, batch["position"], batch["valid"])
  tree = trie.build([[t for t in index if t >= 0] for index in INDEX_IT[1:].tolist()], None)
  args = nnx.split(model)[0], held["lm"], tree
  score_BI = exact.score_catalogue(*args, exact.plan(tree, 64), prompt)
  item_BW, _ = beam.beam_search(*args, prompt, width=6)
  return np.asarray(score_BI), np.asarray(item_BW)


def test_training_says_what_ranking_scores():
  """The branches of a packed row, beside each beginning of a history as a prompt of its own."""
  model = small()
  graphdef, trainable, held = model
  batch, _ = packing.pack_groups([EXAMPLES], spec(queries=2, length=24))
  loss = phase2.phase2_loss(graphdef, LM, ("next_item",))
  _, metrics = loss(trainable, held, batch, None)
  prompts, item_N = [], [6, 3, 4, 6]
  for example, slots in itertools.product(EXAMPLES, (1, 2)):
    end = np.flatnonzero(example["inputs"] == SLOT)[slots - 1]
    prompts.append({**example, "inputs": np.append(example["inputs"][:end + 1], 9),
                    "entities": example["entities"][:slots]})
  score_NI, item_NW = exact_scores(*model, prompts)
  nll, count = metrics["nll"]
  assert count == 6
  np.testing.assert_allclose(nll, -score_NI[np.arange(4), item_N].sum(), rtol=1e-5)
  np.testing.assert_array_equal(item_NW, 1 + np.argsort(-score_NI[:, 1:], axis=1))


def test_probabilities_of_all_indices_are_no_more_than_one():
  """They are made of the four words alone, and most pairs of these are an index."""
  score_NI, _ = exact_scores(*small(), EXAMPLES)
  logits_NV = language_model.bind(LM, small()[2]["lm"]).logits(jnp.ones((2, 6)))
  assert logits_NV.shape == (2, 4)
  total_N = np.exp(score_NI[:, 1:]).sum(axis=1)
  assert (total_N < 1).all() and (total_N > 0.1).all()


def test_an_index_of_one_word_each_ranks():
  model = language_model.bind(LM, small()[2]["lm"])
  embeds_BLD = jax.random.normal(jax.random.key(2), (2, 3, 6))
  prompt = prompt_lib.Prompt(embeds_BLD, jnp.tile(jnp.arange(3), (2, 1)), jnp.ones((2, 3), bool))
  tree = trie.build([[WORD + 2], [WORD], [WORD + 3]], None)
  graphdef, params = nnx.split(model)
  score_BI = exact.score_catalogue(graphdef, params, tree, exact.plan(tree, 64), prompt)
  hidden_BLD = model.hidden(embeds_BLD, prompt.position_BL, jnp.ones((2, 3), int))
  logp_BN = jax.nn.log_softmax(model.logits(hidden_BLD[:, -1]))
  np.testing.assert_allclose(score_BI[:, 1:], logp_BN[:, jnp.array([2, 0, 3])], rtol=1e-5)
  item_BW, _ = beam.beam_search(graphdef, params, tree, prompt, width=3)
  np.testing.assert_array_equal(item_BW, 1 + np.argsort(-np.asarray(score_BI[:, 1:]), axis=1))


def test_a_prompt_ends_at_its_last_slot_and_an_index_has_no_eos():
  shown = spec().shown([EXAMPLES[1], {**EXAMPLES[1], "inputs": np.array([3, 4])}])
  assert [e["inputs"].tolist() for e in shown] == [[SLOT, 5, SLOT], [3, 4]]
  assert [e["targets"].tolist() for e in shown] == [[WORD + 3]] * 2
  assert spec(index_only=False).shown(EXAMPLES) is EXAMPLES


def test_a_model_of_indices_alone_describes_nothing():
  with pytest.raises(errors.UserError, match="generates indices of items and no words"):
    speaker.Speaker.say(types.SimpleNamespace(lm_config=LM), EXAMPLES, spec(), 3)


def test_an_open_index_that_begins_another_is_refused():
  with pytest.raises(errors.UserError, match="item 'b' is the beginning of that of 'a'"):
    trie.build([[3, 4], [3], [5]], None, ["a", "b", "c"])


def test_the_first_layers_are_a_model():
  config = dataclasses.replace(test_objectives.LM, num_layers=3, local_layers=(True, False, True),
                               window=2)
  params = language_model.init(config, 1)
  few, kept = load.adapt(config, params, layers=2)
  assert (few.num_layers, few.local_layers) == (2, (True, False))
  at = (jax.random.normal(jax.random.key(0), (1, 4, 6)), jnp.arange(4)[None],
        jnp.ones((1, 4), int))
  np.testing.assert_allclose(
      language_model.bind(few, kept).hidden(*at),
      language_model.bind(config, params).hidden(*at, layers=2), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("changes, words", [
    ({"layers": 9}, "the language model has 1: set at most that"),
    ({"index_only": True}, "nothing could be said")])
def test_what_a_decoder_has_not_is_refused(changes, words):
  with pytest.raises(errors.UserError, match=words):
    load.adapt(test_objectives.LM, {}, **changes)


def test_a_t5_has_neither(tmp_path):
  from ilm_jax.models import t5
  config = t5.T5Config(num_layers=1, num_encoder_layers=1, width=8, num_heads=2, head_dim=4,
                       mlp_width=8, vocab_size=9)
  with pytest.raises(errors.UserError, match="both are for decoders"):
    load.adapt(config, {}, layers=1)


@pytest.mark.parametrize("changes, words", [
    ({"tasks.index_words": False}, "can then generate no word that names"),
    ({"lm.train": "none"}, "set lm.train='index_tokens'"),
    ({"tasks.mixture.elm_title": 1.0}, r"leave out elm_title \(rate 0\)"),
    ({"tasks.entities": "names"}, "histories must be soft tokens"),
    ({"phase2.head.rows": 16, "phase2.head.weight": 1.0}, "no index is generated; set"),
    ({"tasks.index_words": False, "lm.index_only": False}, "gives codes words of their own"),
])
def test_configs_that_cannot_say_indices_are_refused(changes, words):
  c = ml100k_index.get_config()
  reading.validate(c, 1)
  with c.unlocked():
    c.tasks.index_apart = True
  c.update_from_flattened_dict(changes)
  with pytest.raises(errors.UserError, match=words):
    reading.validate(c, 1)
