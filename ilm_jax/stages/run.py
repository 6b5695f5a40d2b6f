"""Runs the stages: one job each, which connects the other packages.

A stage is a function of a `context.Run`. It reads its inputs from the workdir, refuses inputs whose
fingerprints do not fit, and writes its outputs there. Run again, it keeps or resumes them.
"""
import gc
import importlib
import os

from ilm_jax import elm, errors
from ilm_jax.config import reading as config_lib
from ilm_jax.config import stages as stage_list
from ilm_jax.config import variants
from ilm_jax.runtime import distributed, locks
from ilm_jax.stages import context


def run(config, workdir, names: tuple[str, ...], beam: tuple[str, ...] = (),
        accept_changes: bool = False, tables: bool = False, command: str = "") -> None:
  """Runs the stages `names` of `config` in `workdir`, in the order given.

  In a job of several processes all of them factorise, train, evaluate and write targets, and
  process 0 does the rest while they wait. `beam`: options of the Apache Beam pipeline that
  prepares, e.g. ("--runner=DirectRunner",); (): stage prepare does it itself, with the same result.
  `accept_changes`: a phase may continue from a checkpoint with other settings, and records both.
  `tables`, `command`: for stage report, see `context.Run`.

  Raises:
    UserError: the config cannot run, an input is missing or does not fit, or another job writes the
      same outputs in `workdir`.
    errors.Preempted: SIGTERM or SIGINT came while preparing or training; training has saved its
      state.
  """
  run = context.Run(config, workdir, beam=beam, accept_changes=accept_changes, tables=tables,
                    command=command)
  if "phase2" in names:
    run.check_groups()
  written = {_LOCKS[name] for name in names if name in _LOCKS and distributed.is_main()}
  with locks.held(run.workdir, written):
    for name in names:
      stage = stage_list.BY_NAME[name]
      if name == "phase1" and "phase2" in names:
        _check_rows(run)
      if distributed.is_main() or stage.together:
        _STAGES[name](run)
      if distributed.is_main() and stage.reads:
        run.record(name, stage.reads)
      distributed.wait(name)


def watch(config, workdir, names: tuple[str, ...], seconds: float, tables: bool = False,
          command: str = "") -> None:
  """Evaluates each checkpoint that another job saves in `workdir`, until the last of all phases.

  Args:
    config: of the job that trains.
    workdir: of that job.
    names: "eval", and "report" to write it after each evaluation.
    seconds: how long to wait before looking again.
    tables, command: for stage report, see `context.Run`.

  Raises:
    UserError: `names` has another stage, or the files in `workdir` do not fit the config.
  """
  if "eval" not in names or set(names) - set(stage_list.WATCH):
    raise errors.UserError(f"--watch evaluates what another job trains: with it, --stage is eval "
                           f"or eval,report, found {','.join(names)}")
  from ilm_jax.stages import watching
  run = context.Run(config, workdir, tables=tables, command=command)
  watching.run(run, seconds, with_report="report" in names)


def answer(name: str, config, workdir, wish: dict) -> None:
  """Runs stage `describe`, `recommend`, `chat` or `export`, which use a trained model.

  Args:
    name: of the stage.
    config: of the run.
    workdir: after stage phase2.
    wish: keyword arguments of the stage's `Wish`.

  Raises:
    UserError: the wish is not possible, or an input is missing or does not fit the config.
  """
  stage = importlib.import_module(f"ilm_jax.stages.{name}")
  stage.run(context.Run(config, workdir), stage.Wish(**wish))


def plan_step(config, workdir, **wish) -> dict:
  """Estimates the cost of `config`'s step on chips that you do not have; writes plan.json.

  Args:
    config: of the run.
    workdir: where plan.json goes.
    **wish: keyword arguments of `stages.plan.Wish`.

  Raises:
    UserError: see `stages.plan.run`.
  """
  from ilm_jax.stages import plan as stage
  return stage.run(config, workdir, stage.Wish(**wish))


def _prepare(run: context.Run) -> None:
  """In a child process: its end frees TensorFlow's memory, and training never imports it."""
  _in_child("run", run)


def _targets(run: context.Run) -> None:
  """The tasks write the requests, in a child process; all processes of the job answer them here."""
  if run.config.dialogs.count:
    if distributed.is_main():
      _in_child("make_data", run)
    distributed.wait("data")
    from ilm_jax.stages import dialogs
    dialogs.run(run)
  if not elm.written(run.config):
    return
  if distributed.is_main():
    _in_child("requests", run)
  distributed.wait("requests")
  from ilm_jax.stages import targets
  targets.run(run)


def _in_child(function: str, run: context.Run) -> None:
  from ilm_jax.stages import child
  child.run("prepare", _prepare_here, function, config_lib.to_json(run.config),
            str(run.workdir), run.beam)


def _prepare_here(function: str, config_json: str, workdir: str, beam: tuple[str, ...]) -> None:
  # TensorFlow only prepares data here: its messages about CUDA would mislead. A user who wants them
  # sets 0; jax sets 1 if nothing is set.
  from ilm_jax.stages import child, prepare
  gc.set_threshold(10_000)      # as in main
  if os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "0":
    prepare.load_tasks()
  else:
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    prepare.load_tasks(child.import_quietly)
  run = context.Run(config_lib.from_json(config_json), workdir, devices=False, beam=beam)
  getattr(prepare, function)(run)


def _cf(run: context.Run) -> None:
  from ilm_jax.stages import vectors
  vectors.run(run)


def _check_rows(run: context.Run) -> None:
  """Raises a UserError, already before phase 1, if an example fits into no row of phase 2."""
  from ilm_jax.stages import phases
  phases.phase2_batches(run)


def _phase1(run: context.Run) -> None:
  from ilm_jax.stages import phases
  phases.phase1(run)


def _phase2(run: context.Run) -> None:
  from ilm_jax.stages import phases
  for variant in variants.trained(run.config):
    phases.phase2(run, variant)


def _eval(run: context.Run) -> None:
  from ilm_jax.stages import recipe
  from ilm_jax.stages.evals import made_from, retrieval, tables
  from ilm_jax.training import checkpoint
  if checkpoint.newest(run.workdir / variants.ILM.folder / "checkpoints") is not None:
    made_from.of_phase2(run)       # refuses before the tables of phase 1 are written
  mine = run.workdir / "phase1" / "checkpoints"
  if recipe.has_phase1(run.config) and (
      not run.config.phase2.init_from or checkpoint.newest(mine) is not None):
    retrieval.run(run)
  tables.run(run)


def _report(run: context.Run) -> None:
  from ilm_jax.evaluation import report
  report.write(run.workdir, with_tables=run.tables, command=run.command)


def _audit(run: context.Run) -> None:
  from ilm_jax.stages import auditing
  auditing.run(run)


# Training and evaluation are two jobs with separate outputs. Stages that only read and print need
# no lock.
_LOCKS = {**dict.fromkeys(("targets", "prepare", "cf", "phase1", "phase2"), "train"),
          "eval": "eval"}
_STAGES = {"targets": _targets, "prepare": _prepare, "cf": _cf, "phase1": _phase1,
           "phase2": _phase2, "eval": _eval, "report": _report, "audit": _audit}
