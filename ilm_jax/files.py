"""Writing so that nothing is ever half written: a temporary name, then a rename. And reading."""
import contextlib
import io
import json
import os
import uuid

from etils import epath

from ilm_jax import errors

_LFS_POINTER = b"version https://git-lfs.github.com/"


def write_bytes(path, data: bytes) -> None:
  """Writes `data` to `path` atomically (object stores: a single-object put is atomic too)."""
  path = epath.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.parent / f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}"
  try:
    temporary.write_bytes(data)
    temporary.replace(path)
  except BaseException:
    temporary.unlink(missing_ok=True)
    raise


def write_text(path, text: str) -> None:
  """Writes `text` as UTF-8 to `path` atomically."""
  write_bytes(path, text.encode())


@contextlib.contextmanager
def reading(path):
  """A path opened as Python's own binary file, whatever file system it is of."""
  with path.open("rb") as file:
    yield file if isinstance(file, io.IOBase) else io.BufferedReader(_Raw(file), 1 << 20)


def parse_json(text: str | bytes):
  """The value in JSON; ValueError where it is none, or too deep to read."""
  try:
    return json.loads(text)
  except RecursionError:
    raise ValueError("JSON nested too deep") from None


def refuse_pointer(path) -> None:
  """Raises UserError where git-lfs left a pointer to a file in its place; OSError if absent."""
  with epath.Path(path).open("rb") as file:
    if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
      raise errors.UserError(f"{path} is a git-lfs pointer, expected the file itself: run "
                             "`git lfs pull` in its folder, or download the file")


class _Raw(io.RawIOBase):
  """A file that can read and no more, e.g. TensorFlow's."""

  def __init__(self, file):
    self._file = file

  def readable(self):
    return True

  def readinto(self, buffer):
    data = self._file.read(len(buffer))
    buffer[:len(data)] = data
    return len(data)
