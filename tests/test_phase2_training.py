"""Phase 2 over several devices: the same losses on any mesh, the frozen part untouched."""
import dataclasses
import functools

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import AxisType

from ilm_jax.models import language_model, t5
from ilm_jax.objectives import item_head, phase2
from ilm_jax.runtime import axes
from ilm_jax.training import accumulation, loop, optimizer
from tests import small_configs, test_objectives

C = ml_collections.ConfigDict(dict(learning_rate=0.05, warmup=0, steps=4, final_fraction=0.1,
                                   b2=0.98, clip=1.0, weight_decay=0.01))


def mesh_of(*sizes):
  devices = jax.devices()[:int(np.prod(sizes))]
  return jax.make_mesh(sizes, axes.MESH_AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def batch():
  """The two hand-made rows, each four times: eight rows, so that they divide over every mesh."""
  rows = {k: np.tile(np.asarray(v), (4, 1)) for k, v in test_objectives.BATCH_2.items()}
  return {**rows, "dropped": np.array([2, 0, 1, 0], np.int32)[:len(rows["tokens"])]}


T5 = t5.T5Config(num_layers=1, num_encoder_layers=2, width=6, num_heads=2, head_dim=4, mlp_width=8,
                 vocab_size=19)


@functools.cache
def trained(sizes, lm):
  """(losses of four steps, frozen arrays after them) on a mesh."""
  mesh = mesh_of(*sizes)
  graphdef, trainable = small_configs.phase2(test_objectives.QFORMER, 6, 0.05, seed=0)
  loss = phase2.phase2_loss(graphdef, lm, ("sequential", "elm"))
  tx = optimizer.make_optimizer(C)
  state = loop.init_state(trainable, tx, mesh)
  held = test_objectives.frozen() | {"lm": language_model.init(lm, 5)}
  frozen = axes.place(mesh, held)
  step = loop.compile_step(loss, tx, 0, state)
  found = []
  for _ in range(4):
    state, metrics = step(state, frozen, loop.to_devices(mesh, batch()))
    found.append(float(metrics["loss"]))
  assert float(metrics["dropped"]) == 3.0
  return np.array(found), frozen


@pytest.mark.parametrize(("sizes", "lm"), [
    ((4, 1, 2), test_objectives.LM), ((2, 2, 2), test_objectives.LM), ((2, 2, 2), T5)])
def test_one_device_equals_a_mesh(sizes, lm):
  one, _ = trained((1, 1, 1), lm)
  many, _ = trained(sizes, lm)
  assert one[-1] < one[0] - 0.01
  np.testing.assert_allclose(one, many, rtol=2e-5)


@pytest.mark.parametrize("train_lm", ["none", "index_tokens", "lora", "all"])
def test_what_is_asked_for_trains_and_nothing_else(train_lm):
  """Two words of the targets are new; only what is trained has a place in the state.

  An mlp makes the soft tokens: it compiles in a third of the Q-Former's time.
  """
  lm = dataclasses.replace(test_objectives.LM, vocab_size=17, new_tokens=2, tied=False,
                           lora_rank=2 if train_lm == "lora" else 0)
  graphdef, trainable = small_configs.phase2(test_objectives.QFORMER, 6, 0.05, seed=0, mlp=True)
  params = language_model.init(lm, 5)
  frozen_lm, trained = language_model.split_trained(params, train_lm)
  trainable |= {"lm": trained} if trained else {}
  loss = phase2.phase2_loss(graphdef, lm, ("sequential", "elm"))
  tx, mesh = optimizer.make_optimizer(C), mesh_of(2, 2, 2)
  state = loop.init_state(trainable, tx, mesh)
  frozen = axes.place(mesh, test_objectives.frozen() | {"lm": frozen_lm})
  step = loop.compile_step(loss, tx, 0, state)
  rows = batch()
  rows["targets"] = np.where(rows["weights"] > 0, 17, 0)
  before = jax.tree.map(np.asarray, params)
  found = []
  for _ in range(4):
    state, metrics = step(state, frozen, loop.to_devices(mesh, rows))
    found.append(float(metrics["loss"]))
  assert found[-1] < found[0]
  after = {**frozen["lm"], **state.trainable.get("lm", {})}
  changed = {name for name in before if any(
      (np.asarray(a) != b).any() for a, b in zip(jax.tree.leaves(after[name]),
                                                 jax.tree.leaves(before[name])))}
  assert changed == {"none": set(), "index_tokens": {"new_embedding", "new_head"},
                     "lora": {"lora"}, "all": set(before)}[train_lm]


def test_the_language_model_is_the_same_bytes_after_training():
  before = jax.tree.map(np.asarray, test_objectives.frozen_with_lm())
  _, after = trained((1, 1, 1), test_objectives.LM)
  jax.tree.map(np.testing.assert_array_equal, before, jax.tree.map(np.asarray, after))


def test_an_mlp_makes_soft_tokens_of_the_asked_size():
  """RMS as asked at the start, nothing from an absent vector's numbers, every entity its own."""
  config = test_objectives.QFORMER
  graphdef, trainable = small_configs.phase2(config, 6, 0.05, seed=0, mlp=True)
  assert set(trainable) == {"norm", "mlp_in", "projection"}
  rng = np.random.default_rng(0)
  vectors = {n: rng.normal(size=(64, C)).astype(np.float32) for n, C in config.vectors}
  there = {n: np.ones(64, bool) for n in vectors}
  model = nnx.merge(graphdef, trainable)
  soft = np.asarray(model.soft_tokens(vectors, there))
  assert soft.shape == (64, config.num_queries, 6)
  assert 0.04 < np.sqrt(np.mean(soft ** 2)) < 0.06
  assert np.abs(soft[0] - soft[1]).max() > 1e-3
  gone = {n: np.zeros(64, bool) for n in vectors}
  np.testing.assert_array_equal(model.soft_tokens(vectors, gone)[0],
                                model.soft_tokens(vectors, gone)[1])


def test_an_mlp_learns_through_the_frozen_model():
  graphdef, trainable = small_configs.phase2(test_objectives.QFORMER, 6, 0.05, seed=0, mlp=True)
  loss = phase2.phase2_loss(graphdef, test_objectives.LM, ("sequential", "elm"))
  held = test_objectives.frozen() | {"lm": language_model.init(test_objectives.LM, 5)}
  tx = optimizer.make_optimizer(C)
  mesh = mesh_of(1, 1, 1)
  state = loop.init_state(trainable, tx, mesh)
  step = loop.compile_step(loss, tx, 0, state)
  found = []
  for _ in range(4):
    state, metrics = step(state, axes.place(mesh, held), loop.to_devices(mesh, batch()))
    found.append(float(metrics["loss"]))
  assert found[-1] < found[0] - 0.01


@pytest.mark.parametrize(("sizes", "head"), [((1, 1, 1), None), ((2, 1, 1), 0.5)])
def test_microbatches_equal_the_whole_batch(sizes, head):
  """Rows of unequal numbers of targets and items that follow, one part without any: a mean of
  means would be off, and so would one weight for both losses."""
  quiet = dataclasses.replace(test_objectives.QFORMER, dropout=0.0, vector_noise=0.0)
  graphdef, trainable = small_configs.phase2(
      quiet, 6, 0.05, seed=0, head_width=4 if head else 0, mlp=head is not None)
  loss = phase2.phase2_loss(
      graphdef, test_objectives.LM, ("sequential", "elm"),
      item_head.HeadConfig(weight=head, num_items=6, negatives=0) if head else None)
  rows = batch()
  rows["weights"][1::4] = 0.0
  rows["weights"][6, 1:] = 0.0
  if head:
    rows |= {"next_item": np.zeros((8, 2), np.int32), "next_at": np.ones((8, 2), np.int32)}
    rows["next_item"][[0, 2, 3, 3], [0, 1, 0, 1]] = [4, 1, 6, 2]
  held = test_objectives.frozen_with_lm() | {"log_draws": jnp.log(jnp.arange(1.0, 10.0))}
  mesh = mesh_of(*sizes)
  arguments = (axes.place(mesh, trainable), axes.place(mesh, held),
               loop.to_devices(mesh, rows), jax.random.key(1))
  (loss_1, metrics_1), gradient_1 = jax.jit(accumulation.value_and_grad(loss, 1))(*arguments)
  of_parts = [np.sum(rows["weights"][m::4]) for m in range(4)]
  assert of_parts[1] == 0 and len(set(of_parts)) == 3
  (loss_4, metrics_4), gradient_4 = jax.jit(accumulation.value_and_grad(loss, 4))(*arguments)
  np.testing.assert_allclose(loss_4, loss_1, rtol=1e-6)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), metrics_4, metrics_1)
  off = optax.tree.norm(optax.tree.sub(gradient_4, gradient_1))
  assert off < 1e-6 * optax.tree.norm(gradient_1) and optax.tree.norm(gradient_1) > 1e-3
  assert float(metrics_1["tokens"]) == (rows["segment"] > 0).sum()


def test_microbatches_hold_one_part_at_a_time():
  """The memory XLA plans for the step: a fourth of the rows, less than half of the space."""
  graphdef, trainable = small_configs.phase2(test_objectives.QFORMER, 6, 0.05, seed=0)
  loss = phase2.phase2_loss(graphdef, test_objectives.LM, ("sequential", "elm"))
  rows = {k: np.tile(v, (32, *[1] * (v.ndim - 1))) for k, v in batch().items()}
  whole, parts = (
      jax.jit(accumulation.value_and_grad(loss, m)).lower(
          trainable, test_objectives.frozen_with_lm(), rows, jax.random.key(0)).compile()
      .memory_analysis().temp_size_in_bytes for m in (1, 4))
  assert parts < whole / 2
