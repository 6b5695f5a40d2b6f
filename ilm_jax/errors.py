"""The one exception that is the user's to cure, and how a program ends."""
import os
import re
import reprlib
import select
import sys
from collections.abc import Callable

_LONGEST = 4000          # letters of a message
# What moves a terminal's cursor, colours or renames it, or turns the direction of what follows; and
# halves of letters, which cannot be written.
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class UserError(ValueError):
  """Something the user can put right.

  The message names the thing, what was found, what was expected, and the cure. It is one line of
  plain letters, whatever the words of others in it; any other exception is a fault of the program.
  """

  def __init__(self, message: str = ""):
    line = plain(re.sub("[\t\r\n]+", " ", message))
    cut = f".. ({len(line):,} letters)" if len(line) > _LONGEST else ""
    super().__init__(line[:_LONGEST] + cut)


def plain(text: str) -> str:
  """Words of others as a terminal may have them: an escape character is "\\x1b". Line breaks and
  tabs stay."""
  return _CONTROL.sub(lambda match: ascii(match[0])[1:-1], text)


def shown(value) -> str:
  """A value for a message: like repr, but short however large, deep or entangled the value is."""
  return _SHOWN.repr(value)


class _Shown(reprlib.Repr):
  """Of numbers, too, the ends alone: Python refuses to write those of more than 4,300 digits."""

  def repr_int(self, x, level):
    return super().repr_int(x, level) if abs(x) < 1 << 999 else "a number of very many digits"


_SHOWN = _Shown()
_SHOWN.maxstring = _SHOWN.maxother = 60
_SHOWN.maxlevel = 3


def short(one, other) -> tuple[str, str]:
  """Two fingerprints that differ, cut after 12 letters or, if need be, after the first that
  differs; None is "none"."""
  one, other = ("none" if f is None else str(f) for f in (one, other))
  length = 12
  while one[:length] == other[:length] and length < max(len(one), len(other)):
    length += 1
  return one[:length], other[:length]


def exit_code(program: Callable[[], int | None]) -> int:
  """Runs a program and returns what it exits with.

  Returns:
    What `program()` returns, None being 0; 1 after a UserError, which is printed; 130 after Ctrl-C;
    141 where nobody reads the output any more, as after `| head`. The last two are what a shell
    says of a program that SIGINT or SIGPIPE ended.
  """
  try:
    try:
      return program() or 0
    except UserError as e:
      print(f"error: {e}", file=sys.stderr)
      return 1
    except KeyboardInterrupt:
      print("stopped by Ctrl-C", file=sys.stderr)
      return 130
    finally:
      sys.stdout.flush()       # here, where a closed pipe can be told from a fault
  except BrokenPipeError:
    if not _nobody_reads():
      raise
    return 141


def _nobody_reads() -> bool:
  """Whether the reader of stdout or stderr is gone; what is left to say to it goes nowhere."""
  gone = False
  for stream in (sys.stdout, sys.stderr):
    pipe = select.poll()
    pipe.register(stream.fileno(), 0)
    if any(event & select.POLLERR for _, event in pipe.poll(0)):
      gone = True
      os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
  return gone
