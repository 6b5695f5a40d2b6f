"""Finds changes that let a step fit into memory: single changes first, all by arithmetic."""
import dataclasses
import itertools
import json
from collections.abc import Callable, Iterator

from ilm_jax.config import checks, mixture
from ilm_jax.config import reading as config_lib
from ilm_jax.planning import arithmetic, programs, search, table
from ilm_jax.runtime import axes, chips

_GPUS = ("2", "4", "8", "16", "32", "64", "128", "256")      # chips without a torus


@dataclasses.dataclass(frozen=True)
class Change:
  """A changed config, perhaps on more chips, and the flags for it on the command line."""
  config: object
  topology: chips.Topology
  flags: tuple[str, ...]


def would_fit(c, topology: chips.Topology, shape_of: Callable, start_plan: dict) -> list[dict]:
  """For each kind of change the smallest that makes phase 2 fit; [{flags, peak_bytes_per_chip}].

  The kinds: another mesh of the same chips, remat, fewer rows, an item head over drawn items, a
  smaller dtype of the frozen language model, more chips. If none is enough alone, they are
  combined.

  Args:
    c: config of the run, whose plan does not fit.
    topology: to plan for.
    shape_of: config -> language model.
    start_plan: the plan of `c`; its ratio to the arithmetic scales the arithmetic of all changes.
  """
  start, of, plan_of = Change(c, topology, ()), arithmetic.AS_COUNTED, _planner(shape_of)
  if start_plan["activation_bytes_per_chip"]:      # 0: the compiler gave no size
    of = arithmetic.ratio(start_plan, plan_of(start, of))
  kinds = (_meshes, _remats, _rows, _drawn, _dtypes, _more_chips)
  enough = [x for kind in kinds if (x := _first(kind(start, shape_of), plan_of, of))]
  return enough or [x for x in [_first(_together(start, shape_of), plan_of, of)] if x]


def words(plan: dict) -> str:
  """One line: how far the plan is from fitting, and the changes with which it would fit."""
  said = (f"phase {plan['phase']} does not fit into {plan['topology']}: "
          f"{table.gib(plan['peak_bytes_per_chip'])} per chip, of "
          f"{table.gib(plan['capacity_bytes_per_chip'])}; ")
  if plan["phase"] == 1:
    return said + (
        "lower phase1.batch_size, phase1.pair_batch_size or, with phase1.candidates=catalogue, "
        "phase1.negatives, or take more chips")
  if not plan["would_fit"]:
    return said + "nothing near it would: lower phase2.length, or take a smaller model"
  return said + "by arithmetic it fits with " + ", or with ".join(
      f"{x['flags']} ({table.gib(x['peak_bytes_per_chip'])})" for x in plan["would_fit"])


def _first(changes: Iterator[Change], plan_of: Callable, of) -> dict | None:
  for change in changes:
    if checks.mistakes(change.config, change.topology.chips):
      continue
    plan = plan_of(change, of)
    if plan["fits"]:
      return {"flags": " ".join(change.flags),
              "peak_bytes_per_chip": plan["peak_bytes_per_chip"]}
  return None


def _planner(shape_of: Callable) -> Callable:
  """Returns (change, ratio) -> plan. A program is traced once and then moved to each mesh."""
  made: dict[str, programs.Program] = {}

  def plan_of(change: Change, of: arithmetic.Ratio) -> dict:
    c, lm = change.config, shape_of(change.config)
    mesh = axes.abstract_mesh(dict(c.mesh))
    without_mesh = json.dumps({**json.loads(config_lib.to_json(c)), "mesh": None})
    if without_mesh not in made:
      made[without_mesh] = programs.phase2(c, lm, mesh)
    return arithmetic.plan(c, lm, programs.moved(made[without_mesh], mesh), change.topology, of)

  return plan_of


def _with(change: Change, topology: chips.Topology | None = None, **fields) -> Change:
  """The change with further fields; lm__remat="full" sets lm.remat."""
  config = change.config.copy_and_resolve_references()
  named = {name.replace("__", "."): value for name, value in fields.items()}
  config.update_from_flattened_dict(named)
  flags = [f"--topology={topology.name}"] if topology else []
  flags += [f"--config.{name}={value}" for name, value in named.items()]
  return Change(config, topology or change.topology, (*change.flags, *flags))


def _meshes(change: Change, shape_of, topology: chips.Topology | None = None) -> Iterator[Change]:
  """Other meshes, in order of how many chips share the weights, fewest first."""
  where = topology or change.topology
  meshes = search.meshes(where, shape_of(change.config), search.at_once(change.config))
  for mesh in sorted(meshes, key=lambda m: (m["fsdp"] * m["tensor"], m["tensor"])):
    yield _with(change, topology, **{f"mesh__{name}": n for name, n in mesh.items()})


def _remats(change: Change, shape_of) -> Iterator[Change]:
  order = ("none", "dots", "weights", "full")
  for remat in order[order.index(change.config.lm.remat) + 1:]:
    yield _with(change, lm__remat=remat)


def _rows(change: Change, shape_of) -> Iterator[Change]:
  """Fewer rows with target texts; then also fewer rows that only rank.

  With fewer rows than a group has, groups get smaller. The ranking rows start from the last legal
  change.
  """
  p = change.config.phase2
  kinds = [("phase2__", p)] if mixture.said_tasks(change.config) else []
  kinds += [("phase2__head__", p.head)] if mixture.rank_tasks(change.config) else []
  for prefix, section in kinds:
    start, rows = change, section.rows
    per_group, examples, fields = section.rows_per_group, section.examples_per_group, {}
    while rows % 2 == 0:
      rows //= 2
      if rows % per_group and per_group % 2 == 0:
        per_group, examples = per_group // 2, max(examples // 2, 1)
        fields = {"rows_per_group": per_group, "examples_per_group": examples}
      fewer = _with(start, **{prefix + k: v for k, v in {"rows": rows, **fields}.items()})
      yield fewer
      if not checks.mistakes(fewer.config, fewer.topology.chips, paths=False):
        change = fewer


def _drawn(change: Change, shape_of) -> Iterator[Change]:
  """Drawn items instead of the whole catalogue in the item head's softmax."""
  head = change.config.phase2.head
  if head.weight and not head.negatives:
    for drawn in (65536, 8192, 1024):
      if drawn < programs.num_items(change.config):
        yield _with(change, phase2__head__negatives=drawn)


def _dtypes(change: Change, shape_of) -> Iterator[Change]:
  order = ("float32", "bfloat16", "int8")
  for dtype in order[order.index(change.config.lm.dtype) + 1:]:
    yield _with(change, lm__dtype=dtype)


def _more_chips(change: Change, shape_of) -> Iterator[Change]:
  kind, dims = change.topology.kind, change.topology.chip.dims
  for shape in chips.SHAPES.get(dims, _GPUS):
    topology = chips.parse(f"{kind}:{shape}")
    if topology.chips > change.topology.chips:
      yield from _meshes(change, shape_of, topology)


def _together(change: Change, shape_of) -> Iterator[Change]:
  """Combinations: the last remat, dtype and drawn items; fewer rows on all meshes; more chips."""
  for kind in (_remats, _dtypes, _drawn):
    *_, change = change, *kind(change, shape_of)
  for fewer in itertools.chain([change], _rows(change, shape_of)):
    yield from _meshes(fewer, shape_of)
  yield from _more_chips(change, shape_of)
