"""Rows that the item head alone reads: through some layers, without words, beside rows of words."""
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs import ml100k_head
from ilm_jax import errors
from ilm_jax.config import reading
from ilm_jax.data import batches as batches_lib
from ilm_jax.data import packing
from ilm_jax.models import decoder, ilm, language_model, t5
from ilm_jax.objectives import inputs, item_head, phase2
from ilm_jax.training import accumulation
from ilm_jax.weights import load
from tests import test_item_head, test_objectives

DEEP = dataclasses.replace(test_objectives.LM, num_layers=3)
LAST = 18                           # of the small model's words: the slot's
HEAD = dataclasses.replace(test_item_head.HEAD, weight=0.5)


def rank_spec(**changes):
  return test_item_head.spec(**{**dict(slot_id=LAST, targets=0, head_only=True, rows=2,
                                       rows_per_group=2, task_names=("sequential",)), **changes})


EXAMPLES = [test_item_head.example([7, LAST, LAST], [1, 2], 4),
            test_item_head.example([3, LAST, 9], [5], 6)]


def model(lm=DEEP):
  graphdef, trainable, held = test_item_head.model()
  return graphdef, trainable, held | {"lm": language_model.init(lm, 5)}


def test_rank_rows_hold_no_targets():
  batch, dropped = packing.pack_groups([EXAMPLES], rank_spec())
  assert dropped == 0 and not set(batch) & {"targets", "weights", "target_at", "task"}
  np.testing.assert_array_equal(np.sort(batch["next_item"][batch["next_item"] > 0]), [2, 4, 6])
  # The last input is the last token: nothing is fed that would be said.
  assert (batch["segment"] > 0).sum() == 5 + 4
  sizes = rank_spec().sizes(3, 2, 40)
  assert sizes == {"length": 5, "slots": 2, "targets": 0}


@pytest.mark.parametrize("changes, words", [
    ({"phase2.head.rows": 12, "phase2.head.rows_per_group": 4, "phase2.microbatches": 8,
      "phase2.rows": 8}, "phase2.head.rows=12 does not divide over phase2.microbatches=8"),
    ({"eval.beam_users": 5}, "beams generate titles, and with these rows ranking tasks"),
    ({"phase2.head.layer": 2, "phase2.head.rows": 0}, "set the rows above 0 or the layer to -1"),
    ({"phase2.head.queries": 9}, "the soft tokens of an entity"),
    ({"phase2.head.rows": 12}, "no multiple of phase2.head.rows_per_group=16"),
])
def test_rows_that_cannot_be_are_refused(changes, words):
  c = ml100k_head.get_config()
  reading.validate(c, 1)
  c.update_from_flattened_dict(changes)
  with pytest.raises(errors.UserError, match=words):
    reading.validate(c, 1)


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_few_layers_are_a_model_of_few_layers(layers):
  params = language_model.init(DEEP, 5)
  few = {**params, "layers": {name: x[:layers] for name, x in params["layers"].items()}}
  x_BLD = jax.random.normal(jax.random.key(0), (2, 4, 6))
  at = (x_BLD, jnp.tile(jnp.arange(4), (2, 1)), jnp.ones((2, 4), int))
  got = language_model.bind(DEEP, params).hidden(*at, layers=layers)
  if not layers:
    x_BLD = np.asarray(x_BLD)
    want = x_BLD / np.sqrt(np.mean(x_BLD ** 2, axis=-1, keepdims=True) + DEEP.norm_eps)
    np.testing.assert_allclose(got, want * np.asarray(params["final_norm"]), rtol=1e-5)
    return
  short = dataclasses.replace(DEEP, num_layers=layers)
  np.testing.assert_allclose(got, language_model.bind(short, few).hidden(*at), rtol=1e-5,
                             atol=1e-6)


def test_rank_rows_have_the_loss_of_the_same_rows_with_words():
  """All layers, one example a row: only the words are gone."""
  graphdef, trainable, held = model()
  shape = test_item_head.spec(slot_id=LAST, rows=2)
  words = packing.one_a_row(EXAMPLES, shape)
  ranked = packing.one_a_row(EXAMPLES, rank_spec())
  loss = jax.jit(phase2.phase2_loss(graphdef, DEEP, shape.task_names, HEAD))
  with_words, of_words = loss(trainable, held, words, None)
  alone, metrics = loss(trainable, held, {"rank": ranked}, None)
  np.testing.assert_allclose(metrics["head_nll"][0], of_words["head_nll"][0], rtol=1e-5)
  mean = float(metrics["head_nll"][0]) / 3
  np.testing.assert_allclose(alone, 0.5 * mean, rtol=1e-5)
  assert float(with_words) > float(alone) and "nll" not in metrics
  both, sums = loss(trainable, held, {**packing.one_a_row(
      [dict(e, task=1) for e in EXAMPLES], dataclasses.replace(shape, head_tasks=())),
      "rank": ranked}, None)
  np.testing.assert_allclose(
      both, float(alone) + float(of_words["nll"][0] / of_words["nll"][1]), rtol=1e-5)
  assert float(sums["tokens"]) == float(of_words["tokens"]) + float(metrics["tokens"])


@pytest.mark.parametrize("layer", [-1, 1])
def test_one_pass_over_the_catalogue_serves_slots_and_head(layer):
  graphdef, trainable, held = model()
  ranked = {"rank": packing.one_a_row(EXAMPLES, rank_spec())}

  def loss_and_gradient(items_only):
    c = dataclasses.replace(HEAD, layer=layer, items_only=items_only)
    loss = phase2.phase2_loss(graphdef, DEEP, (), c)
    return jax.jit(jax.value_and_grad(lambda t: loss(t, held, ranked, None)[0]))(trainable)

  one, two = loss_and_gradient(False), loss_and_gradient(True)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), one, two)


@pytest.mark.parametrize("items_only", [False, True])
def test_rank_rows_may_hold_fewer_soft_tokens(items_only):
  """The first of two: the same as a projector that has no second."""
  graphdef, trainable, held = model()
  few = {"rank": packing.one_a_row(EXAMPLES, rank_spec(queries=1))}
  head = dataclasses.replace(HEAD, queries=1, items_only=items_only)
  value, metrics = jax.jit(phase2.phase2_loss(graphdef, DEEP, (), head))(
      trainable, held, few, None)
  item_N = few["rank"]["next_item"].reshape(-1)

  @jax.jit
  def by_parts(trainable, held, rank):
    ours = nnx.merge(graphdef, trainable)
    given = inputs.entity_inputs(held, rank["entities"].reshape(-1))
    soft = ours.soft_tokens(*given)[:, 0].reshape(2, -1, 6)
    lm = language_model.bind(DEEP, held["lm"])
    embeds = ilm.splice(lm.embed(rank["tokens"]), soft, rank["slot"])
    hidden = lm.target_hidden(embeds, {**rank, "target_at": rank["next_at"]})
    return item_head.nll(ours, head, held, hidden.reshape(len(item_N), -1), item_N, None)[0]

  nll_N = by_parts(trainable, held, few["rank"])
  np.testing.assert_allclose(metrics["head_nll"][0], np.sum(nll_N * (item_N > 0)), rtol=1e-5)
  assert float(metrics["tokens"]) == 3 + 3 and value > 0


def test_deeper_layers_have_no_say():
  graphdef, trainable, held = model()
  ranked = {"rank": packing.one_a_row(EXAMPLES, rank_spec())}
  loss = jax.jit(phase2.phase2_loss(graphdef, DEEP, (), dataclasses.replace(HEAD, layer=2)))
  def changed(at):
    layers = {name: x.at[at].multiply(1.5) for name, x in held["lm"]["layers"].items()}
    return {**held, "lm": {**held["lm"], "layers": layers}}
  value = float(loss(trainable, held, ranked, None)[0])
  assert float(loss(trainable, changed(2), ranked, None)[0]) == value
  assert float(loss(trainable, changed(1), ranked, None)[0]) != value


def test_microbatches_of_rank_rows_equal_the_whole():
  graphdef, trainable, held = model()
  trainable = jax.tree.map(jnp.asarray, trainable)
  many = [EXAMPLES[i % 2] for i in range(3)] + [test_item_head.example([3, LAST], [1], 2)]
  batch = {"rank": packing.one_a_row(many, dataclasses.replace(rank_spec(), rows=4))}
  quiet = lambda *a: phase2.phase2_loss(graphdef, DEEP, (), HEAD)(*a[:3], None)  # noqa: E731
  (one, _), gradient_1 = jax.jit(accumulation.value_and_grad(quiet, 1))(
      trainable, held, batch, jax.random.key(0))
  (two, _), gradient_2 = jax.jit(accumulation.value_and_grad(quiet, 2))(
      trainable, held, batch, jax.random.key(0))
  np.testing.assert_allclose(two, one, rtol=1e-6)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), gradient_2,
               gradient_1)


@pytest.mark.parametrize("said", [True, False])
def test_batches_carry_both_kinds_of_rows(said):
  words = batches_lib.lm_batches(
      {"elm": [test_item_head.example([7, LAST], [n], n) for n in (1, 2, 3)]}, {"elm": 1.0},
      test_item_head.spec(slot_id=LAST, task_names=("elm",), head_tasks=(), rows=2), seed=0)
  ranked = batches_lib.lm_batches({"sequential": EXAMPLES}, {"sequential": 2.0}, rank_spec(),
                                  seed=0)
  joined = batches_lib.with_ranking(words if said else None, ranked)
  for step, batch in enumerate(joined.iterate(0, 3)):
    jax.tree.map(np.testing.assert_array_equal, batch["rank"], ranked.at(step))
    rest = {name: x for name, x in batch.items() if name != "rank"}
    jax.tree.map(np.testing.assert_array_equal, rest, words.at(step) if said else {})


def test_redrawn_weights_of_a_t5_keep_the_size_of_each_layer():
  config = t5.T5Config(num_layers=2, num_encoder_layers=2, width=16, num_heads=2, head_dim=8,
                       mlp_width=24, vocab_size=40)
  params = language_model.init(config, 5)
  name = next(n for n, x in params["encoder"].items() if x.ndim == 3 and n != "relative_bias")
  params["encoder"][name] = params["encoder"][name].at[0].multiply(10.0)
  again = load.redrawn(load.LanguageModel(config, params), seed=3).params["encoder"][name]
  np.testing.assert_allclose(np.asarray(again).std(axis=(1, 2)),
                             np.asarray(params["encoder"][name]).std(axis=(1, 2)), rtol=0.3)


def test_redrawn_weights_keep_shapes_sizes_and_norms():
  config = dataclasses.replace(DEEP, num_layers=2)
  params = language_model.init(config, 5)
  params["layers"]["up"] = params["layers"]["up"].at[1].multiply(4.0)
  again = load.redrawn(load.LanguageModel(config, params), seed=3)
  assert again.config == config
  up, was = np.asarray(again.params["layers"]["up"]), np.asarray(params["layers"]["up"])
  assert not np.allclose(up, was)
  np.testing.assert_allclose(up.std(axis=(1, 2)), was.std(axis=(1, 2)), rtol=0.3)
  np.testing.assert_array_equal(again.params["layers"]["mlp_norm"], params["layers"]["mlp_norm"])
  np.testing.assert_array_equal(again.params["final_norm"], params["final_norm"])
  twice = load.redrawn(load.LanguageModel(config, params), seed=3)
  jax.tree.map(np.testing.assert_array_equal, twice.params, again.params)
  other = load.redrawn(load.LanguageModel(config, params), seed=4)
  assert not np.allclose(other.params["embedding"], again.params["embedding"])
  nnx.merge(nnx.split(decoder.Decoder(config, rngs=nnx.Rngs(0)))[0], again.params)
