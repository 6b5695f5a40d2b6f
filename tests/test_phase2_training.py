"""Phase 2 over several devices: the same losses on any mesh, the frozen part untouched."""
import jax
import ml_collections
import numpy as np
import pytest
import test_objectives
from jax.sharding import AxisType

from ilm_jax import axes, objectives, train

C = ml_collections.ConfigDict(dict(learning_rate=0.05, warmup=0, steps=4, final_fraction=0.1,
                                   b2=0.98, clip=1.0, weight_decay=0.01))


def mesh_of(*sizes):
  devices = jax.devices()[:int(np.prod(sizes))]
  return jax.make_mesh(sizes, axes.MESH_AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def batch():
  """The two hand-made rows, each four times: eight rows, so that they divide over every mesh."""
  rows = {k: np.tile(np.asarray(v), (4, 1)) for k, v in test_objectives.BATCH_2.items()}
  return {**rows, "dropped": np.int32(3)}


def trained(mesh):
  """(losses of four steps, frozen arrays after them) on a mesh."""
  graphdef, trainable = objectives.build_phase2(test_objectives.QFORMER, 6, 0.05, seed=0)
  loss = objectives.phase2_loss(graphdef, test_objectives.LM, ("sequential", "elm"))
  tx = train.make_optimizer(C)
  state = train.init_state(trainable, tx, mesh)
  frozen = axes.place(mesh, test_objectives.frozen_with_lm())
  step = train.compile_step(loss, tx, 0, state)
  found = []
  for _ in range(4):
    state, metrics = step(state, frozen, train.to_devices(mesh, batch()))
    found.append(float(metrics["loss"]))
  assert float(metrics["dropped"]) == 3.0
  return np.array(found), frozen


@pytest.mark.parametrize("sizes", [(4, 1, 2), (2, 2, 2)])
def test_one_device_equals_a_mesh(sizes):
  one, _ = trained(mesh_of(1, 1, 1))
  many, _ = trained(mesh_of(*sizes))
  assert one[-1] < one[0] - 0.01
  np.testing.assert_allclose(one, many, rtol=2e-5)


def test_the_language_model_is_the_same_bytes_after_training():
  before = jax.tree.map(np.asarray, test_objectives.frozen_with_lm())
  _, after = trained(mesh_of(1, 1, 1))
  jax.tree.map(np.testing.assert_array_equal, before, jax.tree.map(np.asarray, after))
