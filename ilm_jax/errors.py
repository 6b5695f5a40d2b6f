"""The one exception that is the user's to cure, and how a program ends."""
import os
import select
import sys
from collections.abc import Callable


class UserError(ValueError):
  """Something the user can put right.

  The message names the thing, what was found, what was expected, and the cure. `exit_code` prints
  it as one line; any other exception is a fault of the program.
  """


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
