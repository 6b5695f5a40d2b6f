"""A folder of files as parts of a given size: one tar cut into pieces, and a manifest of digests.

    manifest.json     {"format": 1, "parts": [{"name", "size", "sha256"}], "files": 9, "bytes": 99}
    part-0001, ..     the tar, uncompressed, in pieces

The tar contains no owners, times or links, so the same files give the same parts. Unpacking writes
only plain files at relative names.
"""
import hashlib
import io
import json
import os
import pathlib
import re
import shutil
import tarfile

from ilm_jax import errors

MANIFEST = "manifest.json"
_FORMAT = 1
_CHUNK = 1 << 20
_UNITS = {"": 1, "KiB": 2 ** 10, "MiB": 2 ** 20, "GiB": 2 ** 30}
_LEAST = 64 * 2 ** 10       # bytes of a part: smaller ones could be millions


def size(text: str) -> int:
  """Bytes in "60MiB".

  Raises:
    UserError: it is not a size, or too small for a part.
  """
  m = re.fullmatch(r"(\d+)(|KiB|MiB|GiB)", text)
  if not m or (number := int(m[1]) * _UNITS[m[2]]) < _LEAST:
    raise errors.UserError(f"--parts={text}: expected a size of at least 64KiB, e.g. 60MiB")
  return number


def walk(folder: pathlib.Path, name: str, links: bool = False) -> dict[str, pathlib.Path]:
  """{name in the tar: file} of all files below a folder, in order.

  Args:
    folder: local.
    name: its name in the tar.
    links: replace a link to a file by the file; caches of models have such links.

  Raises:
    UserError: something that is neither file nor folder, e.g. a link.
  """
  files = {}
  for path in sorted(folder.rglob("*")):
    if path.is_file() and (links or not path.is_symlink()):
      files[f"{name}/{path.relative_to(folder).as_posix()}"] = path
    elif not path.is_dir() or path.is_symlink():
      raise errors.UserError(f"{path} is a link, socket or the like, expected files and folders: "
                             "put what it points at in its place, or move it away")
  return files


def write(folder: pathlib.Path, files: dict[str, pathlib.Path | bytes], part: int,
          about: dict, program: dict[str, bytes]) -> dict:
  """Writes the parts, the files of `program` unpacked, and last the manifest.

  Args:
    folder: absent or empty.
    files: {name in the tar: a local file or its content}.
    part: bytes of a part at most.
    about: more entries of the manifest.
    program: {name in the folder: content} of files that are not in the parts, e.g. to read them.

  Returns:
    The manifest.

  Raises:
    UserError: the folder is not empty, or the disk has too little room. No part is left then.
  """
  if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
    raise errors.UserError(f"{folder} is there already: name a folder that is absent or empty")
  total = sum(len(f) if isinstance(f, bytes) else f.stat().st_size for f in files.values())
  need_room(folder, total + total // 50 + _CHUNK)
  folder.mkdir(parents=True, exist_ok=True)
  try:
    pieces = _Pieces(folder, part)
    with tarfile.open(fileobj=pieces, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_CHUNK) as tar:
      for name, content in files.items():
        _add(tar, check_name(name), content)
    pieces.close()
    for name, content in program.items():
      path = folder / name
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(content)
    manifest = {"format": _FORMAT, **about, "files": len(files), "bytes": total,
                "parts": pieces.parts}
    partial = folder / f".{MANIFEST}"
    partial.write_text(json.dumps(manifest, indent=1) + "\n")
    partial.replace(folder / MANIFEST)
  except BaseException as e:
    for path in folder.iterdir():
      shutil.rmtree(path) if path.is_dir() else path.unlink()
    if isinstance(e, OSError):
      raise errors.UserError(f"{folder} cannot be written ({e.strerror or e}): make room there, "
                             "or name another folder") from e
    raise
  return manifest


def _add(tar: tarfile.TarFile, name: str, content) -> None:
  info = tarfile.TarInfo(name)
  if isinstance(content, bytes):
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))
    return
  with content.open("rb") as file:
    info.size = os.fstat(file.fileno()).st_size
    info.mode = 0o755 if content.stat().st_mode & 0o100 else 0o644
    tar.addfile(info, file)


class _Pieces:
  """A writable file that cuts its content into parts.

  Attributes:
    parts: [{"name", "size", "sha256"}] of those that are complete.
  """

  def __init__(self, folder: pathlib.Path, part: int):
    self._folder, self._part = folder, part
    self.parts: list[dict] = []
    self._file = None

  def write(self, data: bytes) -> int:
    at = memoryview(data)
    while at:
      if self._file is None:
        self._name = f"part-{len(self.parts) + 1:04d}"
        self._file, self._size = (self._folder / self._name).open("wb"), 0
        self._digest = hashlib.sha256()
      piece = at[:self._part - self._size]
      self._file.write(piece)
      self._digest.update(piece)
      self._size += len(piece)
      at = at[len(piece):]
      if self._size == self._part:
        self.close()
    return len(data)

  def close(self) -> None:
    """Completes the open part."""
    if self._file is not None:
      self._file.close()
      self._file = None
      self.parts.append({"name": self._name, "size": self._size,
                         "sha256": self._digest.hexdigest()})


def read(folder: pathlib.Path) -> dict:
  """The manifest of a folder of parts.

  Raises:
    UserError: there is none, or it cannot be read.
  """
  path = folder / MANIFEST
  try:
    manifest = json.loads(path.read_text())
    form, parts = manifest["format"], manifest["parts"]
    ok = form == _FORMAT and all(re.fullmatch(r"part-\d{4,}", p["name"]) and p["size"] >= 0
                                 and isinstance(p["sha256"], str) for p in parts)
  except FileNotFoundError as e:
    raise errors.UserError(f"{path} does not exist: name the folder that a bundle was written to, "
                           "with all its files") from e
  except (OSError, ValueError, KeyError, TypeError, RecursionError) as e:
    raise errors.UserError(f"{path} is damaged: copy it again") from e
  if not ok:
    raise errors.UserError(f"{path} has format {form}, expected {_FORMAT}, with parts called "
                           "part-0001 and so on: read it with the bundle_run.sh beside it")
  return manifest


def check(folder: pathlib.Path, manifest: dict) -> None:
  """Raises a UserError that names missing parts, or the first part with wrong bytes."""
  absent = [p["name"] for p in manifest["parts"] if not (folder / p["name"]).is_file()]
  if absent:
    raise errors.UserError(f"{folder} lacks {', '.join(absent[:5])} ({len(absent)} of "
                           f"{len(manifest['parts'])} parts): copy what is missing")
  for part in manifest["parts"]:
    path = folder / part["name"]
    if (have := path.stat().st_size) != part["size"]:
      raise errors.UserError(f"{path} has {have} bytes, expected {part['size']}: copy it again")
    with path.open("rb") as file:
      digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != part["sha256"]:
      raise errors.UserError(f"{path} has sha256 {digest[:12]}, expected {part['sha256'][:12]}: "
                             "copy it again")


def unpack(folder: pathlib.Path, manifest: dict, into: pathlib.Path,
           more: dict[str, bytes]) -> None:
  """Unpacks checked parts into a folder that is absent or empty; everything or nothing.

  Args:
    folder: with the parts.
    manifest: of the parts.
    into: the folder to write.
    more: {name: content} of more files to write.

  Raises:
    UserError: the folder is not empty, there is too little room, or the tar contains something
      other than files inside the folder.
  """
  if into.exists() and (not into.is_dir() or any(into.iterdir())):
    raise errors.UserError(f"{into} is there already and holds something else: name a folder that "
                           "is absent or empty")
  need_room(into, manifest["bytes"])
  partial = into.absolute().with_name(f".{into.absolute().name}.unpacking")
  shutil.rmtree(partial, ignore_errors=True)
  try:
    partial.mkdir(parents=True)
    with _Joined(folder, manifest) as joined, tarfile.open(
        fileobj=joined, mode="r|", bufsize=_CHUNK) as tar:
      for member in tar:
        _extract(tar, member, partial)
    for name, content in more.items():
      (partial / name).write_bytes(content)
    partial.rename(into.absolute())
  except BaseException as e:
    shutil.rmtree(partial, ignore_errors=True)
    if isinstance(e, tarfile.TarError):
      raise errors.UserError(f"{folder}: its parts are no tar ({e}): copy them again") from e
    if isinstance(e, OSError):
      raise errors.UserError(f"{into} cannot be written ({e.strerror or e}): make room there, or "
                             "name another folder") from e
    raise


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, into: pathlib.Path) -> None:
  path = into / check_name(member.name)
  if not member.isreg():
    raise errors.UserError(f"{member.name!r} in the parts is no plain file: the bundle is not of "
                           "launch.bundle, use none of it")
  path.parent.mkdir(parents=True, exist_ok=True)
  with path.open("xb") as file:
    shutil.copyfileobj(tar.extractfile(member), file, _CHUNK)
  path.chmod(0o755 if member.mode & 0o100 else 0o644)


def check_name(name: str) -> str:
  """The name of a file in a tar; refuses a name outside the folder into which it is unpacked."""
  parts = name.split("/")
  if any(part in ("", ".", "..") for part in parts) or "\\" in name or "\0" in name:
    raise errors.UserError(f"{name!r} in the parts lies outside the folder: the bundle is not of "
                           "launch.bundle, use none of it")
  return name


class _Joined(io.RawIOBase):
  """The parts as one file to read."""

  def __init__(self, folder: pathlib.Path, manifest: dict):
    self._paths = iter([folder / part["name"] for part in manifest["parts"]])
    self._file = None

  def readable(self):
    return True

  def read(self, count=-1):
    while True:
      if self._file is None:
        path = next(self._paths, None)
        if path is None:
          return b""
        self._file = path.open("rb")
      if data := self._file.read(count):
        return data
      self._file.close()
      self._file = None


def need_room(folder: pathlib.Path, bytes_needed: int) -> None:
  """Raises a UserError if the disk of a folder, which may be absent, has too little room."""
  there = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
  if (free := shutil.disk_usage(there).free) < bytes_needed:
    raise errors.UserError(f"{folder} needs {words(bytes_needed)}, and its disk has {words(free)} "
                           "free: make room, or name a folder on another disk")


def words(count: int) -> str:
  """1234567 -> "1.2 MiB"."""
  return f"{count / 2 ** 20:.1f} MiB" if count < 2 ** 30 else f"{count / 2 ** 30:.1f} GiB"
