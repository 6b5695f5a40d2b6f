"""A folder of named arrays with a manifest: how interactions and the entity table are stored.

    <folder>/<name>.npz        the arrays
    <folder>/<other>.json      documents that belong to them
    <folder>/manifest.json     fingerprint of the content, fingerprints of what it was made from

The manifest is written last; a folder whose content does not fit its manifest is refused.
"""
import hashlib
import io
import json

import numpy as np
from etils import epath

from ilm_jax import errors, files

FORMAT = 1


def fingerprint(arrays: dict[str, np.ndarray], documents: dict | None = None) -> str:
  """sha256 over names, types, shapes and bytes of `arrays`, and over the JSON `documents`."""
  digest = hashlib.sha256()
  for name in sorted(arrays):
    array = np.ascontiguousarray(arrays[name])
    digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
    digest.update(array.tobytes())
  digest.update(json.dumps(documents or {}, sort_keys=True).encode())
  return digest.hexdigest()


def save(folder, name: str, arrays: dict, *, made_from: dict, documents: dict | None = None) -> str:
  """Writes `<name>.npz`, one file per document and the manifest; returns the fingerprint."""
  folder = epath.Path(folder)
  documents = documents or {}
  written = io.BytesIO()
  np.savez(written, **arrays)
  files.write_bytes(folder / f"{name}.npz", written.getvalue())
  for document, content in documents.items():
    text = json.dumps(content, ensure_ascii=False, indent=1)
    files.write_text(folder / f"{document}.json", text)
  manifest = {"format": FORMAT, "fingerprint": fingerprint(arrays, documents),
              "made_from": made_from,
              "arrays": {key: [a.dtype.str, list(a.shape)] for key, a in sorted(arrays.items())},
              "documents": sorted(documents)}
  files.write_text(folder / "manifest.json", json.dumps(manifest, indent=1))
  return manifest["fingerprint"]


def load(folder, name: str, cure: str) -> tuple[dict, dict, dict]:
  """Reads what `save` wrote.

  Args:
    folder: the folder.
    name: of the .npz file.
    cure: what the user can do when it is absent or damaged, e.g. "run --stage=cf".

  Returns:
    (arrays, documents, manifest), with the fingerprint checked against the content.
  """
  folder = epath.Path(folder)
  try:
    manifest = json.loads((folder / "manifest.json").read_text())
    with np.load(io.BytesIO((folder / f"{name}.npz").read_bytes())) as stored:
      arrays = dict(stored)
    documents = {document: json.loads((folder / f"{document}.json").read_text())
                 for document in manifest["documents"]}
  except FileNotFoundError as error:
    raise errors.UserError(f"{folder} lacks {epath.Path(error.filename).name}: {cure}") from error
  except Exception as error:     # zip, npy and JSON readers each have their own exceptions
    raise errors.UserError(f"{folder} cannot be read ({error}): delete it and {cure}") from error
  found = fingerprint(arrays, documents)
  if found != manifest.get("fingerprint"):
    raise errors.UserError(
        f"{folder} is damaged: its content has fingerprint {found[:12]}, its manifest says "
        f"{str(manifest.get('fingerprint'))[:12]}. Delete it and {cure}.")
  return arrays, documents, manifest
