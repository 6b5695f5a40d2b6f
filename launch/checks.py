"""Finds mistakes of an experiment on this machine, before a TPU costs money."""
import math
import pathlib
import sys

from ilm_jax import errors
from ilm_jax.config import workdir as workdir_lib

ROOT = pathlib.Path(__file__).parents[1]


def workdir(path: str) -> str:
  """The workdir; refuses one that some hosts cannot reach."""
  if "://" not in path and not path.startswith("/"):
    raise errors.UserError(f"--workdir={path}: expected a folder that all hosts reach under one "
                           "name, e.g. gs://bucket/run")
  return workdir_lib.resolve(path)


def config(path: str, jobs: list[tuple[list[str], int]]) -> None:
  """Reads and validates the config as every job will; only the hosts check that paths exist.

  Args:
    path: of the config, from the root of the repository.
    jobs: (overrides, devices) of each: (["phase1.steps=800"], 16); devices 0: not known here.

  Raises:
    UserError: the file does not exist, a field does not exist, or the config cannot run.
  """
  if pathlib.PurePath(path).is_absolute() or not (ROOT / path).is_file():
    raise errors.UserError(f"--config={path}: there is no such file in the repository; give its "
                           "path from the root, e.g. configs/quickstart.py")
  try:
    import ml_collections  # noqa: F401 - launching alone needs no package
    from absl import flags
    from ml_collections import config_flags

    from ilm_jax.config import reading as config_lib
  except ModuleNotFoundError as e:
    print(f"the config is not checked here: {e.name} is not installed (pip install ml_collections "
          "absl-py etils)", file=sys.stderr)
    return
  for overrides, devices in jobs:
    argv = ["launch.jobs", f"--config={ROOT / path}", *(f"--config.{o}" for o in overrides)]
    values = flags.FlagValues()
    holder = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    c = config_lib.with_tasks(config_lib.from_flags(values, argv, holder), "")
    config_lib.validate(c, devices or math.prod(c.mesh.values()), paths=False)
