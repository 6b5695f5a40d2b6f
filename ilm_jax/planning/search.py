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
FIELDS = {"rows": "phase2.rows", "rank_rows": "phase2.head.rows"}     # by their name in a candidate


def candidates(c, lm: decoder.DecoderConfig, topology: chips.Topology) -> list[dict]:
  """The grid around config `c`: all rows times 1/2, 1, 2 and 4, where groups stay whole.

  Returns:
    [{mesh, rows, rank_rows, remat}]; rows of a kind that is in no batch are 0.
  """
  p, grid, now = c.phase2, [], rows_of(c)
  parts = {"rows": math.lcm(p.microbatches, p.rows_per_group),
           "rank_rows": math.lcm(p.microbatches, p.head.rows_per_group)}
  for times in (0.5, 1, 2, 4):
    if any(n * times % parts[kind] for kind, n in now.items()):
      continue
    rows = {kind: int(n * times) for kind, n in now.items()}
    for mesh in meshes(topology, lm, math.gcd(*rows.values()) // p.microbatches):
      grid += [{"mesh": mesh, **rows, "remat": remat} for remat in REMATS]
  return grid


def rows_of(c) -> dict[str, int]:
  """Rows of a batch by kind: with target texts, and only ranked. 0: no task needs that kind."""
  return {"rows": c.phase2.rows if mixture.said_tasks(c) else 0,
          "rank_rows": c.phase2.head.rows if mixture.rank_tasks(c) else 0}


def at_once(c) -> int:
  """The rows of a microbatch, which the mesh must divide: the gcd over all kinds of rows."""
  return math.gcd(*rows_of(c).values()) // c.phase2.microbatches


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
  """The obvious choice: fsdp over all chips of a slice, and as many times the rows as it needs."""
  mesh = {"data": topology.slices, "fsdp": topology.chips // topology.slices, "tensor": 1}
  multiple = topology.chips * c.phase2.microbatches
  times = multiple // math.gcd(multiple, *rows_of(c).values())
  return {"mesh": mesh, **{kind: n * times for kind, n in rows_of(c).items()}, "remat": c.lm.remat}


def apply(c, candidate: dict):
  """The config with a candidate's mesh, rows and remat."""
  c = c.copy_and_resolve_references()
  with c.unlocked():
    c.mesh.update(candidate["mesh"])
    c.update_from_flattened_dict({FIELDS[kind]: n for kind, n in rows_in(candidate).items()})
    c.lm.remat = candidate["remat"]
  return c


def rows_in(candidate: dict) -> dict[str, int]:
  """The rows of a candidate, by kind; kinds without rows are left out."""
  return {kind: candidate[kind] for kind in FIELDS if candidate[kind]}


def per_row(planned: dict) -> float:
  """Seconds per row of the first kind that there is; all kinds grow alike, so any would do."""
  return planned["plan"]["estimated_step_seconds"] / next(iter(rows_in(planned).values()))


def run(c, topology: chips.Topology, shape_of: Callable, config_plan: dict,
        compiled_plan: Callable | None) -> list:
  """Plans of the grid, best first: [{mesh, rows, rank_rows, remat, naive, plan}].

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
  mine = {"mesh": dict(c.mesh), **rows_of(c), "remat": c.lm.remat}

  @functools.cache
  def of_rows(rows: int, rank_rows: int) -> programs.Program:
    return programs.phase2(apply(c, {**first, "rows": rows, "rank_rows": rank_rows}), lm,
                           axes.abstract_mesh(first["mesh"]))

  def counted(candidate, of):
    changed = apply(c, candidate)
    on_mesh = programs.moved(of_rows(candidate["rows"], candidate["rank_rows"]),
                             axes.abstract_mesh(candidate["mesh"]))
    return arithmetic.plan(changed, shape_of(changed), on_mesh, topology, of)

  of = arithmetic.ratio(config_plan, counted(mine, arithmetic.AS_COUNTED))
  by_mesh = {}
  for candidate in candidates(c, lm, topology):
    planned = {**candidate, "plan": counted(candidate, of)}
    if planned["plan"]["fits"]:
      by_mesh.setdefault(tuple(candidate["mesh"].values()), []).append(planned)
  if not by_mesh:
    around = ", ".join(f"{FIELDS[kind]}={n}" for kind, n in rows_in(mine).items())
    raise errors.UserError(f"--search: nothing of the grid around {around} fits into "
                           f"{topology.name}: take fewer rows, a shorter length or more chips")
  best = [_without_plan(x) for x in sorted((min(x, key=rank) for x in by_mesh.values()), key=rank)]
  to_compile = [x for x in best if x not in (mine, first)][:COMPILED] + [first] * (first != mine)
  planned = [{**mine, "plan": config_plan}] + [
      {**x, "plan": compiled_plan(apply(c, x)) if compiled_plan else counted(x, of)}
      for x in to_compile]
  return sorted(({**x, "naive": _without_plan(x) == first} for x in planned), key=rank)


def _without_plan(planned: dict) -> dict:
  return {name: planned[name] for name in ("mesh", *FIELDS, "remat")}


def rank(planned: dict) -> tuple:
  """Sort key: time per row, to 1 %; then the smaller batch. Plans that do not fit come last."""
  plan, rows = planned["plan"], sum(rows_in(planned).values())
  if not plan["fits"] or not plan["estimated_step_seconds"]:
    return (True, 0.0, rows)
  return (False, round(math.log(per_row(planned)), 2), rows)
