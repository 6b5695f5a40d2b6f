"""Dataclasses from JSON, with checks: the first mistake raises a UserError that names the field.

A field's `metadata` says how its value is read: `field(text)` or `field(several(text), ())`.
"""
import dataclasses
import difflib
from collections.abc import Callable
from typing import Any

from ilm_jax import errors

Read = Callable[[Any, str], Any]      # (value, where it stands) -> the value to keep
_MOST = 10 ** 6      # larger than any sensible rating or step


def field(read: Read, default=dataclasses.MISSING):
  """A dataclass field that `record` fills by `read`; without a default it is required."""
  return dataclasses.field(default=default, metadata={"read": read})


def record(cls, value, where: str):
  """An instance of the dataclass `cls` from an object of JSON.

  Args:
    cls: a dataclass whose fields were made by `field`.
    value: from JSON.
    where: its name in messages: "talk.jsonl, line 3: turns[1]".

  Raises:
    UserError: `value` is no object; a field is unknown, missing or has a wrong value.
  """
  names = {f.name: f for f in dataclasses.fields(cls)}
  if not isinstance(value, dict):
    raise wrong(where, value, f"an object with {_listed(names)}")
  for name in value:
    if name not in names:
      near = difflib.get_close_matches(name, names, 1)
      hint = f"; did you mean {near[0]!r}?" if near else ""
      raise errors.UserError(f"{where} has the field {name!r}, expected {_listed(names)}{hint}")
  made = {}
  for name, of in names.items():
    if name in value:
      made[name] = of.metadata["read"](value[name], inside(where, name))
    elif of.default is dataclasses.MISSING:
      raise errors.UserError(f"{where} lacks {name!r}, expected {_listed(names)}")
  return cls(**made)


def inside(where: str, name: str) -> str:
  """ "session.json: turns[1].role": the place of a field of the value at `where`."""
  return f"{where}{'.' if where.endswith(']') else ': '}{name}"


def wrong(where: str, value, expected: str) -> errors.UserError:
  """The error for a value that is not what was expected."""
  return errors.UserError(f"{where} is {errors.shown(value)}, expected {expected}")


def text(value, where: str) -> str:
  """A text that is not blank."""
  if not isinstance(value, str) or not value.strip():
    raise wrong(where, value, "a text that is not empty")
  return any_text(value, where)


def any_text(value, where: str) -> str:
  """A text, which may be empty. JSON can hold half a character, which no file in UTF-8 can."""
  if not isinstance(value, str):
    raise wrong(where, value, "a text")
  if any("\ud800" <= c <= "\udfff" for c in value):
    raise wrong(where, value, "text without surrogates (halves of a character)")
  return value


def identity(value, where: str) -> str:
  """An id: text, or a whole number, which becomes text."""
  if isinstance(value, int) and not isinstance(value, bool):
    return str(value)
  return text(value, where)


def number(value, where: str) -> float:
  """A number of a sensible size: steps and ratings."""
  if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _MOST:
    raise wrong(where, value, f"a number between -{_MOST:,} and {_MOST:,}")
  return value


def count(value, where: str) -> int:
  """A whole number, 0 or more."""
  if isinstance(value, bool) or not isinstance(value, int) or value < 0:
    raise wrong(where, value, "a whole number, 0 or more")
  return value


def one_of(words: tuple[str, ...]) -> Read:
  """One of `words`."""
  def read(value, where):
    if value not in words:
      raise wrong(where, value, " or ".join(map(repr, words)))
    return value
  return read


def optional(read: Read) -> Read:
  """null, or a value that `read` accepts."""
  return lambda value, where: None if value is None else read(value, where)


def several(read: Read) -> Read:
  """A list, which becomes a tuple."""
  def read_all(value, where):
    if not isinstance(value, list | tuple):
      raise wrong(where, value, "a list")
    return tuple(read(each, f"{where}[{n}]") for n, each in enumerate(value))
  return read_all


def of(cls) -> Read:
  """An object that becomes an instance of the dataclass `cls`."""
  return lambda value, where: record(cls, value, where)


def _listed(names) -> str:
  return ", ".join(map(repr, names))
