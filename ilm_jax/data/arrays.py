"""A folder of named arrays with a manifest: how interactions and the entity table are stored.

    <folder>/<name>.npz        the arrays
    <folder>/<other>.json      documents that belong to them
    <folder>/manifest.json     fingerprints of the content, of its sources, and of the manifest

The manifest is written last; `load` refuses a folder whose content does not match it. Arrays of
local files are mapped: only the parts in use are read, so they may be larger than memory.
"""
import hashlib
import io
import json
import struct
import zipfile

import numpy as np
from etils import epath

from ilm_jax import errors, files

FORMAT = 1
_ALIGN = 64
_FINGERPRINT = "fingerprint"


def fingerprint(arrays: dict[str, np.ndarray], documents: dict | None = None) -> str:
  """sha256 over names, types, shapes and bytes of `arrays`, and over the JSON `documents`."""
  digest = hashlib.sha256()
  for name in sorted(arrays):
    array = np.ascontiguousarray(arrays[name])
    digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
    digest.update(array.data.cast("B") if array.size else b"")
  digest.update(json.dumps(documents or {}, sort_keys=True).encode())
  return digest.hexdigest()


def save(folder, name: str, arrays: dict, *, made_from: dict, documents: dict | None = None) -> str:
  """Writes `<name>.npz`, one file for each document and the manifest; returns the fingerprint.

  Args:
    folder: where to write.
    name: name of the .npz file, without the ending.
    arrays: name -> array.
    made_from: what the arrays were made from, e.g. fingerprints; kept in the manifest.
    documents: name -> plain data, written as JSON.
  """
  folder = epath.Path(folder)
  documents = documents or {}
  _write(folder / f"{name}.npz", arrays)
  for document, content in documents.items():
    text = json.dumps(content, ensure_ascii=False, indent=1)
    files.write_text(folder / f"{document}.json", text)
  manifest: dict = {"format": FORMAT, "fingerprint": fingerprint(arrays, documents),
                    "made_from": made_from,
                    "arrays": {key: [a.dtype.str, list(a.shape)]
                               for key, a in sorted(arrays.items())},
                    "documents": sorted(documents)}
  manifest["manifest"] = of_manifest(manifest, "manifest")
  files.write_text(folder / "manifest.json", json.dumps(manifest, indent=1))
  return manifest["fingerprint"]


def load(folder, name: str, cure: str) -> tuple[dict, dict, dict]:
  """Reads what `save` wrote.

  Args:
    folder: the folder.
    name: name of the .npz file, without the ending.
    cure: what the user can do if it is absent or damaged, e.g. "run --stage=cf".

  Returns:
    (arrays, documents, manifest), with the fingerprint checked against the content. Arrays are
    read-only, and mapped if the folder is local.

  Raises:
    UserError: the folder lacks a file or is damaged; the message ends with `cure`.
  """
  folder = epath.Path(folder)
  try:
    manifest = json.loads((folder / "manifest.json").read_text())
    arrays = _read(folder / f"{name}.npz")
    documents = {document: json.loads((folder / f"{document}.json").read_text())
                 for document in manifest["documents"]}
  except FileNotFoundError as error:
    raise errors.UserError(f"{folder} lacks {epath.Path(error.filename).name}: {cure}") from error
  except Exception as error:     # zip, npy and JSON readers each have their own exceptions
    raise errors.UserError(f"{folder} cannot be read ({error}): delete it and {cure}") from error
  actual = fingerprint(arrays, documents)
  if actual != manifest.get("fingerprint"):
    have, expected = errors.short(actual, manifest.get("fingerprint"))
    raise errors.UserError(
        f"{folder} is damaged: its content has fingerprint {have}, its manifest says {expected}. "
        f"Delete it and {cure}.")
  # Manifests of older versions have no fingerprint of their own.
  if manifest.get("manifest", "") not in ("", of_manifest(manifest, "manifest")):
    raise errors.UserError(f"{folder}/manifest.json is damaged: it does not match its own "
                           f"fingerprint. Delete {folder} and {cure}.")
  return arrays, documents, manifest


def of_manifest(manifest: dict, key: str) -> str:
  """sha256 of a manifest without the entry at `key`, which holds this fingerprint."""
  rest = {name: value for name, value in manifest.items() if name != key}
  return files.sha256_json(rest)


def save_file(path, arrays: dict) -> None:
  """Writes one .npz without a manifest; one more array in it holds the fingerprint."""
  stamp = np.frombuffer(bytes.fromhex(fingerprint(arrays)), np.uint8)
  _write(epath.Path(path), {**arrays, _FINGERPRINT: stamp})


def load_file(path, cure: str) -> dict[str, np.ndarray]:
  """Reads what `save_file` wrote, or a file of np.savez without a fingerprint.

  Raises:
    UserError: the file is absent or damaged; the message ends with `cure`.
  """
  path = epath.Path(path)
  try:
    with np.load(io.BytesIO(path.read_bytes())) as stored:
      arrays = dict(stored)
  except FileNotFoundError as error:
    raise errors.UserError(f"{path} is missing: {cure}") from error
  except Exception as error:     # zip and npy readers each have their own exceptions
    raise errors.UserError(f"{path} is damaged ({error}): delete it and {cure}") from error
  stamp = arrays.pop(_FINGERPRINT, None)
  if stamp is not None and stamp.tobytes().hex() != fingerprint(arrays):
    have, expected = errors.short(fingerprint(arrays), stamp.tobytes().hex())
    raise errors.UserError(f"{path} is damaged: its content has fingerprint {have}, expected "
                           f"{expected}: delete it and {cure}")
  return arrays


def _write(path: epath.Path, arrays: dict[str, np.ndarray]) -> None:
  """Writes an .npz file; a local one without a copy of the arrays in memory."""
  if "://" in str(path):           # its file cannot seek
    written = io.BytesIO()
    _npz(written, arrays)
    files.write_bytes(path, written.getbuffer())
    return
  with files.writing(path, needs=sum(array.nbytes for array in arrays.values())) as file:
    _npz(file, arrays)


def _npz(file, arrays: dict[str, np.ndarray]) -> None:
  """Writes what np.savez writes, but with every array's data at a multiple of 64, for mapping."""
  with zipfile.ZipFile(file, "w") as archive:
    for name, array in arrays.items():
      info = zipfile.ZipInfo(f"{name}.npy")
      info.file_size = array.nbytes + 1024     # about: zipfile must know whether it is above 2 GiB
      # Pads with a header field of unknown type, which readers skip; .npy pads its own header.
      # zipfile adds a field of 20 bytes where it expects more than 2 GiB (zip64).
      long = 20 * (info.file_size * 1.05 > zipfile.ZIP64_LIMIT)
      gap = -(file.tell() + 30 + len(info.filename.encode()) + 4 + long) % _ALIGN
      info.extra = struct.pack("<HH", 0xFFFF, gap) + bytes(gap)
      with archive.open(info, "w") as content:
        np.lib.format.write_array(content, np.asanyarray(array), allow_pickle=False)


def _read(path) -> dict[str, np.ndarray]:
  if "://" in str(path):
    with np.load(io.BytesIO(path.read_bytes())) as stored:
      return dict(stored)
  with zipfile.ZipFile(path) as archive, open(path, "rb") as file:
    return {info.filename.removesuffix(".npy"): _map(file, info) for info in archive.infolist()}


def _map(file, info: zipfile.ZipInfo) -> np.ndarray:
  """Maps one array of an uncompressed archive."""
  if info.compress_type != zipfile.ZIP_STORED:
    raise ValueError(f"{info.filename} is compressed")
  file.seek(info.header_offset + 26)
  file.seek(sum(struct.unpack("<HH", file.read(4))), 1)      # past the name and the extra field
  version = np.lib.format.read_magic(file)
  shape, fortran, dtype = (np.lib.format.read_array_header_1_0 if version == (1, 0)
                           else np.lib.format.read_array_header_2_0)(file)
  if 0 in shape:
    return np.zeros(shape, dtype)
  mapped = np.asarray(np.memmap(file, dtype, "r", file.tell(), shape, "F" if fortran else "C"))
  return mapped if mapped.flags.aligned else np.array(mapped)
