"""Starts and kills the program like a user, for the campaigns `kills`, `faults` and `long_run`.

A job is one command in its own session. A warm job is forked from this process, which has already
imported the stages' modules: a job killed during its imports would have written nothing. On a quiet
machine a warm start saves 3 s of processor time. A cold job is a new interpreter; a job of several
processes is started by launch/local_pod.py and is always cold.
"""
import contextlib
import importlib
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
import traceback

ROOT = pathlib.Path(__file__).parents[1]
# Fewer optimisations, faster compilation; every program is cached, since jobs start often.
FAST = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "true", "JAX_PLATFORMS": "cpu",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "TF_CPP_MIN_LOG_LEVEL": "3",
        "PYTHONPATH": str(ROOT)}
# A small model like the quickstart's: 276 items, two layers everywhere.
SMALL = ("--config.data.k_core=80", "--config.qformer.init=", "--config.qformer.width=32",
         "--config.qformer.num_heads=4", "--config.qformer.mlp_width=64",
         "--config.qformer.proj_width=32", "--config.lm.tokenizer=smollm2-135m-instruct",
         "--config.phase2.compare=('mlp',)", "--config.tasks.mixture.elm_pitch=1.0",
         "--config.targets.max_items=6", "--config.targets.max_heldout=2",
         "--config.targets.max_tokens=4", "--config.targets.batch_size=4")


def configure(root: pathlib.Path) -> None:
  """Sets the environment of jobs. Call it before jax is imported."""
  os.environ.update(FAST)
  os.environ["XLA_FLAGS"] = (f"{os.environ.get('XLA_FLAGS', '')} "
                             "--xla_cpu_use_fusion_emitters=false")
  os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(root / "compiled"))


def small_model(root: pathlib.Path) -> tuple[str, ...]:
  """Flags of the small model; writes its random language model to root/lm if it is not there."""
  if not (root / "lm").exists():
    subprocess.run([sys.executable, str(ROOT / "tests" / "random_lm.py"), "llama",
                    str(root / "lm")], check=True, env=os.environ)
  return (*SMALL, f"--config.lm.asset={root}/lm")


def load() -> None:
  """Imports the stages' modules, so that warm jobs have them."""
  for name in ("main", "evaluation.report", "stages.run", "stages.phases", "stages.vectors",
               "stages.targets", "stages.export", "stages.evals.retrieval", "stages.evals.tables"):
    importlib.import_module(f"ilm_jax.{name}")


class Job:
  """A started job.

  Args:
    arguments: of ilm_jax.main.
    log: file for its stdout and stderr.
    processes: number of processes.
    cold: start a new interpreter even for a job of one process.
    setup: called in a warm job before it begins, e.g. to change its user.
    environment: added to the environment of this process.
  """

  def __init__(self, arguments, log, *, processes: int = 1, cold: bool = False, setup=None,
               environment=None):
    self.log, self.began = pathlib.Path(log), time.monotonic()
    self._code = None
    if processes == 1 and not cold:
      self.pid = _fork(["ilm_jax.main", *arguments], self.log, setup, environment or {})
      return
    command = [sys.executable, "-m", "ilm_jax.main", *arguments]
    if processes > 1:
      command = [sys.executable, str(ROOT / "launch" / "local_pod.py"), "-n", str(processes),
                 "--grace=2", "--", *command]
    with self.log.open("w") as out:
      child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=ROOT,
                               env={**os.environ, **(environment or {})}, start_new_session=True)
    self.pid, self._child = child.pid, child        # else subprocess reaps the child

  def wait(self, seconds: float | None = None) -> int | None:
    """Its exit code (negative: the signal that ended it), or None after so many seconds."""
    end = None if seconds is None else time.monotonic() + seconds
    while self._code is None:
      pid, status = os.waitpid(self.pid, os.WNOHANG)
      if pid:
        self._code = os.waitstatus_to_exitcode(status)
      elif end is not None and time.monotonic() >= end:
        return None
      else:
        time.sleep(0.02)
    return self._code

  def wait_worked(self, seconds: float) -> int | None:
    """Its exit code, or None after its processes have used so many seconds of processor time."""
    left = seconds
    # A job uses two cores at most: poll rarely at first, and often near the end.
    while (code := self.wait(min(max(left / 4, 0.02), 1.0))) is None:
      if (left := seconds - processor_seconds(self.pid)) <= 0:
        return None
    return code

  def kill(self, target: str = "all", number: int = signal.SIGKILL) -> None:
    """Sends a signal to "main" alone, to "all" of its processes, or to number "0", "1" of a pod."""
    pids = descendants(self.pid)
    if target == "main":
      pids = [self.pid]
    elif target.isdigit():
      pids = children(self.pid)[int(target):int(target) + 1]
    else:
      pids = [self.pid, *pids]
    for pid in pids:
      with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)

  def said(self) -> str:
    return self.log.read_text(errors="replace")


def children(pid: int) -> list[int]:
  """The running child processes of `pid`, in order."""
  with contextlib.suppress(OSError):           # not every kernel has this file
    lists = [path.read_text().split() for path in
             pathlib.Path(f"/proc/{pid}/task").glob("*/children")]
    if lists:
      return sorted(child for one in lists for child in map(int, one) if alive(child))
  found = []
  for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
    with contextlib.suppress(OSError):
      state, parent = stat.read_text().rpartition(")")[2].split()[:2]
      if int(parent) == pid and state != "Z":
        found.append(int(stat.parent.name))
  return sorted(found)


def processor_seconds(pid: int) -> float:
  """Processor seconds of a process and its descendants, ended ones included."""
  ticks = 0
  for one in (pid, *descendants(pid)):
    with contextlib.suppress(OSError):
      fields = pathlib.Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
      ticks += sum(map(int, fields[11:15]))
  return ticks / os.sysconf("SC_CLK_TCK")


def descendants(pid: int) -> list[int]:
  return [p for child in children(pid) for p in (child, *descendants(child))]


def named(pid: int) -> str:
  """Its command line, cut; "": it has ended."""
  try:
    words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
  except OSError:
    return ""
  return b" ".join(words).decode(errors="replace")[:200]


def alive(pid: int) -> bool:
  """Whether a process runs (a zombie does not)."""
  try:
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
  except OSError:
    return False


def lingering(pids, seconds: float = 20.0) -> list[int]:
  """The processes of `pids` that still run after so many seconds."""
  end = time.monotonic() + seconds
  while (left := [pid for pid in pids if alive(pid)]) and time.monotonic() < end:
    time.sleep(0.05)
  return left


def call(function, *arguments):
  """Runs `function` in a forked process, since jax must not start here; returns or raises."""
  import pickle
  reader, writer = os.pipe()
  pid = os.fork()
  if not pid:
    os.close(reader)
    try:
      result = (True, function(*arguments))
    except BaseException as e:      # passed to the parent
      traceback.print_exc()
      result = (False, repr(e))
    with os.fdopen(writer, "wb") as out:
      pickle.dump(result, out)
    os._exit(0)
  os.close(writer)
  with os.fdopen(reader, "rb") as source:
    data = source.read()
  os.waitpid(pid, 0)
  worked, value = pickle.loads(data)
  if not worked:
    raise RuntimeError(value)
  return value


def _fork(argv: list[str], log: pathlib.Path, setup, environment: dict[str, str]) -> int:
  pid = os.fork()
  if pid:
    return pid
  code = 70
  try:
    os.setsid()
    os.environ.update(environment)
    os.chdir(ROOT)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    for stream in (1, 2):
      os.dup2(out, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if setup:
      setup()
    from ilm_jax import main
    sys.argv = argv
    code = main.main(argv)
    threading._shutdown()
  except SystemExit as e:
    code = e.code if isinstance(e.code, int) else 1
  except BaseException:             # like the interpreter
    traceback.print_exc()
    code = 1
  finally:
    for stream in (sys.stdout, sys.stderr):
      with contextlib.suppress(Exception):
        stream.flush()
    os._exit(code)
