"""Items that nobody has met: read by their text alone, in training at times those that were met."""
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ilm_jax import losses
from ilm_jax.data import packing
from ilm_jax.models import decoder, language_model
from ilm_jax.objectives import distillation, drawing, inputs, item_head
from ilm_jax.objectives import phase1 as phase1_lib
from ilm_jax.objectives import phase2 as phase2_lib
from tests import small_configs, test_item_head, test_objectives

R, ITEMS, UNMET = 9, 6, (5, 6)           # items 1 to 6, of which two are unmet; users 7 and 8
KEY = jax.random.key(1)
CONFIG = small_configs.qformer(
    vectors={"behavioral": 5, "semantic": 3}, num_layers=2, cross_every=1, width=8, num_heads=2,
    mlp_width=12, vocab_size=23, max_text=6, num_queries=2, proj_width=4, members=2, dropout=0.0)
FORMS = {"paper": small_configs.FORM, "skip": dataclasses.replace(small_configs.FORM, skip=True)}
HEAD = item_head.HeadConfig(weight=1.0, num_items=ITEMS, negatives=0, items_only=True)


def frozen():
  """Members: of met items and users two items each; of unmet ones none."""
  rows = jnp.arange(R)
  met = (rows > 0) & ~jnp.isin(rows, jnp.array(UNMET))
  members = jnp.where(met[:, None], jnp.array([[1, 2]]), 0)
  return {"vectors": {"behavioral": jax.random.normal(jax.random.key(3), (R, 5)),
                      "semantic": jax.random.normal(jax.random.key(4), (R, 3))},
          "present": {"behavioral": met, "semantic": (rows > 0) & (rows <= ITEMS)},
          "members": members, "never_met": ~met,
          "log_draws": jnp.where(met, 2.0, 0.0),
          "factors": jax.random.normal(jax.random.key(5), (R, 3))}


@functools.cache
def projector(form: str, hide: float = 0.0):
  config = dataclasses.replace(CONFIG, vector_dropout=hide)
  graphdef, trainable = small_configs.phase2(
      config, 6, 1.0, seed=0, form=FORMS.get(form, small_configs.FORM), mlp=form == "mlp",
      head_width=3)
  if "feature_scale" in trainable:
    trainable["feature_scale"] = jnp.ones_like(trainable["feature_scale"])
  return nnx.merge(graphdef, trainable)


def test_what_interactions_told_is_hidden_at_its_rate_from_items_alone():
  rows = jnp.asarray(np.repeat(np.arange(R), 2000))
  all_of, few = (inputs.entity_inputs(frozen(), rows, key, 0.3)[1] for key in (None, KEY))
  np.testing.assert_array_equal(few["semantic"], all_of["semantic"])
  lost = all_of["behavioral"] & ~few["behavioral"]
  for row in range(R):
    want = 0.3 * (row in (1, 2, 3, 4))
    np.testing.assert_allclose(lost[rows == row].mean(), want, atol=0.04)
  for name in ("behavioral/members", "semantic/members"):
    np.testing.assert_array_equal(few[name], all_of[name] & ~lost[:, None])
  draws_B = inputs.log_draws(frozen(), rows, KEY, 0.3)
  np.testing.assert_array_equal(draws_B, jnp.where(few["behavioral"], 2.0, 0.0))


@pytest.mark.parametrize("key, hide", [(None, 1.0), (KEY, 0.0)])
def test_nothing_is_hidden_without_a_key_or_a_rate(key, hide):
  rows = jnp.arange(R)
  for got, want in zip(inputs.entity_inputs(frozen(), rows, key, hide),
                       inputs.entity_inputs(frozen(), rows)):
    jax.tree.map(np.testing.assert_array_equal, got, want)
  np.testing.assert_array_equal(
      inputs.log_draws(frozen(), rows, key, hide), frozen()["log_draws"])


def test_without_texts_nothing_is_hidden():
  held = test_objectives.frozen()
  _, present = inputs.entity_inputs(held, jnp.arange(R), KEY, 1.0)
  np.testing.assert_array_equal(present["behavioral"], held["present"]["behavioral"])


@pytest.mark.parametrize("form", ["paper", "skip", "mlp"])
def test_an_absent_vector_does_not_enter(form):
  """Not by its value, nor by members; and who is hidden reads like who was never met."""
  model, held, rows = projector(form), frozen(), jnp.arange(1, ITEMS + 1)
  other = held | {"vectors": held["vectors"] | {
      "behavioral": held["vectors"]["behavioral"].at[jnp.array(UNMET)].add(9.0)}}
  for part, same in zip(model.read(*inputs.entity_inputs(held, rows)),
                        model.read(*inputs.entity_inputs(other, rows))):
    np.testing.assert_array_equal(part, same)
  nobody = held | {"present": held["present"] | {"behavioral": jnp.zeros(R, bool)},
                   "members": jnp.zeros_like(held["members"])}
  for part, same in zip(model.read(*inputs.entity_inputs(held, rows, KEY, 1.0)),
                        model.read(*inputs.entity_inputs(nobody, rows))):
    np.testing.assert_allclose(part, same, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", ["paper", "skip", "mlp"])
def test_every_reading_of_phase_2_hides_in_training(monkeypatch, form):
  rates, gather = [], inputs.entity_inputs

  def watched(frozen, entity_B, rng=None, hide=0.0):
    rates.append((rng is not None, hide))
    return gather(frozen, entity_B, rng, hide)

  monkeypatch.setattr(inputs, "entity_inputs", watched)
  model, held = projector(form, 0.4), frozen()
  lm = decoder.DecoderConfig(num_layers=1, width=6, num_heads=2, num_kv_heads=1, head_dim=4,
                             mlp_width=8, vocab_size=19)
  read = phase2_lib._Reader(
      language_model.bind(lm, language_model.init(lm, 5)), model, held)
  batch = jax.tree.map(jnp.asarray, packing.pack_groups(
      [[test_item_head.example([7, 18, 18], [1, 2], 4)]],
      test_item_head.spec(slot_id=18, targets=0, head_only=True, task_names=("sequential",)))[0])
  for key in (KEY, None):
    inputs.soft_tokens(model, held, jnp.array([[1, 7]]), key)
    item_head.nll(model, HEAD, held, jnp.ones((1, 6)), jnp.array([2]), key)
    phase2_lib._ranked(read, batch, batch, HEAD, key)
  assert rates == [(True, 0.4)] * 3 + [(False, 0.4)] * 3


def test_the_catalogue_read_once_has_the_popularity_of_what_it_shows():
  """Features and log draws of a step's one reading are hidden together."""
  model, held, rows = projector("mlp", 0.5), frozen(), jnp.arange(ITEMS + 1)
  entities = (held, rows, KEY, 0.5)
  catalogue = (model.features(*inputs.entity_inputs(*entities), KEY), inputs.log_draws(*entities))
  query_NP = model.head.query(jnp.ones((1, 6)))
  key_IP, bias_I = model.head.items(catalogue[0][1:5], catalogue[1][1:5])
  logits_I = query_NP[0] @ key_IP.T + bias_I
  assert len(set(np.asarray(catalogue[1][1:5]).tolist())) == 2
  got, _ = item_head.nll(model, HEAD, held, jnp.ones((1, 6)), jnp.array([2]), KEY, catalogue)
  np.testing.assert_allclose(got[0], jax.nn.logsumexp(logits_I) - logits_I[1], rtol=1e-5)


@pytest.mark.parametrize("negatives", [0, 5])
def test_who_was_never_met_is_no_candidate_in_training(negatives):
  """The head's keys of unmet items get no gradient; without a key, in evaluation, they do.

  Any five of the six items hold an unmet one.
  """
  model, head = projector("mlp"), dataclasses.replace(HEAD, negatives=negatives)

  def loss(semantic, key):
    held = frozen()
    held["vectors"]["semantic"] = semantic
    nll_N, _ = item_head.nll(
        model, head, held, jnp.ones((3, 6)), jnp.array([2, 4, 0]), key)
    return jnp.sum(nll_N[:2]), nll_N

  for key, moves in ((KEY, False), (None, True)):
    slope_RC, nll_N = jax.grad(loss, has_aux=True)(frozen()["vectors"]["semantic"], key)
    assert np.isfinite(nll_N).all()
    assert bool(np.abs(slope_RC[np.array(UNMET)]).max() > 1e-6) is moves
    assert np.abs(slope_RC[4]).max() > 1e-6


def test_a_target_that_was_never_met_is_a_candidate_for_itself():
  """Else its score could grow without an end."""
  model, target = projector("mlp"), UNMET[0]
  hidden_ND = jnp.ones((1, 6))
  logits_I = np.asarray(item_head.logits(model, HEAD, frozen(), hidden_ND, KEY))[0]
  others = [row - 1 for row in range(1, ITEMS + 1) if row not in UNMET]
  nll_N, _ = item_head.nll(model, HEAD, frozen(), hidden_ND, jnp.array([target]), KEY)
  own = logits_I[target - 1]
  np.testing.assert_allclose(
      nll_N[0], np.logaddexp.reduce([own, *logits_I[others]]) - own, rtol=1e-5)


def test_phase_1_over_the_catalogue_leaves_out_who_was_never_met():
  """II, UI and CF by hand over items 1 to 4."""
  c = test_objectives.only("ii", "ui", cf=1.0, num_items=ITEMS, label_smoothing=0.0)
  held, batch = frozen(), {**test_objectives.BATCH_1, "pair_b": jnp.array([2, 3, 1, 3])}
  graphdef, trainable = phase1_lib.build_phase1(CONFIG, seed=0)
  got = phase1_lib.phase1_loss(graphdef, c)(trainable, held, batch, KEY)[1]
  qformer = nnx.merge(graphdef, trainable["qformer"])
  bag = qformer.project_queries(qformer.queries(*inputs.entity_inputs(held, jnp.arange(R))))
  users = np.array([7, 8])
  logits = losses.bag_similarity(bag[users], bag[1:5]) / qformer.temperature("ui")
  given = held["factors"][users] @ held["factors"][1:5].T / c.cf_temperature
  want = -jnp.sum(jax.nn.softmax(given) * jax.nn.log_softmax(logits), axis=1)
  np.testing.assert_allclose(got["cf"], want.mean(), rtol=1e-4)
  right = batch["upair_item"] - 1
  want = -jax.nn.log_softmax(logits)[jnp.arange(2), right]
  np.testing.assert_allclose(got["ui"], want.mean(), rtol=1e-4)


def test_phase_1_over_drawn_items_leaves_out_who_was_never_met():
  """UI and CF by hand over the right item and those of five drawn ones that were met."""
  c = test_objectives.only("ui", cf=1.0, num_items=ITEMS, negatives=5, label_smoothing=0.0)
  held, batch = frozen(), test_objectives.BATCH_1
  graphdef, trainable = phase1_lib.build_phase1(CONFIG, seed=0)
  got = phase1_lib.phase1_loss(graphdef, c)(trainable, held, batch, KEY)[1]
  key = inputs.step_key(inputs.step_key(KEY, 3), 5)
  drawn = np.asarray(drawing.items(key, ITEMS, 5).item_K)
  assert set(UNMET) & set(drawn)
  qformer = nnx.merge(graphdef, trainable["qformer"])
  bag = qformer.project_queries(qformer.queries(*inputs.entity_inputs(held, jnp.arange(R))))
  ui, cf = [], []
  for user, right in zip(np.asarray(batch["upair_user"]), np.asarray(batch["upair_item"])):
    items = np.array([right, *(i for i in drawn if i not in (right, *UNMET))])
    stands = np.log([1.0] + [ITEMS / 5] * (len(items) - 1))
    logits = losses.bag_similarity(bag[user][None], bag[items])[0] / qformer.temperature("ui")
    log_sum = jax.nn.logsumexp(logits + stands)
    given = held["factors"][items] @ held["factors"][user] / c.cf_temperature
    ui.append(log_sum - logits[0])
    cf.append(log_sum - jnp.sum(jax.nn.softmax(given + stands) * logits))
  np.testing.assert_allclose(got["ui"], np.mean(ui), rtol=1e-4)
  np.testing.assert_allclose(got["cf"], np.mean(cf), rtol=1e-4)


def test_reconstruction_asks_for_what_was_hidden():
  """Where all is hidden, the error is still against the behavioral vector of who has one."""
  c = test_objectives.only("ui", rec=1.0, num_items=ITEMS)
  held = frozen()
  more = held | {"vectors": held["vectors"] | {
      "behavioral": held["vectors"]["behavioral"].at[1:5].multiply(3.0)}}

  def rec(held):
    graphdef, trainable = phase1_lib.build_phase1(
        dataclasses.replace(CONFIG, reconstructs=True, vector_dropout=1.0), seed=0)
    return phase1_lib.phase1_loss(graphdef, c)(trainable, held, test_objectives.BATCH_1, KEY)[1]

  assert rec(more)["rec"] > 2 * rec(held)["rec"]


def test_scores_are_handed_on_and_matched_among_candidates_alone():
  given, logits = jnp.log(jnp.array([[0.75, 0.25, 7.0]])), jnp.log(jnp.array([[0.5, 0.5, 9.0]]))
  never = jnp.array([False, False, True])
  np.testing.assert_allclose(
      losses.handed_on(logits, given, jnp.where(never, 0.0, 1.0)[None]), [np.log(2)], rtol=1e-6)
  want = 0.75 * np.log(0.75) + 0.25 * np.log(0.25) + np.log(2)
  got = distillation.divergence(given, logits, 1.0, never)
  np.testing.assert_allclose(got, [want], rtol=1e-5)
