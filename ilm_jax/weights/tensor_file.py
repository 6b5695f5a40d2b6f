"""Writes safetensors files, one tensor in memory at a time: [length][JSON header][tensors].

For a tensor larger than memory, give an iterator of its parts along the first axis.
"""
import json
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import ml_dtypes
import numpy as np

_NAMES = {np.dtype(np.float32): "F32", np.dtype(np.float16): "F16", np.dtype(np.int32): "I32",
          np.dtype(np.int64): "I64", np.dtype(ml_dtypes.bfloat16): "BF16"}


class Entry(NamedTuple):
  """A tensor to write."""
  name: str
  shape: tuple[int, ...]
  dtype: np.dtype
  # Called once, when the tensor is written; may return an iterator of parts along the first axis.
  array: Callable[[], np.ndarray | Iterator[np.ndarray]]


def of(name: str, array) -> Entry:
  """The entry of an array in memory."""
  array = np.asarray(array)
  return Entry(name, array.shape, array.dtype, lambda: array)


def write(file, entries: Sequence[Entry], metadata: dict[str, str]) -> None:
  """Writes a file.

  Args:
    file: a binary file to write to.
    entries: the tensors, in the order of the file.
    metadata: metadata of the header, e.g. {"format": "pt"}, which transformers needs.

  Raises:
    ValueError: an array does not have the shape of its entry.
  """
  header, at = {"__metadata__": metadata}, 0
  for name, shape, dtype, _ in entries:
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    header[name] = {"dtype": _NAMES[np.dtype(dtype)], "shape": list(shape),
                    "data_offsets": [at, at + size]}
    at += size
  text = json.dumps(header).encode()
  text += b" " * (-len(text) % 8)
  file.write(struct.pack("<Q", len(text)) + text)
  for name, shape, dtype, array in entries:
    made = array()
    if not isinstance(made, Iterator):
      _write(file, name, np.asarray(made), shape, dtype)
      continue
    rows = 0
    for part in made:
      _write(file, name, part, (len(part), *shape[1:]), dtype)
      rows += len(part)
    if rows != shape[0]:
      raise ValueError(f"tensor {name} has {rows} rows, expected {shape[0]}")


def _write(file, name: str, values: np.ndarray, shape, dtype) -> None:
  if values.shape != tuple(shape):
    raise ValueError(f"tensor {name} has shape {values.shape}, expected {shape}")
  file.write(np.ascontiguousarray(values.astype(dtype)).reshape(-1).view(np.uint8).data)
