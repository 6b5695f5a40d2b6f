"""The item head: what it is asked at which place, its loss, and the ranking it gives."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ilm_jax.data import filling, packing
from ilm_jax.evaluation import dot_scores
from ilm_jax.models import language_model
from ilm_jax.objectives import drawing, item_head, phase2
from ilm_jax.training import loop, optimizer
from tests import small_configs, test_objectives, test_phase2_training

ITEMS, SLOT = 6, 99                # entity rows 1..6 are items, 7 and 8 users
HEAD = item_head.HeadConfig(weight=1.0, num_items=ITEMS, negatives=0)


def example(inputs, entities, target, task=0):
  return {"inputs": np.array(inputs), "entities": np.array(entities), "task": task,
          "targets": np.array([5, 1]), "target_entity": np.array([target])}


def spec(**changes):
  return small_configs.lm_batch(**{**dict(
      rows=1, length=24, slots=6, targets=6, queries=2, slot_id=SLOT,
      task_names=("sequential", "elm"), head_tasks=("sequential",), num_items=ITEMS,
      examples_per_group=2), **changes})


def test_every_slot_of_a_history_is_asked_for_the_next_item():
  """A user and a history 3, 4 before item 5; then a task that is no recommendation.

  tokens    7  u u  8  3 3  4 4  9 | 5 |  7  3 3 | 5
  position  0  1 2  3  4 5  6 7  8   9   10 11 12  13
  """
  batch, dropped = packing.pack_groups(
      [[example([7, SLOT, 8, SLOT, SLOT, 9], [7, 3, 4], 5), example([7, SLOT], [3], 3, task=1)]],
      spec())
  assert dropped == 0
  np.testing.assert_array_equal(batch["next_item"], [[0, 4, 5, 0, 0, 0]])
  np.testing.assert_array_equal(batch["next_at"][0, 1:3], [5, 7])
  np.testing.assert_array_equal(filling.last_slot(batch["slot"][:, :9]), [7])


def test_no_head_no_fields():
  batch = packing.empty(1, spec(head_tasks=()))
  assert "next_at" not in batch and "next_item" not in batch


def model(mlp=False):
  graphdef, trainable = small_configs.phase2(
      test_objectives.QFORMER, 6, 0.05, seed=0, mlp=mlp, head_width=4)
  held = test_objectives.frozen() | {"log_draws": jnp.log(jnp.arange(1.0, 10.0))}
  return graphdef, trainable, held


@pytest.mark.parametrize("mlp", [False, True])
def test_the_loss_is_that_of_the_scores_that_rank(mlp):
  graphdef, trainable, held = model(mlp)
  hidden_ND, item_N = jax.random.normal(jax.random.key(1), (5, 6)), jnp.array([1, 6, 3, 3, 2])
  nll_N, hit_N = item_head.nll(
      nnx.merge(graphdef, trainable), HEAD, held, hidden_ND, item_N, None)
  items = dot_scores.head_items(graphdef, trainable, held, ITEMS, batch=4)
  score_NI = np.asarray(dot_scores.head_score(graphdef, trainable, hidden_ND, items))
  assert score_NI.shape == (5, ITEMS + 1) and np.isneginf(score_NI[:, 0]).all()
  logp_NI = jax.nn.log_softmax(score_NI[:, 1:], axis=1)
  np.testing.assert_allclose(nll_N, -logp_NI[np.arange(5), item_N - 1], rtol=1e-5)
  np.testing.assert_array_equal(hit_N, score_NI.argmax(axis=1) == np.asarray(item_N))


def test_drawn_negatives_stand_for_the_catalogue():
  """The sum of a softmax over four of six items is on average that over all; as many as there are
  make the softmax over all; an item that is drawn is no negative of itself."""
  graphdef, trainable, held = model()
  ours = nnx.merge(graphdef, trainable)
  hidden_ND, item_N = jax.random.normal(jax.random.key(1), (4, 6)), jnp.array([1, 6, 3, 2])

  def nll(negatives, rng=None, num_items=ITEMS, item_N=item_N):
    c = item_head.HeadConfig(weight=1.0, num_items=num_items, negatives=negatives)
    return item_head.nll(ours, c, held, hidden_ND, item_N, rng)

  full_N, _ = nll(0)
  np.testing.assert_array_equal(nll(ITEMS)[0], full_N)
  quiet = jax.jit(jax.vmap(lambda k: nll(4, k)[0]))     # no dropout, no noise in this model
  sums_KN = np.exp(quiet(jax.random.split(jax.random.key(0), 3000)))
  np.testing.assert_allclose(sums_KN.mean(axis=0), np.exp(full_N), rtol=0.05)
  assert sums_KN.std(axis=0).min() > 0.01
  drawn = drawing.items(None, 2, 1).item_K[0]       # of two items one, without a key always this
  alone_N, hit_N = nll(1, num_items=2, item_N=jnp.full(4, drawn))
  np.testing.assert_allclose(alone_N, 0.0, atol=1e-6)
  assert hit_N.all()
  assert nll(1, num_items=2, item_N=jnp.full(4, 3 - drawn))[0].min() > 0.01


def test_the_head_learns_through_the_frozen_model():
  """Every example says item 4 follows: the loss falls below that of guessing, bytes stay."""
  graphdef, trainable, held = model()
  held |= {"lm": language_model.init(test_objectives.LM, 5)}
  before = jax.tree.map(np.asarray, held["lm"])
  shape = spec(rows=2, slot_id=18)
  batch = packing.one_a_row([example([7, 18, 18], [1, 2], 4), example([3, 18], [5], 4)], shape)
  loss = phase2.phase2_loss(graphdef, test_objectives.LM, shape.task_names, HEAD)
  tx = optimizer.make_optimizer(test_phase2_training.C)
  mesh = test_phase2_training.mesh_of(1, 1, 1)
  state = loop.init_state(trainable, tx, mesh)
  step = loop.compile_step(loss, tx, 0, state)
  found = []
  for _ in range(30):
    state, metrics = step(state, held, batch)
    assert float(metrics["head_nll"][1]) == 3.0
    found.append(float(metrics["head_nll"][0]) / 3)
  assert found[-1] < found[0] - 0.5
  jax.tree.map(np.testing.assert_array_equal, before, jax.tree.map(np.asarray, held["lm"]))
