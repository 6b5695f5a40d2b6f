"""What the phases trained, read back onto the mesh. Nothing fresh is drawn or computed for it."""
from etils import epath

from ilm_jax.objectives import phase1 as phase1_lib
from ilm_jax.objectives import phase2 as phase2_lib
from ilm_jax.runtime import axes
from ilm_jax.stages import context, phases
from ilm_jax.training import checkpoint


def phase1(run: context.Run, workdir, step: int | None = None):
  """(graphdef of the Q-Former, its parameters) of a phase 1.

  Args:
    run: the run.
    workdir: whose phase 1: of this run, or what `phase2.init_from` names.
    step: which checkpoint; None: the newest.
  """
  graphdef, shapes = phase2_lib.abstract(
      lambda: phase1_lib.build_phase1(phases.qformer_config(run), run.config.seed))
  return graphdef, _read(run, epath.Path(workdir) / "phase1", shapes, step)["qformer"]


def phase2(run: context.Run, name: str, step: int):
  """(graphdef of the ILM, what was trained, what is frozen of the language model).

  Args:
    run: the run.
    name: "phase2", or a folder of `phases.COMPARED`.
    step: which checkpoint.
  """
  build = phases.phase2_builder(run, name)
  graphdef, shapes = phase2_lib.abstract(lambda: build(1.0))
  shapes, frozen_lm = phases.with_language_model(run, shapes)
  return graphdef, _read(run, run.workdir / name, shapes, step), frozen_lm


def _read(run: context.Run, folder, shapes: dict, step: int | None) -> dict:
  want = axes.shapes_at(shapes, axes.param_sharding(run.mesh, shapes))
  return checkpoint.read_trainable(folder / "checkpoints", want, step)
