"""The folder of a run: checks of its name, and of whether the stages can use it."""
import os
import pathlib
import re

from ilm_jax import errors
from ilm_jax.config import stages

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
    UserError: the workdir is a file, cannot be written, or does not exist although the first stage
      reads results of another there.
  """
  from etils import epath
  needs = stages.BY_NAME[names[0]].needs
  if needs and not waits and not epath.Path(workdir).exists():
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
