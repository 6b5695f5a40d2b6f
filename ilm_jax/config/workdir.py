"""The folder of a run: checks of its name, and of whether the stages can use it."""
import os
import pathlib
import queue
import re
import threading

from ilm_jax import errors
from ilm_jax.config import stages

WAIT = 120.0      # seconds in which a bucket must answer: its client may try for many minutes
_PATTERN = re.compile(r"[\[*?\\]")     # Orbax takes these for patterns when it looks for arrays


def resolve(workdir: str) -> str:
  """The workdir with `~` replaced by the home folder.

  Raises:
    UserError: it is empty or no valid address, or Orbax could not read checkpoints in a folder of
      that name.
  """
  if not workdir:
    raise errors.UserError("--workdir is not set: name the folder of the run, "
                           "e.g. --workdir=runs/quickstart")
  if re.match(r"(gs|s3):?//?", workdir) and not re.match(r"(gs|s3)://[^/]", workdir):
    raise errors.UserError(f"--workdir={workdir}: no address of a bucket: expected e.g. "
                           "gs://bucket/run")
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
    workdir: the folder, from `resolve`.
    names: names of the stages, in the order in which they will run.
    waits: whether another job may yet write the input of the first stage.

  Raises:
    UserError: the workdir is a file, cannot be written, is in a bucket that does not answer within
      WAIT seconds, or does not exist although the first stage reads results of another there.
    Exception: any error of the bucket's client.
  """
  needs, exists = stages.BY_NAME[names[0]].needs, _exists(workdir)
  if needs and not waits and not exists:
    raise errors.UserError(f"--workdir={workdir} does not exist: --stage={names[0]} reads the "
                           f"results of --stage={needs[-1]} there; correct the path, or run that "
                           "stage first")
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
  """Whether the folder exists; asks a bucket in a thread, which may go on after the time limit."""
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
