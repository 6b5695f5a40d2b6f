"""The class of a reader under test, and the function that tries one input."""
import dataclasses
import os
import pathlib
import re
import time
from collections.abc import Callable

from ilm_jax import errors

ROOM = 48 << 20          # bytes that reading may take, plus TIMES the file's size
TIMES = 64
SECONDS = 5.0            # of CPU time per input
_LONGEST = 4100          # most characters of a message
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


@dataclasses.dataclass(frozen=True)
class Reader:
  """A reader of files from outside.

  Attributes:
    name: on the command line.
    seeds: () -> valid inputs, each {file name: bytes}.
    read: reads a folder with such files; raises UserError if it refuses them.
  """
  name: str
  seeds: Callable[[], list[dict[str, bytes]]]
  read: Callable[[pathlib.Path], object]


@dataclasses.dataclass
class Tried:
  """The result of one input. kind: accepted, refused, or the way in which the reader broke."""
  kind: str
  about: str = ""
  seconds: float = 0.0       # of CPU time
  grown: int = 0             # peak of resident memory minus that before, in bytes


def write(folder: pathlib.Path, files: dict[str, bytes]) -> None:
  """Writes the files into a folder that holds nothing else."""
  for name, data in files.items():
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def tried(reader: Reader, folder: pathlib.Path, size: int) -> Tried:
  """Reads a folder whose files have `size` bytes."""
  before, held, began = _listing(folder), _forget_peak(), time.process_time()
  try:
    reader.read(folder)
    result = Tried("accepted")
  except errors.UserError as e:
    result = _refusal(e)
  except KeyboardInterrupt:
    raise
  except BaseException as e:       # a panic in Rust is no Exception
    result = Tried("broken", _where(e))
  result.seconds = time.process_time() - began
  result.grown = max(0, _status("VmHWM") - held)
  if _listing(folder) != before:
    result = dataclasses.replace(result, kind="broken", about="it wrote where it reads")
  elif result.kind != "broken" and result.seconds > SECONDS:
    result.kind, result.about = "broken", f"slow: more than {SECONDS:g} s ({result.about:.80})"
  elif result.kind != "broken" and result.grown > ROOM + TIMES * size:
    result.kind, result.about = "broken", f"memory: beyond the bound ({result.about:.80})"
  return result


def _refusal(e: errors.UserError) -> Tried:
  message, cause = str(e), e
  if _CONTROL.search(message) or len(message) > _LONGEST:
    what = "control characters" if len(message) <= _LONGEST else "many letters"
    return Tried("broken", f"message of {what}: {_where(e)}")
  while cause is not None:
    if isinstance(cause, MemoryError) and str(cause):
      return Tried("broken", f"memory asked for: {_where(cause)}")
    cause = cause.__cause__ or cause.__context__
  return Tried("refused", message)


def _where(e: BaseException) -> str:
  """The type of an error and the last four places that it passed."""
  places, at = [], e.__traceback__
  while at is not None:
    code = at.tb_frame.f_code
    places.append(f"{pathlib.Path(code.co_filename).name}:{at.tb_lineno}")
    at = at.tb_next
  return f"{type(e).__name__}: {str(e)[:100]!r} at {' '.join(places[-4:])}"


def _listing(folder: pathlib.Path) -> list:
  return [(root, name, os.stat(f"{root}/{name}").st_mtime_ns)
          for at in (folder, pathlib.Path.cwd()) for root, _, names in os.walk(at)
          for name in names]


def _forget_peak() -> int:
  """Resets the peak and returns the resident memory now, in bytes."""
  with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
  return _status("VmRSS")


def _status(name: str) -> int:
  with open("/proc/self/status") as file:
    return next(int(line.split()[1]) << 10 for line in file if line.startswith(name))
