"""Drawn items stand for a catalogue: sums, losses and gradients are on average those over all."""
import dataclasses

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from ilm_jax import errors, losses
from ilm_jax.config import reading
from ilm_jax.objectives import drawing
from ilm_jax.objectives import phase1 as phase1_lib
from ilm_jax.runtime import axes
from tests import test_objectives
from tests.test_objectives import BATCH_1, only

COUNT_I = jnp.array([1.0, 2.0, 5.0, 1.0, 30.0, 9.0, 3.0])
ITEMS = 6


@pytest.mark.parametrize("log_weight_I", [None, jnp.log(COUNT_I)])
def test_a_weighted_sum_over_the_drawn_is_on_average_that_over_all(log_weight_I):
  value_I = jnp.array([3.0, -1.0, 4.0, 1.0, 5.0, -9.0, 2.0])

  def one(key):
    drawn = drawing.items(key, 7, 3, log_weight_I)
    met_I = jnp.zeros(7).at[drawn.item_K - 1].add(1.0)
    return jnp.sum(value_I[drawn.item_K - 1] * drawn.stands_K), met_I

  sums, met = jax.vmap(one)(jax.random.split(jax.random.key(0), 20000))
  assert float(met.max()) == 1.0                      # all different
  error = float(sums.std()) / 20000 ** 0.5
  assert abs(float(sums.mean() - value_I.sum())) < 4 * error
  often_I = np.asarray(met.mean(axis=0))
  if log_weight_I is None:
    np.testing.assert_allclose(often_I, 3 / 7, atol=0.02)
  else:
    assert np.argmax(often_I) == 4 and often_I[4] > 2 * often_I[0]


@pytest.mark.parametrize("count", [0, 7, 9])
def test_all_of_them_stand_for_themselves(count):
  drawn = drawing.items(jax.random.key(0), 7, count, jnp.log(COUNT_I))
  np.testing.assert_array_equal(drawn.item_K, np.arange(1, 8))
  np.testing.assert_array_equal(drawn.stands_K, np.ones(7))


@pytest.mark.parametrize("prng", ["threefry2x32", "unsafe_rbg"])
def test_the_draw_hangs_on_the_key_alone(prng):
  """Jitted on eight devices, the weights spread over them, and eagerly on one."""
  key = jax.random.key(3, impl=prng)
  log_I = jnp.log(jnp.arange(1.0, 65.0))
  mesh = axes.make_mesh({"data": 2, "fsdp": 4, "tensor": 1}, jax.devices()[:8])
  spread = axes.put_rows(mesh, np.asarray(log_I))
  one, many = (jax.jit(lambda k, w: drawing.items(k, 64, 20, w))(key, w)
               for w in (log_I, spread))
  np.testing.assert_array_equal(one.item_K, many.item_K)
  np.testing.assert_allclose(one.stands_K, many.stands_K, rtol=1e-6)
  other = drawing.items(jax.random.key(4, impl=prng), 64, 20, log_I)
  assert set(np.asarray(other.item_K)) != set(np.asarray(one.item_K))


def held(c):
  """What stage phase1 gives the losses."""
  log_draws_R = jnp.log(jnp.array([1.0, 5, 1, 2, 9, 1, 3, 4, 4]))
  return test_objectives.frozen() | {
      "factors": jax.random.normal(jax.random.key(9), (test_objectives.R, 3)),
      **({"log_draws": log_draws_R} if c.needs_log_draws else {})}


QUIET = dataclasses.replace(test_objectives.QFORMER, dropout=0.0, temperature=0.5)


def loss_of(c):
  """(key -> loss and gradient), jitted; without dropout and noise the key draws items alone."""
  graphdef, trainable = phase1_lib.build_phase1(QUIET, seed=0)
  loss = phase1_lib.phase1_loss(graphdef, c)
  return jax.jit(jax.value_and_grad(
      lambda key, t: loss(t, held(c), BATCH_1, key)[0], argnums=1)), trainable


def averaged(c, keys):
  step, trainable = loss_of(c)
  return jax.tree.map(lambda x: np.mean(x, axis=0), jax.vmap(step, (0, None))(keys, trainable))


def test_losses_over_drawn_items_come_near_those_over_all():
  """Also their gradients; the log of a sum that is right on average is a little less."""
  c = only("ui", "ii", num_items=ITEMS, label_smoothing=0.2, draw="popularity")
  step, trainable = loss_of(c)
  full, gradient = step(jax.random.key(0), trainable)
  keys = jax.random.split(jax.random.key(1), 300)
  some, of_some = averaged(dataclasses.replace(c, negatives=4), keys)
  np.testing.assert_allclose(some, full, rtol=0.06)
  flat, of_full = (jax.flatten_util.ravel_pytree(x)[0] for x in (of_some, gradient))
  assert np.linalg.norm(flat - of_full) < 0.15 * np.linalg.norm(of_full)


def test_scores_handed_on_over_drawn_items_lean_less_the_more_are_drawn():
  """Both softmaxes are normed by what was drawn, so the mean gradient leans towards it; of 60 items
  by half with 10 drawn, and by nothing where nearly all are."""
  I, B = 60, 8
  logits, given = (scale * jax.random.normal(jax.random.key(n), (B, I))
                   for n, scale in ((0, 1.0), (1, 2.0)))
  right_B1 = 3 * jnp.arange(B)[:, None]

  def some(logits, key, count):
    drawn = drawing.items(key, I, count)
    beside = [jnp.concatenate([jnp.take_along_axis(x, right_B1, 1), x[:, drawn.item_K - 1]], axis=1)
              for x in (logits, given)]
    stands = jnp.where(drawn.item_K[None] - 1 == right_B1, 0.0, drawn.stands_K[None])
    return jnp.mean(losses.handed_on(*beside, jnp.concatenate([jnp.ones((B, 1)), stands], axis=1)))

  full = jax.jit(jax.grad(
      lambda x: jnp.mean(losses.handed_on(x, given, jnp.ones((B, I))))))(logits)
  of_each = jax.jit(jax.vmap(jax.grad(some), (None, 0, None)), static_argnums=2)
  keys = jax.random.split(jax.random.key(2), 600)
  lean = [float(jnp.linalg.norm(mean - full) / jnp.linalg.norm(full)) for mean in (
      jnp.mean(of_each(logits, keys, count), axis=0)
      for count in (10, 20, 40, 57))]
  assert lean == sorted(lean, reverse=True) and lean[-1] < 0.03 and lean[0] < 0.7


def test_as_many_as_there_are_make_the_very_program_over_all():
  """And nobody need say how often they are met."""
  def program(negatives):
    c = only("ui", "ii", cf=1.0, num_items=ITEMS, negatives=negatives)
    step, trainable = loss_of(c)
    return str(jax.make_jaxpr(step)(jax.random.key(0), trainable))

  assert program(0) == program(ITEMS) == program(9) != program(5)


def test_the_right_item_is_always_among_them():
  """One drawn item: the loss is that of telling the right one from it, and never 0 for lack."""
  c = only("ui", num_items=ITEMS, negatives=1, label_smoothing=0.0)
  step, trainable = loss_of(c)
  each = [float(step(jax.random.key(n), trainable)[0]) for n in range(6)]
  assert len(set(each)) > 1 and np.all(np.isfinite(each)) and max(each) > 0.5


@pytest.mark.parametrize("changes, words", [
    ({"phase1.negatives": 5, "phase1.candidates": "batch"}, "they are drawn from the catalogue"),
    ({"phase1.draw": "evenly"}, "phase1.draw='evenly'"),
    ({"phase1.negatives": -1}, "phase1.negatives=-1: expected 0")])
def test_what_cannot_be_drawn_is_refused(changes, words):
  c = base.get_config()
  c.update_from_flattened_dict(changes)
  with pytest.raises(errors.UserError, match=words):
    reading.validate(c, 1)
