"""The entity table spread over eight devices by rows: the same losses, and it never travels."""
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_objectives as small

from ilm_jax.objectives import phase1 as phase1_lib
from ilm_jax.objectives import phase2 as phase2_lib
from ilm_jax.runtime import axes
from ilm_jax.training import loop
from tests import small_configs

ROWS = 4093                     # prime: filled up to 4,096
SHAPES = [{"data": 8, "fsdp": 1, "tensor": 1}, {"data": 2, "fsdp": 2, "tensor": 2}]


def frozen():
  draw = np.random.default_rng(0).normal
  return {"vectors": {"behavioral": draw(size=(ROWS, 5)).astype(np.float32)},
          "present": {"behavioral": np.arange(ROWS) % 7 > 0},
          "log_draws": draw(size=ROWS).astype(np.float32)}


def on_mesh(mesh, held):
  """As `stages.recipe.entity_arrays` and `loop.fit` place it."""
  rows = {k: v for k, v in held.items() if k != "lm"}
  rest = {k: v for k, v in held.items() if k == "lm"}
  rows = jax.tree.map(lambda x: axes.put_rows(mesh, x), rows)
  return axes.place(mesh, rows | rest)


def phase1():
  """(loss, trainable, frozen, batch of 8 rows)."""
  rng = np.random.default_rng(1)
  text = rng.integers(5, 23, (8, 5))
  batch = {"text_entities": rng.integers(1, ROWS, 8), "text": text, "text_mask": text > 6,
           **{n: rng.integers(1, ROWS, 8) for n in ("pair_a", "pair_b", "upair_user",
                                                    "upair_item")}}
  graphdef, trainable = small.phase1()
  loss = phase1_lib.phase1_loss(graphdef, small_configs.phase1(logq=True))
  return loss, trainable, frozen(), batch


def phase2():
  graphdef, trainable = small_configs.phase2(small.QFORMER, 6, 0.05, seed=0)
  batch = jax.tree.map(lambda x: np.concatenate([np.asarray(x)] * 4), small.BATCH_2)
  batch["entities"] = np.where(batch["entities"] > 0, batch["entities"] * 411, 0)
  held = frozen() | {"lm": small.frozen_with_lm()["lm"]}
  return phase2_lib.phase2_loss(graphdef, small.LM, ("sequential", "elm")), trainable, held, batch


def compiled(mesh, loss, trainable, held, batch):
  """(loss as training computes it on `mesh`, its arguments). The table has no gradient."""
  args = (axes.place(mesh, trainable), on_mesh(mesh, held), loop.to_devices(mesh, batch))
  return jax.jit(lambda t, f, b: loss(t, f, b, None)[0]).lower(*args).compile(), args


def sent(hlo: str) -> list[int]:
  """Numbers in the result of every collective."""
  found = re.findall(r"= (.+?) (?:all-\w+|reduce-scatter|collective-\w+|ragged-\S+)(?:-start)?\(",
                     hlo)
  return [int(np.prod([int(n) for n in dims.split(",") if n], dtype=int))
          for result in found for dims in re.findall(r"\w\[([\d,]*)\]", result)]


@pytest.mark.parametrize("phase, shape", [(phase1, SHAPES[0]), (phase2, SHAPES[1])])
def test_spread_rows_give_the_same_loss_and_stay_where_they_are(phase, shape):
  mesh = axes.make_mesh(shape)
  step, args = compiled(mesh, *phase())
  table = args[1]["vectors"]["behavioral"]
  ways = shape["data"] * shape["fsdp"]
  assert table.shape == (4096, 5)
  assert {s.data.shape for s in table.addressable_shards} == {(4096 // ways, 5)}
  sizes = sent(step.as_text())
  assert sizes and max(sizes) < ROWS / 4, "a quarter of the rows, let alone the table"
  one = axes.make_mesh({"data": 1, "fsdp": 1, "tensor": 1}, jax.devices()[:1])
  alone, its_args = compiled(one, *phase())
  np.testing.assert_allclose(step(*args), alone(*its_args), rtol=1e-6)


def test_the_check_sees_a_table_that_travels():
  """A table gathered whole on purpose."""
  mesh = axes.make_mesh(SHAPES[0])
  table = axes.put_rows(mesh, frozen()["vectors"]["behavioral"])
  everywhere = jax.jit(lambda x: x * 2, out_shardings=axes.sharding(mesh))
  assert max(sent(everywhere.lower(table).compile().as_text())) >= ROWS * 5


def test_what_fills_the_table_up_is_nothing():
  mesh = axes.make_mesh(SHAPES[1])
  placed = axes.put_rows(mesh, np.arange(1, 10))
  np.testing.assert_array_equal(placed, [*range(1, 10), 0, 0, 0])
  assert axes.put_rows(mesh, jnp.ones((8, 3))).shape == (8, 3)


def test_ten_million_entities_take_160_megabytes_on_each_of_64_chips():
  """By the rules for placing, with 64 chips that only have names."""
  mesh = jax.sharding.AbstractMesh((16, 4, 1), axes.MESH_AXES)
  table = {"vectors": {"behavioral": jax.ShapeDtypeStruct((10_000_000, 256), np.float32)}}
  where = axes.param_sharding(mesh, table)["vectors"]["behavioral"]
  assert np.prod(where.shard_shape((10_000_000, 256))) * 4 == 160_000_000
