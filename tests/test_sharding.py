"""Where every parameter lies, as text: three sizes of language model on three meshes.

After a change of axes.py that is meant, write the files again, and read the difference:

    python -m tests.test_sharding
"""
import dataclasses
import itertools
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from ilm_jax import errors
from ilm_jax.models import decoder, language_model
from ilm_jax.planning import programs, shapes
from ilm_jax.runtime import axes

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


@dataclasses.dataclass(frozen=True)
class Chip:
  """What a mesh is made of, as far as jax asks."""
  id: int
  coords: tuple[int, ...]
  slice_index: int
  process_index: int = 0
  core_on_chip: int = 0
  platform: str = "tpu"
  device_kind: str = "TPU v5"


def torus(*sides, slices=1):
  return [Chip(number, tuple(place), which) for number, (which, *place) in enumerate(
      itertools.product(range(slices), *map(range, sides)))]


def test_a_mesh_may_split_the_sides_of_a_torus():
  """8 x 8 of 4 x 4 x 4 chips, each once; where sides need not be split they stay whole."""
  mesh = axes.make_mesh({"data": 8, "fsdp": 8, "tensor": 1}, torus(4, 4, 4))
  assert mesh.devices.shape == (8, 8, 1) and len({d.id for d in mesh.devices.flat}) == 64
  mesh = axes.make_mesh({"data": 4, "fsdp": 16, "tensor": 1}, torus(4, 4, 4))
  planes = [{tuple(d.coords) for d in part.flat} for part in mesh.devices]
  assert any(all(len({c[axis] for c in plane}) == 1 for plane in planes) for axis in range(3))


def test_rows_that_processes_share_in_part_are_refused(monkeypatch):
  """Three processes of two devices, rows over two, tensor over three: process 1 has both rows."""
  chips = [dataclasses.replace(chip, process_index=chip.id // 2) for chip in torus(6, 1, 1)]
  monkeypatch.setattr(jax, "local_device_count", lambda: 2)
  for shape, shares in (({"data": 6, "tensor": 1}, 3), ({"data": 3, "tensor": 2}, 3),
                        ({"data": 1, "tensor": 6}, 1)):
    mesh = jax.sharding.Mesh(np.reshape(chips, tuple(shape.values())), tuple(shape))
    assert axes.batch_share(mesh)[1] == shares
  mesh = jax.sharding.Mesh(np.reshape(chips, (2, 3)), ("data", "tensor"))
  with pytest.raises(errors.UserError, match="mesh.tensor must divide the 2 devices"):
    axes.batch_share(mesh)


def test_the_teacher_of_the_head_is_whole_on_every_device():
  mesh = axes.abstract_mesh({"data": 2, "fsdp": 2, "tensor": 2})
  kernel = {"blocks": {"query": {"kernel": jax.ShapeDtypeStruct((8, 8), "float32")}}}
  of = axes.param_sharding(mesh, {"teacher": kernel, "student": kernel})
  assert jax.tree.leaves(of["teacher"])[0].is_fully_replicated
  assert jax.tree.leaves(of["student"])[0].spec == jax.sharding.PartitionSpec("fsdp", "tensor")


def test_slices_lie_along_data():
  chips = torus(2, 2, 1, slices=2)
  mesh = axes.make_mesh({"data": 4, "fsdp": 2, "tensor": 1}, chips)
  assert [{d.slice_index for d in row.flat} for row in mesh.devices] == [{0}, {0}, {1}, {1}]
  with pytest.raises(errors.UserError, match="mesh.data=1 does not divide over 2 slices"):
    axes.make_mesh({"data": 1, "fsdp": 8, "tensor": 1}, chips)


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


def test_the_head_takes_each_device_through_its_own_rows():
  """Equal to one device's, and no device holds the logits of another's rows."""
  mesh = on_devices()
  config = decoder.DecoderConfig(num_layers=1, width=16, num_heads=2, num_kv_heads=2, head_dim=8,
                                 mlp_width=16, vocab_size=50)
  params = language_model.init(config, 0)
  rng = np.random.default_rng(0)
  hidden = jnp.asarray(rng.normal(size=(16, 5, 16)), jnp.float32)
  targets = jnp.asarray(rng.integers(0, 50, (16, 5)))

  def nll(params, hidden, targets):
    return language_model.bind(config, params).token_nll(hidden, targets, chunk=4)

  def spread(*args):
    with axes.tracing(mesh):
      return nll(*args)

  over = axes.sharding(mesh, "batch")
  compiled = jax.jit(spread).lower(
      axes.place(mesh, params), jax.device_put(hidden, over), jax.device_put(targets, over)
  ).compile()
  got = compiled(axes.place(mesh, params), jax.device_put(hidden, over),
                 jax.device_put(targets, over))
  for ours, want in zip(got, nll(params, hidden, targets)):
    np.testing.assert_allclose(ours, want, atol=1e-5)
  logits = set(re.findall(r"f32\[([\d,]+),50\]", compiled.as_text()))
  # 10 positions a device in 3 turns of 4; [16, 50] is the table.
  assert logits <= {"4", "1,4", "16", "1"}, logits


def test_the_step_keeps_its_rows_spread(monkeypatch):
  """No device of eight holds the activations of all 16 rows; left to itself XLA lets them."""
  assert not ROWS_OF_ALL.search(step_text())
  monkeypatch.setattr(axes, "constrain", lambda x, *logical: x)
  assert ROWS_OF_ALL.search(step_text())


# But for the look-up of embeddings: a device reads its 8 of 64 columns for all rows, which are then
# exchanged for all columns of its own rows.
ROWS_OF_ALL = re.compile(r"f32\[16,24,(?!8\])")


def step_text() -> str:
  c = base.get_config()
  with c.unlocked():
    c.lm.remat = "weights"
    c.qformer.update(num_layers=1, width=16, num_heads=2, mlp_width=16, proj_width=16,
                     num_queries=2)
    c.phase2.update(rows=16, length=24, slots=2, targets=4, dropout=0.0, vector_noise=0.0)
    c.plan.entities = 5
  lm = decoder.DecoderConfig(num_layers=2, width=64, num_heads=2, num_kv_heads=2, head_dim=32,
                             mlp_width=128, vocab_size=50, tied=False)
  mesh = axes.make_mesh({"data": 1, "fsdp": 8, "tensor": 1}, jax.devices()[:8])
  return programs.phase2(c, lm, mesh).lower().compile().as_text()


if __name__ == "__main__":
  write()
