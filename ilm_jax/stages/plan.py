"""Stage plan: compiles a config's step for chips that you do not have; plan.json and a table."""
import dataclasses
import json

from etils import epath

from ilm_jax import errors, files
from ilm_jax.config import mixture
from ilm_jax.config import reading as config_lib
from ilm_jax.models import decoder
from ilm_jax.planning import arithmetic, costs, estimate, programs, remedies, search, shapes, table
from ilm_jax.runtime import axes, chips


@dataclasses.dataclass(frozen=True)
class Wish:
  """What is to be planned."""
  topology: str             # chips.parse
  search: bool = False      # also look for a better mesh, batch and remat


def run(config, workdir, wish: Wish) -> dict:
  """Plans `config`, prints the table and writes plan.json to `workdir`.

  Needs no device, no weights, no data and no output of another stage.

  Returns:
    The content of plan.json.

  Raises:
    UserError: no such topology, a mesh that does not fit it, or a config that cannot run; or the
      step does not fit: then plan.json is written and says which changes would fit.
  """
  topology = chips.parse(wish.topology)
  config_lib.validate(config, topology.chips)
  # All chips that can be planned for multiply in bfloat16.
  config.lm.dtype = chips.dtype(config.lm.dtype, config.lm.train, has_bfloat16=True)
  phase2 = config.plan.phase == 2
  if not phase2 and (wish.search or not topology.chip.dims):
    raise errors.UserError("plan.phase=1 needs a TPU topology and has no --search: leave --search "
                           "out and name a topology, e.g. --topology=v5e:4x4")
  devices = chips.devices(topology) if topology.chip.dims else None

  def compiled_plan(c):
    mesh = axes.make_mesh(dict(c.mesh), devices)
    lm = shapes.of(c.lm) if phase2 else None
    return estimate.plan(topology, costs.measure(c, lm, mesh, topology))

  if devices is not None:
    plan = compiled_plan(config)
  else:
    lm = shapes.of(config.lm)
    program = programs.phase2(config, lm, axes.abstract_mesh(dict(config.mesh)))
    assert isinstance(lm, decoder.DecoderConfig)      # programs.phase2 refuses others
    plan = arithmetic.plan(config, lm, program, topology)
  plan = {**_asked(config), **plan, "assumes": chips.assumptions(topology)}
  if not plan["fits"]:
    plan["would_fit"] = remedies.would_fit(
        config, topology, lambda c: shapes.of(c.lm), plan) if phase2 else []
  print(table.one(plan))
  files.write_text(epath.Path(workdir) / "plan.json", json.dumps(plan, indent=1) + "\n")
  if wish.search:
    candidates = search.run(config, topology, lambda c: shapes.of(c.lm), plan,
                       compiled_plan if devices is not None else None)
    plan = {**plan, "search": candidates}
    print(table.ranking(candidates))
    files.write_text(epath.Path(workdir) / "plan.json", json.dumps(plan, indent=1) + "\n")
  if not plan["fits"]:
    raise errors.UserError(remedies.words(plan))
  return plan


def _asked(c) -> dict:
  """The settings of the plan that change the costs."""
  step = {"phase": c.plan.phase, "mesh": dict(c.mesh)}
  if c.plan.phase == 1:
    step |= {"rows": c.phase1.batch_size, "pairs": c.phase1.pair_batch_size}
    return step | (_scored(c, c.phase1.negatives) if c.phase1.candidates == "catalogue" else {})
  head = c.phase2.head
  step |= {"model": c.lm.shape or c.lm.asset, "dtype": c.lm.dtype, "rows": c.phase2.rows,
           "length": c.phase2.length, "remat": c.lm.remat}
  if not head.weight:
    return step
  ranked = {"rank_rows": head.rows, "rank_length": head.length} if mixture.rank_tasks(c) else {}
  if ranked and not mixture.said_tasks(c):
    step |= {"rows": 0}
  return step | ranked | _scored(c, head.negatives)


def _scored(c, negatives: int) -> dict:
  """How many items a step scores: `negatives`, or all if that is 0."""
  return {"catalogue": min(negatives or programs.num_items(c), programs.num_items(c))}
