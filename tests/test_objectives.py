"""Both phases on tiny models: who gets gradient, what is computed, what the metrics add up to."""
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ilm_jax import losses
from ilm_jax.models import decoder, ilm, language_model
from ilm_jax.objectives import inputs
from ilm_jax.objectives import phase1 as phase1_lib
from ilm_jax.objectives import phase2 as phase2_lib
from tests import small_configs

QFORMER = small_configs.qformer(
    vectors={"behavioral": 5}, num_layers=2, cross_every=1, width=8, num_heads=2, mlp_width=12,
    vocab_size=23, max_text=6, num_queries=2, proj_width=4)
LM = decoder.DecoderConfig(num_layers=1, width=6, num_heads=2, num_kv_heads=1, head_dim=4,
                           mlp_width=8, vocab_size=19)
R = 9


def frozen():
  table = jax.random.normal(jax.random.key(3), (R, 5)).at[0].set(0.0)
  return {"vectors": {"behavioral": table}, "present": {"behavioral": jnp.arange(R) > 0}}


def frozen_with_lm():
  lm = nnx.to_pure_dict(nnx.state(decoder.Decoder(LM, rngs=nnx.Rngs(5)), nnx.Param))
  return frozen() | {"lm": lm}


BATCH_1 = {
    "text_entities": jnp.array([1, 2, 3]),
    "text": jnp.array([[2, 7, 8, 3, 0], [2, 9, 4, 11, 3], [2, 5, 3, 0, 0]]),
    "pair_a": jnp.array([1, 2, 4, 1]), "pair_b": jnp.array([2, 3, 5, 6]),
    "upair_user": jnp.array([7, 8]), "upair_item": jnp.array([1, 4]),
}
BATCH_1["text_mask"] = BATCH_1["text"] != 0
ALL = ("itc", "itm", "itg", "ii", "ui")


def only(*names, **changes):
  return small_configs.phase1(**{n: float(n in names) for n in ALL}, **changes)


@functools.cache
def phase1():
  return phase1_lib.build_phase1(QFORMER, seed=0)


@functools.cache
def phase1_step(c):
  graphdef, _ = phase1()
  return jax.jit(jax.value_and_grad(phase1_lib.phase1_loss(graphdef, c), has_aux=True))


@functools.cache
def phase1_metrics(c):
  """The same, forward only: batch, key -> metrics."""
  graphdef, trainable = phase1()
  loss = jax.jit(phase1_lib.phase1_loss(graphdef, c))
  return lambda batch, key=None: loss(trainable, frozen(), batch, key)[1]


def test_logq_takes_the_log_of_draws_from_either_side():
  graphdef, trainable = phase1()
  qformer = nnx.merge(graphdef, trainable["qformer"])
  own = frozen() | {"log_draws": jnp.array([0.0, 3.0, 0, 0, 0.5, 0, 0, 1.0, 2.5])}
  bag = {row: qformer.project_queries(qformer.queries(*inputs.entity_inputs(
      own, jnp.array([row])))) for row in (7, 8, 1, 4)}
  logits = np.array([[losses.bag_similarity(bag[u], bag[i])[0, 0] for i in (1, 4)]
                     for u in (7, 8)]) / float(qformer.temperature("ui"))
  items, users = logits - [[3.0, 0.5]], logits - [[1.0], [2.5]]   # rows, columns
  expected = 0.5 * np.mean([np.logaddexp(*items[b]) - items[b, b]
                            + np.logaddexp(*users[:, b]) - users[b, b] for b in (0, 1)])
  loss = {q: jax.jit(phase1_lib.phase1_loss(graphdef, only("ui", label_smoothing=0.0, logq=q)))(
      trainable, own, BATCH_1, None)[0] for q in (False, True)}
  np.testing.assert_allclose(loss[True], expected, rtol=1e-5)
  assert abs(loss[True] - loss[False]) > 0.1


def test_phase1_is_the_weighted_sum_of_its_losses():
  c = small_configs.phase1(itc=1.0, itm=2.0, itg=0.5, ii=3.0, ui=0.25)
  (loss, metrics), grads = phase1_step(c)(phase1()[1], frozen(), BATCH_1, None)
  expected = sum(getattr(c, n) * metrics[n] for n in ALL)
  np.testing.assert_allclose(loss, expected, rtol=1e-6)
  assert all(np.isfinite(x).all() for x in jax.tree.leaves((metrics, grads)))
  assert all(x.shape == () for x in metrics.values())
  # Every parameter learns from the five losses together (a key bias shifts all scores alike).
  blind = [jax.tree_util.keystr(p) for p, g in jax.tree_util.tree_leaves_with_path(grads)
           if not np.any(g)]
  assert all("'key'" in n and "bias" in n for n in blind), blind


@pytest.mark.parametrize("name, untouched", [
    ("itc", ("lm", "match", "log_temperature_ii")),
    ("itm", ("lm", "text_projection", "log_temperature_itc")),
    ("itg", ("heads",)),
    ("ii", ("lm", "text_embed", "text_mlp", "text_projection", "log_temperature_ui")),
    ("ui", ("lm", "text_embed", "text_mlp", "match", "log_temperature_itc"))])
def test_one_loss_alone(name, untouched):
  """The others are not computed, and what only they train gets no gradient."""
  needs = {"ii": ("pair_a", "pair_b"), "ui": ("upair_user", "upair_item")}.get(
      name, ("text_entities", "text", "text_mask"))
  batch = {k: BATCH_1[k] for k in needs}  # nothing else is looked at
  (loss, metrics), grads = phase1_step(only(name))(phase1()[1], frozen(), batch, None)
  assert set(metrics) & set(ALL) == {name}
  np.testing.assert_allclose(loss, metrics[name], rtol=1e-6)
  for path, grad in jax.tree_util.tree_leaves_with_path(grads):
    if any(f"'{u}'" in jax.tree_util.keystr(path) for u in untouched):
      assert not np.any(grad), path
  assert np.any(grads["qformer"]["query_tokens"])


def test_a_key_draws_and_draws_the_same_again():
  run = phase1_metrics(only("ui"))
  one, again, two, none = (run(BATCH_1, None if seed is None else jax.random.key(seed))["ui"]
                           for seed in (1, 1, 2, None))
  assert one == again and len({float(one), float(two), float(none)}) == 3


def test_itc_is_the_same_from_either_query_pass():
  """Queries of the generation pass equal those of their own pass, so does the loss."""
  alone, together = (phase1_metrics(c)(BATCH_1)["itc"]
                     for c in (only("itc"), only("itc", "itg")))
  np.testing.assert_allclose(alone, together, rtol=1e-5)


def test_itg_alone_by_its_definition():
  """Mean over the tokens after the first, padding left out."""
  graphdef, trainable = phase1()
  model = nnx.merge(graphdef, trainable["qformer"])
  given = inputs.entity_inputs(frozen(), BATCH_1["text_entities"])
  logits = model.generate(*given, BATCH_1["text"], BATCH_1["text_mask"])
  nll = [-jax.nn.log_softmax(logits[b, t])[BATCH_1["text"][b, t + 1]]
         for b, n in ((0, 4), (1, 5), (2, 3)) for t in range(n - 1)]
  metrics = phase1_metrics(only("itg"))(BATCH_1)
  assert len(nll) == 9
  np.testing.assert_allclose(metrics["itg_nll"], np.mean(nll), rtol=1e-5)


def test_equal_items_and_equal_texts_are_positives_of_itc():
  """Three rows of one item: every target is spread evenly, and ITM finds no negatives."""
  same = BATCH_1 | {"text_entities": jnp.array([2, 2, 2])}
  c = only("itc", "itm", label_smoothing=0.0)
  metrics = phase1_metrics(c)(same)
  assert metrics["itc_accuracy"] == 1.0
  texts = jnp.broadcast_to(BATCH_1["text"][:1], (3, 5))
  equal_texts = BATCH_1 | {"text": texts, "text_mask": texts != 0}
  assert phase1_metrics(c)(equal_texts)["itc_accuracy"] == 1.0
  graphdef, trainable = phase1()
  model = nnx.merge(graphdef, trainable["qformer"])
  given = inputs.entity_inputs(frozen(), same["text_entities"])
  logits = model.itm_logits(model.joint(*given, same["text"], same["text_mask"]))
  expected = losses.classification(logits, jnp.array([1, 1, 1])).mean()  # the B matches alone
  np.testing.assert_allclose(metrics["itm"], expected, rtol=1e-5)


def test_ii_by_its_parts():
  """Pairs (1,2) (2,3) (4,5) (1,6): rows 0 and 3 share item 1, and 2 is no negative of itself."""
  graphdef, trainable = phase1()
  model = nnx.merge(graphdef, trainable["qformer"])
  a, b = (model.project_queries(model.queries(*inputs.entity_inputs(frozen(), BATCH_1[k])))
          for k in ("pair_a", "pair_b"))
  similarity = losses.bag_similarity(a, b)
  positive = np.eye(4, dtype=bool)
  positive[0, 3] = positive[3, 0] = True
  excluded = np.zeros((4, 4), bool)
  excluded[1, 0] = True
  infonce = losses.contrastive(similarity / 0.07, positive, excluded, 0.1).mean()
  margin = losses.margin(similarity, positive, excluded, 0.5).mean()
  one = phase1_metrics(only("ii"))(BATCH_1)
  two = phase1_metrics(only("ii", contrastive="margin", margin=0.5))(BATCH_1)
  np.testing.assert_allclose(one["ii"], infonce, rtol=1e-4)
  np.testing.assert_allclose(two["ii"], margin, rtol=1e-4)
  assert "temperature_ii" in one and "temperature_ii" not in two


BATCH_2 = {
    "tokens": jnp.array([[3, 0, 0, 4, 0, 0], [5, 6, 7, 0, 0, 8]]),
    "slot": jnp.array([[-1, 0, 1, -1, 2, 3], [-1, -1, -1, 0, 1, -1]]),
    "entities": jnp.array([[1, 7], [3, 0]]),
    "segment": jnp.array([[1, 1, 1, 1, 1, 1], [1, 1, 2, 2, 2, 2]]),
    "position": jnp.array([[0, 1, 2, 3, 4, 5], [0, 1, 0, 1, 2, 3]]),
    "prefix": jnp.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0]], bool),
    "target_at": jnp.array([[5, 0, 0], [1, 4, 5]]),
    "targets": jnp.array([[9, 0, 0], [10, 8, 11]]),
    "target_segment": jnp.array([[1, 0, 0], [1, 2, 2]]),
    "target_position": jnp.array([[0, 0, 0], [0, 0, 1]]),
    "weights": jnp.array([[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]]),
    "task": jnp.array([[0, 0, 0], [0, 1, 1]]),
}


@functools.cache
def phase2():
  graphdef, trainable = small_configs.phase2(QFORMER, 6, 0.05, seed=0)
  loss = phase2_lib.phase2_loss(graphdef, LM, ("sequential", "elm"))
  return trainable, jax.jit(jax.value_and_grad(loss, has_aux=True))


def test_phase2_is_the_mean_over_targets_and_its_sums_add_up():
  trainable, step = phase2()
  (loss, m), grads = step(trainable, frozen_with_lm(), BATCH_2, None)
  (total, count), parts = m["nll"], [m["nll/sequential"], m["nll/elm"]]
  assert count == 4 and parts[0][1] == 2 and parts[1][1] == 2
  np.testing.assert_allclose(loss, total / 4, rtol=1e-6)
  np.testing.assert_allclose(total, parts[0][0] + parts[1][0], rtol=1e-6)
  assert set(grads) == {"qformer", "projection"}
  assert all(np.any(g) for p, g in jax.tree_util.tree_leaves_with_path(grads)
             if not ("key" in str(p) and "bias" in str(p)))


def test_phase2_by_hand_built_prompt():
  """Row 0's target from embeddings written out one by one."""
  trainable, step = phase2()
  graphdef, _ = small_configs.phase2(QFORMER, 6, 0.05, seed=0)
  held = frozen_with_lm()
  model = nnx.merge(graphdef, trainable)
  soft = model.soft_tokens(*inputs.entity_inputs(held, jnp.array([1, 7])))
  word = held["lm"]["embedding"]
  row = jnp.stack([word[3], soft[0, 0], soft[0, 1], word[4], soft[1, 0], soft[1, 1]])
  lm = language_model.bind(LM, held["lm"])
  hidden = lm.hidden(row[None], jnp.arange(6)[None], jnp.ones((1, 6), int))
  nll = -jax.nn.log_softmax(lm.logits(hidden)[0, 5])[9]
  one = BATCH_2 | {"weights": jnp.zeros((2, 3)).at[0, 0].set(1.0)}
  (loss, _), _ = step(trainable, held, one, None)
  np.testing.assert_allclose(loss, nll, rtol=1e-5)


def test_phase2_without_slots_needs_no_entities():
  words = BATCH_2 | {"slot": jnp.full((2, 6), -1)}
  held = {"lm": frozen_with_lm()["lm"]}
  plain = phase2_lib.phase2_loss(None, LM, ("sequential", "elm"))
  loss, _ = plain({}, held, {k: v for k, v in words.items() if k != "entities"}, None)
  trainable, step = phase2()
  np.testing.assert_allclose(loss, step(trainable, frozen_with_lm(), words, None)[0][0], rtol=1e-6)


def test_phase2_starts_from_phase1():
  _, first = phase1()
  trainable = small_configs.phase2(QFORMER, 6, 0.05, seed=1, start=lambda _: first["qformer"])[1]
  fresh = small_configs.phase2(QFORMER, 6, 0.05, seed=1)[1]
  assert jax.tree.structure(trainable) == jax.tree.structure(fresh)
  np.testing.assert_array_equal(trainable["qformer"]["query_tokens"],
                                first["qformer"]["query_tokens"])
  names = {jax.tree_util.keystr(p) for p, _ in jax.tree_util.tree_leaves_with_path(trainable)}
  assert not any("text" in n or "'lm'" in n or "heads" in n for n in names)


def test_splice_by_hand():
  embeds_BLD = jnp.array([[[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]])
  soft_BXD = jnp.array([[[10.0, 11.0], [20.0, 21.0]]])
  np.testing.assert_array_equal(
      ilm.splice(embeds_BLD, soft_BXD, jnp.array([[1, -1, 0]])),
      [[[20.0, 21.0], [2.0, 2.0], [10.0, 11.0]]])


def test_soft_tokens_start_at_the_asked_rms():
  config = small_configs.qformer(vectors={"behavioral": 5}, num_layers=1, width=64, num_heads=2,
                                 mlp_width=8, vocab_size=9, num_queries=4, query_path_only=True)
  model = ilm.ILM(config, 96, small_configs.FORM, soft_token_rms=0.13, rngs=nnx.Rngs(0))
  soft = model.soft_tokens(*inputs.entity_inputs(frozen(), jnp.array([1, 2, 3])))
  np.testing.assert_allclose(jnp.sqrt(jnp.mean(soft ** 2)), 0.13, rtol=0.05)
  # Another start, whose outputs are of another size, is scaled for.
  params = nnx.to_pure_dict(nnx.state(model.qformer))
  scale = params["stack"]["layer"]["query_norm"]["scale"] * 0.4
  params["stack"]["layer"]["query_norm"] |= {"scale": scale}
  graphdef, trainable = small_configs.phase2(config, 96, 0.13, seed=0, start=lambda _: params)
  soft = nnx.merge(graphdef, trainable).soft_tokens(
      *inputs.entity_inputs(frozen(), jnp.array([1, 2, 3])))
  np.testing.assert_allclose(jnp.sqrt(jnp.mean(soft ** 2)), 0.13, rtol=0.05)


def test_over_the_catalogue_a_user_chooses_among_all_items():
  """II and UI from bags by hand: mean cross-entropy over items 1..6, the asker left out."""
  graphdef, trainable = phase1()
  qformer = nnx.merge(graphdef, trainable["qformer"])
  bag = qformer.project_queries(qformer.queries(*inputs.entity_inputs(frozen(), jnp.arange(R))))
  c = only("ii", "ui", num_items=6, label_smoothing=0.0)
  metrics = phase1_metrics(c)(BATCH_1)
  for name, left, right in (("ui", "upair_user", "upair_item"), ("ii", "pair_a", "pair_b")):
    logits = np.asarray(losses.bag_similarity(bag[BATCH_1[left]], bag[1:7]))
    logits = logits / float(qformer.temperature(name))
    want = []
    for row, asker, target in zip(logits, np.asarray(BATCH_1[left]), np.asarray(BATCH_1[right])):
      others = [i for i in range(6) if i + 1 != asker]
      want.append(np.log(np.sum(np.exp(row[others]))) - row[target - 1])
    np.testing.assert_allclose(metrics[name], np.mean(want), rtol=1e-4)


@pytest.mark.parametrize("apart", [False, True])
def test_cf_hands_its_scores_on(apart):
  """Users 7 and 8: cross-entropy of the similarity's softmax over six items, by the factors'."""
  graphdef, trainable = phase1_lib.build_phase1(
      dataclasses.replace(QFORMER, user_projection=apart), seed=0)
  qformer = nnx.merge(graphdef, trainable["qformer"])
  held = frozen() | {"factors": jax.random.normal(jax.random.key(9), (R, 3))}
  c = only(cf=1.0, num_items=6, cf_temperature=0.5)
  loss, metrics = phase1_lib.phase1_loss(graphdef, c)(trainable, held, BATCH_1, None)
  queries = qformer.queries(*inputs.entity_inputs(held, jnp.arange(R)))
  bag, asking = qformer.project_queries(queries), qformer.project_queries(queries, users=True)
  assert np.allclose(bag, asking) != apart
  want = []
  for user in (7, 8):
    logits = np.asarray(losses.bag_similarity(asking[user:user + 1], bag[1:7]))[0]
    logits = logits / float(qformer.temperature("ui"))
    given = np.exp(np.asarray(held["factors"][1:7] @ held["factors"][user]) / 0.5)
    want.append(-np.sum(given / given.sum() * (logits - lse(*logits))))
  np.testing.assert_allclose(metrics["cf"], np.mean(want), rtol=1e-5)
  np.testing.assert_allclose(loss, metrics["cf"], rtol=1e-6)


def lse(*xs):
  return np.log(np.sum(np.exp(xs)))


def test_reconstruction_is_the_error_of_what_is_there():
  config = dataclasses.replace(QFORMER, reconstructs=True)
  graphdef, trainable = phase1_lib.build_phase1(config, seed=0)
  held = frozen()
  held["present"]["behavioral"] = held["present"]["behavioral"].at[8].set(False)
  c = only("ui", rec=1.0, uni=1.0, num_items=6)
  (_, metrics), gradient = jax.jit(jax.value_and_grad(
      phase1_lib.phase1_loss(graphdef, c), has_aux=True))(trainable, held, BATCH_1, None)
  qformer = nnx.merge(graphdef, trainable["qformer"])
  rows = np.array([1, 2, 3, 4, 5, 6, 7])                    # user 8 has nothing to give back
  given = qformer.reconstructed(qformer.queries(*inputs.entity_inputs(held, jnp.asarray(rows))))
  error = np.square(given - held["vectors"]["behavioral"][rows])
  np.testing.assert_allclose(metrics["rec"], error.mean(), rtol=1e-5)
  assert metrics["uni"] < 0
  assert np.abs(gradient["qformer"]["heads"]["vectors"]["kernel"]).max() > 1e-4
