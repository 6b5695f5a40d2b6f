"""Writing so that nothing is ever half written: a temporary name, then a rename. And reading."""
import contextlib
import errno
import io
import json
import lzma
import os
import pathlib
import shutil
import struct
import uuid
import zipfile
import zlib

from etils import epath

from ilm_jax import errors

_LFS_POINTER = b"version https://git-lfs.github.com/"
# How zipfile fails on a damaged or odd archive, or one that wants a password.
DAMAGED_ZIP = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError,
               NotImplementedError, RuntimeError, ValueError, KeyError, OverflowError)
UNPACKED = 250           # times its size that a packed file may have unpacked: tables have 50
SMALL = 16 << 20         # bytes that it may have at any rate
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# How writers that are not Python's say the same.
NO_ROOM = ("No space left", "ENOSPC", "File too large", "quota exceeded")
_UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR,
               errno.ENAMETOOLONG)


def write_bytes(path, data: bytes | memoryview) -> None:
  """Writes `data` to `path` atomically (object stores: a single-object put is atomic too)."""
  with writing(path) as file:
    file.write(data)


@contextlib.contextmanager
def writing(path):
  """A binary file to write to, in pieces; when the block ends without an error it is `path`."""
  path = epath.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.parent / f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}"
  try:
    with temporary.open("wb") as file:
      yield file
    temporary.replace(path)
  except BaseException:
    temporary.unlink(missing_ok=True)
    raise


@contextlib.contextmanager
def writing_folder(path: pathlib.Path):
  """A local folder to write into; when the block ends without an error it is `path`, in place of
  the folder that was there, and else nothing of it is left."""
  path = path.absolute()
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.parent / f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}"
  old = temporary.with_name(f"{temporary.name}.old")
  temporary.mkdir()
  try:
    yield temporary
    if path.exists():
      path.rename(old)
    temporary.rename(path)
  except BaseException:
    shutil.rmtree(temporary, ignore_errors=True)
    if old.exists() and not path.exists():
      old.rename(path)
    raise
  shutil.rmtree(old, ignore_errors=True)


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


def json_object(path) -> dict:
  """The JSON object in a file that a model brings; {} where there is none, or another value.

  Raises:
    UserError: the file cannot be read as JSON.
  """
  path = epath.Path(path)
  if not path.exists():
    return {}
  try:
    value = parse_json(path.read_text())
  except (OSError, ValueError) as e:
    raise errors.UserError(f"{path}: not readable JSON ({e}): get the file again") from e
  return value if isinstance(value, dict) else {}


def refuse_pointer(path) -> None:
  """Raises UserError where git-lfs left a pointer to a file in its place; OSError if absent."""
  with epath.Path(path).open("rb") as file:
    if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
      raise errors.UserError(f"{path} is a git-lfs pointer, expected the file itself: run "
                             "`git lfs pull` in its folder, or download the file")


def chain(error: BaseException | None):
  """`error` and all that it was raised from."""
  while error is not None:
    yield error
    error = error.__cause__ or error.__context__


def write_error(error: Exception, workdir) -> errors.UserError | None:
  """The user's error if `error` is of a disk without room, or of a workdir that cannot be written;
  None if it is neither."""
  here = os.path.abspath(workdir)
  for cause in chain(error):
    number = getattr(cause, "errno", None)
    if number in FULL_DISK or any(words in str(cause) for words in NO_ROOM):
      return full_disk(workdir, cause)
    name = getattr(cause, "filename", None)
    if number in _UNWRITABLE and isinstance(name, str | os.PathLike) and (
        f"{os.path.abspath(name)}/".startswith(f"{here}/")):
      return errors.UserError(f"{os.fspath(name)} cannot be made or written ({cause.strerror}): "
                              "give another --workdir, a folder that you may write in")
  return None


def full_disk(folder, cause) -> errors.UserError:
  """The error for a write that found no room."""
  return errors.UserError(
      f"no room to write in {folder} ({str(cause).splitlines()[0][:120]}): free some space or give "
      "another --workdir, then run the same command again; it resumes from the last checkpoint")


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
