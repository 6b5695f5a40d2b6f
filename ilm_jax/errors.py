"""The exceptions for mistakes of the user and for signals, and the exit codes of a program."""
import os
import re
import reprlib
import select
import signal as signal_lib
import sys
from collections.abc import Callable

_LONGEST = 4000          # letters of a message
# Characters that move a terminal's cursor, change its colours or title, or reverse the direction of
# the text; and lone surrogates, which cannot be encoded.
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class UserError(ValueError):
  """A mistake that the user can correct.

  The message names the thing, what was found, what was expected, and the cure. It is one line
  without control characters, even where it quotes a file. Any other exception is a bug.
  """

  def __init__(self, message: str = ""):
    line = plain(re.sub("[\t\r\n]+", " ", message))
    cut = f".. ({len(line):,} letters)" if len(line) > _LONGEST else ""
    super().__init__(line[:_LONGEST] + cut)


class Preempted(Exception):
  """A signal came; the state was saved.

  Args:
    message: what was saved, and where.
    signal: the signal; in a job of several processes another one may have received it.
  """

  def __init__(self, message: str, signal: signal_lib.Signals):
    super().__init__(message)
    self.signal = signal


def plain(text: str) -> str:
  """`text` with its control characters escaped, e.g. as "\\x1b", so that a terminal can show it.
  Line breaks and tabs stay."""
  return _CONTROL.sub(lambda match: ascii(match[0])[1:-1], text)


def shown(value) -> str:
  """The repr of a value, shortened for a message however large, deep or recursive the value is."""
  return _SHOWN.repr(value)


class _Shown(reprlib.Repr):
  """Shortens numbers, too: Python refuses to print more than 4,300 digits."""

  def repr_int(self, x, level):
    return super().repr_int(x, level) if abs(x) < 1 << 14_000 else "a number of very many digits"


_SHOWN = _Shown()
_SHOWN.maxstring = _SHOWN.maxother = 60
_SHOWN.maxlevel = 3


def short(one, other) -> tuple[str, str]:
  """Two different fingerprints, cut to 12 letters, or to the first difference if it comes later;
  None becomes "none"."""
  one, other = ("none" if f is None else str(f) for f in (one, other))
  length = 12
  while one[:length] == other[:length] and length < max(len(one), len(other)):
    length += 1
  return one[:length], other[:length]


def exit_code(program: Callable[[], int | None]) -> int:
  """Runs a program and returns what it exits with.

  Returns:
    The result of `program()`, with 0 for None; 1 after a UserError, which is printed; 130 after
    Ctrl-C; 128 + the signal after `Preempted`; 141 if the reader of the output has gone, as with
    `| head`. A shell reports these numbers for a program that a signal ended.
  """
  try:
    try:
      return program() or 0
    except UserError as e:
      print(f"error: {e}", file=sys.stderr)
      return 1
    except Preempted as e:
      print(f"stopped: {e}; run the same command again to go on", file=sys.stderr)
      return 128 + e.signal
    except KeyboardInterrupt:
      print("stopped by Ctrl-C", file=sys.stderr)
      return 130
    finally:
      sys.stdout.flush()       # inside the try: a closed pipe is no bug
  except BrokenPipeError:
    if not _nobody_reads():
      raise
    return 141


def _nobody_reads() -> bool:
  """Whether the reader of stdout or stderr is gone; if so, discards further output to it."""
  gone = False
  for stream in (sys.stdout, sys.stderr):
    pipe = select.poll()
    pipe.register(stream.fileno(), 0)
    if any(event & select.POLLERR for _, event in pipe.poll(0)):
      gone = True
      os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
  return gone
