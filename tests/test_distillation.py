"""A sequential recommender as a teacher: what it reads of a packed row, and the loss it gives."""
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ilm_jax import errors
from ilm_jax.baselines import count_teachers, ease, neighbours, sasrec, sasrec_teacher
from ilm_jax.data import packing
from ilm_jax.evaluation import dot_scores
from ilm_jax.models import ilm, language_model
from ilm_jax.objectives import distillation, inputs, phase2
from ilm_jax.training import accumulation
from tests import small_configs, test_item_head, test_objectives, test_rank_rows

ITEMS, LAST = test_item_head.ITEMS, test_rank_rows.LAST
TEACHER = sasrec.Config(seed=0, width=8, num_layers=2, num_heads=2, length=5)
EXAMPLES = [test_item_head.example([7, LAST, LAST, LAST], [1, 2, 5], 1),
            test_item_head.example([3, LAST, 9], [5], 6),
            test_item_head.example([7, LAST, 8, LAST, LAST, 9], [7, 3, 4], 3)]   # 7 is a user


def teacher_params(config=TEACHER, seed=0):
  model = sasrec.SASRec(config, ITEMS, rngs=nnx.Rngs(seed))
  params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
  # The item table starts small: make a teacher that is sure of something.
  return params | {"item": params["item"] * 40, "position": params["position"] * 40}


def distil(weight=0.5, temperature=2.0):
  return distillation.Distil(weight, temperature, sasrec_teacher.scorer(TEACHER, ITEMS))


def head(**changes):
  return dataclasses.replace(test_item_head.HEAD, weight=0.7, **changes)


def ranked(rows=2, examples=EXAMPLES, **changes):
  shape = test_rank_rows.rank_spec(rows=rows, rows_per_group=rows, length=20, slots=8,
                                   examples_per_group=len(examples), **changes)
  batch, dropped = packing.pack_groups([examples], shape)
  assert not dropped.any()
  return {"rank": batch}


def model(mlp=False, skip=False):
  form = dataclasses.replace(small_configs.FORM, skip=skip)
  graphdef, trainable = small_configs.phase2(
      test_objectives.QFORMER, 6, 0.05, seed=0, form=form, mlp=mlp, head_width=4)
  held = test_objectives.frozen() | {
      "log_draws": jnp.log(jnp.arange(1.0, 10.0)), "teacher": teacher_params(),
      "lm": language_model.init(test_rank_rows.DEEP, 5)}
  return graphdef, jax.tree.map(jnp.asarray, trainable), held


def loss_of(graphdef, c):
  return phase2.phase2_loss(graphdef, test_rank_rows.DEEP, (), c)


def test_histories_side_by_side_are_read_as_alone():
  """Two histories in a row, a user in one of them, and padding, against each history by itself."""
  params, rows = teacher_params(), np.array([[3, 4, 0, 1, 2, 6, 5, 0], [0, 2, 2, 0, 0, 0, 0, 0]])
  segments = np.array([[1, 1, 0, 2, 2, 2, 2, 0], [1, 1, 1, 0, 0, 0, 0, 0]])
  got = sasrec_teacher.scorer(TEACHER, ITEMS)(params, jnp.array(rows), jnp.array(segments))
  assert got.shape == (2, 8, ITEMS)
  states = sasrec.SASRec(TEACHER, ITEMS, rngs=nnx.Rngs(0))
  nnx.update(states, params)
  hidden_of = jax.jit(states.hidden)
  for row, places in ((0, [0, 1]), (0, [3, 4, 5, 6]), (1, [1, 2])):
    alone = np.zeros((1, TEACHER.length), np.int32)
    alone[0, -len(places):] = rows[row, places]
    want = hidden_of(alone)[0, -len(places):] @ params["item"][1:].T
    np.testing.assert_allclose(got[row, places], want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("queries", [1, 2])
def test_the_teacher_reads_the_items_of_each_rows_own_history(queries):
  batch = ranked(rows=1, queries=queries)["rank"]
  row, segment = distillation.histories(batch, ITEMS, queries)
  for number, example in enumerate(EXAMPLES):
    items = [e for e in example["entities"] if e <= ITEMS]
    there = [s for s in range(8) if batch["next_item"][0, s] == example["target_entity"][0]]
    here = np.asarray(segment)[0] == np.asarray(segment)[0, there[-1]]
    np.testing.assert_array_equal(np.asarray(row)[0][here & (np.asarray(row)[0] > 0)], items,
                                  str(number))
  assert (np.asarray(row)[0] > 0).sum() == 6 and set(np.asarray(segment)[0]) == {0, 1, 2, 3}


def test_examples_without_the_head_are_no_history_of_others():
  """In a row that says words, an example of another task stands before a history."""
  shape = test_item_head.spec(slot_id=LAST)
  batch, _ = packing.pack_groups(
      [[test_item_head.example([7, LAST, LAST, LAST, LAST, 8], [1, 2, 1, 2], 3, task=1),
        test_item_head.example([3, LAST], [5], 6)]], shape)
  row, segment = distillation.histories(batch, ITEMS, 2)
  at = int(np.flatnonzero(batch["next_item"][0])[0])
  assert int(row[0, at]) == 5 and int((segment[0] == segment[0, at]).sum()) == 1


@pytest.mark.parametrize("kind, items_only", [("ilm", False), ("mlp", True), ("skip", True)])
def test_the_loss_is_the_divergence_from_the_teacher_in_numpy(kind, items_only):
  graphdef, trainable, held = model(kind == "mlp", kind == "skip")
  examples = EXAMPLES[:2] if items_only else EXAMPLES
  batch, ours = ranked(examples=examples), nnx.merge(graphdef, trainable)
  c = head(distil=distil(), items_only=items_only)
  value, metrics = jax.jit(loss_of(graphdef, c))(trainable, held, batch, None)
  plain, _ = jax.jit(loss_of(graphdef, head(items_only=items_only)))(trainable, held, batch, None)

  soft = inputs.soft_tokens(ours, held, batch["rank"]["entities"])
  lm = language_model.bind(test_rank_rows.DEEP, held["lm"])
  embeds = ilm.splice(lm.embed(batch["rank"]["tokens"]), soft, batch["rank"]["slot"])
  hidden = lm.target_hidden(embeds, {**batch["rank"], "target_at": batch["rank"]["next_at"]})
  items = dot_scores.head_items(graphdef, trainable, held, ITEMS, batch=4)
  states = sasrec.SASRec(TEACHER, ITEMS, rngs=nnx.Rngs(0))
  nnx.update(states, held["teacher"])
  hidden_of = jax.jit(states.hidden)
  row, segment = map(np.asarray, distillation.histories(batch["rank"], ITEMS, 2))
  divergence, asked = [], 0
  for b, s in np.argwhere(batch["rank"]["next_item"] > 0):
    if not row[b, s]:
      continue
    history = [int(row[b, k]) for k in range(8) if row[b, k] and segment[b, k] == segment[b, s]]
    before = sum(int(row[b, k] > 0) for k in range(s + 1) if segment[b, k] == segment[b, s])
    alone = np.zeros((1, TEACHER.length), np.int32)
    alone[0, -len(history):] = history
    state = np.asarray(hidden_of(alone))[0, before - 1 - len(history)]
    given = np.exp(state @ np.asarray(held["teacher"]["item"])[1:].T / 2.0)
    score = np.asarray(dot_scores.head_score(graphdef, trainable, hidden[b, s][None], items))[0, 1:]
    said = np.exp(score / 2.0)
    given, said = given / given.sum(), said / said.sum()
    divergence.append(4.0 * np.sum(given * np.log(given / said)))
    asked += 1
  assert asked == (4 if items_only else 6)
  np.testing.assert_allclose(metrics["head_kl"][0], np.sum(divergence), rtol=2e-4)
  assert float(metrics["head_kl"][1]) == asked and np.sum(divergence) > 0.1
  np.testing.assert_allclose(value - plain, 0.7 * 0.5 * np.mean(divergence), rtol=1e-3)


def test_without_weight_the_step_is_the_same_bit_by_bit():
  """Dropout on: the teacher must not draw a key either. Nothing of it is read without `distil`."""
  graphdef, trainable, held = model()
  teacher, batch, key = held.pop("teacher"), ranked(), jax.random.key(3)

  def traced(c, **more):
    step = jax.value_and_grad(loss_of(graphdef, c), has_aux=True)
    return jax.jit(lambda trainable, frozen, key: step(trainable, frozen | more, batch, key)
                   ).trace(trainable, held, key)

  # Programs that differ are fused differently, which rounds differently.
  unfused = {"xla_backend_optimization_level": 0, "xla_disable_hlo_passes": "fusion"}
  without, beside = traced(head()), traced(head(), teacher=teacher)
  assert str(without.jaxpr) == str(beside.jaxpr)
  ((plain, metrics), gradient), ((value, more), same) = (
      program.lower().compile(unfused)(trainable, held, key)
      for program in (without, traced(head(distil=distil(weight=0.0)), teacher=teacher)))
  assert "head_kl" not in metrics and float(value) == float(plain)
  jax.tree.map(np.testing.assert_array_equal, same, gradient)
  for name, pair in metrics.items():
    np.testing.assert_array_equal(more[name], pair)


def test_the_student_gets_a_gradient_and_the_teacher_none():
  """Of the loss by the distillation alone: twice its weight without once its weight."""
  graphdef, trainable, held = model(mlp=True)

  def once(student, teacher):
    frozen = {**held, "teacher": teacher}
    two, one = (loss_of(graphdef, head(distil=distil(weight)))(student, frozen, ranked(), None)[0]
                for weight in (2.0, 1.0))
    return two - one

  of_student, of_teacher = jax.jit(jax.grad(once, argnums=(0, 1)))(trainable, held["teacher"])
  assert all(not np.asarray(x).any() for x in jax.tree.leaves(of_teacher))
  assert all(np.linalg.norm(of_student["head"][name]["kernel"]) > 1e-4 for name in ("query", "key"))


def test_microbatches_divide_by_the_whole_batch():
  """The mlp compiles in a third of the Q-Former's time; what is divided comes behind both."""
  graphdef, trainable, held = model(mlp=True)
  batch, loss = ranked(rows=2, examples=[*EXAMPLES, EXAMPLES[1], EXAMPLES[0]]), loss_of(
      graphdef, head(distil=distil()))
  quiet = lambda *a: loss(*a[:3], None)                                    # noqa: E731
  (one, _), gradient_1 = jax.jit(accumulation.value_and_grad(quiet, 1))(
      trainable, held, batch, jax.random.key(0))
  (two, _), gradient_2 = jax.jit(accumulation.value_and_grad(quiet, 2))(
      trainable, held, batch, jax.random.key(0))
  np.testing.assert_allclose(jnp.sum(two), one, rtol=1e-5)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6), gradient_2,
               gradient_1)


HISTORIES = [np.array([1, 2, 3, 4]), np.array([2, 3, 1]), np.array([3, 1, 2]), np.array([5, 6])]


def test_counts_say_what_the_baselines_of_the_same_history_say():
  """At every place of two packed examples: the SASRec's softmax is even, so counts alone order."""
  row_BL = np.array([[3, 0, 1, 2, 4, 2]])
  segment_BL = np.array([[1, 0, 1, 1, 2, 2]])
  asked = {(1, 0): [3], (1, 2): [3, 1], (1, 3): [3, 1, 2], (2, 4): [4], (2, 5): [4, 2]}
  even = lambda params, row_BL, segment_BL: jnp.zeros((*row_BL.shape, ITEMS))  # noqa: E731
  queries = [np.array(rows) for rows in asked.values()]
  graph_NI = neighbours.transition(HISTORIES, ITEMS, queries, last=count_teachers.LAST,
                                   decay=count_teachers.DECAY,
                                   smoothing=count_teachers.SMOOTHING)[:, 1:]
  ease_NI = ease.ease(HISTORIES, ITEMS, queries, reg=count_teachers.REG)[:, 1:]
  for counts, want_NI in (
      (count_teachers.Counts(transitions=0.5),
       0.5 * np.log(graph_NI / graph_NI.sum(axis=1, keepdims=True) + 1e-6)),
      (count_teachers.Counts(ease=2.0), 2 * (ease_NI - ease_NI.mean(axis=1, keepdims=True))
       / ease_NI.std(axis=1, keepdims=True))):
    params = {"sasrec": {}, **count_teachers.arrays(counts, HISTORIES, ITEMS)}
    got_BLI = count_teachers.beside(counts, even)(params, row_BL, segment_BL)
    got_NI = np.array([got_BLI[0, place] for _, place in asked]) + np.log(ITEMS)
    np.testing.assert_allclose(got_NI, want_NI, rtol=2e-4, atol=2e-4)


def test_counts_of_a_large_catalogue_are_refused():
  with pytest.raises(errors.UserError, match="20,001, expected at most 20,000: set both"):
    count_teachers.arrays(count_teachers.Counts(ease=1.0), HISTORIES, 20_001)
