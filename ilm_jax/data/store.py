"""Prepared examples on disk: ArrayRecord shards for random access, and a manifest.

    <folder>/shard-00000-of-00002.array_record   example i is record i // 2 of shard i % 2
    <folder>/lengths.npz                         the length of every array of every example
    <folder>/manifest.json                       sizes, sha256, what it was made from, fingerprint

A folder appears whole or not at all: it is written under another name and renamed.
"""
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Iterable, Sequence

import msgpack
import numpy as np
from array_record.python import array_record_module
from etils import epath

from ilm_jax import errors

FORMAT = 1
_LENGTHS = "lengths.npz"
# One record a chunk, and no read-ahead: reading one record costs one small read.
_WRITE, _READ = "group_size:1", "readahead_buffer_size:0,max_parallelism:0"


def write(folder, examples: Iterable[dict], manifest: dict, shards: int = 1) -> dict:
  """Writes examples in order, and returns the manifest that was written.

  Args:
    folder: its last part is replaced as a whole.
    examples: dicts of int32 1-D arrays, all with the same keys.
    manifest: what to keep beside the shards, e.g. {"made_from": {...}}.
    shards: number of files; examples go to them in turn.

  Returns:
    `manifest` with "format", "count", "files" (size and sha256 of each) and "fingerprint" added.
  """
  folder = epath.Path(folder)
  temporary = folder.parent / f".{folder.name}.writing"
  _remove(temporary)                     # left there by a writer that was killed
  temporary.mkdir(parents=True)
  try:
    lengths = _write_shards(temporary, examples, shards)
    np.savez(os.fspath(temporary / _LENGTHS), **lengths)
    files = {path.name: _identity(path) for path in sorted(temporary.iterdir())}
    count = len(next(iter(lengths.values()), ()))
    manifest = {**manifest, "format": FORMAT, "count": count, "shards": shards, "files": files}
    manifest["fingerprint"] = hashlib.sha256(
        json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    (temporary / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True))
    _remove(folder)
    os.rename(temporary, folder)
  except BaseException:
    _remove(temporary)
    raise
  return manifest


def read_manifest(folder) -> dict | None:
  """The manifest of a prepared folder, None if there is none that can be read."""
  try:
    return json.loads((epath.Path(folder) / "manifest.json").read_text())
  except (OSError, ValueError):
    return None


class Prepared:
  """The prepared examples of one split of one task, by index."""

  def __init__(self, folder, verify: bool = True):
    """Opens `folder`. `verify` reads every file once and compares size and sha256."""
    self.folder = epath.Path(folder)
    self.manifest = read_manifest(folder)
    if self.manifest is None or self.manifest.get("format") != FORMAT:
      raise errors.UserError(f"{folder} holds no prepared examples of format {FORMAT}: "
                             "run --stage=prepare")
    if verify:
      for name, identity in self.manifest["files"].items():
        self._verify(name, identity)
    self._readers, self._lock = {}, threading.Lock()

  @property
  def fingerprint(self) -> str:
    return self.manifest["fingerprint"]

  def __len__(self) -> int:
    return self.manifest["count"]

  def __getitem__(self, index: int) -> dict[str, np.ndarray]:
    return self.many([int(index)])[0]

  def many(self, indices: Sequence[int]) -> list[dict[str, np.ndarray]]:
    """The examples at these indices, in their order."""
    count, shards, found = len(self), self.manifest["shards"], []
    with self._lock:
      for index in indices:
        if not 0 <= index < count:
          raise IndexError(f"example {index} of {count} in {self.folder}")
        record, shard = divmod(index, shards)
        reader = self._readers.get(shard) or self._reader(shard)
        reader.seek(record)              # and read: 60 times faster than read([record])
        found.append(reader.read())
    return [{k: np.frombuffer(v, np.int32) for k, v in msgpack.unpackb(data).items()}
            for data in found]

  def lengths(self) -> dict[str, np.ndarray]:
    """Array name -> int32 [examples], the length of that array in every example."""
    with np.load(os.fspath(self.folder / _LENGTHS)) as arrays:
      return dict(arrays)

  def _reader(self, shard: int):
    if shard not in self._readers:
      name = _shard_name(shard, self.manifest["shards"])
      self._readers[shard] = array_record_module.ArrayRecordReader(
          os.fspath(self.folder / name), _READ)
    return self._readers[shard]

  def _verify(self, name: str, expected: dict):
    path = self.folder / name
    found = _identity(path) if path.exists() else "no file"
    if found != expected:
      raise errors.UserError(
          f"{path} is damaged: found {found}, expected {expected}. Delete {self.folder.parent} "
          "and run --stage=prepare")

  def __getstate__(self):
    return {"folder": self.folder, "manifest": self.manifest}

  def __setstate__(self, state):
    self.__dict__.update(state)
    self._readers, self._lock = {}, threading.Lock()


def _write_shards(folder, examples, shards: int) -> dict[str, np.ndarray]:
  writers = [array_record_module.ArrayRecordWriter(
      os.fspath(folder / _shard_name(i, shards)), _WRITE) for i in range(shards)]
  lengths = {}
  try:
    for number, example in enumerate(examples):
      arrays = {k: np.asarray(v, np.int32) for k, v in example.items()}
      if lengths and lengths.keys() != arrays.keys():
        raise ValueError(f"example {number} has {sorted(arrays)}, the first {sorted(lengths)}")
      for key, array in arrays.items():
        if array.ndim != 1:
          raise ValueError(f"example {number}: {key} has shape {array.shape}, expected one axis")
        lengths.setdefault(key, []).append(len(array))
      record = msgpack.packb({k: v.tobytes() for k, v in arrays.items()})
      _disk(writers[number % shards].write, record)
  finally:
    for writer in writers:
      _disk(writer.close)
  return {k: np.asarray(v, np.int32) for k, v in lengths.items()}


def _disk(call, *args):
  """Calls a writer; ArrayRecord tells of a full disk by a bare RuntimeError."""
  try:
    call(*args)
  except RuntimeError as error:
    raise errors.UserError(f"prepared examples cannot be written ({error}): free some space, or "
                           "choose another --workdir, and run --stage=prepare") from error


def _shard_name(shard: int, shards: int) -> str:
  return f"shard-{shard:05d}-of-{shards:05d}.array_record"


def _identity(path) -> dict:
  with open(path, "rb") as f:
    digest = hashlib.file_digest(f, "sha256").hexdigest()
  return {"size": path.stat().length, "sha256": digest}


def _remove(folder):
  shutil.rmtree(folder, ignore_errors=True)
