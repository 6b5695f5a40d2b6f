"""Reads trained parameters onto the mesh. No initial parameters are drawn or computed for it."""
from etils import epath

from ilm_jax.config import settings, variants
from ilm_jax.runtime import axes
from ilm_jax.stages import context, recipe
from ilm_jax.training import checkpoint, provenance


def phase1(run: context.Run, workdir, step: int | None = None):
  """(graphdef of the Q-Former, its parameters) of a phase 1.

  Args:
    run: the run.
    workdir: of the run with that phase 1: this one, or `phase2.init_from`.
    step: which checkpoint; None: the newest.
  """
  folder = epath.Path(workdir) / "phase1" / "checkpoints"
  graphdef, shapes = recipe.phase1_shapes(run)
  return graphdef, _read(run, folder, shapes, step)["qformer"]


def phase2(run: context.Run, variant: variants.Variant, step: int | None
           ) -> tuple[recipe.Built, dict]:
  """(a model of phase 2, its trained parameters at a step).

  Raises:
    UserError: it was made from other inputs or settings than this run's.
  """
  phase2_meta(run, variant, step)
  built = recipe.phase2(run, variant, fresh=False)
  folder = run.workdir / variant.folder / "checkpoints"
  return built, _read(run, folder, built.trainable, step)


def phase1_meta(run: context.Run) -> dict:
  """`meta` of the newest checkpoint of this run's phase 1.

  Raises:
    UserError: there is none, or it was made from other inputs or settings than this run's.
  """
  return _meta(run.workdir / "phase1" / "checkpoints", recipe.phase1_made_from(run))


def first_meta(run: context.Run) -> dict:
  """Likewise for the phase 1 from which phase 2 begins: this run's, or that of `phase2.init_from`.
  """
  if not (theirs := run.config.phase2.init_from):
    return phase1_meta(run)
  mine, meta = recipe.phase1_made_from(run), checkpoint.read_meta(recipe.phase1_folder(run))
  checkpoint.fits_phase1(theirs, meta, {"entities": mine.fingerprints["entities"]},
                         settings.shared_with_phase1(mine.settings))
  return meta


def phase2_meta(run: context.Run, variant: variants.Variant, step: int | None = None) -> dict:
  """Likewise for a model of phase 2, at a step; None: the newest."""
  return _meta(run.workdir / variant.folder / "checkpoints",
               recipe.phase2_made_from(run, variant), step)


def _meta(folder, made_from: recipe.MadeFrom, step: int | None = None) -> dict:
  meta = checkpoint.read_meta(folder, step)
  provenance.check(folder, meta, made_from.fingerprints, made_from.settings)
  return meta


def _read(run: context.Run, folder, shapes: dict, step: int | None) -> dict:
  want = axes.shapes_at(shapes, axes.param_sharding(run.mesh, shapes))
  return checkpoint.read_trainable(folder, want, step)
