"""Prepared examples on disk: ArrayRecord shards for random access, and a manifest.

    <folder>/shard-00000-of-00002.array_record   example i is record i // 2 of shard i % 2
    <folder>/lengths.npz                         the length of every array of every example
    <folder>/manifest.json                       sizes, sha256, what it was made from, fingerprint

A folder is either complete or absent: it is written under another name and then renamed.
ArrayRecord only opens local files: for a bucket, shards are written locally and copied there, and
copied back to be read.
"""
import contextlib
import hashlib
import io
import json
import os
import re
import tempfile
import threading
import uuid
from collections.abc import Iterable, Sequence

import msgpack
import numpy as np
from array_record.python import array_record_module
from etils import epath

from ilm_jax import errors, files
from ilm_jax.data import arrays as arrays_lib

FORMAT = 1
_LENGTHS = "lengths.npz"
_SHARD = 1 << 18           # examples in a shard, few enough to sort in the memory of one machine
# One record in each chunk, and no read-ahead: one record costs one small read.
_WRITE, _READ = "group_size:1", "readahead_buffer_size:0,max_parallelism:0"


def write(folder, examples: Iterable[dict], manifest: dict, shards: int = 1) -> dict:
  """Writes examples in order, and returns the manifest that was written.

  Args:
    folder: the folder to write; an existing one is replaced as a whole.
    examples: dicts of int32 1-D arrays, all with the same keys.
    manifest: entries to write into the manifest, e.g. {"made_from": {...}}.
    shards: number of files; examples go to them in turn.

  Returns:
    `manifest` with "format", "count", "files" (size and sha256 of each) and "fingerprint" added.
  """
  temporary = begin(folder)
  try:
    with _local(temporary) as local:
      lengths = _write_shards(local, examples, shards)
    return publish(temporary, folder, lengths, manifest, shards)
  except BaseException:
    _remove(temporary)
    raise


def begin(folder, kind: str = "writing") -> epath.Path:
  """Makes an empty folder beside `folder`, e.g. for the shards that `publish` turns into `folder`.

  Its name is unique, so that a writer that outlives its killed job cannot write into it. Folders of
  such writers are removed: the lock of the workdir allows only one job at a time.
  """
  folder = epath.Path(folder)
  folder.parent.mkdir(parents=True, exist_ok=True)
  for path in folder.parent.iterdir():
    if re.fullmatch(rf"\.{re.escape(folder.name)}(\.[0-9a-f]{{12}})?\.{kind}", path.name):
      path.rmtree()
  temporary = folder.parent / f".{folder.name}.{uuid.uuid4().hex[:12]}.{kind}"
  temporary.mkdir()
  return temporary


def publish(temporary, folder, lengths: dict, manifest: dict, shards: int) -> dict:
  """Writes lengths and manifest beside the shards in `temporary`, and renames it to `folder`.

  Args:
    temporary: the folder from `begin`, with all shards.
    folder, manifest: as in `write`.
    lengths: array name -> int32 [examples], the length of that array.
    shards: number of shards.

  Returns:
    The manifest, as `write`.
  """
  written = io.BytesIO()
  np.savez(written, **lengths)
  (temporary / _LENGTHS).write_bytes(written.getvalue())
  identities = {path.name: _identity(path) for path in sorted(temporary.iterdir())}
  count = len(next(iter(lengths.values()), ()))
  manifest = {**manifest, "format": FORMAT, "count": count, "shards": shards, "files": identities}
  manifest["fingerprint"] = arrays_lib.of_manifest(manifest, "fingerprint")
  (temporary / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True))
  _remove(folder)
  temporary.rename(folder)
  return manifest


def shards_of(count: int | None) -> int:
  """The number of shards for `count` examples (None: not known)."""
  return max(1, -(-(count or 0) // _SHARD))


def read_manifest(folder) -> dict | None:
  """The manifest of a prepared folder; None if it is absent or unreadable."""
  try:
    manifest = json.loads((epath.Path(folder) / "manifest.json").read_text())
  except (OSError, ValueError):
    return None
  return manifest if isinstance(manifest, dict) else None


def damage(folder, manifest: dict) -> str:
  """Says which file of `folder` differs from the manifest; "" if none does."""
  folder = epath.Path(folder)
  if manifest.get("fingerprint") != arrays_lib.of_manifest(manifest, "fingerprint"):
    return f"{folder / 'manifest.json'} is damaged: it does not match its own fingerprint"
  for name, expected in manifest["files"].items():
    if (identity := _identity(folder / name)) != expected:
      return f"{folder / name} is damaged: found {identity}, expected {expected}"
  return ""


class Prepared:
  """The prepared examples of one split of one task, by index."""

  def __init__(self, folder):
    """Opens `folder`; reads every file once and compares size and sha256.

    Raises:
      UserError: there are no prepared examples of this format, or they are damaged.
    """
    self.folder = epath.Path(folder)
    manifest = read_manifest(folder)
    if manifest is None or manifest.get("format") != FORMAT:
      raise errors.UserError(f"{folder} holds no prepared examples of format {FORMAT}: "
                             "run --stage=prepare")
    if wrong := damage(folder, manifest):
      raise errors.UserError(f"{wrong}: run --stage=prepare, which writes {folder} again")
    self.manifest = manifest
    self._open()

  def _open(self):
    self._readers, self._lock, self._copies = {}, threading.Lock(), None

  @property
  def fingerprint(self) -> str:
    return self.manifest["fingerprint"]

  def __len__(self) -> int:
    return self.manifest["count"]

  def __getitem__(self, index: int) -> dict[str, np.ndarray]:
    return self.many([int(index)])[0]

  def many(self, indices: Sequence[int]) -> list[dict[str, np.ndarray]]:
    """The examples at these indices, in this order; IndexError for an index out of range."""
    count, shards, records = len(self), self.manifest["shards"], []
    with self._lock:
      for index in indices:
        if not 0 <= index < count:
          raise IndexError(f"example {index} of {count} in {self.folder}")
        record, shard = divmod(index, shards)
        reader = self._readers.get(shard) or self._reader(shard)
        reader.seek(record)              # seek and read are 60 times faster than read([record])
        records.append(reader.read())
    return [{k: np.frombuffer(v, np.int32) for k, v in msgpack.unpackb(data).items()}
            for data in records]

  def lengths(self) -> dict[str, np.ndarray]:
    """Array name -> int32 [examples], the length of that array in every example."""
    with np.load(io.BytesIO((self.folder / _LENGTHS).read_bytes())) as arrays:
      return dict(arrays)

  def _reader(self, shard: int):
    if shard not in self._readers:
      path = self.folder / shard_name(shard, self.manifest["shards"])
      if _is_remote(path):
        self._copies = self._copies or tempfile.TemporaryDirectory()
        path = path.copy(epath.Path(self._copies.name) / path.name)
      self._readers[shard] = array_record_module.ArrayRecordReader(os.fspath(path), _READ)
    return self._readers[shard]

  def __getstate__(self):
    return {"folder": self.folder, "manifest": self.manifest}

  def __setstate__(self, state):
    self.__dict__.update(state)
    self._open()


def _write_shards(folder, examples, shards: int) -> dict[str, np.ndarray]:
  writers = [array_record_module.ArrayRecordWriter(
      os.fspath(folder / shard_name(i, shards)), _WRITE) for i in range(shards)]
  lengths = {}
  try:
    for number, example in enumerate(examples):
      record, length = encode(example, number)
      if lengths and lengths.keys() != length.keys():
        raise ValueError(f"example {number} has {sorted(length)}, the first {sorted(lengths)}")
      for key, value in length.items():
        lengths.setdefault(key, []).append(value)
      _disk(writers[number % shards].write, record)
  finally:
    for writer in writers:
      _disk(writer.close)
  return {k: np.asarray(v, np.int32) for k, v in lengths.items()}


def encode(example: dict, number: int = 0) -> tuple[bytes, dict[str, int]]:
  """(record, lengths of its arrays) of an example; ValueError, which names `number`, unless 1-D."""
  arrays = {k: np.asarray(v, np.int32) for k, v in example.items()}
  for key, array in arrays.items():
    if array.ndim != 1:
      raise ValueError(f"example {number}: {key} has shape {array.shape}, expected one axis")
  record = msgpack.packb({k: v.tobytes() for k, v in arrays.items()})
  return record, {k: len(v) for k, v in arrays.items()}


def write_shard(path, records: Iterable[bytes]) -> None:
  """Writes one shard of records from `encode`."""
  writer = array_record_module.ArrayRecordWriter(os.fspath(path), _WRITE)
  try:
    for record in records:
      _disk(writer.write, record)
  finally:
    _disk(writer.close)


def _disk(call, *args):
  """Calls a writer; for a full disk, ArrayRecord raises a bare RuntimeError."""
  try:
    call(*args)
  except RuntimeError as error:
    raise errors.UserError(f"prepared examples cannot be written ({error}): free some space, or "
                           "choose another --workdir, and run --stage=prepare") from error


def shard_name(shard: int, shards: int) -> str:
  """File name of a shard."""
  return f"shard-{shard:05d}-of-{shards:05d}.array_record"


@contextlib.contextmanager
def _local(folder):
  """`folder`; if it is in a bucket, a local folder, whose files are copied there at the end."""
  if not _is_remote(folder):
    yield folder
    return
  with tempfile.TemporaryDirectory() as here:
    yield epath.Path(here)
    for path in epath.Path(here).iterdir():
      path.copy(folder / path.name)


def _is_remote(path) -> bool:
  return "://" in os.fspath(path)


def _identity(path) -> dict | str:
  if not path.exists():
    return "no file"
  with files.reading(path) as f:
    digest = hashlib.file_digest(f, "sha256").hexdigest()
  return {"size": path.stat().length, "sha256": digest}


def _remove(folder):
  folder = epath.Path(folder)
  if folder.exists():
    folder.rmtree()
