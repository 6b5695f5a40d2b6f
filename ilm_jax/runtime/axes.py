"""Names of every axis in the project, and where each axis lives on the mesh.

Dimension key, used as a suffix on every array name (`soft_BQD`, `logits_BXV`):

  B batch rows           L tokens in a row        X loss positions in a row
  S entity slots in a row  Q queries an entity    N key/value tokens an entity
  D language-model width W Q-Former width         P contrastive projection width
  C vector width         T text length            V vocabulary
  H heads  G key/value heads  K width of one head F feed-forward width
  M cache length         R entity-table rows      I items    U users

Parameters are bare arrays. Two tables decide their placement: `PARAMETER_AXES` maps the path in the
parameter tree to logical axes, and `RULES` maps these to mesh axes. So every placement decision of
the project is on this page.
"""
import functools
import math
import re

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from ilm_jax import errors

MESH_AXES = ("data", "fsdp", "tensor")

# Logical axis -> mesh axes. None: replicated.
RULES = {
    "batch": ("data", "fsdp"),
    "embed": "fsdp",       # the width a matmul contracts over or returns to
    "heads": "tensor",     # heads x head width, flattened
    "mlp": "tensor",
    "vocab": "tensor",
    "layers": None,
    "rows": ("data", "fsdp"),   # rows of the entity table
    "none": None,
}

# (pattern on the "/"-joined path, logical axes counted from the LAST axis of the array).
# The first match wins; anything unmatched is replicated.
PARAMETER_AXES = (
    (r"^teacher/", ()),                          # small: whole on every device
    (r"^vectors/[^/]+$", ("rows", "none")),      # the entity table
    (r"^(present/[^/]+|log_draws|never_met)$", ("rows",)),
    (r"^(members|factors)$", ("rows", "none")),
    (r"(embed|embedding|embedder|word)(/embedding)?$", ("vocab", "embed")),
    (r"(query|key|value|wq|wk|wv)/?(kernel)?$", ("embed", "heads")),
    (r"(out|wo_attention|wo)/?(kernel)?$", ("heads", "embed")),
    (r"(gate|up|mlp_in|wi)/?(kernel)?$", ("embed", "mlp")),
    (r"(down|mlp_out)/?(kernel)?$", ("mlp", "embed")),
    (r"(head|lm_head)/?(kernel)?$", ("embed", "vocab")),
)


def make_mesh(shape: dict[str, int], devices=None) -> Mesh:
  """A mesh whose shardings the compiler propagates (Auto).

  Over several slices of TPUs, `data` spans the slices and every other axis stays inside one slice:
  sums over `data` can wait for the network between slices, gathers cannot.

  Args:
    shape: mesh axis name -> size; the product must be the number of devices.
    devices: by default all devices of the job, those of other processes included.

  Raises:
    UserError: the product of the sizes is not the number of devices, or `data` is not a multiple of
      the number of slices.
  """
  devices = jax.devices() if devices is None else devices
  need, have = math.prod(shape.values()), len(devices)
  if need != have:
    raise errors.UserError(
        f"mesh={dict(shape)} needs {need} devices, this job has {have}: make the product of the "
        f"mesh sizes {have}, e.g. --config.mesh.data={have}")
  kinds = (AxisType.Auto,) * len(shape)
  slices = len({getattr(d, "slice_index", 0) for d in devices})
  if shape.get("data", 1) % slices:
    raise errors.UserError(f"mesh.data={shape.get('data', 1)} does not divide over {slices} slices"
                           f": it spans all slices; make it a multiple of {slices}")
  between = tuple(slices if name == "data" else 1 for name in shape)
  within = tuple(n // m for n, m in zip(shape.values(), between))
  # Split: a torus of 4 x 4 x 4 chips can also be a mesh of 8 x 8. Sides stay whole if possible.
  split = {"devices": devices, "allow_split_physical_axes": True}
  return Mesh(mesh_utils.create_device_mesh(within, **split) if slices == 1 else
              mesh_utils.create_hybrid_device_mesh(within, between, **split), tuple(shape),
              axis_types=kinds)


def abstract_mesh(shape: dict[str, int]) -> AbstractMesh:
  """A mesh without devices: shapes can be placed on it, but nothing can run."""
  return AbstractMesh(tuple(shape.values()), tuple(shape),
                      axis_types=(AxisType.Auto,) * len(shape))


def spec(*logical: str | None) -> PartitionSpec:
  """PartitionSpec for an array whose axes are `logical`, in order; ValueError for unknown axes."""
  unknown = [a for a in logical if a is not None and a not in RULES]
  if unknown:
    raise ValueError(f"unknown logical axis {unknown}; axes.RULES knows {sorted(RULES)}")
  return PartitionSpec(*(a and RULES[a] for a in logical))


def sharding(mesh: Mesh, *logical: str | None) -> NamedSharding:
  """NamedSharding on `mesh` for an array whose axes are `logical`, in order; see `spec`."""
  return NamedSharding(mesh, spec(*logical))


def constrain(x, *logical: str | None) -> jax.Array:
  """Constrains `x` to the placement of its `logical` axes by RULES; axes left out are replicated.

  We place parameters, but XLA places the results of the step. It may follow a parameter and spread
  the width instead of the rows, so the models constrain a few arrays. Outside of `tracing`, and on
  one device, returns `x` unchanged.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or mesh.size == 1:
    return x
  return jax.lax.with_sharding_constraint(x, fitting(mesh, x.shape, *logical))


def fitting(mesh: Mesh | AbstractMesh, shape: tuple[int, ...], *logical: str | None
            ) -> PartitionSpec:
  """PartitionSpec by RULES of an array with this shape; an axis that its mesh axes do not divide is
  replicated."""
  return PartitionSpec(*(_fits(mesh, a and RULES[a], n) for a, n in zip(logical, shape)))


def platform() -> str:
  """The platform of the mesh, e.g. "tpu", inside `tracing`; "" outside."""
  return getattr(jax.sharding.get_abstract_mesh().abstract_device, "platform", None) or ""


def tracing(mesh: Mesh):
  """A context in which `constrain` and `platform` know the mesh; enter it inside the jitted
  function."""
  return jax.sharding.use_abstract_mesh(mesh.abstract_mesh)


def ways(mesh: Mesh, logical: str) -> int:
  """The number of parts into which the mesh cuts an axis of several mesh axes ("batch", "rows")."""
  return math.prod(mesh.shape[n] for n in RULES[logical] if n in mesh.shape)


def batch_ways() -> int:
  """The number of parts of a batch's rows, inside `tracing`; 1 outside."""
  return ways(jax.sharding.get_abstract_mesh(), "batch")


def param_sharding(mesh: Mesh, tree):
  """A tree of NamedSharding for a tree of parameters (arrays or ShapeDtypeStructs).

  An axis whose size its mesh axes do not divide stays replicated, so every model fits every mesh.
  """
  return jax.tree_util.tree_map_with_path(
      lambda path, x: NamedSharding(mesh, _param_spec(mesh, path_name(path), x.shape)), tree)


def path_name(path) -> str:
  """'a/b/0' for a key path of jax.tree_util."""
  return "/".join(str(getattr(k, "key", getattr(k, "idx", getattr(k, "name", k)))) for k in path)


def _param_spec(mesh: Mesh, name: str, shape: tuple[int, ...]) -> PartitionSpec:
  for pattern, logical in PARAMETER_AXES:
    if re.search(pattern, name) and len(shape) >= len(logical):
      lead = (None,) * (len(shape) - len(logical))
      return PartitionSpec(*lead, *(
          _fits(mesh, RULES[a], n) for a, n in zip(logical, shape[-len(logical):])))
  return PartitionSpec()


def _fits(mesh: Mesh | AbstractMesh, axes, size: int):
  names = (axes,) if isinstance(axes, str) else tuple(axes or ())
  names = tuple(n for n in names if n in mesh.shape)
  parts = math.prod(mesh.shape[n] for n in names)
  return (names if len(names) > 1 else names[0]) if names and size % parts == 0 else None


def place(mesh: Mesh, tree, *, copy: bool = False):
  """`tree` placed on the mesh by the tables above. Set `copy` if the result will be donated."""
  where = param_sharding(mesh, tree)
  if mesh.is_multi_process:
    return jax.tree.map(functools.partial(put, copy=copy), tree, where)
  return jax.device_put(tree, where, may_alias=not copy)


def shapes_at(tree, where):
  """ShapeDtypeStructs of arrays or shapes, with the shardings of `where`, a tree like `tree`."""
  return jax.tree.map(
      lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, where)


def put(value, where: NamedSharding, *, copy: bool = False) -> jax.Array:
  """Places an array that every process holds in full, or one that is on the mesh already.

  Each process takes its own pieces; `device_put` would send the whole array around to compare it.
  """
  if where.is_fully_addressable or not getattr(value, "is_fully_addressable", True):
    return jax.device_put(value, where, may_alias=not copy)
  host = np.asarray(value)
  return jax.make_array_from_callback(host.shape, where, lambda index: host[index])


def padded_rows(mesh: Mesh, count: int) -> int:
  """`count` rows of the entity table, rounded up to what the mesh divides."""
  parts = ways(mesh, "rows")
  return -(-count // parts) * parts


def row_sharding(mesh: Mesh) -> NamedSharding:
  """Of an array whose first axis are rows of the entity table, also those that nothing divides."""
  return NamedSharding(mesh, PartitionSpec(tuple(n for n in RULES["rows"] if n in mesh.shape)))


def put_rows(mesh: Mesh, table_R) -> jax.Array:
  """An array of the entity table with its rows spread over the mesh, padded with zero rows.

  Under jit, only gathered rows then travel between devices. Each process reads only its own rows,
  which matters if the table is mapped from a file.
  """
  rows, where = padded_rows(mesh, len(table_R)), row_sharding(mesh)

  def piece(index):
    start, stop, _ = index[0].indices(rows)
    own_R = np.asarray(table_R[start:stop])
    return np.pad(own_R, [(0, stop - start - len(own_R))] + [(0, 0)] * (own_R.ndim - 1))

  return jax.make_array_from_callback((rows, *table_R.shape[1:]), where, piece)


def batch_sharding(mesh: Mesh, batch):
  """A tree of NamedSharding: the first axis over the mesh's batch axes, scalars replicated.

  Args:
    mesh: the mesh of the whole job.
    batch: tree of arrays with this process's share of the rows (`batch_share`).

  Raises:
    UserError: the batch axes do not divide the first axis of an array.
  """
  names = tuple(n for n in RULES["batch"] if n in mesh.shape)
  parts, (_, shares) = ways(mesh, "batch"), batch_share(mesh)

  def one(path, x):
    if np.ndim(x) == 0:
      return NamedSharding(mesh, PartitionSpec())
    if (rows := len(x) * shares) % parts:
      raise errors.UserError(
          f"batch field {path_name(path)} has {rows} rows, which do not divide over "
          f"mesh {' x '.join(names)} = {parts}: make the batch a multiple of {parts}")
    return NamedSharding(mesh, PartitionSpec(names))

  return jax.tree_util.tree_map_with_path(one, batch)


def batch_share(mesh: Mesh) -> tuple[int, int]:
  """(index, count): the share of a batch that this process brings, and the number of shares.

  If another axis of the mesh spans several processes, their devices hold the same rows, and they
  bring the same share.

  Raises:
    UserError: the rows of two processes overlap in part.
  """
  names = [n for n in RULES["batch"] if n in mesh.shape]
  sizes, at_axis = [mesh.shape[n] for n in names], [mesh.axis_names.index(n) for n in names]
  rows_of = {}
  for at, device in np.ndenumerate(mesh.devices):
    row = np.ravel_multi_index([at[i] for i in at_axis], sizes) if names else 0
    rows_of.setdefault(device.process_index, set()).add(int(row))
  shares = sorted({tuple(sorted(rows)) for rows in rows_of.values()})
  if sum(map(len, shares)) > len(set().union(*shares)):
    raise errors.UserError(
        f"mesh={dict(mesh.shape)}: some processes share a part of their rows of a batch. "
        f"mesh.tensor must divide the {jax.local_device_count()} devices of a process, or be a "
        "multiple of them")
  return shares.index(tuple(sorted(rows_of[jax.process_index()]))), len(shares)
