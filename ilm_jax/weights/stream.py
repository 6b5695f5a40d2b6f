"""Copies tensors from foreign files into our trees, a few rows at a time.

A reader gives a `Place` in our tree for every tensor in a file. `fill` checks that names and shapes
are complete, and then reads one tensor after another. It copies rows block by block into our layout
and dtype, so that a mapped or dequantised tensor is never in memory as a whole. On a mesh, a
finished tensor goes directly to its devices, a layer into its stacked array there: the host holds
only one finished tensor and one block of the file.
"""
import dataclasses
import functools
import mmap
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from ilm_jax import errors
from ilm_jax.runtime import axes
from ilm_jax.weights import trees

BLOCK_BYTES = 16 << 20
_ALIGN = 64    # alignment with which XLA's CPU client can use memory without a copy


@dataclasses.dataclass(frozen=True)
class Turn:
  """The layout of a tensor in a file, relative to ours.

  read: the file's array -> ours; a view if possible.
  shape: our shape -> the file's shape.
  lay: our array, to be filled -> a view of it whose first axis is the file's rows or groups of
    them; None: tensors with this layout are small and read as a whole.
  """
  read: Callable[[np.ndarray], np.ndarray]
  shape: Callable[[tuple], tuple]
  lay: Callable[[np.ndarray], np.ndarray] | None = None


KEEP = Turn(lambda x: x, lambda s: s, lambda x: x)
TRANSPOSE = Turn(lambda x: x.T, lambda s: s[::-1], lambda x: x.T)     # [out, in] of torch and GGUF
PLUS_ONE = Turn(lambda x: x.astype(np.float32) + 1, lambda s: s)      # Gemma's norms: 1 + w


def half_split(head_dim: int) -> Turn:
  """From [heads * K, D] with interleaved rotary pairs to the half-split layout, transposed."""
  def read(rows):
    pairs = rows.reshape(-1, head_dim // 2, 2, rows.shape[-1])
    return pairs.swapaxes(1, 2).reshape(rows.shape).T

  def lay(ours):
    return ours.reshape(len(ours), -1, 2, head_dim // 2).transpose(1, 3, 2, 0)

  return Turn(read, lambda s: s[::-1], lay)


@dataclasses.dataclass(frozen=True)
class Place:
  """The place of a tensor in our tree: the path, and the layer of a stacked array.

  layer: None: the whole array; an int: that layer.
  """
  path: tuple[str, ...]
  layer: int | None = None
  turn: Turn = KEEP


def fill(source: str, places: dict[str, Place], shapes: dict[str, tuple], read, abstract: dict,
         mesh=None, ignored: frozenset[str] = frozenset()) -> dict:
  """Reads all tensors of a model.

  Args:
    source: the file or folder, for messages.
    places: name in the file -> its place.
    shapes: name in the file -> its shape there.
    read: name -> numpy array, or an object whose slices [a:b] along the first axis are such.
    abstract: our tree as ShapeDtypeStructs, nested dicts. If it has <name>_scale beside <name>
      (int8), the tensor is quantised before it is placed.
    mesh: where the parameters go, by axes.PARAMETER_AXES; None: they are numpy arrays.
    ignored: names in the file that may be skipped.

  Returns:
    The tree of parameters, in the dtypes of `abstract`.

  Raises:
    UserError: a tensor is missing, left over, of another shape or not of floating point.
    ValueError: `places` does not fill `abstract` (a bug of the reader).
  """
  wanted = {}
  for name, place in places.items():
    shape = trees.get(abstract, place.path).shape
    wanted[name] = place.turn.shape(shape if place.layer is None else shape[1:])
  trees.take(source, shapes, wanted, ignored)
  _check_complete(source, places, abstract)
  tree: dict = {}
  for name, place in places.items():
    leaf = trees.get(abstract, place.path)
    shape = leaf.shape if place.layer is None else leaf.shape[1:]
    scale = (*place.path[:-1], f"{place.path[-1]}_scale")
    if not trees.has(abstract, scale):
      _put(tree, place.path, place.layer, _turned(source, name, read(name), place.turn, shape,
                                                  leaf.dtype), leaf, mesh)
      continue
    wide = _turned(source, name, read(name), place.turn, shape, jnp.float32)
    ints, scales = round_channels(_on_devices(wide, place, leaf, mesh),
                                  summed_axis(place.path[-1], len(shape)))
    _put(tree, place.path, place.layer, ints, leaf, mesh)
    _put(tree, scale, place.layer, scales, trees.get(abstract, scale), mesh)
  return tree


def summed_axis(name: str, rank: int) -> int:
  """The axis that a matmul sums over: of a kernel [.., in, out], embedding [V, D], head [D, V]."""
  return rank - 1 if name == "embedding" else rank - 2


@functools.partial(jax.jit, static_argnums=1)
def round_channels(w, axis: int) -> tuple[jax.Array, jax.Array]:
  """(int8 of w's shape, float32 scales of that shape without `axis`), so that w = ints * scale up
  to rounding."""
  wide = w.astype(jnp.float32)
  scale = jnp.maximum(jnp.max(jnp.abs(wide), axis=axis, keepdims=True) / 127, 1e-30)
  ints = jnp.clip(jnp.round(wide / scale), -127, 127).astype(jnp.int8)
  return ints, jnp.squeeze(scale, axis)


def _turned(source: str, name: str, tensor, turn: Turn, shape, dtype) -> np.ndarray:
  """The tensor in our layout and dtype."""
  ours = _empty(shape, dtype)
  if turn.lay is None:
    rows = np.asarray(tensor[:])
    _check_floating(source, name, rows)
    ours[...] = turn.read(rows)
    return ours
  view = turn.lay(ours)       # its first axis: the file's rows, or groups of them
  rows_each = tensor.shape[0] // len(view)
  step = max(1, BLOCK_BYTES // max(1, 4 * view[0].size))
  for at in range(0, len(view), step):
    part = view[at:at + step]
    rows = tensor[at * rows_each:(at + step) * rows_each]
    _check_floating(source, name, rows)
    part[...] = rows.reshape(part.shape)
    forget(rows)
  return ours


def _empty(shape, dtype) -> np.ndarray:
  """np.empty, aligned."""
  size = int(np.prod(shape)) * np.dtype(dtype).itemsize
  room = np.empty(size + _ALIGN, np.uint8)
  start = -room.ctypes.data % _ALIGN
  return room[start:start + size].view(dtype).reshape(shape)


def forget(rows) -> None:
  """Releases the memory of a mapped file, once its rows have been copied."""
  while rows is not None and not isinstance(rows, mmap.mmap):
    rows = getattr(rows, "base", None)
  if rows is not None:
    rows.madvise(mmap.MADV_DONTNEED)


def _check_floating(source: str, name: str, rows: np.ndarray) -> None:
  if not jnp.issubdtype(rows.dtype, jnp.floating):
    raise errors.UserError(f"{source}: tensor {name} has dtype {rows.dtype}, expected a floating-"
                           "point one: use an unquantised model, or get the file again")


def _check_complete(source: str, places: dict[str, Place], abstract: dict) -> None:
  """Raises ValueError if `places` leaves a parameter, or a layer of one, empty: that is a bug."""
  filled: dict[tuple, set] = {}
  for place in places.values():
    filled.setdefault(place.path, set()).add(place.layer)
  wrong = []
  for key, leaf in jax.tree_util.tree_leaves_with_path(abstract):
    path = tuple(axes.path_name(key).split("/"))
    kernel = (*path[:-1], path[-1].removesuffix("_scale"))
    is_scale = kernel != path and trees.has(abstract, kernel)
    if not is_scale and filled.pop(path, None) not in ({None}, set(range(leaf.shape[0]))):
      wrong.append(path)
  if wrong or filled:
    raise ValueError(f"{source}: the name map leaves {wrong} empty and has unknown {list(filled)}")


def _put(tree: dict, path: tuple, layer: int | None, value, leaf, mesh) -> None:
  """Puts a whole parameter, or one layer of it, into the tree."""
  if mesh is None:
    if layer is None:
      return trees.put(tree, path, np.asarray(value))
    if not trees.has(tree, path):
      trees.put(tree, path, np.empty(leaf.shape, leaf.dtype))
    trees.get(tree, path)[layer] = value
    return None
  sharding = _sharding(path, leaf, mesh)
  if layer is None:
    # Waits, here and below, so that the host's copy is freed before the next tensor is read.
    return trees.put(tree, path, jax.block_until_ready(axes.put(value, sharding)))
  if not trees.has(tree, path):
    trees.put(tree, path, _zeros(leaf.shape, leaf.dtype, sharding))
  value = axes.put(value, _of_layer(sharding))
  stacked = _into(sharding)(trees.get(tree, path), value, layer)
  return trees.put(tree, path, jax.block_until_ready(stacked))


def _on_devices(value: np.ndarray, place: Place, leaf, mesh):
  """A tensor before its quantisation, placed where the result will be."""
  if mesh is None:
    return value
  sharding = _sharding(place.path, leaf, mesh)
  return axes.put(value, sharding if place.layer is None else _of_layer(sharding))


def _sharding(path: tuple, leaf, mesh) -> NamedSharding:
  return trees.get(axes.param_sharding(mesh, trees.nest(path, leaf)), path)


def _of_layer(stacked: NamedSharding) -> NamedSharding:
  return NamedSharding(stacked.mesh, PartitionSpec(*stacked.spec[1:]))


def _zeros(shape, dtype, sharding) -> jax.Array:
  return jax.jit(lambda: jnp.zeros(shape, dtype), out_shardings=sharding)()


@functools.lru_cache
def _into(sharding):
  """Writes one layer into a stacked array in place."""
  return jax.jit(lambda stacked, value, layer: jax.lax.dynamic_update_index_in_dim(
      stacked, value, layer, 0), donate_argnums=0, out_shardings=sharding)
