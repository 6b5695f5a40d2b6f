"""The stages: one job each, wired from the floors below. Nothing here decides, it connects.

A stage is a function of a `context.Run`. It finds its inputs in the workdir, refuses those whose
fingerprints do not fit, and leaves its outputs there; run again, it finds them or resumes.
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
  `accept_changes`: a phase goes on from a checkpoint that other settings made, and keeps both.
  `tables`, `command`: of stage report, see `context.Run`.

  Raises:
    UserError: the config cannot run, an input is missing or does not fit, or another job writes
      here what these stages write.
    loop.Preempted: SIGTERM came while preparing, or while training; the state is saved.
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
    workdir: the same as its.
    names: "eval", and "report" to write it after each evaluation.
    seconds: how long to wait before looking again.
    tables, command: of stage report, see `context.Run`.

  Raises:
    UserError: another stage was named, or what is found does not fit the config.
  """
  if "eval" not in names or set(names) - set(stage_list.WATCH):
    raise errors.UserError(f"--watch evaluates what another job trains: with it, --stage is eval "
                           f"or eval,report, found {','.join(names)}")
  from ilm_jax.stages import watching
  run = context.Run(config, workdir, tables=tables, command=command)
  watching.run(run, seconds, with_report="report" in names)


def answer(name: str, config, workdir, wish: dict) -> None:
  """Runs stage `describe`, `recommend`, `chat` or `export`: what somebody wants of a trained model.

  Args:
    name: of the stage.
    config: of the run.
    workdir: after stage phase2.
    wish: keyword arguments of the stage's `Wish`.

  Raises:
    UserError: the wish cannot be met, or an input is missing or does not fit the config.
  """
  stage = importlib.import_module(f"ilm_jax.stages.{name}")
  stage.run(context.Run(config, workdir), stage.Wish(**wish))


def plan_step(config, workdir, **wish) -> dict:
  """Says what the step of `config` would cost on chips that are not there; plan.json.

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
  """In a process of its own: TensorFlow's memory goes with it and training never imports it."""
  _in_child("run", run)


def _targets(run: context.Run) -> None:
  """What to ask is worked out by the tasks, in their process; the asking is done here, by all."""
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
  # TensorFlow only prepares data here: its messages about CUDA would mislead. 0 is a user's wish to
  # have them; 1 is what jax sets where nothing is.
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
  """Raises a UserError if an example fits into no row of phase 2: known before phase 1."""
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
  if recipe.has_phase1(run.config):
    retrieval.run(run)
  tables.run(run)


def _report(run: context.Run) -> None:
  from ilm_jax.evaluation import report
  report.write(run.workdir, with_tables=run.tables, command=run.command)


def _audit(run: context.Run) -> None:
  from ilm_jax.stages import auditing
  auditing.run(run)


# Evaluation beside training is two jobs that write apart. What only reads and prints needs no lock,
# nor `watch`, which replaces whole files by the same.
_LOCKS = {**dict.fromkeys(("targets", "prepare", "cf", "phase1", "phase2"), "train"),
          "eval": "eval"}
_STAGES = {"targets": _targets, "prepare": _prepare, "cf": _cf, "phase1": _phase1,
           "phase2": _phase2, "eval": _eval, "report": _report, "audit": _audit}
