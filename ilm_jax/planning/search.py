"""Searches a grid of meshes, batches and remat policies by arithmetic; compiles only the best."""
import functools
import math
from collections.abc import Callable

from ilm_jax import errors
from ilm_jax.config import mixture
from ilm_jax.models import decoder
from ilm_jax.planning import arithmetic, programs
from ilm_jax.runtime import axes, chips

COMPILED = 3                 # meshes to compile besides the config's own and the naive one
REMATS = ("weights", "dots", "full")


def candidates(c, lm: decoder.DecoderConfig, topology: chips.Topology) -> list[dict]:
  """The grid around config `c` as [{mesh, rows, remat}]: rows times 1/2, 1, 2 and 4."""
  grid = []
  for rows in sorted({max(c.phase2.rows // 2, 1), *(c.phase2.rows * n for n in (1, 2, 4))}):
    for mesh in [] if rows % c.phase2.microbatches else meshes(topology, lm, at_once(c, rows)):
      grid += [{"mesh": mesh, "rows": rows, "remat": remat} for remat in REMATS]
  return grid


def at_once(c, rows: int) -> int:
  """The rows of a microbatch, which the mesh must divide: the gcd over all kinds of rows.

  Args:
    c: config of the run.
    rows: rows with target texts per batch.
  """
  ranked = c.phase2.head.rows if mixture.rank_tasks(c) else 0
  return math.gcd(rows if mixture.said_tasks(c) else 0, ranked) // c.phase2.microbatches


def meshes(topology: chips.Topology, lm: decoder.DecoderConfig, rows: int) -> list[dict[str, int]]:
  """Meshes of powers of two that divide `rows` and heads; `data` is a multiple of the slices."""
  grid = []
  for tensor in (1, 2, 4, 8):
    ways, rest = divmod(topology.chips, tensor)
    if rest or lm.num_heads % tensor or rows % ways:
      continue
    for fsdp in (2 ** n for n in range(ways.bit_length())):
      if ways % fsdp == 0 and ways // fsdp % topology.slices == 0:
        grid.append({"data": ways // fsdp, "fsdp": fsdp, "tensor": tensor})
  return grid


def naive(c, topology: chips.Topology) -> dict:
  """The obvious choice: fsdp over all chips of a slice."""
  mesh = {"data": topology.slices, "fsdp": topology.chips // topology.slices, "tensor": 1}
  multiple = topology.chips * c.phase2.microbatches
  rows = math.ceil(c.phase2.rows / multiple) * multiple
  return {"mesh": mesh, "rows": rows, "remat": c.lm.remat}


def apply(c, candidate: dict):
  """The config with a candidate's mesh, rows and remat."""
  c = c.copy_and_resolve_references()
  with c.unlocked():
    c.mesh.update(candidate["mesh"])
    c.phase2.rows, c.lm.remat = candidate["rows"], candidate["remat"]
  return c


def run(c, topology: chips.Topology, shape_of: Callable, config_plan: dict,
        compiled_plan: Callable | None) -> list:
  """Plans of the grid, best first: [{mesh, rows, remat, naive, plan}].

  Arithmetic chooses rows and remat for each mesh. The best COMPILED of these meshes and the naive
  one are compiled and ranked with the config's own plan. The arithmetic is calibrated first: its
  counts are scaled by the ratio between `config_plan` and the arithmetic plan of the same config.

  Args:
    c: config of the run.
    topology: to plan for.
    shape_of: config -> language model.
    config_plan: the plan of `c` itself.
    compiled_plan: config -> plan; None: arithmetic alone.

  Raises:
    UserError: no candidate of the grid fits by arithmetic.
  """
  lm, first = shape_of(c), naive(c, topology)
  mine = {"mesh": dict(c.mesh), "rows": c.phase2.rows, "remat": c.lm.remat}

  @functools.cache
  def of_rows(rows: int) -> programs.Program:
    return programs.phase2(apply(c, {**first, "rows": rows}), lm,
                           axes.abstract_mesh(first["mesh"]))

  def counted(candidate, of):
    changed = apply(c, candidate)
    on_mesh = programs.moved(of_rows(candidate["rows"]), axes.abstract_mesh(candidate["mesh"]))
    return arithmetic.plan(changed, shape_of(changed), on_mesh, topology, of)

  of = arithmetic.ratio(config_plan, counted(mine, arithmetic.AS_COUNTED))
  by_mesh = {}
  for candidate in candidates(c, lm, topology):
    planned = {**candidate, "plan": counted(candidate, of)}
    if planned["plan"]["fits"]:
      by_mesh.setdefault(tuple(candidate["mesh"].values()), []).append(planned)
  if not by_mesh:
    raise errors.UserError(f"--search: nothing of the grid around phase2.rows={c.phase2.rows} fits "
                           f"into {topology.name}: take fewer rows, a shorter length or more chips")
  best = [_without_plan(x) for x in sorted((min(x, key=rank) for x in by_mesh.values()), key=rank)]
  to_compile = [x for x in best if x not in (mine, first)][:COMPILED] + [first] * (first != mine)
  planned = [{**mine, "plan": config_plan}] + [
      {**x, "plan": compiled_plan(apply(c, x)) if compiled_plan else counted(x, of)}
      for x in to_compile]
  return sorted(({**x, "naive": _without_plan(x) == first} for x in planned), key=rank)


def _without_plan(planned: dict) -> dict:
  return {name: planned[name] for name in ("mesh", "rows", "remat")}


def rank(planned: dict) -> tuple:
  """Sort key: time per row, to 1 %; then the smaller batch. Plans that do not fit come last."""
  plan = planned["plan"]
  seconds = plan["estimated_step_seconds"]
  if not plan["fits"] or not seconds:
    return (True, 0.0, planned["rows"])
  return (False, round(math.log(seconds / planned["rows"]), 2), planned["rows"])
