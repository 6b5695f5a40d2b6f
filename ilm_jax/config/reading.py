"""A run's config: read from a file and flags, validated at once, and written down.

A config file has `get_config()` and returns a locked `ml_collections.ConfigDict`; its fields are
described in configs/base.py. Everything wrong with it is one UserError.
"""
import difflib
import hashlib
import importlib.util
import json
import pathlib
import re

import ml_collections
from absl import app, flags

from ilm_jax import errors
from ilm_jax.config import checks, names, own_tasks


def from_flags(flag_values, argv: list[str], holder) -> ml_collections.ConfigDict:
  """Parses the command line and returns the config it names.

  Args:
    flag_values: absl's FLAGS.
    argv: the command line, the program's name first.
    holder: what `config_flags.DEFINE_config_file("config")` returned.

  Raises:
    UserError: anything on the command line or in the config file that cannot be understood.
  """
  app.define_help_flags()
  try:
    rest = flag_values(argv)
  except flags.Error as e:
    raise errors.UserError(" ".join(str(e).split())) from e
  except Exception as e:        # an override of no field, or whatever the config file raised
    raise errors.UserError(_why_unreadable(argv, e)) from e
  if len(rest) > 1:
    raise errors.UserError(f"unexpected arguments {rest[1:]}: flags are written --name=value")
  if holder.value is None:
    raise errors.UserError("--config is not set: e.g. --config=configs/quickstart.py")
  if not isinstance(holder.value, ml_collections.ConfigDict):
    raise errors.UserError(f"config file {_config_path(argv)} cannot be opened: give the path of a "
                           "file with get_config(), e.g. --config=configs/quickstart.py")
  return holder.value


def with_tasks(c: ml_collections.ConfigDict, module: str) -> ml_collections.ConfigDict:
  """The config with the tasks of a user's module in its mixture; rates it already has stay.

  Raises:
    UserError: see `own_tasks.mixture`; or a task has the name of one of ours.
  """
  module = module or c.tasks.module
  if not module:
    return c
  rates = own_tasks.mixture(module)
  if ours := sorted(set(rates) & set(names.TASKS)):
    raise errors.UserError(f"--tasks_module={module}: {ours} are tasks of the project already: "
                           "choose other names")
  with c.unlocked():
    c.tasks.module = module
    for name, rate in rates.items():
      c.tasks.mixture[name] = c.tasks.mixture.get(name, rate)
  return c


def load(path, overrides: dict | None = None) -> ml_collections.ConfigDict:
  """The locked config of a file, with `overrides` by dotted name.

  >>> load("configs/tiny.py", {"phase2.steps": 10}).phase2.steps
  10
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise errors.UserError(f"config file {path} does not exist: see configs/")
  spec = importlib.util.spec_from_file_location(path.stem, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  c = module.get_config().lock()
  for name, value in (overrides or {}).items():
    if message := no_such_field(c, name):
      raise errors.UserError(message)
    c.update_from_flattened_dict({name: value})
  return c


def to_json(c: ml_collections.ConfigDict) -> str:
  """The resolved config, keys in order; `from_json` gives it back."""
  return json.dumps(c.to_dict(), indent=2, sort_keys=True) + "\n"


def from_json(text: str) -> ml_collections.ConfigDict:
  """The locked config that `to_json` wrote."""
  def as_tuples(v):
    if isinstance(v, dict):
      return {k: as_tuples(x) for k, x in v.items()}
    return tuple(v) if isinstance(v, list) else v

  return ml_collections.ConfigDict(as_tuples(json.loads(text))).lock()


def fingerprint(c: ml_collections.ConfigDict) -> str:
  """sha256 of a config or of a part of one."""
  return hashlib.sha256(to_json(c).encode()).hexdigest()


def validate(c: ml_collections.ConfigDict, device_count: int) -> None:
  """Raises one UserError naming every mistake in config `c`, each with its cure."""
  if wrong := checks.mistakes(c, device_count):
    raise errors.UserError("config is not runnable: " + "; ".join(wrong))


def no_such_field(c, dotted: str) -> str:
  """Why config `c` has no field of that dotted name, with the nearest one it has; "": it has."""
  at, names = c, dotted.split(".")
  for i, name in enumerate(names):
    above = ".".join(names[:i])
    if not isinstance(at, ml_collections.ConfigDict):
      return f"config field {above} has no fields inside, found {dotted}"
    if name not in at:
      close = difflib.get_close_matches(name, list(at.keys()), 1)
      hint = f"did you mean {'.'.join([*names[:i], close[0]])}? " if close else ""
      return f"config has no field {dotted}: {hint}{above or 'it'} has {', '.join(at.keys())}"
    at = at[name]
  return ""


def _why_unreadable(argv: list[str], e: Exception) -> str:
  """Why the config and its overrides raised `e`: a field that does not exist, or its own words."""
  try:
    c = load(_config_path(argv))
    names = [m[1] for a in argv if (m := re.match(r"--?(?:no)?config\.([\w.]+)", a))]
    return next(message for name in names if (message := no_such_field(c, name)))
  except Exception:
    words = str(e).strip().splitlines() or [type(e).__name__]
    return f"the config cannot be read: {words[-1]}"


def _config_path(argv: list[str]) -> str:
  for i, arg in enumerate(argv):
    if m := re.match(r"--?config(?:=(.*))?$", arg):
      return m[1] if m[1] is not None else argv[i + 1]
  return ""
