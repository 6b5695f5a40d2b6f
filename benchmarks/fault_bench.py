"""Shared by the cases of benchmarks.faults: a finished workdir, its copies, jobs in the copies."""
import contextlib
import json
import pathlib
import re
import shutil
import sys
import time

from benchmarks import jobs, workdirs

# The outputs of each stage, in the order of the stages.
OUTPUTS = {
    "targets": ("targets", "data", "tfds"), "prepare": ("prepared", "data", "tfds"),
    "cf": ("entities", "factors.npz"), "phase1": ("phase1",), "phase2": ("phase2", "phase2_mlp"),
    "eval": ("eval",), "report": ("report.html", "report.json"), "export": ("export",)}
# Long enough to be stopped midway. A loss is checked when it is logged.
LONG = ("--config.phase1.steps=5000", "--config.phase1.checkpoint_every=1000",
        "--config.phase1.log_every=10")
LIMIT = 1800.0


class Bench:
  """A finished workdir, and copies of it to damage.

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
    """A copy of the finished workdir without the outputs of `stage`."""
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
    """"" if the job ends with exit code 1 and one line that matches `says`; else what it did."""
    code, said = job.wait(LIMIT), job.said()
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    if code != 1 or len(lines) != 1 or "Traceback" in said or not re.search(says, lines[0]):
      return f"exit code {code}, expected 1 and one line with {says!r}: {said[-300:]!r}"
    return ""

  def goes_on(self, stage: str, workdir) -> str:
    """"" if the same command now ends with exit code 0 and the right bits; else what it did."""
    job = self.job(stage, workdir)
    if (code := job.wait(LIMIT)) != 0:
      return f"run again: exit code {code}: {job.said()[-300:]!r}"
    names = workdirs.differences(self.expected, jobs.call(workdirs.content, workdir))
    left = workdirs.temporaries(workdir)
    return f"run again: {names} differ, {left} are left" if names or left else ""


def row(case: str, tried: int, wrong: list[str], how: str = "") -> dict:
  wrong = [text for text in wrong if text]
  return {"case": case, "tried": tried, "right": tried - len(wrong), "how": how, "wrong": wrong}


def when(path: pathlib.Path, job: jobs.Job) -> None:
  """Waits until the job has written `path`, later than this call, and trains."""
  since = time.time()
  while True:
    with contextlib.suppress(OSError, ValueError):
      beat = json.loads(path.read_text())
      if beat["time"] > since - 1 and beat["step"] > 5 and beat["state"] == "running":
        return
    if job.wait(0.2) is not None:
      print(f"the job ended: {job.said()[-500:]}", file=sys.stderr)
      return
