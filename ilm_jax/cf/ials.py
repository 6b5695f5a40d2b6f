"""Implicit alternating least squares: vectors of users and items from their interactions.

Minimises over users u and items i, each pair once (Hu, Koren and Volinsky 2008):

    sum_ui c_ui (p_ui - x_u . y_i)^2 + reg (sum_u |x_u|^2 + sum_i |y_i|^2)

with p = 1, c = 1 + alpha for pairs with an interaction, p = 0, c = 1 for all others. Given all y,
each x_u is the solution of a C x C system that needs only u's history and the Gram matrix of all y.
So rows are solved in padded batches, bucketed by length, and the U x I matrix never exists.

Both tables are sharded by rows over the mesh, and every device solves the rows it holds (ALX,
arXiv 2112.02194). It gets the rows of the other side in one of two ways: a table that fits is
gathered as a whole once in each half step; of a larger table, only the rows of each batch are
gathered from the devices that hold them. Histories stay on the devices, or are streamed to them in
pieces at every half step.
"""
import collections
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from jax.sharding import NamedSharding

from ilm_jax.cf import histories as histories_lib
from ilm_jax.cf import layout as layout_lib
from ilm_jax.cf import solve
from ilm_jax.runtime import axes

# History entries that a device works on at a time, padding included; a CPU's must fit its cache.
ENTRIES = {"cpu": 1 << 12}
ELSEWHERE = 1 << 16
WHOLE = 2 << 30            # bytes of a table that a device may hold besides its own shard
SOLVERS = ("cholesky", "cg")


class Form(NamedTuple):
  """The objective, and the solver of a row."""
  reg: float
  alpha: float
  solver: str = "cholesky"   # "cg": `steps` of conjugate gradients from the last solution
  steps: int = 3


class Side(NamedTuple):
  """The histories of users, or of items."""
  layout: layout_lib.Layout
  slot_O1: np.ndarray        # int32: slots of the other side's rows
  held: list | None          # the pieces on the devices; None: sent anew in each half step


def ials(histories, num_items: int, width: int, *, reg: float, alpha: float, iterations: int,
         seed: int, mesh=None, solver: str = "cholesky", cg_steps: int = 3,
         dtype: str = "float32", stream=None) -> tuple[np.ndarray, np.ndarray]:
  """Vectors of users and items.

  Args:
    histories: for each user, the entity rows (1..num_items) of its items; or a `Histories`.
    num_items: I.
    width: C.
    reg: weight of the squared norms, > 0.
    alpha: extra weight of pairs with an interaction.
    iterations: number of times to solve users and then items.
    seed: seed of the initial item vectors.
    mesh: rows are spread over its batch axes; None: one device. All its processes must call.
    solver: "cholesky": exact; "cg": `cg_steps` steps from the solution of the iteration before.
    cg_steps: conjugate gradient steps, only with solver="cg".
    dtype: dtype of the tables and of gathered rows; systems are always float32.
    stream: folder for scratch files, for logs larger than memory: histories are sent to the devices
      anew in each half step. None: they stay in memory and on the devices.

  Returns:
    (user_UC, item_I1C), float32; row 0 of the items is zeros. On every process.
  """
  mesh = mesh or axes.make_mesh({"data": 1, "fsdp": 1}, jax.devices()[:1])
  by_user, by_item = sides(histories, num_items, width, mesh, stream)
  form = Form(reg, alpha, solver, cg_steps)
  start = first_items(by_item, mesh, width, seed, dtype)
  user, item = zeros(by_user, mesh, width, dtype), zeros(by_item, mesh, width, dtype)
  for n in tqdm.trange(iterations, desc="iALS", disable=None, leave=False):
    user = half_step(user, item if n else start, by_user, form, mesh)
    item = half_step(item, user, by_item, form, mesh)
  user = half_step(user, item, by_user, form, mesh)
  return to_host(user, by_user)[1:], to_host(item, by_item)


def sides(histories, num_items: int, width: int, mesh, stream=None) -> tuple[Side, Side]:
  """(users, items), ready for `half_step`. Arguments as in `ials`."""
  if not isinstance(histories, histories_lib.Histories):
    histories = histories_lib.of_lists(histories)
  shards = math.prod(mesh.shape[n] for n in axes.RULES["batch"])
  entries = batch_entries(mesh)
  plan = functools.partial(layout_lib.plan, shards=shards, entries=entries,
                           most_rows=max(entries // width, 1))
  by_user = plan(histories)
  by_item = plan(histories_lib.transposed(histories, num_items, stream))

  def side(layout, other):
    pieces = None if stream else [_place(layout, p, other.slot_H1, mesh) for p in layout.pieces]
    return Side(layout, other.slot_H1, pieces)

  return side(by_user, by_item), side(by_item, by_user)


def batch_entries(mesh) -> int:
  """Number of history entries in a device's batch, padding included."""
  return ENTRIES.get(mesh.devices.flat[0].platform, ELSEWHERE)


def zeros(side: Side, mesh, width: int, dtype="float32") -> jax.Array:
  """[shards * L, C]: a table of zeros for that side."""
  rows = side.layout.shards * side.layout.local
  return jnp.zeros((rows, width), dtype, device=NamedSharding(mesh, solve.ROWS))


def first_items(side: Side, mesh, width: int, seed: int, dtype="float32") -> jax.Array:
  """[shards * L, C]: the initial items; the vector of an item does not depend on the mesh."""
  slots, shards = side.layout.slot_H1, side.layout.shards
  rows = -(-len(slots) // shards) * shards
  normal = jax.jit(lambda key: (jax.random.normal(key, (rows, width)) / width).astype(dtype),
                   out_shardings=NamedSharding(mesh, solve.ROWS))(jax.random.key(seed))
  # Which row each slot takes; -1 reads as zeros.
  row_L = np.full(shards * side.layout.local, -1, np.int32)
  row_L[slots[1:]] = np.arange(1, len(slots))
  row_L = axes.put(row_L, NamedSharding(mesh, solve.ROWS))
  return solve.permuted(normal, row_L, mesh=mesh)


def half_step(own, other, side: Side, form: Form, mesh, whole: bool | None = None) -> jax.Array:
  """The table of one side with all its rows solved, given the other's.

  Args:
    own: [shards * L, C] the last solutions, donated.
    other: the other side's table.
    side: the histories of `own`.
    form: the objective and the solver.
    mesh: the mesh of both tables.
    whole: whether to gather `other` as a whole; None: if it has at most `WHOLE` bytes.
  """
  if whole is None:
    whole = other.nbytes <= WHOLE
  gram_CC = solve.gram(other, form.reg)
  if whole:
    other = solve.everywhere(other, mesh=mesh)
  running = collections.deque()
  # One program for each piece, each waiting for the one before: XLA's CPU runtime dead-locks if one
  # program runs more Cholesky calls at a time than the runtime has threads (jax 0.10.2).
  for number, piece in enumerate(side.layout.pieces):
    other_nBT = side.held[number] if side.held is not None else _place(
        side.layout, piece, side.slot_O1, mesh)
    own = solve.piece(own, np.int32(piece.offset), other_nBT, other, gram_CC, form.alpha,
                      mesh=mesh, whole=whole, solver=form.solver, steps=form.steps,
                      entries=batch_entries(mesh))
    if side.held is None:              # at most two pieces on the devices or on their way there
      running.append(own[:1])
      if len(running) > 1:
        running.popleft().block_until_ready()
  return own


def to_host(table, side: Side) -> np.ndarray:
  """float32 [H + 1, C]: the rows of a table in order, row 0 zeros; on every process."""
  if not table.is_fully_addressable:
    from jax.experimental import multihost_utils
    table = multihost_utils.process_allgather(table, tiled=True)
  return np.asarray(table)[side.layout.slot_H1].astype(np.float32)


def _place(layout, piece, slot_O1, mesh) -> jax.Array:
  """int32 [n, shards * B, T]: a piece on the devices; each process makes its own shards' part."""
  shape = (piece.batches, layout.shards * piece.rows, piece.length)
  return jax.make_array_from_callback(
      shape, NamedSharding(mesh, solve.BATCHES), lambda index: layout.batches(
          piece, (index[1].start or 0) // piece.rows, slot_O1))
