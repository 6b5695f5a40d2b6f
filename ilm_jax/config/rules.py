"""What the checks of a config are made of. Each gives one line for a mistake, with its cure."""
import difflib

from etils import epath


def known_or_path(field: str, value, names: tuple[str, ...]) -> list[str]:
  """A name of `names`, or a path that exists."""
  if value in names or epath.Path(value).exists():
    return []
  return [f"{line}; nor is it a path that exists" for line in known(field, value, names)]


def known(field: str, value, names: tuple[str, ...]) -> list[str]:
  """One of `names`."""
  if value in names:
    return []
  close = difflib.get_close_matches(str(value), names, 1)
  hint = f"; did you mean {close[0]!r}?" if close else ""
  return [f"{field}={value!r} is unknown: expected one of {', '.join(map(repr, names))}{hint}"]


def positive(c, *fields: str) -> list[str]:
  """Fields above 0, by their dotted names."""
  return [f"{f}={get(c, f)}: expected more than 0" for f in fields if not get(c, f) > 0]


def fraction(c, field: str) -> list[str]:
  """At least 0 and less than 1."""
  value = get(c, field)
  return [] if 0 <= value < 1 else [f"{field}={value}: expected at least 0 and less than 1"]


def get(c, dotted: str):
  """The value of a field by its dotted name."""
  for name in dotted.split("."):
    c = c[name]
  return c
