"""Reads tensors from PyTorch's zip files (.pth, .pt, .bin) without PyTorch, and runs no code.

Such a file is a zip with a pickle that names storages, and an uncompressed member for each storage.
Our unpickler accepts tensors and plain containers and refuses everything else. A tensor is accepted
only if it lies inside its storage.
"""
import collections
import io
import math
import pickle
import zipfile
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from etils import epath

from ilm_jax import errors, files
from ilm_jax.weights import trees

_MOST = 1 << 40      # elements, and of a number in a header
_DTYPES = {"FloatStorage": np.float32, "HalfStorage": np.float16, "BFloat16Storage": jnp.bfloat16,
           "DoubleStorage": np.float64, "LongStorage": np.int64, "IntStorage": np.int32,
           "BoolStorage": np.bool_, "ByteStorage": np.uint8}


class Tensor(NamedTuple):
  """The place of a tensor: it begins `offset` elements into the storage `key`."""
  key: str
  dtype: np.dtype
  offset: int
  shape: tuple[int, ...]
  stride: tuple[int, ...]


class TorchFile:
  """The tensors of a file by name: `shapes` has name -> shape of all, `read` reads one.

  For a file with {"model": tensors, ..} or {"state_dict": tensors, ..}, these are the tensors.

  Raises:
    UserError: the file is absent, damaged or in PyTorch's format before 1.6, or it holds objects
      other than tensors in plain containers, or tensors that are not inside their storage.
  """

  def __init__(self, path):
    self._path = path
    try:
      files.refuse_pointer(path)
      self._zip = zipfile.ZipFile(epath.Path(path).open("rb"))
      pickled = next(n for n in self._zip.namelist() if n.endswith("/data.pkl"))
      self._root = pickled.removesuffix("data.pkl")
      content = _Unpickler(io.BytesIO(self._member(pickled).read())).load()
    except errors.UserError:
      raise
    except Exception as e:   # a damaged zip or pickle may raise anything
      raise errors.UserError(
          f"{path}: not a readable PyTorch file ({type(e).__name__}: {str(e)[:160]}): expected a "
          "zip written by torch.save of 1.6 or newer that holds only tensors; get it again, or "
          "save its state_dict again") from e
    for key in ("model", "state_dict"):
      content = content.get(key, content) if isinstance(content, dict) else content
    if not isinstance(content, dict) or not any(isinstance(t, Tensor) for t in content.values()):
      raise errors.UserError(f"{path}: no named tensors found, expected a state_dict, or one "
                             "under \"model\": save it with torch.save(model.state_dict(), path)")
    self._tensors = {name: t for name, t in content.items()
                     if isinstance(name, str) and isinstance(t, Tensor)}
    for name, tensor in self._tensors.items():
      self._check(name, tensor)
    self.shapes = {name: t.shape for name, t in self._tensors.items()}

  def read(self, name: str) -> np.ndarray:
    """The tensor as an array of its own dtype."""
    t = self._tensors[name]
    size, length = t.dtype.itemsize, _extent(t)
    try:
      with self._member(f"{self._root}data/{t.key}") as file:
        file.seek(t.offset * size)
        flat = np.frombuffer(file.read(length * size), t.dtype, length)
    except files.DAMAGED_ZIP as e:
      raise errors.UserError(f"{self._path}: tensor {name} cannot be read ({e}): get the file "
                             "again") from e
    return np.lib.stride_tricks.as_strided(flat, t.shape, [step * size for step in t.stride])

  def _member(self, name: str):
    """Opens a member; PyTorch does not compress members, so none is larger than the file."""
    if self._zip.getinfo(name).compress_type != zipfile.ZIP_STORED:
      raise zipfile.BadZipFile(f"{name} is compressed")
    return self._zip.open(name)

  def _check(self, name: str, t: Tensor) -> None:
    """Raises UserError unless a tensor lies inside its storage and is not larger than it."""
    numbers = (t.offset, *t.shape, *t.stride)
    if (not isinstance(t.dtype, np.dtype) or type(t.key) is not str
        or not all(type(n) is int and 0 <= n < _MOST for n in numbers)
        or len(t.shape) != len(t.stride) or len(t.shape) > trees.MOST_AXES
        or math.prod(n or 1 for n in t.shape) > _MOST):
      shape, stride, offset = map(errors.shown, (t.shape, t.stride, t.offset))
      raise errors.UserError(
          f"{self._path}: tensor {name} of shape {shape} has strides {stride} and offset {offset}: "
          "expected whole numbers from 0 to 2^40, a stride for each axis: get the file again")
    try:
      held = self._zip.getinfo(f"{self._root}data/{t.key}").file_size // t.dtype.itemsize
    except KeyError as e:
      raise errors.UserError(f"{self._path}: tensor {name} cannot be read ({e}): get the file "
                             "again") from e
    if t.offset + _extent(t) > held:
      raise errors.UserError(f"{self._path}: tensor {name} ends after {held} of "
                             f"{t.offset + _extent(t)} elements: get the file again")
    if math.prod(t.shape) > held:
      raise errors.UserError(f"{self._path}: tensor {name} of shape {t.shape} repeats {held} "
                             "elements: save a contiguous copy of it")


def _extent(t: Tensor) -> int:
  """Number of elements of the storage from the tensor's first to its last, inclusive."""
  return 1 + sum((n - 1) * step for n, step in zip(t.shape, t.stride)) if math.prod(t.shape) else 0


# The opcodes that torch.save writes for tensors, numbers, texts and plain containers.
_OPCODES = (
    "PROTO FRAME STOP MARK GLOBAL STACK_GLOBAL REDUCE BUILD BINPERSID NONE NEWTRUE NEWFALSE BININT "
    "BININT1 BININT2 LONG1 BINFLOAT BINUNICODE SHORT_BINUNICODE BINSTRING SHORT_BINSTRING BINBYTES "
    "SHORT_BINBYTES EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST APPEND APPENDS EMPTY_DICT "
    "SETITEM SETITEMS BINPUT LONG_BINPUT BINGET LONG_BINGET MEMOIZE").split()
_KEYS = (str, bytes, int, float, bool, type(None))


class _Unpickler(pickle._Unpickler):
  """Builds `Tensor`s; any other class or function in the pickle is an error.

  It extends Python's unpickler in Python, not that in C. So its table has only the opcodes that are
  needed, and the types of keys are checked before they are hashed: nested tuples that share their
  parts are small but can take forever to hash.
  """
  dispatch = {getattr(pickle, name)[0]: pickle._Unpickler.dispatch[getattr(pickle, name)[0]]
              for name in _OPCODES}

  def persistent_load(self, saved):
    _, kind, key, *_ = saved
    return kind, key

  def find_class(self, module, name):
    if module.startswith("torch") and name in _DTYPES:
      return np.dtype(_DTYPES[name])
    # New functions for each call, so that a pickle cannot change them for others.
    allowed = {("torch._utils", "_rebuild_tensor_v2"): lambda *parts: _tensor(*parts),
               ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
               ("collections", "OrderedDict"): lambda: collections.OrderedDict()}
    if (module, name) not in allowed:
      raise pickle.UnpicklingError(f"it refers to {module}.{name}, which is neither a tensor nor a "
                                   "container")
    return allowed[module, name]

  def _put(self, items: list) -> None:
    into = self.stack[-1]
    for key, value in zip(items[::2], items[1::2]):
      if not isinstance(into, dict) or type(key) not in _KEYS:
        raise pickle.UnpicklingError(f"a {type(key).__name__} is a key in it")
      into[key] = value

  def _setitems(self):
    self._put(self.pop_mark())

  def _setitem(self):
    value, key = self.stack.pop(), self.stack.pop()
    self._put([key, value])

  def _build(self):
    self.stack.pop()               # attributes of a container, which are not used

  dispatch[pickle.SETITEMS[0]] = _setitems
  dispatch[pickle.SETITEM[0]] = _setitem
  dispatch[pickle.BUILD[0]] = _build


def _tensor(storage, offset, shape, stride, *_) -> Tensor:
  dtype, key = storage
  return Tensor(key, dtype, offset, tuple(shape), tuple(stride))
