"""The one exception that is the user's to cure."""


class UserError(ValueError):
  """Something the user can put right.

  The message names the thing, what was found, what was expected, and the cure. `main` prints it
  as one line and exits with code 1; any other exception is a fault of the program.
  """


def short(one, other) -> tuple[str, str]:
  """Two fingerprints that differ, cut after 12 letters or, if need be, after the first that
  differs; None is "none"."""
  one, other = ("none" if f is None else str(f) for f in (one, other))
  length = 12
  while one[:length] == other[:length] and length < max(len(one), len(other)):
    length += 1
  return one[:length], other[:length]
