"""Evaluation during training: a separate job that evaluates each new checkpoint."""
import copy
import sys
import time

from ilm_jax import errors
from ilm_jax.config import variants
from ilm_jax.evaluation import report
from ilm_jax.monitoring import heartbeat
from ilm_jax.runtime import distributed, host_memory, locks
from ilm_jax.stages import context, recipe
from ilm_jax.stages.evals import retrieval, tables
from ilm_jax.training import checkpoint


def run(run: context.Run, seconds: float, *, with_report: bool) -> None:
  """Evaluates the newest checkpoints, repeatedly, until those of the last steps are done.

  Args:
    run: the run; another job trains in its workdir.
    seconds: how long to wait before looking again.
    with_report: also write the report after each evaluation.
  """
  done = last_word = None
  while True:
    if distributed.is_main() and (word := training(run)) not in (None, last_word):
      print(f"training: {word}", file=sys.stderr, flush=True)
      last_word = word
    newest_steps = newest(run)
    if newest_steps != done:
      # A stage eval that a person starts meanwhile removes old tables before it measures.
      with locks.held(run.workdir, ["eval"] * distributed.is_main(), wait=seconds):
        measured = evaluate(run, newest_steps)
      if measured and with_report and distributed.is_main():
        report.write(run.workdir, with_tables=run.tables, command=run.command)
      done = newest_steps
      host_memory.give_back()
    if finished(run.config, newest_steps):
      return
    time.sleep(seconds)


def training(run: context.Run) -> str | None:
  """How far the training job is, or that it seems dead; None: it has no heartbeat yet."""
  beats = [beat for name in _last_steps(run.config)
           if (beat := heartbeat.read(run.workdir, name)) is not None]
  return heartbeat.tell(max(beats, key=lambda b: b["time"]), time.time()) if beats else None


def newest(run: context.Run) -> dict[str, int | None]:
  """{phase: its newest complete step, or None}."""
  folders = {name: run.workdir / name / "checkpoints" for name in _last_steps(run.config)}
  return {name: checkpoint.newest(folder) for name, folder in folders.items()}


def finished(config, newest_steps: dict[str, int | None]) -> bool:
  """Whether all phases have reached their last step."""
  return all((newest_steps[name] or 0) >= last for name, last in _last_steps(config).items())


def evaluate(run: context.Run, newest_steps: dict[str, int | None]) -> bool:
  """Makes the tables of the existing checkpoints; False if there was none, or it was overtaken.

  The models of phase2.compare are trained after phase 2. Until they are done phase 2 is measured
  without them; the tables of its last step, which compare all models, wait for them.
  """
  measured = False
  try:
    if newest_steps.get("phase1") is not None:
      retrieval.run(run)
      measured = True
    if newest_steps["phase2"] is not None and finished(run.config, newest_steps):
      tables.run(run)
      measured = True
    elif newest_steps["phase2"] is not None and newest_steps["phase2"] < run.config.phase2.steps:
      tables.run(_alone(run))
      measured = True
  except errors.UserError as e:
    # Training keeps only its newest checkpoints, and may delete one that is being read. In a job of
    # several processes some may have read it: the job ends, and continues when started again.
    if distributed.here().count > 1 or newest(run) == newest_steps:
      raise
    print(f"eval: overtaken by training ({e}); looking again", file=sys.stderr)
    return False
  return measured


def _last_steps(config) -> dict[str, int]:
  """The phases that this workdir will hold, and the last step of each."""
  trains_phase1 = recipe.has_phase1(config) and not config.phase2.init_from
  own_phase1 = {"phase1": config.phase1.steps} if trains_phase1 else {}
  return own_phase1 | {variant.folder: config.phase2.steps for variant in variants.trained(config)}


def _alone(run: context.Run) -> context.Run:
  """The same run with an empty phase2.compare."""
  _ = run.lm      # loaded once, and shared with the copy
  alone = copy.copy(run)
  alone.config = run.config.copy_and_resolve_references().unlock()
  alone.config.phase2.compare = ()
  return alone
