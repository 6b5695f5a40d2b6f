"""A run's config: reads it from a file and flags, validates it at once, and writes it as JSON.

A config file defines `get_config()`, which returns a locked `ml_collections.ConfigDict`;
configs/base.py describes its fields. One UserError names all mistakes in a config.
"""
import difflib
import functools
import importlib.util
import json
import os
import pathlib
import re
import sys
import traceback

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
    UserError: the command line or the config file cannot be understood.
  """
  app.define_help_flags()
  argv, config = _with_path(["--help" if arg == "-h" else arg for arg in argv]), None
  if path := _config_path(argv):
    _check_overrides(config := read(path), argv)
  try:
    rest = flag_values(argv)
  except flags.Error as e:
    raise errors.UserError(" ".join(str(e).split()) + _hint(e, config)) from e
  except BrokenPipeError:       # e.g. of --help | head
    raise
  except Exception as e:        # whatever an override's value made of its field
    raise errors.UserError(f"the config cannot be read: {_last_line(e)}") from e
  if len(rest) > 1:
    raise errors.UserError(f"unexpected arguments {rest[1:]}: a command comes first, and "
                           "flags are written --name=value")
  if holder.value is None:
    raise errors.UserError("--config is not set: name a config, e.g. --config=quickstart (--help "
                           "explains it)")
  try:
    holder.value.keys()         # the flag raises here if it found no file
  except OSError as e:
    raise errors.UserError("--config names no file that can be read: name a config once, e.g. "
                           "--config=quickstart") from e
  return holder.value


def with_tasks(c: ml_collections.ConfigDict, module: str) -> ml_collections.ConfigDict:
  """The config with the tasks of a user's module in its mixture; rates that it already has stay.

  Raises:
    UserError: see `own_tasks.mixture`; or a task has the name of a task of the project.
  """
  module = module or c.tasks.module
  if not module:
    return c
  rates = own_tasks.mixture(module)
  if ours := sorted(set(rates) & set(names.TASKS)):
    raise errors.UserError(f"--tasks_module={module}: {ours} are names of the project's own tasks: "
                           "choose other names")
  with c.unlocked():
    c.tasks.module = module
    for name, rate in rates.items():
      c.tasks.mixture[name] = c.tasks.mixture.get(name, rate)
  return c


def load(path, overrides: dict | None = None) -> ml_collections.ConfigDict:
  """The locked config of a file, with `overrides`, {dotted field: value}, applied.

  >>> load("configs/tiny.py", {"phase2.steps": 10}).phase2.steps
  10
  """
  c = read(path).lock()
  for name, value in (overrides or {}).items():
    if message := no_such_field(c, name):
      raise errors.UserError(message)
    c.update_from_flattened_dict({name: value})
  return at_home(c)


def read(path) -> ml_collections.ConfigDict:
  """The config that `get_config()` of a file returns. `path` may be "FILE:TEXT", as with --config.

  Raises:
    UserError: there is no such file, it is no Python, has no get_config(), or fails, e.g. because
      it sets a field that does not exist.
  """
  name, _, text = str(path).partition(":")
  file = pathlib.Path(name).expanduser()
  if not file.is_file():
    raise errors.UserError(f"config file {name} does not exist: give the path of a file with "
                           "get_config(), e.g. configs/quickstart.py, or the name of one in "
                           "configs/, e.g. quickstart")
  spec = importlib.util.spec_from_file_location("ilm_config_file", file)
  if spec is None or spec.loader is None:
    raise errors.UserError(f"config file {name} is no Python file: expected a name ending in .py")
  module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
    if not callable(getattr(module, "get_config", None)):
      raise errors.UserError(f"config file {name} has no get_config(): it must define a function "
                             "of that name which returns the config, as configs/quickstart.py does")
    c = module.get_config(*([text] if text else []))
  except errors.UserError:
    raise
  except SyntaxError as e:
    raise errors.UserError(f"config file {e.filename}, line {e.lineno}: {e.msg}") from e
  except Exception as e:
    raise errors.UserError(_why_it_failed(name, e)) from e
  if not isinstance(c, ml_collections.ConfigDict):
    raise errors.UserError(f"get_config() of config file {name} returns {type(c).__name__}, "
                           "expected an ml_collections.ConfigDict: does it end with `return c`?")
  return c


def at_home(c: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """The config, changed in place, with `~` at the start of its paths replaced by the home folder.

  A shell does not replace it in --config.data.path=~/files.

  Raises:
    UserError: a path holds a NUL, which no file's name can.
  """
  for field in names.PATHS:
    *sections, name = field.split(".")
    section = functools.reduce(lambda at, part: at.get(part, {}), sections, c)
    if not isinstance(path := section.get(name), str):
      continue
    if "\0" in path:
      raise errors.UserError(f"config.{field} is {errors.shown(path)}, expected a path without NUL")
    if path.startswith("~"):
      section[name] = os.path.expanduser(path)
  return c


def to_json(c: ml_collections.ConfigDict) -> str:
  """The resolved config as JSON with sorted keys; `from_json` reads it back."""
  return json.dumps(c.to_dict(), indent=2, sort_keys=True) + "\n"


def from_json(text: str) -> ml_collections.ConfigDict:
  """The locked config in JSON text of `to_json`; lists become tuples."""
  def as_tuples(v):
    if isinstance(v, dict):
      return {k: as_tuples(x) for k, x in v.items()}
    return tuple(v) if isinstance(v, list) else v

  return ml_collections.ConfigDict(as_tuples(json.loads(text))).lock()


def validate(c: ml_collections.ConfigDict, device_count: int, paths: bool = True) -> None:
  """Raises one UserError naming every mistake in config `c`, each with its cure.

  Args:
    c: the config.
    device_count: devices of the job.
    paths: whether the files and folders that the config names must exist; False if the run will be
      on another machine.
  """
  if wrong := checks.mistakes(c, device_count, paths):
    raise errors.UserError("config is not runnable: " + "; ".join(wrong))


def no_such_field(c, dotted: str) -> str:
  """Says that config `c` has no field of that dotted name, and the nearest; "" if it has one."""
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


def _check_overrides(c, argv: list[str]) -> None:
  for arg in argv:
    if m := re.match(r"--?(?:no)?config\.([\w.]+)", arg):
      if message := no_such_field(c, m[1]):
        raise errors.UserError(message)


def _why_it_failed(name: str, e: Exception) -> str:
  """A message: the line that raised `e`, in a config file or one that it imports, and why."""
  where, section, field = None, None, None
  for frame, line in traceback.walk_tb(e.__traceback__):
    inside = frame.f_globals.get("__name__", "").startswith("ml_collections.")
    if not inside and frame.f_code.co_filename not in (__file__, "<frozen importlib._bootstrap>",
                                                       "<frozen importlib._bootstrap_external>"):
      where = frame, line
    elif inside and isinstance(frame.f_locals.get("self"), ml_collections.ConfigDict):
      # The innermost frame wins. __setitem__ and __getitem__ name their argument key, __setattr__
      # attribute.
      section = frame.f_locals["self"]
      field = frame.f_locals.get("key", frame.f_locals.get("attribute"))
  if where is None:
    return f"config file {name}: {_last_line(e)}"
  frame, line = where
  at = f"config file {frame.f_code.co_filename}, line {line}"
  for root in frame.f_locals.values() if isinstance(e, AttributeError | KeyError) else ():
    if (prefix := _path_to(section, root)) is not None:
      if message := no_such_field(root, ".".join([*prefix, str(field)])):
        return f"{at}: {message}"
  return f"{at}: {_last_line(e)}"


def _path_to(section, root) -> list[str] | None:
  """The names from `root` down to `section`; None if `section` is not inside `root`."""
  if section is root and section is not None:
    return []
  for name, value in root.items() if isinstance(root, ml_collections.ConfigDict) else ():
    if (below := _path_to(section, value)) is not None:
      return [name, *below]
  return None


def _last_line(e: Exception) -> str:
  words = str(e).strip().splitlines() or [type(e).__name__]
  return words[-1]


def _hint(error: flags.Error, config) -> str:
  """A cure for an unknown flag that is a field of the config; else ""."""
  name = getattr(error, "flagname", "")
  if config is None or "." not in name or name.split(".")[0] not in config:
    return ""
  return f": {no_such_field(config, name) or f'did you mean --config.{name}?'}"


def _with_path(argv: list[str]) -> list[str]:
  """The command line with the config's path resolved: ~ becomes the home folder (a shell does that
  only in `--config ~/mine.py`), and a bare name becomes a file of configs/."""
  out = list(argv)
  for i, arg in enumerate(argv):
    if m := re.match(r"(--?config)(?:=(.*))?$", arg):
      if m[2] is not None:
        out[i] = f"{m[1]}={_path(m[2])}"
      elif i + 1 < len(argv):
        out[i + 1] = _path(argv[i + 1])
  return out


def defaults():
  """The config of configs/base.py, every field with its default."""
  return load(importlib.util.find_spec("ilm_jax.configs.base").origin)


def _path(name: str) -> str:
  """The path of a config: `~` becomes the home folder. "tiny" and "configs/tiny.py" name the
  project's configs from any folder, unless the current folder has a file of that name."""
  given, colon, text = name.partition(":")
  ours = re.fullmatch(r"(\w+)|configs/(\w+)\.py", given)
  spec = importlib.util.find_spec("ilm_jax.configs") if ours else None
  if ours and spec and not pathlib.Path(given).exists():
    for folder in spec.submodule_search_locations or ():
      if (file := pathlib.Path(folder, f"{ours[1] or ours[2]}.py")).is_file():
        return f"{file}{colon}{text}"
  return os.path.expanduser(name)


def _config_path(argv: list[str]) -> str:
  """The config's path; of several the last, as with every flag of absl."""
  path = ""
  for arg, following in zip(argv, [*argv[1:], ""]):
    if m := re.match(r"--?config(?:=(.*))?$", arg):
      path = m[1] if m[1] is not None else following
  return path
