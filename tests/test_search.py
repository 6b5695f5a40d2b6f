"""A small grid of meshes, rows and remat policies: counted by hand, the best compiled."""
import dataclasses

import pytest

from ilm_jax import errors
from ilm_jax.planning import arithmetic, search, shapes, table
from ilm_jax.runtime import chips
from tests import test_planning
from tests.test_planning import TINY, WHOLE, config, plan


def test_search_compiles_the_best_by_arithmetic_and_the_naive_mesh():
  c, asked = config(), []

  def compiled(changed):
    asked.append(dict(changed.mesh))
    seconds = 3.0 if changed.mesh.fsdp == 2 else 9.0
    return {"fits": changed.mesh.fsdp != 1, "estimated_step_seconds": seconds,
            "peak_bytes_per_chip": 1, "useful_utilization": 0.5}

  with c.unlocked():
    c.mesh.update(data=4, fsdp=4)
  own = plan(c, c.mesh.to_dict(), "v5e:2x4*2", small(c))
  found = search.run(c, chips.parse("v5e:2x4*2"), lambda c: small(c), own, compiled)
  naive = {"data": 2, "fsdp": 8, "tensor": 1}
  assert asked[-1] == naive and len(asked) == search.COMPILED + 1
  assert [x["plan"] for x in found if x["mesh"] == c.mesh.to_dict()].count(own) == 1
  assert all(mesh["data"] % 2 == 0 for mesh in asked), "data spans the slices"
  assert [x["naive"] for x in found].count(True) == 1
  assert [x["plan"]["fits"] for x in found] == sorted((x["plan"]["fits"] for x in found),
                                                      reverse=True)
  text = table.ranking(found)
  assert "naive FSDP" in text and "best: --config.mesh.data=" in text


def small(c):
  """Four layers: the grid's shapes are worked out quickly."""
  return dataclasses.replace(shapes.with_layers(shapes.of(c.lm), 4, unroll=False))


def test_search_takes_what_the_compiler_took():
  """Arithmetic held against the own plan: the activations there, eightfold, are so elsewhere."""
  c = config(**{"mesh.data": 64, "phase2.rows": 256})
  topology = chips.parse("v5p:4x4x4")
  counted = plan(c, c.mesh.to_dict(), "v5p:4x4x4")
  grown = {"activation_bytes_per_chip": 8 * counted["activation_bytes_per_chip"]}
  assert arithmetic.ratio(counted | grown, counted) == arithmetic.Ratio(8.0, 1.0)
  assert arithmetic.ratio(counted | {"bytes_per_chip": None}, counted) == arithmetic.AS_COUNTED
  hidden = {"roofline_seconds": {"collectives": 4.0, "exposed": 1.0}}
  assert arithmetic.ratio(counted | hidden, counted) == arithmetic.Ratio(1.0, 1.0, 0.25)

  def rows(own):
    found = search.run(c, topology, lambda c: shapes.of(c.lm), own, None)
    assert 256 in [x["rows"] for x in found if x["mesh"] == c.mesh.to_dict()]
    return max(x["rows"] for x in found if x["plan"]["fits"])

  assert rows(counted) == 1024
  assert rows(counted | grown) < 1024


def test_search_says_when_nothing_fits():
  c = config(**{"lm.shape": "palm-62b", "phase2.rows": 8, "mesh.data": 4})
  own = plan(c, c.mesh.to_dict(), "v5e:2x2")
  with pytest.raises(errors.UserError, match="nothing of the grid"):
    search.run(c, chips.parse("v5e:2x2"), lambda c: shapes.of(c.lm), own, None)


def test_the_grid_divides_over_microbatches():
  c = config(**{"phase2.microbatches": 4, "phase2.rows": 8})
  topology = chips.parse("v5e:2x2")
  grid = search.candidates(c, small(c), topology)
  assert grid and {x["rows"] for x in grid} <= {4, 8, 16, 32}
  for x in [*grid, search.naive(c, topology)]:
    assert x["rows"] % (4 * x["mesh"]["data"] * x["mesh"]["fsdp"]) == 0


def ranking(said: float, **changes):
  """A small config with 16 rows that only rank; beside 64 that say words, if `said`."""
  return test_planning.ranking(**{"tasks.mixture.elm_title": said, "phase2.rows": 64,
                                  "phase2.head.rows": 16, **changes})


def test_what_only_ranks_is_searched_by_its_ranking_rows():
  """Not by phase2.rows, which nothing reads: with equal time a row the smallest batch is best."""
  c, topology = ranking(0.0, **{"mesh.data": 8}), chips.parse("h100:8")
  grid = search.candidates(c, TINY, topology)
  assert {(x["rows"], x["rank_rows"]) for x in grid} == {(0, 8), (0, 16), (0, 32), (0, 64)}
  changed = search.apply(c, grid[0])
  assert (changed.phase2.rows, changed.phase2.head.rows) == (64, 8)

  def compiled(c):
    return {"fits": True, "estimated_step_seconds": c.phase2.head.rows / 8,
            "peak_bytes_per_chip": 1, "useful_utilization": 0.5}

  own = plan(c, WHOLE, lm=TINY) | compiled(c)
  found = search.run(c, topology, lambda _: TINY, own, compiled)
  rows = [x["rank_rows"] for x in found]
  assert rows == sorted(rows) and rows[0] < rows[-1]
  said = table.ranking(found)
  assert f"--config.phase2.head.rows={rows[0]} --config.lm.remat" in said
  assert "--config.phase2.rows" not in said and "per row 1.00 times as fast" in said


@pytest.mark.parametrize("said", [0.0, 1.0])
def test_the_naive_mesh_divides_the_rows_of_every_pass(said):
  """16 ranking rows do not spread over 32 chips; both kinds grow alike, so time a row compares."""
  c, topology = ranking(said), chips.parse("v5e:4x8")
  naive = search.naive(c, topology)
  assert naive["mesh"]["fsdp"] == 32
  assert (naive["rows"], naive["rank_rows"]) == (128 * said, 32)
  grid = search.candidates(c, TINY, topology)
  assert grid
  for x in grid:
    assert x["rows"] == 4 * said * x["rank_rows"]
    assert x["rank_rows"] % (x["mesh"]["data"] * x["mesh"]["fsdp"]) == 0


def test_the_grid_keeps_groups_whole():
  """Half the rows would be half a group, which the config's checks refuse."""
  c = ranking(1.0, **{"phase2.head.rows_per_group": 16})
  grid = search.candidates(c, TINY, chips.parse("v5e:2x2"))
  assert {x["rank_rows"] for x in grid} == {16, 32, 64}


def test_nothing_fits_around_ranking_rows(monkeypatch):
  monkeypatch.setitem(chips.CHIPS, "h100", dataclasses.replace(chips.CHIPS["h100"], memory=1.0))
  c = ranking(0.0, **{"mesh.data": 8})
  with pytest.raises(errors.UserError, match="around phase2.head.rows=16 fits"):
    search.run(c, chips.parse("h100:8"), lambda _: TINY, plan(c, WHOLE, lm=TINY), None)
