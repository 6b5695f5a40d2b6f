"""The command line: one config in one workdir, one stage or all of them.

    ilm run --config=quickstart --workdir=runs/quickstart
    python -m ilm_jax.main --config=configs/quickstart.py --workdir=runs/quickstart --stage=all
    ilm eval --config=quickstart --workdir=runs/quickstart
    python -m ilm_jax.main --config=... --workdir=gs://... --stage=eval,report --watch=60
    python -m ilm_jax.main --config=... --workdir=gs://... --stage=phase1,phase2 --distributed=auto
    python -m ilm_jax.main --config=configs/plan_llama2_7b.py --workdir=runs/plan --stage=plan \\
        --topology=v5p:4x4x4
    python -m ilm_jax.main --config=... --workdir=... --stage=describe --items='Heat (1995)' \\
        --towards='Toy Story (1995)' --steps=5
    python -m ilm_jax.main --config=... --workdir=... --stage=recommend --liked='Heat (1995)'

`ilm` is the script of an installed package; the first two lines are the same. The fourth evaluates
each checkpoint of a job that trains in the same workdir. The fifth is one process of a TPU pod
(`launch/`); process 0 prepares and reports alone. The sixth compiles the step for chips that you do
not have and prints what it would cost. The next prints the model's texts for vectors on the way
from one item to another, the last the recommendations for somebody who liked that film. Stage
report prints a closing summary; with --tables, all tables too. --help lists all stages and flags.

Every field of the config can be overridden (`--config.phase2.steps=10`), also by gin
(`--gin_file`, `--gin_search_paths`, `--gin_bindings="config.phase2.steps = 10"`). Every stage is
idempotent: a second run finds the results of the first or resumes it.

Exit codes: 0 done; 1 a mistake that the user can correct (one message, no stack trace); 130 stopped
by Ctrl-C and 143 by SIGTERM, in training after saving; 141 the reader of the output has gone, as
with `| head`; anything else is a bug. A second Ctrl-C ends at once, without saving.
"""
import gc
import os
import pathlib
import shlex
import shutil
import sys

from absl import flags, logging
from ml_collections import config_flags

from ilm_jax import errors, files
from ilm_jax.assets import pinned
from ilm_jax.config import gin_overlay, usage
from ilm_jax.config import reading as config_lib
from ilm_jax.config import stages as stage_list
from ilm_jax.config import workdir as workdir_lib
from ilm_jax.runtime import distributed, gpu

_CONFIG = config_flags.DEFINE_config_file("config", None, "A config's name, e.g. quickstart, or "
                                          "file, e.g. configs/quickstart.py.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; may be gs://.")
_GIN_FILE = flags.DEFINE_multi_string(
    "gin_file", [], "Gin file laid over the config; may be repeated; later files win.")
_GIN_SEARCH_PATHS = flags.DEFINE_list(
    "gin_search_paths", [], "Folders to search for gin files, separated by commas.")
_GIN_BINDINGS = flags.DEFINE_multi_string(
    "gin_bindings", [], "A binding laid over those of the gin files; may be repeated.")
_WATCH = flags.DEFINE_float(
    "watch", None, "With --stage=eval: look for new checkpoints of another job every so many "
    "seconds, and end after the last checkpoint.", lower_bound=0.0)
_DISTRIBUTED = flags.DEFINE_enum(
    "distributed", "", ["", "auto"], "auto: one process of a TPU pod; the pod names the others.")
_COORDINATOR = flags.DEFINE_string(
    "coordinator", "", "One of several processes: host:port of process 0 (or $ILM_COORDINATOR).")
_NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "The number of processes (or $ILM_NUM_PROCESSES).")
_PROCESS_ID = flags.DEFINE_integer(
    "process_id", None, "The number of this process, from 0 (or $ILM_PROCESS_ID).")
_ACCEPT_CHANGES = flags.DEFINE_bool(
    "accept_changed_settings", False, "Continue from checkpoints that other settings made, e.g. "
    "for a longer run or a lower learning rate; new checkpoints record both settings.")
_COMPARE = flags.DEFINE_list(
    "compare", [], "With --stage=report: workdirs of other runs, compared with this one.")
_TABLES = flags.DEFINE_bool(
    "tables", False, "With --stage=report: print all tables, not only the closing summary.")
_ITEMS = flags.DEFINE_multi_string(
    "items", [], "With --stage=describe: 'Title (year)', item:ID or user:ID to start from; "
    "repeat the flag to start from their mean. With --stage=recommend: all, to write the "
    "neighbours of all items to --out.")
_TOWARDS = flags.DEFINE_multi_string(
    "towards", [], "With --stage=describe: items or users to end at, written like --items.")
_CONCEPT = flags.DEFINE_multi_string(
    "concept", [], "With --stage=describe: items with something in common; the way goes towards "
    "them and away from all other items.")
_STEPS = flags.DEFINE_integer("steps", 5, "With --stage=describe: number of texts on the way, both "
                              "ends included.", lower_bound=1)
_PROMPT = flags.DEFINE_string(
    "prompt", "", "With --stage=describe: the question, a text with one <slot>.")
_USER = flags.DEFINE_string(
    "user", "", "With --stage=recommend: user:ID, to print a list for the user's whole history.")
_LIKED = flags.DEFINE_multi_string(
    "liked", [], "With --stage=recommend: 'Title (year)' or item:ID that somebody new liked; "
    "repeat the flag, oldest first.")
_USERS = flags.DEFINE_string(
    "users", "", "With --stage=recommend: all, to write the lists of all users to --out, or a file "
    "with one user's id a line, to write theirs. With --stage=export: all, to export them, too.")
_K = flags.DEFINE_integer(
    "k", 10, "With --stage=recommend, chat or serve: items in a list; chat and serve default to 5.")
_QUESTIONS = flags.DEFINE_integer(
    "questions", 0, "With --stage=chat: number of questions before the first list; in a "
    "simulation they find no more targets than critiques alone.")
_OUT = flags.DEFINE_string(
    "out", "", "With --stage=recommend and --users=all or --items=all: a .csv or .parquet file. "
    "With --stage=export: a folder, by default export/ in the workdir.")
_MODEL = flags.DEFINE_string(
    "model", "ilm", "With --stage=describe, recommend, chat, serve or export: which model, ilm or "
    "one of phase2.compare, e.g. mlp.")
_HOST = flags.DEFINE_string(
    "host", "127.0.0.1", "With --stage=serve: the address to listen on; 0.0.0.0: all addresses of "
    "this machine.")
_PORT = flags.DEFINE_integer("port", 8000, "With --stage=serve: the port; 0: any free port.",
                             lower_bound=0, upper_bound=65535)
_TOKEN = flags.DEFINE_string(
    "token", "", "With --stage=serve: the secret that requests must send ($ILM_TOKEN keeps it out "
    "of the list of processes).")
_TOPOLOGY = flags.DEFINE_string(
    "topology", "", "With --stage=plan: chips to plan for, e.g. v5p:4x4x4, v5e:4x4, two slices as "
    "v5p:4x4x4*2, h100:8 (by arithmetic).")
_SEARCH = flags.DEFINE_bool(
    "search", False, "With --stage=plan: also look for a better mesh, batch and remat.")
_TASKS_MODULE = flags.DEFINE_string(
    "tasks_module", "", "A module of your own tasks (docs/register_a_task.md).")
_BEAM_RUNNER = flags.DEFINE_string(
    "beam_runner", "", "With --stage=prepare: the Apache Beam runner to use, e.g. "
    "DirectRunner, DataflowRunner, FlinkRunner, SparkRunner (docs/prepare_at_scale.md).")
_BEAM_OPTIONS = flags.DEFINE_list(
    "beam_options", [], "Options of the Beam pipeline, separated by commas, e.g. "
    "--beam_options=--project=mine,--region=us-east5.")
_STAGE = flags.DEFINE_string(
    "stage", "all", f"all, or some of {', '.join(stage_list.BY_NAME)}.")
_ONLY_WITH = {
    "prepare": (_BEAM_RUNNER, _BEAM_OPTIONS), "report": (_COMPARE, _TABLES),
    "describe": (_ITEMS, _TOWARDS, _CONCEPT, _STEPS, _PROMPT, _MODEL),
    "recommend": (_USER, _LIKED, _USERS, _ITEMS, _K, _OUT, _MODEL),
    "chat": (_K, _MODEL, _QUESTIONS),
    "serve": (_HOST, _PORT, _TOKEN, _K, _MODEL), "export": (_USERS, _OUT, _MODEL),
    "plan": (_TOPOLOGY, _SEARCH)}
_COMMON = (_CONFIG, _WORKDIR, _STAGE, _TASKS_MODULE, _GIN_FILE, _GIN_SEARCH_PATHS, _GIN_BINDINGS,
           _ACCEPT_CHANGES, _WATCH, _DISTRIBUTED, _COORDINATOR, _NUM_PROCESSES, _PROCESS_ID)
# Flags to drop from the typed command when it is shown for another stage of the run.
_OF_STAGES = ("stage", "watch", *(flag.name for its in _ONLY_WITH.values() for flag in its))
# Stages that query a trained model; they run last.
_ANSWERS = ("describe", "recommend", "chat", "export", "serve")
_SWITCHES = ("tables", "search")     # no value follows


def script() -> int:
  """The program `ilm`: `python -m ilm_jax.main`, which finds modules in the current folder, too."""
  if not sys.flags.safe_path:
    sys.path.insert(0, os.getcwd())
  return main()


def main(argv: list[str] | None = None) -> int:
  """Parses the flags, runs the stages, and returns the exit code."""
  logging.set_verbosity(logging.WARNING)
  return errors.exit_code(lambda: _one_line_if_unwritable(argv or sys.argv))


def _one_line_if_unwritable(argv: list[str]) -> int:
  """Runs `_started`; a full disk or a workdir that cannot be written becomes a UserError."""
  try:
    return _started(argv)
  except BrokenPipeError:
    raise
  except Exception as e:
    mistake = None if isinstance(e, errors.UserError) else _write_error(e)
    if mistake is None:
      raise
    raise mistake from e


def _started(argv: list[str]) -> int:
  flags_of = {stage: [flags.FLAGS[flag.name] for flag in its] for stage, its in _ONLY_WITH.items()}
  if text := usage.answer(argv, flags_of, [flags.FLAGS[flag.name] for flag in _COMMON]):
    print(text)
    return 0
  argv = usage.with_command(argv)
  config = config_lib.at_home(_with_gin(config_lib.from_flags(flags.FLAGS, argv, _CONFIG)))
  names = stage_list.parse(_STAGE.value)
  stages_of = {}
  for stage, its_flags in _ONLY_WITH.items():
    for flag in its_flags:
      if flag.present:
        stages_of.setdefault(flag.name, []).append(stage)
  for name, wanted in stages_of.items():
    if not set(wanted) & set(names):
      raise errors.UserError(f"--{name} is for --stage={' or '.join(wanted)}: add it")
  workdir = workdir_lib.resolve(_WORKDIR.value)
  workdir_lib.check(workdir, names, waits=_WATCH.value is not None)
  return _run(config_lib.with_tasks(config, _TASKS_MODULE.value), workdir, names,
              command(argv[1:], pathlib.Path(argv[0]).name))


def _write_error(error: Exception) -> errors.UserError | None:
  return files.write_error(error, _WORKDIR.value) if _WORKDIR.value else None


def _with_gin(config):
  """The config with the gin flags applied; --config.* flags of the command line override them."""
  if _GIN_FILE.value or _GIN_BINDINGS.value:
    overrides = config_flags.get_override_values(flags.FLAGS["config"])
    gin_overlay.overlay(config, _GIN_FILE.value, _GIN_BINDINGS.value, _GIN_SEARCH_PATHS.value,
                       last=overrides)
  return config


def command(arguments: list[str], program: str = "") -> str:
  """The typed command without --stage and the flags of single stages, to show for another stage.

  If the user typed a launch script, $ILM_TYPED holds that command; the script itself sets --config
  and --workdir.

  Args:
    arguments: the words after the program, e.g. ["--config=c.py", "--stage", "all"].
    program: "ilm" if the user typed that script.
  """
  script = shlex.split(os.environ.get("ILM_TYPED", ""))
  dropped = (*_OF_STAGES, *(("config", "workdir") if script else ()))
  kept, skip = [], False
  for argument in arguments:
    name, equals, _ = argument.lstrip("-").partition("=")
    if skip:
      skip = False
    elif argument.startswith("-") and name in dropped:
      skip = not equals and name not in _SWITCHES
    else:
      kept.append(argument)
  python = "python" if shutil.which("python") == sys.executable else sys.executable
  started = ["ilm"] if program == "ilm" else [python, "-m", "ilm_jax.main"]
  return shlex.join([*(script or started), *kept])


def _run(config, workdir: str, names: tuple[str, ...], typed: str) -> int:
  # ILM-rand, resumed runs and later runs reuse compiled programs. jax reads this as it starts.
  os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", _compiled_programs(workdir))
  gpu.prepare(os.environ)
  # Imports and tracing make many objects that stay. By default Python's garbage collector examines
  # the young ones after every 700 new ones, which took a fifth of the time of tracing.
  gc.set_threshold(10_000)
  from ilm_jax.stages import run as stages  # jax starts here, after the checks of the flags
  gc.freeze()
  # Before any device is used: the job's devices include those of the other processes.
  distributed.start(_DISTRIBUTED.value, _COORDINATOR.value, _NUM_PROCESSES.value,
                    _PROCESS_ID.value)
  stage_list.check_processes(names, distributed.here().count)
  if (_GIN_FILE.value or _GIN_BINDINGS.value) and distributed.is_main():
    print(gin_overlay.to_gin(config))
  if _WATCH.value is not None:
    stages.watch(config, workdir, names, _WATCH.value, _TABLES.value, typed)
    return 0
  if "plan" in names:      # first: other stages need the devices of the mesh
    stages.plan_step(config, workdir, topology=_TOPOLOGY.value, search=_SEARCH.value)
  if others := tuple(n for n in names if n not in (*_ANSWERS, "plan")):
    stages.run(config, workdir, others, _beam(), _ACCEPT_CHANGES.value, _TABLES.value, typed)
  for name in (name for name in _ANSWERS if name in names):
    if name == "serve":
      _serve(config, workdir)
    else:
      stages.answer(name, config, workdir, _wish(name))
  if _COMPARE.value:
    from ilm_jax.evaluation import compare
    compare.write([workdir, *map(os.path.expanduser, _COMPARE.value)])
  return 0


def _serve(config, workdir: str) -> None:
  try:
    from ilm_jax.serving import server
  except ModuleNotFoundError as e:
    raise errors.UserError(f"--stage=serve needs {e.name}: pip install 'ilm-jax[serve]'") from None
  from ilm_jax.stages import context
  server.run(context.Run(config, workdir), server.Wish(**_wish("serve")))


def _compiled_programs(workdir: str) -> str:
  """The folder of compiled programs: in a remote workdir, since process 0 of a pod alone writes
  them and all processes read them; else in the user's cache."""
  if "://" in workdir:
    return f"{workdir.rstrip('/')}/compiled"
  return str(pinned.cache_folder() / "compiled")


def _wish(stage: str) -> dict:
  if stage in ("chat", "serve"):
    wish = {"model": _MODEL.value} | ({"k": _K.value} if _K.present else {})
    return wish | {"questions": _QUESTIONS.value} if stage == "chat" else {
        **wish, "host": _HOST.value, "port": _PORT.value, "token": _TOKEN.value}
  if stage == "export":
    return {"users": _USERS.value, "out": os.path.expanduser(_OUT.value), "model": _MODEL.value}
  if stage == "recommend":
    return {"user": _USER.value, "liked": tuple(_LIKED.value),
            "users": os.path.expanduser(_USERS.value),
            "items": ",".join(_ITEMS.value), "k": _K.value,
            "out": os.path.expanduser(_OUT.value), "model": _MODEL.value}
  return {"items": tuple(_ITEMS.value), "towards": tuple(_TOWARDS.value),
          "concept": tuple(_CONCEPT.value), "steps": _STEPS.value, "prompt": _PROMPT.value,
          "model": _MODEL.value}


def _beam() -> tuple[str, ...]:
  """Options of an Apache Beam pipeline; () without --beam_runner."""
  options = tuple(o if o.startswith("-") else f"--{o}" for o in _BEAM_OPTIONS.value)
  if options and not _BEAM_RUNNER.value:
    raise errors.UserError("--beam_options is set without --beam_runner: name the runner, e.g. "
                           "--beam_runner=DirectRunner")
  return (f"--runner={_BEAM_RUNNER.value}", *options) if _BEAM_RUNNER.value else ()


if __name__ == "__main__":
  sys.exit(main())
