"""Building blocks of the checks of a config."""
import difflib


def known(field: str, value, names: tuple[str, ...]) -> list[str]:
  """A line with the cure if `value` is none of `names`; else []."""
  if value in names:
    return []
  close = difflib.get_close_matches(str(value), names, 1)
  hint = f"; did you mean {close[0]!r}?" if close else ""
  return [f"{field}={value!r} is unknown: expected one of {', '.join(map(repr, names))}{hint}"]


def listed(text: str) -> list[str]:
  """The names in "a, b"; none in ""."""
  return [name for name in map(str.strip, text.split(",")) if name]


def get(c, dotted: str):
  """The value of a field by its dotted name."""
  for name in dotted.split("."):
    c = c[name]
  return c
