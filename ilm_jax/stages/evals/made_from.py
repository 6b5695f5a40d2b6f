"""What the tables of stage eval are made from: if any of it changes they are measured again."""
from ilm_jax.config import variants
from ilm_jax.stages import context, recipe
from ilm_jax.stages.evals import common, prompts, ranking, trained
from ilm_jax.training import checkpoint, provenance


def of_phase1(run: context.Run) -> dict:
  """The inputs of the tables of phase 1, for `measured.done`.

  Raises:
    UserError: phase 1 is missing, or was made from other inputs or settings than this run's.
  """
  return _made_from(run, {"phase1": trained.phase1_meta(run)},
                    {f"item_text {split}": run.prepared("item_text", split).fingerprint
                     for split in ("train", "validation", "test")})


def of_phase2(run: context.Run, read: dict[str, int] | None = None) -> dict:
  """The inputs of the tables of phase 2, for `measured.done`: of ILM and of `phase2.compare`.

  Args:
    run: the run.
    read: folder of each model -> the step that was read; None: the newest are meant.

  Raises:
    UserError: a model is missing, or was made from other inputs or settings than this run's.
  """
  def step(variant):
    return (read[variant.folder] if read else
            checkpoint.newest(run.workdir / variant.folder / "checkpoints"))

  metas = {variant.folder: trained.phase2_meta(run, variant, step(variant))
           for variant in variants.trained(run.config)}
  splits = [(name, "test") for name in (*recipe.task_names(run.config), "catalogue")]
  if run.config.eval.prompt_users:
    splits += [(f"{task}_prompts", "test") for task in prompts.tasks(run.config)]
  if run.rule.cold:
    splits.append((ranking.ranked_task(run.config), "validation"))
  return _made_from(run, metas, {"lm": run.lm_fingerprint, **{
      f"{name} {split}": run.prepared(name, split).fingerprint for name, split in splits}})


def _made_from(run: context.Run, metas: dict[str, dict], inputs: dict[str, str]) -> dict:
  return {"checkpoints": {folder: provenance.record(meta) for folder, meta in metas.items()},
          "inputs": {"data": run.data.fingerprint, "entities": run.entities.fingerprint, **inputs},
          "settings": {"eval": run.config.eval.to_dict(), "seed": run.config.seed,
                       "compare": list(run.config.phase2.compare), **common.added_scores(run),
                       "domain": run.config.data.domain, "index": run.config.tasks.index}}
