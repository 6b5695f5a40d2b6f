"""A small grid of meshes, batches and remat policies: all by arithmetic, the best compiled."""
import functools
import math
from collections.abc import Callable

from ilm_jax import errors
from ilm_jax.config import mixture
from ilm_jax.models import decoder
from ilm_jax.planning import arithmetic, programs
from ilm_jax.runtime import axes, chips

COMPILED = 3                 # meshes, compiled beside the config's own and the naive one
REMATS = ("weights", "dots", "full")


def candidates(c, lm: decoder.DecoderConfig, topology: chips.Topology) -> list[dict]:
  """{mesh, rows, remat} of the grid around config `c`: its rows, half, twice and four times."""
  grid = []
  for rows in sorted({max(c.phase2.rows // 2, 1), *(c.phase2.rows * n for n in (1, 2, 4))}):
    for mesh in [] if rows % c.phase2.microbatches else meshes(topology, lm, at_once(c, rows)):
      grid += [{"mesh": mesh, "rows": rows, "remat": remat} for remat in REMATS]
  return grid


def at_once(c, rows: int) -> int:
  """What a mesh must divide, with so many rows that say words: those of a microbatch, of each kind
  that there is."""
  ranked = c.phase2.head.rows if mixture.rank_tasks(c) else 0
  return math.gcd(rows if mixture.said_tasks(c) else 0, ranked) // c.phase2.microbatches


def meshes(topology: chips.Topology, lm: decoder.DecoderConfig, rows: int) -> list[dict[str, int]]:
  """Meshes of powers of two that divide `rows` and heads, and whose `data` spans the slices."""
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
  """What one would write down first: everything over fsdp, of each slice."""
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

  Of each mesh the best rows and remat by arithmetic stand for it; of these the best COMPILED, and
  the naive one, are compiled and put beside the config's own. The arithmetic is held against the
  own plan first: what a compiler takes beyond it there is taken elsewhere too.

  Args:
    c: config of the run.
    topology: where.
    shape_of: config -> language model.
    config_plan: the plan of `c` as it is.
    compiled_plan: config -> plan; None: arithmetic alone.

  Raises:
    UserError: nothing of the grid fits by arithmetic.
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
                           f"into {topology.name}: fewer rows, a shorter length, or more chips")
  best = [_without_plan(x) for x in sorted((min(x, key=rank) for x in by_mesh.values()), key=rank)]
  to_compile = [x for x in best if x not in (mine, first)][:COMPILED] + [first] * (first != mine)
  planned = [{**mine, "plan": config_plan}] + [
      {**x, "plan": compiled_plan(apply(c, x)) if compiled_plan else counted(x, of)}
      for x in to_compile]
  return sorted(({**x, "naive": _without_plan(x) == first} for x in planned), key=rank)


def _without_plan(planned: dict) -> dict:
  return {name: planned[name] for name in ("mesh", "rows", "remat")}


def rank(planned: dict) -> tuple:
  """Least time a row first, to a hundredth; then the smaller batch. What does not fit is last."""
  plan = planned["plan"]
  seconds = plan["estimated_step_seconds"]
  if not plan["fits"] or not seconds:
    return (True, 0.0, planned["rows"])
  return (False, round(math.log(seconds / planned["rows"]), 2), planned["rows"])
