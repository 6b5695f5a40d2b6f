"""The cases of benchmarks.faults: each breaks something, looks, mends it and runs again."""
import contextlib
import ctypes
import json
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import time

from benchmarks import jobs, workdirs

# What each stage leaves, in the order of the stages.
OUTPUTS = {
    "targets": ("targets", "data", "tfds"), "prepare": ("prepared", "data", "tfds"),
    "cf": ("entities", "factors.npz"), "phase1": ("phase1",), "phase2": ("phase2", "phase2_mlp"),
    "eval": ("eval",), "report": ("report.html", "report.json"), "export": ("export",)}
# Long enough to be stopped on the way. A loss is looked at when it is logged.
LONG = ("--config.phase1.steps=5000", "--config.phase1.checkpoint_every=1000",
        "--config.phase1.log_every=10")
NAMED_WITHIN = 75.0          # seconds until a hang is named: heartbeat.DEAD_AFTER and a beat
_LIMIT = 1800.0


class Bench:
  """A finished workdir, and copies of it to break.

  Args:
    root: folder for the copies.
    finished: workdir after all stages.
    flags: of the program, config and model.
    args: of the command line.
  """

  def __init__(self, root, finished, flags, args):
    self.root, self.finished, self.flags, self.args = root, finished, flags, args
    self._expected = None

  @property
  def expected(self) -> dict[str, str]:
    self._expected = self._expected or jobs.call(workdirs.content, self.finished)
    return self._expected

  def copy(self, stage: str, target: pathlib.Path | None = None) -> pathlib.Path:
    """A copy of the finished workdir without what `stage` leaves."""
    target = target or self.root / "run"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(self.finished, target, symlinks=True)
    for name in OUTPUTS.get(stage, ()):
      path = target / name
      shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return target

  def job(self, stage: str, workdir, *flags, **kwargs) -> jobs.Job:
    return jobs.Job((*self.flags, f"--workdir={workdir}", f"--stage={stage}", *flags),
                    self.root / "job.log", **kwargs)

  def in_one_line(self, job: jobs.Job, says: str = "") -> str:
    """"" if the job ends with exit code 1 and one line with `says`; else what it did."""
    code, said = job.wait(_LIMIT), job.said()
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    if code != 1 or len(lines) != 1 or "Traceback" in said or not re.search(says, lines[0]):
      return f"exit code {code}, expected 1 and one line with {says!r}: {said[-300:]!r}"
    return ""

  def goes_on(self, stage: str, workdir, *, same: bool = True) -> str:
    """"" if the same command now ends with 0 and the right bits; else what it did."""
    job = self.job(stage, workdir)
    if (code := job.wait(_LIMIT)) != 0:
      return f"run again: exit code {code}: {job.said()[-300:]!r}"
    if not same:
      return ""
    names = workdirs.differences(self.expected, jobs.call(workdirs.content, workdir))
    left = workdirs.temporaries(workdir)
    return f"run again: {names} differ, {left} are left" if names or left else ""


def row(case: str, tried: int, wrong: list[str], how: str = "") -> dict:
  wrong = [text for text in wrong if text]
  return {"case": case, "tried": tried, "right": tried - len(wrong), "how": how, "wrong": wrong}


def flips(bench: Bench):
  from benchmarks import flips as flips_lib
  workdir = bench.copy("")
  for of in jobs.call(flips_lib.run, workdir, bench.args.flips, bench.args.seed):
    yield row(f"bit of {of['kind']}", of["flips"], of["unnoticed"],
              f"{of['named']} named, {of['same']} say the same")
  yield row("files without a digest", 0, [], ", ".join(
      f"{count} {kind}" for kind, count in flips_lib.not_read(workdir).items()))


def checkpoints(bench: Bench):
  """A folder that was copied in part: files are missing, or cut."""
  rng, wrong, tried = random.Random(bench.args.seed), [], 12
  for number in range(tried):
    workdir = bench.copy("")
    newest = max((workdir / "phase1" / "checkpoints").glob("[0-9]*"), key=lambda p: int(p.name))
    files = sorted(p for p in newest.rglob("*") if p.is_file() and p.stat().st_size)
    for path in rng.sample(files, rng.randint(1, len(files))):
      if number % 2:
        path.unlink()
      else:
        path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])
    wrong.append(jobs.call(_half_copied, newest.parent, int(newest.name),
                           bench.expected[str(newest.relative_to(workdir))]))
  yield row("checkpoint copied in part", tried, wrong,
            "named, not taken for a checkpoint, or all arrays are there")


def _half_copied(folder, step: int, whole: str) -> str:
  from ilm_jax import errors
  from ilm_jax.training import checkpoint
  if step not in checkpoint.steps(folder):
    return ""
  try:
    checkpoint.verify(folder, step)
  except errors.UserError as e:
    return "" if str(folder) in str(e) and "delete" in str(e) else f"no name or cure: {e}"
  except Exception as e:
    return f"{type(e).__name__}: {e}"[:300]
  # What was lost may be a file that only Orbax's own tools read.
  same = workdirs.of_checkpoint(folder / str(step)) == whole
  return "" if same else "used unnoticed"


@contextlib.contextmanager
def _tmpfs(folder: pathlib.Path, size: int):
  folder.mkdir(exist_ok=True)
  subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
  try:
    yield folder
  finally:
    subprocess.run(["umount", "-l", folder], check=True)


def _remount(folder, options: str) -> None:
  subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)


def _mountable(bench: Bench) -> bool:
  try:
    with _tmpfs(bench.root / "small", 1 << 20):
      return True
  except (OSError, subprocess.CalledProcessError):
    return False


def full_disk(bench: Bench):
  """The disk has room for the first files of a stage and half of the next."""
  mountable = _mountable(bench)
  how = "tmpfs of falling size" if mountable else "RLIMIT_FSIZE, no tmpfs could be mounted"
  for stage in bench.args.stages:
    sizes = _sizes(bench, stage)
    wrong = [(_full if mountable else _limited)(bench, stage, size) for size in sizes]
    yield row(f"disk full in {stage}", len(sizes), wrong, how)


def _sizes(bench: Bench, stage: str) -> list[int]:
  """Bytes up to the middle of a file that the stage writes, for so many files, evenly drawn."""
  files = [p for name in OUTPUTS[stage] for p in (
      [bench.finished / name] if (bench.finished / name).is_file()
      else (bench.finished / name).rglob("*")) if p.is_file()]
  ends, total = [], 0
  for path in sorted(files, key=lambda p: p.stat().st_mtime_ns):
    size = -(-path.stat().st_size // 4096) * 4096       # a tmpfs gives whole pages
    ends.append(total + size // 2)
    total += size
  step = max(1, len(ends) // bench.args.sizes)
  return ends[step // 2::step][:bench.args.sizes]


def _full(bench: Bench, stage: str, size: int) -> str:
  with _tmpfs(bench.root / "small", 4 << 30) as disk:
    workdir = bench.copy(stage, disk / "run")
    used = shutil.disk_usage(disk).used
    _remount(disk, f"size={-(-(used + size) // 4096) * 4096}")
    wrong = bench.in_one_line(bench.job(stage, workdir), "free some space|another --workdir")
    _remount(disk, f"size={4 << 30}")
    return wrong or bench.goes_on(stage, workdir)


def _limited(bench: Bench, stage: str, size: int) -> str:
  workdir = bench.copy(stage)

  def limit():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (max(size, 1), max(size, 1)))
  job = bench.job(stage, workdir, setup=limit)
  if job.wait(_LIMIT) == 0:        # no file was that large
    return ""
  return bench.in_one_line(job, "free some space|another --workdir") or bench.goes_on(
      stage, workdir)


def read_only(bench: Bench):
  if not _mountable(bench):
    yield row("read-only workdir", 0, [], "not tried: no tmpfs could be mounted")
    return
  wrong = []
  for stage in bench.args.stages:
    with _tmpfs(bench.root / "small", 4 << 30) as disk:
      workdir = bench.copy(stage, disk / "run")
      _remount(disk, "ro")
      wrong.append(bench.in_one_line(bench.job(stage, workdir), "--workdir"))
      _remount(disk, "rw")
      wrong[-1] = wrong[-1] or bench.goes_on(stage, workdir)
  yield row("read-only workdir", len(wrong), wrong, f"tmpfs, {','.join(bench.args.stages)}")


def permission(bench: Bench):
  """The folders of a phase lose their mode while it trains."""
  workdir = bench.copy("phase1")
  job = bench.job("phase1", workdir, *LONG, setup=_obey_modes)
  _when((workdir / "heartbeat.phase1.json"), job, newer=True)
  folders = [workdir, *(p for p in workdir.rglob("*") if p.is_dir())]
  for folder in folders:
    folder.chmod(0o555)
  wrong = bench.in_one_line(job, "cannot be made or written.*--workdir")
  for folder in folders:
    if folder.exists():
      folder.chmod(0o755)
  shutil.rmtree(workdir / "phase1", ignore_errors=True)
  yield row("permission lost midway", 1, [wrong or bench.goes_on("phase1", workdir)],
            "modes 0555 while phase1 trains")


def _obey_modes() -> None:
  """Has root's jobs obey the modes of files: without CAP_DAC_OVERRIDE, _READ_SEARCH and FOWNER."""
  if os.geteuid():
    return
  libc = ctypes.CDLL(None, use_errno=True)
  header, data = struct.pack("Ii", 0x20080522, 0), ctypes.create_string_buffer(24)
  libc.capget(header, data)
  words = list(struct.unpack("6I", data.raw))
  words[0] &= ~0b1110
  words[1] &= ~0b1110
  if libc.capset(header, struct.pack("6I", *words)):
    raise OSError(ctypes.get_errno(), "capset")


def clock(bench: Bench):
  """An hour earlier, two seconds after the job began."""
  def back():
    real, begin = time.time, time.time()
    time.time = lambda: real() - 3600 * (real() - begin > 2)
  workdir = bench.copy("phase1")
  job = bench.job("phase1", workdir, setup=back)
  wrong = f"exit code {code}" if (code := job.wait(_LIMIT)) else ""
  beat = json.loads((workdir / "heartbeat.phase1.json").read_text())
  if not 0 <= (beat["goodput"] or 0) <= 1:
    wrong = wrong or f"goodput {beat['goodput']}"
  yield row("clock set back an hour", 1, [wrong or bench.goes_on("phase1", workdir)],
            "a fake of time.time")


def two_jobs(bench: Bench):
  workdir = bench.copy("phase1")
  first = bench.job("phase1", workdir, *LONG)
  _when(workdir / "heartbeat.phase1.json", first, newer=True)
  second = jobs.Job((*bench.flags, f"--workdir={workdir}", "--stage=phase1"),
                    bench.root / "second.log")
  wrong = bench.in_one_line(second, f"another job writes in .*pid {first.pid}")
  first.kill()
  first.wait(60)
  shutil.rmtree(workdir / "phase1")
  yield row("two jobs in one workdir", 1, [wrong or bench.goes_on("phase1", workdir)],
            "the lock dies with its owner")


def nan(bench: Bench):
  workdir = bench.copy("phase1")
  job = bench.job("phase1", workdir, *LONG, setup=_not_a_number)
  wrong = bench.in_one_line(job, "not finite at step .*learning_rate")
  saved = list((workdir / "phase1" / "checkpoints").glob("[0-9]*"))
  yield row("NaN loss", 1, [wrong or (f"saved {saved}" if saved else "")],
            "the step is named, nothing of it is saved")


def _not_a_number() -> None:
  import jax.numpy as jnp

  from ilm_jax.training import loop
  real = loop.train_step

  def step(state, *args, **kwargs):
    after, metrics = real(state, *args, **kwargs)
    broken = jnp.where(state.step >= 5, jnp.nan, metrics["loss"])
    return after, {**metrics, "loss": broken,
                   "finite": metrics["finite"] & jnp.isfinite(broken)}
  loop.train_step = step


def notice(bench: Bench):
  """SIGTERM, as a host that will be taken away sends it; then the same command again."""
  workdir = bench.copy("phase1")
  job = bench.job("phase1", workdir, *LONG)
  _when(workdir / "heartbeat.phase1.json", job, newer=True)
  job.kill("main", signal.SIGTERM)
  code, said = job.wait(120), job.said()
  wrong = "" if code == 143 and "saved step" in said else f"exit code {code}: {said[-300:]!r}"
  yield row("preemption notice", 1, [wrong], "SIGTERM: saved, exit code 143")


def hang(bench: Bench):
  """A process that stands still is named by its heartbeat."""
  from ilm_jax.monitoring import heartbeat
  workdir = bench.copy("phase1")
  job = bench.job("phase1", workdir, *LONG)
  _when(workdir / "heartbeat.phase1.json", job, newer=True)
  job.kill("main", signal.SIGSTOP)
  began, said = time.monotonic(), ""
  while "seems" not in said and time.monotonic() - began < 2 * NAMED_WITHIN:
    time.sleep(1)
    said = heartbeat.tell(heartbeat.read(workdir, "phase1"), time.time())
  seconds = time.monotonic() - began
  job.kill()
  job.wait(60)
  yield row("a process that hangs", 1, ["" if seconds <= NAMED_WITHIN else said],
            f"named after {seconds:.0f} s: {said}")


def coordinator(bench: Bench):
  """Of a job of two processes the first is killed: the other must not wait for it."""
  workdir = bench.copy("phase1")
  job = bench.job("phase1", workdir, *LONG, "--config.mesh.data=2", processes=2)
  _when(workdir / "heartbeat.phase1.json", job, newer=True)
  pids, began = jobs.descendants(job.pid), time.monotonic()
  job.kill("0")
  code = job.wait(120)
  seconds, left = time.monotonic() - began, jobs.lingering(pids, 5)
  named = "process 0 of 2 was lost (killed by SIGKILL)" in job.said()
  wrong = "" if code == 137 and named and not left else (
      f"exit code {code}, {len(left)} left: {job.said()[-300:]!r}")
  yield row("coordinator lost", 1, [wrong], f"the pod ended after {seconds:.0f} s")


def _when(path: pathlib.Path, job: jobs.Job, newer: bool) -> None:
  """Waits until the job has written `path` and trains."""
  since = time.time() if newer else 0.0
  while True:
    with contextlib.suppress(OSError, ValueError):
      beat = json.loads(path.read_text())
      if beat["time"] > since - 1 and beat["step"] > 5 and beat["state"] == "running":
        return
    if job.wait(0.2) is not None:
      print(f"the job ended: {job.said()[-500:]}", file=sys.stderr)
      return


CASES = {
    "flips": flips, "checkpoints": checkpoints, "nan": nan, "two_jobs": two_jobs,
    "full_disk": full_disk, "read_only": read_only, "permission": permission, "clock": clock,
    "notice": notice, "hang": hang, "coordinator": coordinator}
