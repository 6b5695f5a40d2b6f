"""What the tables of stage eval are made from: if any of it changes they are measured again."""
from ilm_jax.config import variants
from ilm_jax.stages import context, recipe
from ilm_jax.stages.evals import common, trained
from ilm_jax.training import provenance


def of_phase1(run: context.Run) -> dict:
  """The inputs of the tables of phase 1, for `measured.done`.

  Raises:
    UserError: phase 1 is missing, or was made from other inputs or settings than this run's.
  """
  return _made_from(run, {"phase1": trained.phase1_meta(run)},
                    {f"item_text {split}": run.prepared("item_text", split).fingerprint
                     for split in ("train", "validation", "test")})


def of_phase2(run: context.Run) -> dict:
  """The inputs of the tables of phase 2, for `measured.done`: of ILM and of `phase2.compare`.

  Raises:
    UserError: a model is missing, or was made from other inputs or settings than this run's.
  """
  metas = {variant.folder: trained.phase2_meta(run, variant)
           for variant in variants.trained(run.config)}
  tests = {f"{name} test": run.prepared(name, "test").fingerprint
           for name in (*recipe.task_names(run.config), "catalogue")}
  return _made_from(run, metas, {"lm": run.lm_fingerprint, **tests})


def _made_from(run: context.Run, metas: dict[str, dict], inputs: dict[str, str]) -> dict:
  return {"checkpoints": {folder: provenance.record(meta) for folder, meta in metas.items()},
          "inputs": {"data": run.data.fingerprint, "entities": run.entities.fingerprint, **inputs},
          "settings": {"eval": run.config.eval.to_dict(), "seed": run.config.seed,
                       "compare": list(run.config.phase2.compare), **common.added_scores(run),
                       "domain": run.config.data.domain, "index": run.config.tasks.index}}
