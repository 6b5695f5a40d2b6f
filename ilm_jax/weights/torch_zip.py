"""Reads tensors from PyTorch's zip files (.pth, .pt, .bin) without PyTorch, and runs no code.

Such a file is a zip with a pickle that names storages, and one uncompressed member a storage. The
pickle is read by an unpickler that knows tensors and plain containers and refuses all else.
"""
import collections
import math
import pickle
import zipfile
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from etils import epath

from ilm_jax import errors

_DTYPES = {"FloatStorage": np.float32, "HalfStorage": np.float16, "BFloat16Storage": jnp.bfloat16,
           "DoubleStorage": np.float64, "LongStorage": np.int64, "IntStorage": np.int32,
           "BoolStorage": np.bool_, "ByteStorage": np.uint8}


class Tensor(NamedTuple):
  """Where a tensor lies: `offset` elements into the storage `key`."""
  key: str
  dtype: np.dtype
  offset: int
  shape: tuple[int, ...]
  stride: tuple[int, ...]


class TorchFile:
  """The tensors of a file by name; `shapes` says what there is, `read` reads one.

  A file that holds {"model": tensors, ..} or {"state_dict": tensors, ..} is read as these tensors.

  Raises:
    UserError: the file is absent, damaged, of PyTorch's format before 1.6, or holds objects other
      than tensors in plain containers.
  """

  def __init__(self, path):
    self._path = path
    try:
      self._zip = zipfile.ZipFile(epath.Path(path).open("rb"))
      pickled = next(n for n in self._zip.namelist() if n.endswith("/data.pkl"))
      self._root = pickled.removesuffix("data.pkl")
      with self._zip.open(pickled) as file:
        found = _Unpickler(file).load()
    except (OSError, zipfile.BadZipFile, StopIteration, pickle.UnpicklingError, EOFError,
            ValueError, TypeError, AttributeError) as e:
      raise errors.UserError(
          f"{path}: not a readable PyTorch file ({type(e).__name__}: {str(e)[:160]}): expected a "
          "zip written by torch.save of 1.6 or newer that holds tensors only; get it again, or "
          "save its state_dict anew") from e
    for key in ("model", "state_dict"):
      found = found.get(key, found) if isinstance(found, dict) else found
    if not isinstance(found, dict) or not any(isinstance(t, Tensor) for t in found.values()):
      raise errors.UserError(f"{path}: no tensors by name in it: expected a state_dict, or one "
                             "under \"model\"")
    self._tensors = {name: t for name, t in found.items() if isinstance(t, Tensor)}
    self.shapes = {name: t.shape for name, t in self._tensors.items()}

  def read(self, name: str) -> np.ndarray:
    """The tensor as an array of its own dtype."""
    t = self._tensors[name]
    size = t.dtype.itemsize
    last = sum((n - 1) * step for n, step in zip(t.shape, t.stride)) if math.prod(t.shape) else -1
    try:
      with self._zip.open(f"{self._root}data/{t.key}") as file:
        file.seek(t.offset * size)
        flat = np.frombuffer(file.read((last + 1) * size), t.dtype)
    except (KeyError, OSError, zipfile.BadZipFile) as e:
      raise errors.UserError(f"{self._path}: tensor {name} cannot be read ({e}): get the file "
                             "again") from e
    if len(flat) <= last:
      raise errors.UserError(f"{self._path}: tensor {name} ends after {len(flat)} of {last + 1} "
                             "elements: get the file again")
    return np.lib.stride_tricks.as_strided(flat, t.shape, [step * size for step in t.stride])


class _Unpickler(pickle.Unpickler):
  """Builds `Tensor`s; any other class or function in the pickle is an error."""

  def persistent_load(self, saved):
    _, kind, key, *_ = saved
    return kind, key

  def find_class(self, module, name):
    if module.startswith("torch") and name in _DTYPES:
      return np.dtype(_DTYPES[name])
    allowed = {("torch._utils", "_rebuild_tensor_v2"): _tensor,
               ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
               ("collections", "OrderedDict"): collections.OrderedDict}
    if (module, name) not in allowed:
      raise pickle.UnpicklingError(f"it refers to {module}.{name}, which is neither tensor nor "
                                   "container")
    return allowed[module, name]


def _tensor(storage, offset, shape, stride, *_) -> Tensor:
  dtype, key = storage
  return Tensor(key, dtype, offset, tuple(shape), tuple(stride))
