"""Gin for those who come from T5X: bindings laid over a config, and a config written as gin.

The one configurable is `config`. Its parameters are the fields of the config file, named as on the
command line: `config.phase2.steps = 10` means `--config.phase2.steps=10`. Macros, includes and
blocks work as in gin; gin's parser reads the files. Nothing is registered and nothing is global:
all other modules use an `ml_collections.ConfigDict`.
"""
import contextlib
import difflib

import ml_collections
from etils import epath
from gin import config_parser

from ilm_jax import errors
from ilm_jax.config import reading as config_lib

ROOT = "config"
_WIDTH = 100
_MOST_FILES = 200        # files that one gin file reads, itself and all that it includes
_MOST_VALUES, _DEEPEST = 10_000, 100     # parts of a value with its macros, and their depth


def overlay(c: ml_collections.ConfigDict, files=(), bindings=(), search_paths=(),
            last: dict | None = None) -> ml_collections.ConfigDict:
  """Lays gin files, then bindings, then `last` over a locked config.

  Args:
    c: changed in place; its fields keep their types.
    files: gin files in order; a later binding replaces an earlier one.
    bindings: texts in gin's syntax, e.g. "config.phase2.steps = 10".
    search_paths: folders to search for files, after the folder of the file that includes them.
    last: {dotted field: value} of the command line, which overrides all others.

  Returns:
    `c`.

  Raises:
    UserError: a file is absent or no gin, a binding names no field of the config, a macro is not
      bound, or a value does not have the field's type.
  """
  reader = _Reader([epath.Path(p).expanduser() for p in (*search_paths, ".")])
  for name in files:
    reader.read(name, within=None)
  for text in bindings:
    reader.parse(text, f"--gin_bindings={text!r}", within=None)
  for field, (value, where) in reader.fields.items():
    _set(c, field, reader.resolved(value, where), where)
  c.update_from_flattened_dict(last or {})
  return c


def to_gin(c: ml_collections.ConfigDict) -> str:
  """The resolved config as gin, sorted, with a binding for each field; `overlay` reads it back."""
  lines = ["# The whole config, resolved. Use: --gin_file=<this file>"]
  for field, value in sorted(_leaves(c)):
    line = f"{ROOT}.{field} = {value!r}"
    lines.append(line if len(line) <= _WIDTH else f"{ROOT}.{field} = \\\n    {value!r}")
  return "\n".join(lines) + "\n"


class _Macro(str):
  """A reference to another binding."""


class _Delegate(config_parser.ParserDelegate):
  """Keeps macros as their names; refuses `@name`, since there is nothing to refer to."""

  def configurable_reference(self, scoped_configurable_name, evaluate):
    raise ValueError(f"@{scoped_configurable_name}: values are literals or %MACROS")

  def macro(self, macro_name):
    return _Macro(macro_name)


class _Reader:
  """All bindings read so far: `fields` and `macros`, each {name: (value, file and line)}."""

  def __init__(self, folders: list):
    self._folders, self._open, self._read, self._values = folders, [], 0, 0
    self.fields, self.macros = {}, {}

  def read(self, name: str, within) -> None:
    """Reads the file `name`, included from a file in the folder `within` (None: a flag)."""
    path = self._find(name, within)
    if path in self._open:
      raise errors.UserError(f"{path} includes itself: {' -> '.join(map(str, self._open))}")
    self._read = 1 if within is None else self._read + 1
    if self._read > _MOST_FILES:
      raise errors.UserError(f"{path} is included after {_MOST_FILES} files, expected fewer: do "
                             "files include each other again and again?")
    self._open.append(path)
    try:
      text = path.read_text()
    except UnicodeDecodeError as e:
      raise errors.UserError(f"{path}: not readable as gin: byte {e.start} is no UTF-8 text") from e
    self.parse(text, str(path), path.parent)
    self._open.pop()

  def parse(self, text: str, where: str, within) -> None:
    try:
      statements = list(config_parser.ConfigParser(text, _Delegate()))
    except Exception as e:       # gin's parser may raise anything on a file that is no gin
      raise errors.UserError(f"{where}: not readable as gin: {' '.join(str(e).split())}") from e
    for s in statements:
      at = f"{where}, line {s.location.line_num}"
      if isinstance(s, config_parser.IncludeStatement):
        self.read(s.filename, within)
      elif isinstance(s, config_parser.ImportStatement):
        raise errors.UserError(f"{at}: import {s.module}: only {ROOT} can be configured, and it "
                               "needs no import: delete the line")
      elif isinstance(s, config_parser.BindingStatement):
        self._bind(s, at)

  def resolved(self, value, where: str):
    """`value` with its macros replaced, and lists as the tuples that configs hold."""
    self._values = 0
    return self._resolved(value, where, ())

  def _resolved(self, value, where: str, within: tuple):
    """`within`: the macros and lists that hold the value, outermost first."""
    self._values += 1
    if len(within) > _DEEPEST or self._values > _MOST_VALUES:
      raise errors.UserError(f"{where}: the value with its macros has more than {_MOST_VALUES:,} "
                             f"parts, or macros and lists more than {_DEEPEST} deep: shorten it")
    if isinstance(value, _Macro):
      if value in within:
        raise errors.UserError(f"{where}: macro %{value} refers to itself: bind it to a value")
      if value not in self.macros:
        raise errors.UserError(f"{where}: macro %{value} is bound nowhere: "
                               f"{_near(value, self.macros)}bind it, e.g. "
                               f"--gin_bindings='{value} = 1'")
      bound, where = self.macros[value]
      return self._resolved(bound, where, (*within, value))
    within = (*within, "")
    if isinstance(value, dict):
      if odd := [key for key in value if not isinstance(key, str)]:
        raise errors.UserError(f"{where}: the field {errors.shown(odd[0])}, expected its name as "
                               "text")
      return {k: self._resolved(v, where, within) for k, v in value.items()}
    if isinstance(value, list | tuple):
      return tuple(self._resolved(v, where, within) for v in value)
    if isinstance(value, int) and value.bit_length() > 64:
      raise errors.UserError(f"{where}: a whole number of {value.bit_length():,} bits, expected "
                             "64 at most")
    return value

  def _bind(self, s, at: str) -> None:
    owner, _, section = s.selector.partition(".")
    if not s.arg_name:                                        # STEPS = 10
      self.macros["/".join(filter(None, (s.scope, s.selector)))] = s.value, at
    elif s.selector in ("macro", "gin.macro") and s.scope:    # STEPS/macro.value = 10
      self.macros[s.scope] = s.value, at
    elif owner != ROOT or s.scope:
      raise errors.UserError(
          f"{at}: {'/'.join(filter(None, (s.scope, s.selector)))}.{s.arg_name} is not known: "
          f"the one configurable is {ROOT}, without scopes, e.g. {ROOT}.phase2.steps = 10")
    else:
      field = ".".join(filter(None, (section, s.arg_name)))
      self.fields.pop(field, None)                            # what was bound last is set last
      self.fields[field] = s.value, at

  def _find(self, name: str, within):
    folders = ([within] if within is not None else []) + self._folders
    if "://" in name and within is not None:
      raise errors.UserError(f"{within}: include {errors.shown(name)}: an include names a file "
                             "beside its own or in --gin_search_paths, not a URL")
    with contextlib.suppress(KeyError, OSError):       # of an unknown kind of URL, a long name
      path = epath.Path(name).expanduser()
      for folder in folders:
        if (folder / path).is_file():
          return (folder / path).resolve()
    raise errors.UserError(f"gin file {name:.300} is in none of {', '.join(map(str, folders))}: "
                           "give its folder with --gin_search_paths")


def _set(c, field: str, value, where: str) -> None:
  """Sets one field, or for a section, the fields that a dict names."""
  if message := config_lib.no_such_field(c, field):
    raise errors.UserError(f"{where}: {message}")
  *sections, name = field.split(".")
  at = c
  for part in sections:
    at = at[part]
  if isinstance(at[name], ml_collections.ConfigDict):
    if not isinstance(value, dict):
      raise errors.UserError(f"{where}: {ROOT}.{field} = {errors.shown(value)}: {field} is "
                             "a section; bind its fields, e.g. "
                             f"{ROOT}.{field}.{next(iter(at[name]))}")
    for key, inner in value.items():
      _set(c, f"{field}.{key}", inner, where)
    return
  try:
    at[name] = value
  except (TypeError, ValueError, OverflowError) as e:
    raise errors.UserError(f"{where}: {ROOT}.{field} = {errors.shown(value)}: expected "
                           f"{type(at[name]).__name__}, e.g. {at[name]!r}") from e


def _leaves(c, prefix: str = ""):
  for name, value in c.items():
    if isinstance(value, ml_collections.ConfigDict):
      yield from _leaves(value, f"{prefix}{name}.")
    else:
      yield prefix + name, value


def _near(name: str, names) -> str:
  close = difflib.get_close_matches(name, list(names), 1)
  return f"did you mean %{close[0]}? or " if close else ""
