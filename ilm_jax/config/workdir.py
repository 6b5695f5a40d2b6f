"""The folder of a run: what it may be called, and whether it is one that can be used."""
import os
import pathlib
import queue
import re
import threading

from ilm_jax import errors
from ilm_jax.config import stages

WAIT = 120.0      # seconds in which a bucket must answer; clients of stalled ones try for an hour
_PATTERN = re.compile(r"[\[*?\\]")     # read as patterns when Orbax looks for the arrays it saved


def resolve(workdir: str) -> str:
  """The workdir with `~` replaced by the home folder.

  Raises:
    UserError: checkpoints in a folder of that name could not be read again, or it is no address.
  """
  if not workdir:
    raise errors.UserError("--workdir is not set: name the folder of the run, "
                           "e.g. --workdir=runs/quickstart")
  if re.match(r"(gs|s3):?//?", workdir) and not re.match(r"(gs|s3)://[^/]", workdir):
    raise errors.UserError(f"--workdir={workdir}: expected e.g. gs://bucket/run")
  if "://" in workdir:
    path = workdir
  else:
    workdir = os.path.expanduser(workdir)
    path = os.path.abspath(workdir)
  if odd := _PATTERN.search(path):
    raise errors.UserError(f"--workdir={workdir}: {odd[0]} in {path}: checkpoints in such a folder "
                           "cannot be read again; choose a path without [ * ? and backslashes")
  return workdir


def check(workdir: str, names: tuple[str, ...], waits: bool = False) -> None:
  """Makes sure that the stages `names` can begin in `workdir`; creates nothing.

  Args:
    workdir: from `resolve`.
    names: in the order in which they will run.
    waits: whether another job may yet make what the first of them reads.

  Raises:
    UserError: it is a file, cannot be written, is in a bucket that does not answer within WAIT
      seconds, or does not exist though the first stage reads what another left there.
    Exception: what the bucket's client raises.
  """
  needs, exists = stages.BY_NAME[names[0]].needs, _exists(workdir)
  if needs and not waits and not exists:
    raise errors.UserError(f"--workdir={workdir} does not exist: --stage={names[0]} reads what "
                           f"--stage={needs[-1]} left there; correct the path, or run that first")
  if "://" in workdir:
    return
  path = pathlib.Path(workdir).absolute()
  there = next(p for p in (path, *path.parents) if p.exists())
  if not there.is_dir():
    raise errors.UserError(f"--workdir={workdir}: {there} is a file, expected a folder")
  if any(stages.BY_NAME[name].writes for name in names) and not os.access(
      there, os.W_OK | os.X_OK):
    raise errors.UserError(f"--workdir={workdir}: {there} cannot be written: choose another "
                           "folder, or change its permissions")


def _exists(workdir: str) -> bool:
  """Whether there is such a folder; a bucket is asked in a thread, which may be left waiting."""
  from etils import epath
  if "://" not in workdir:
    return pathlib.Path(workdir).exists()
  answers: queue.SimpleQueue = queue.SimpleQueue()

  def ask():
    try:
      answers.put((epath.Path(workdir).exists(), None))
    except Exception as e:
      answers.put((False, e))
  threading.Thread(target=ask, name="bucket", daemon=True).start()
  try:
    exists, error = answers.get(timeout=WAIT)
  except queue.Empty:
    raise errors.UserError(
        f"--workdir={workdir}: no answer within {WAIT:g} s: see whether this machine reaches the "
        "bucket (network, proxy, credentials), then run the same command again") from None
  if error is not None:
    raise error
  return exists
