"""Where every parameter lies, as text: three sizes of language model on three meshes.

After a change of axes.py that is meant, write the files again, and read the difference:

    python -m tests.test_sharding
"""
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from ilm_jax import axes
from ilm_jax.planning import programs, shapes

GOLDEN = pathlib.Path(__file__).parent / "golden" / "sharding"
MODELS = sorted(shapes.SHAPES)
MESHES = {"v5e_4x4": {"data": 4, "fsdp": 4, "tensor": 1},
          "v5p_4x4x4": {"data": 2, "fsdp": 16, "tensor": 2},
          "v5p_8x8x8": {"data": 16, "fsdp": 16, "tensor": 2}}


def lines(model: str, mesh: dict[str, int]) -> str:
  """One line a parameter of phase 2, frozen and trained: path, dtype and shape, where it lies."""
  c = base.get_config()
  with c.unlocked():
    c.lm.update(shape=model, dtype="bfloat16")
    c.phase2.rows = 512
  program = programs.phase2(c, shapes.of(c.lm), axes.abstract_mesh(mesh))
  tree = {"frozen": program.frozen, "trained": program.state.trainable}
  return "".join(
      f"{axes.path_name(path)} {x.dtype}{list(x.shape)} {x.sharding.spec}\n"
      for path, x in jax.tree_util.tree_leaves_with_path(tree))


def write() -> None:
  GOLDEN.mkdir(parents=True, exist_ok=True)
  for model in MODELS:
    for name, mesh in MESHES.items():
      (GOLDEN / f"{model}.{name}.txt").write_text(lines(model, mesh))


@pytest.mark.parametrize("name", MESHES)
@pytest.mark.parametrize("model", MODELS)
def test_every_parameter_lies_where_it_did(model, name):
  want = (GOLDEN / f"{model}.{name}.txt").read_text()
  assert lines(model, MESHES[name]) == want, "meant? python -m tests.test_sharding"


def test_no_golden_file_is_left_over():
  assert {p.stem for p in GOLDEN.iterdir()} == {f"{m}.{n}" for m in MODELS for n in MESHES}


def test_the_language_model_is_spread_over_all_that_is_not_data():
  """Of PaLM 62B's 125 GB on 16 x 16 x 2, a chip has a 32nd, norms apart."""
  c = base.get_config()
  with c.unlocked():
    c.lm.update(shape="palm-62b", dtype="bfloat16")
    c.phase2.rows = 512
  program = programs.phase2(c, shapes.of(c.lm), axes.abstract_mesh(MESHES["v5p_8x8x8"]))
  whole = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(program.frozen["lm"]))
  assert whole == pytest.approx(125e9, rel=0.01)
  assert programs.bytes_per_chip(program.frozen["lm"]) == pytest.approx(whole / 32, rel=0.01)


def on_devices():
  return axes.make_mesh({"data": 2, "fsdp": 4, "tensor": 1}, jax.devices()[:8])




def test_constrain_spreads_rows_where_the_step_is_traced():
  mesh = on_devices()
  kernel = jax.device_put(jnp.ones((16, 8)), axes.sharding(mesh, "embed", "none"))
  x = jax.device_put(np.ones((8, 16), np.float32), axes.sharding(mesh, None, "embed"))

  def step(x, kernel):
    with axes.tracing(mesh):
      return axes.constrain(x @ kernel, "batch"), axes.batch_ways()

  y, ways = jax.jit(step)(x, kernel)
  assert ways == 8
  assert y.sharding.is_equivalent_to(axes.sharding(mesh, "batch"), 2)
  np.testing.assert_array_equal(y, 16.0)


def test_constrain_leaves_alone_what_the_mesh_does_not_divide():
  mesh = on_devices()

  @jax.jit
  def step(x):
    with axes.tracing(mesh):
      return axes.constrain(x, "batch", "mlp")

  assert step(jnp.ones((6, 3))).sharding.is_fully_replicated


def test_constrain_is_nothing_outside_of_a_step():
  x = jnp.ones((2, 3))
  assert axes.constrain(x, "batch") is x
  assert axes.batch_ways() == 1


if __name__ == "__main__":
  write()
