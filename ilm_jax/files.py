"""Atomic writes (to a temporary name, then a rename), reads, and errors of disks and buckets."""
import contextlib
import errno
import functools
import gzip
import hashlib
import io
import json
import lzma
import os
import pathlib
import re
import shutil
import socket
import struct
import uuid
import zipfile
import zlib

from etils import epath

from ilm_jax import errors

_LFS_POINTER = b"version https://git-lfs.github.com/"
# What zipfile raises on an archive that is damaged, unusual or needs a password.
DAMAGED_ZIP = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError,
               NotImplementedError, RuntimeError, ValueError, KeyError, OverflowError)
UNPACKED = 250           # a packed file may unpack to so many times its size; tables reach 50
SMALL = 16 << 20         # and to so many bytes whatever its size
_CHECK = "check"
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Words of other libraries for the same errors.
NO_ROOM = ("No space left", "Not enough disk space", "ENOSPC", "File too large", "quota exceeded")
_CLIENTS = ("gcsfs", "s3fs", "fsspec", "aiohttp", "google", "botocore", "tensorflow")
_UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR,
               errno.ENAMETOOLONG)


def write_bytes(path, data: bytes | memoryview) -> None:
  """Writes `data` to `path` atomically (object stores: a single-object put is atomic too)."""
  with writing(path, needs=len(data)) as file:
    file.write(data)


@contextlib.contextmanager
def writing(path, needs: int | None = None):
  """Opens a binary file to write in pieces; it becomes `path` if the block ends without an error.

  `needs`: the bytes that will be written, if known, for the message about a full disk.
  """
  path = epath.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  _remove_left(path)
  temporary = _temporary(path)
  try:
    with temporary.open("wb") as file:
      yield file
    temporary.replace(path)
  except BaseException as e:
    if isinstance(e, OSError):
      if needs is not None:
        e.needed = needs                  # for `full_disk`
      if e.errno in FULL_DISK and e.filename is None:
        e.filename = os.fspath(path)      # the system's error of a write names no file
    temporary.unlink(missing_ok=True)
    raise


@contextlib.contextmanager
def writing_folder(path: pathlib.Path):
  """Makes a local folder to write into. If the block ends without an error, it replaces the folder
  `path`; otherwise it is removed."""
  path = path.absolute()
  path.parent.mkdir(parents=True, exist_ok=True)
  _remove_left(path)
  temporary = _temporary(path)
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


def _temporary(path):
  """A new temporary name beside `path`, with the pid and host of the writer."""
  return path.parent / f".{path.name}.{os.getpid()}.{_host()}{uuid.uuid4().hex[:8]}"


def _remove_left(path) -> None:
  """Removes temporary files of `path` whose writers were killed on this machine."""
  if "://" in os.fspath(path):
    return
  pattern = re.compile(rf"\.{re.escape(path.name)}\.(\d+)\.{_host()}[0-9a-f]{{8}}(\.old)?")
  with os.scandir(path.parent) as entries:
    left = [entry for entry in entries
            if (match := pattern.fullmatch(entry.name)) and not _runs(int(match[1]))]
  for entry in left:
    with contextlib.suppress(OSError):      # another process may have been faster
      if entry.is_dir(follow_symlinks=False):
        shutil.rmtree(entry.path)
      else:
        os.unlink(entry.path)


@functools.cache
def _host() -> str:
  return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:4]


def _runs(pid: int) -> bool:
  try:
    os.kill(pid, 0)
  except ProcessLookupError:
    return False
  except OSError:
    pass
  return True


def write_text(path, text: str) -> None:
  """Writes `text` as UTF-8 to `path` atomically."""
  write_bytes(path, text.encode())


@contextlib.contextmanager
def reading(path):
  """Opens a path of any file system as a binary file of Python's own type."""
  with path.open("rb") as file:
    yield file if isinstance(file, io.IOBase) else io.BufferedReader(_Raw(file), 1 << 20)


def parse_json(text: str | bytes):
  """The value in JSON text. Raises ValueError if it is no JSON or is nested too deep."""
  try:
    return json.loads(text)
  except RecursionError:
    raise ValueError("JSON nested too deep") from None


def text(path) -> str:
  """The text of a file in UTF-8, without its byte order mark.

  Raises:
    UserError: the file is absent or in another encoding.
  """
  path = epath.Path(path)
  try:
    return path.read_bytes().decode("utf-8-sig")
  except FileNotFoundError:
    raise errors.UserError(f"{path} does not exist: check the path") from None
  except UnicodeDecodeError as e:
    raise errors.UserError(f"{path} is not UTF-8 ({e.reason} at byte {e.start}): save the file as "
                           "UTF-8") from None


def read_json(path, cure: str):
  """The value in a JSON file of a run, unpacked if its name ends in .gz.

  Raises:
    UserError: the file is absent, unreadable or damaged; the message ends with `cure`.
  """
  path = epath.Path(path)
  try:
    data = path.read_bytes()
    return parse_json(gzip.decompress(data) if path.suffix == ".gz" else data)
  except (OSError, ValueError, EOFError, zlib.error) as e:
    raise errors.UserError(f"{path} cannot be read or is damaged ({e}): {cure}") from e


def json_object(path) -> dict:
  """The JSON object in a file of a model; {} if the file is absent or holds another kind of value.

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


def stamped(value: dict) -> dict:
  """`value` with its digest added under "check", for JSON that no manifest lists."""
  return {**value, _CHECK: _digest(value)}


def unstamped(value) -> dict:
  """The object that was `stamped`. Older versions wrote no digest: such an object is not checked.

  Raises:
    ValueError: it is no object, or differs from the one that was stamped.
  """
  if not isinstance(value, dict):
    raise ValueError("no JSON object")
  rest = {name: part for name, part in value.items() if name != _CHECK}
  if _CHECK in value:
    if value[_CHECK] != _digest(rest):
      raise ValueError(f"it does not match its digest {value[_CHECK]}")
    return rest
  # The name "check" itself is damaged: no other top-level value looks like a digest.
  if any(isinstance(part, str) and re.fullmatch("[0-9a-f]{16}", part) for part in rest.values()):
    raise ValueError("its digest has lost its name")
  return rest


def read_stamped(path, cure: str) -> dict:
  """The object in a JSON file that was written with `stamped`.

  Raises:
    UserError: the file is absent, unreadable or damaged; the message ends with `cure`.
  """
  path = epath.Path(path)
  try:
    return unstamped(parse_json(path.read_text()))
  except (OSError, ValueError) as e:
    raise errors.UserError(f"{path} cannot be read or is damaged ({e}): {cure}") from e


def _digest(value: dict) -> str:
  plain = json.loads(json.dumps(value))        # as read back: keys become strings
  return sha256_json(plain)[:16]


def sha256_json(value) -> str:
  """sha256 of plain data as JSON with sorted keys, so that equal data have equal digests."""
  return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def refuse_pointer(path) -> None:
  """Raises UserError if the file is only a git-lfs pointer, OSError if it is absent."""
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
  """A UserError if the cause of `error` is a full disk, or a workdir or bucket that cannot be read
  or written; else None."""
  here, remote = os.path.abspath(workdir), "://" in os.fspath(workdir)
  for cause in chain(error):
    number = getattr(cause, "errno", None)
    if number in FULL_DISK or any(words in str(cause) for words in NO_ROOM):
      return full_disk(workdir, cause)
    name = getattr(cause, "filename", None)
    if number in _UNWRITABLE and isinstance(name, str | os.PathLike) and (
        f"{os.path.abspath(name)}/".startswith(f"{here}/")):
      return errors.UserError(f"{os.fspath(name)} cannot be made or written ({cause.strerror}): "
                              "give another --workdir, a folder that you may write in")
    if remote and _of_a_bucket(cause):
      return errors.UserError(
          f"{workdir} cannot be read or written ({type(cause).__name__}: "
          f"{' '.join(str(cause).split())[:160]}), after the retries of the client library: check "
          "that the bucket exists and that you may write in it, then run the same command again; "
          "it resumes")
  return None


def _of_a_bucket(error: BaseException) -> bool:
  """Whether clients of object stores raise errors of this type."""
  return isinstance(error, OSError) or any(
      kind.__module__.split(".")[0] in _CLIENTS for kind in type(error).__mro__)


def full_disk(folder, cause) -> errors.UserError:
  """The error of a write to a full disk, with the file and the bytes where they are known."""
  needed = getattr(cause, "needed", None)
  numbers = [] if needed is None else [f"it needs {needed:,} bytes"]
  with contextlib.suppress(OSError):        # a bucket, or a folder that is gone
    numbers.append(f"{shutil.disk_usage(folder).free:,} are free" if numbers else
                   f"{shutil.disk_usage(folder).free:,} bytes are free")
  words = str(cause).splitlines()[0][:300]
  return errors.UserError(
      f"no room to write in {folder} ({'; '.join(filter(None, [words, ', '.join(numbers)]))}): "
      "free some space or give another --workdir, then run the same command again; it resumes from "
      "the last checkpoint")


class _Raw(io.RawIOBase):
  """Wraps a file that has only `read`, e.g. TensorFlow's."""

  def __init__(self, file):
    self._file = file

  def readable(self):
    return True

  def readinto(self, buffer):
    data = self._file.read(len(buffer))
    buffer[:len(data)] = data
    return len(data)
