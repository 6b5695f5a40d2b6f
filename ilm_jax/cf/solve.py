"""The compiled programs of implicit ALS: each device solves its own rows of a piece.

Tables are sharded by rows over the batch axes of the mesh. Systems are always float32, whatever the
dtype of the tables.
"""
import functools

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from ilm_jax.runtime import axes

ROWS = PartitionSpec(axes.RULES["batch"])
BATCHES = PartitionSpec(None, axes.RULES["batch"])
_NOWHERE = PartitionSpec()          # the same on every device
_EXACT = jax.lax.Precision.HIGHEST


@functools.partial(jax.jit, donate_argnums=0,
                   static_argnames=("mesh", "whole", "solver", "steps", "entries"))
def piece(own, offset, other_nBT, other, gram_CC, alpha, *, mesh, whole, solver, steps,
                 entries):
  """[shards * L, C]: `own` with the rows of a piece solved; each device solves its own.

  Args:
    own: [shards * L, C], donated.
    offset: int32 scalar: where the piece begins in every shard.
    other_nBT: int32 [n, shards * B, T]: slots of the other side.
    other: [shards * L', C]: the table of the other side.
    gram_CC: float32 [C, C]: the matrix that all systems share.
    alpha: as in `ials`.
    mesh: the mesh of both tables.
    whole: True: every device holds all of `other`; False: it is sharded.
    solver, steps: as in `ials.Form`.
    entries: history entries in a batch; longer histories are split into parts of so many.
  """
  def shard(own_LC, offset, other_nBT, other, gram_CC, alpha):
    gather = (lambda slot: other[slot]) if whole else functools.partial(_gathered, other)
    n, B, _ = other_nBT.shape
    old_nBC = jax.lax.dynamic_slice_in_dim(own_LC, offset, n * B).reshape(n, B, -1)

    def solve(batch):
      other_BT, old_BC = batch
      if solver == "cg":
        start = old_BC.astype(jnp.float32)
        return _cg(*_operator(gather, other_BT, gram_CC, alpha, entries), start, steps)
      left_BCC, right_BC = _system(gather, other_BT, gram_CC, alpha, entries)
      if mesh.size > 1 and mesh.devices.flat[0].platform == "cpu":
        return _eliminated(left_BCC, right_BC)
      factor = jax.scipy.linalg.cho_factor(left_BCC, lower=True)
      return jax.scipy.linalg.cho_solve(factor, right_BC[..., None])[..., 0]

    new_BC = jax.lax.map(solve, (other_nBT, old_nBC)).reshape(n * B, -1)
    return jax.lax.dynamic_update_slice_in_dim(own_LC, new_BC.astype(own_LC.dtype), offset, 0)

  table = _NOWHERE if whole else ROWS
  return jax.shard_map(
      shard, mesh=mesh, in_specs=(ROWS, _NOWHERE, BATCHES, table, _NOWHERE, _NOWHERE),
      out_specs=ROWS, check_vma=False)(own, offset, other_nBT, other, gram_CC, alpha)


def _system(gather, other_BT, gram_CC, alpha, entries: int):
  """(left_BCC, right_BC): each row's system. A T above `entries` must be a multiple of it."""
  def add(sums, other_Bt):
    met_BtC = gather(other_Bt)
    outer_BCC = jnp.einsum("btc,btd->bcd", met_BtC, met_BtC, precision=_EXACT,
                           preferred_element_type=jnp.float32)
    return (sums[0] + outer_BCC, sums[1] + met_BtC.astype(jnp.float32).sum(axis=1)), None

  (B, T), C = other_BT.shape, len(gram_CC)
  sums = jnp.zeros((B, C, C)), jnp.zeros((B, C))
  if T <= entries:
    (outer_BCC, sum_BC), _ = add(sums, other_BT)
  else:
    parts_NBt = other_BT.reshape(B, T // entries, entries).swapaxes(0, 1)
    (outer_BCC, sum_BC), _ = jax.lax.scan(add, sums, parts_NBt)
  return gram_CC[None] + alpha * outer_BCC, (1.0 + alpha) * sum_BC


def _eliminated(left_BCC, right_BC) -> jax.Array:
  """[B, C] solutions by Gauss-Jordan, without pivots since the systems are positive definite.

  For several CPU devices. XLA's CPU runtime (jax 0.10.2) hangs in two cases: if as many devices
  call LAPACK at once as it has threads, or if one calls LAPACK while another waits in a collective.
  """
  def clear(c, all_BCX):
    row_BX = all_BCX[:, c] / all_BCX[:, c, c][:, None]
    rest_BCX = all_BCX - all_BCX[:, :, c][..., None] * row_BX[:, None]
    return rest_BCX.at[:, c].set(row_BX)

  all_BCX = jnp.concatenate([left_BCC, right_BC[..., None]], axis=-1)
  return jax.lax.fori_loop(0, left_BCC.shape[1], clear, all_BCX)[..., -1]


def _operator(gather, other_BT, gram_CC, alpha, entries: int):
  """(times, right_BC): `times` multiplies [B, C] vectors by the matrix of each row's system."""
  if other_BT.shape[1] > entries:
    left_BCC, right_BC = _system(gather, other_BT, gram_CC, alpha, entries)
    return functools.partial(jnp.einsum, "bcd,bd->bc", left_BCC, precision=_EXACT), right_BC
  met_BTC = gather(other_BT).astype(jnp.float32)

  def times(v_BC):
    seen_BT = jnp.einsum("btc,bc->bt", met_BTC, v_BC, precision=_EXACT)
    extra_BC = jnp.einsum("btc,bt->bc", met_BTC, seen_BT, precision=_EXACT)
    return jnp.matmul(v_BC, gram_CC, precision=_EXACT) + alpha * extra_BC

  return times, (1.0 + alpha) * met_BTC.sum(axis=1)


def _cg(times, right_BC, x_BC, steps: int) -> jax.Array:
  """[B, C] after `steps` of conjugate gradients from x_BC."""
  tiny = jnp.finfo(jnp.float32).tiny      # rows without history start solved: no 0 / 0

  def step(_, at):
    x_BC, rest_BC, way_BC, size_B1 = at
    along_BC = times(way_BC)
    pace_B1 = size_B1 / jnp.maximum(jnp.sum(way_BC * along_BC, axis=1, keepdims=True), tiny)
    x_BC, rest_BC = x_BC + pace_B1 * way_BC, rest_BC - pace_B1 * along_BC
    left_B1 = jnp.sum(rest_BC ** 2, axis=1, keepdims=True)
    return x_BC, rest_BC, rest_BC + left_B1 / jnp.maximum(size_B1, tiny) * way_BC, left_B1

  rest_BC = right_BC - times(x_BC)
  start = x_BC, rest_BC, rest_BC, jnp.sum(rest_BC ** 2, axis=1, keepdims=True)
  return jax.lax.fori_loop(0, steps, step, start)[0]


@jax.jit
def gram(other, reg) -> jax.Array:
  """float32 [C, C]: other^T other + reg I, the matrix that the systems of all rows share."""
  gram_CC = jnp.matmul(other.T, other, precision=_EXACT, preferred_element_type=jnp.float32)
  return gram_CC + reg * jnp.eye(other.shape[1])


@functools.partial(jax.jit, static_argnames="mesh")
def everywhere(table, *, mesh) -> jax.Array:
  """All of the table on every device."""
  return jax.lax.with_sharding_constraint(table, NamedSharding(mesh, _NOWHERE))


@functools.partial(jax.jit, static_argnames="mesh")
def permuted(table, row_L, *, mesh) -> jax.Array:
  """[shards * L, C]: at place l, row row_L[l] of `table`; zeros where row_L is -1."""
  return jax.shard_map(_gathered, mesh=mesh, in_specs=(ROWS, ROWS), out_specs=ROWS,
                       check_vma=False)(table, row_L)


def _gathered(shard_LC, slot_X) -> jax.Array:
  """Gathers rows of a sharded table; each device gets those at its own `slot_X`, zeros for -1.

  Runs inside shard_map: all devices receive all slots, and each sends the rows that it holds.

  Args:
    shard_LC: this device's rows.
    slot_X: int32 [B, ...] slots that this device needs.
  """
  names = axes.RULES["batch"]
  wish_X = jax.lax.all_gather(slot_X, names, tiled=True)
  mine_X = wish_X - jax.lax.axis_index(names) * len(shard_LC)
  here = (wish_X >= 0) & (mine_X >= 0) & (mine_X < len(shard_LC))
  rows = shard_LC[jnp.where(here, mine_X, 0)] * here[..., None].astype(shard_LC.dtype)
  return jax.lax.psum_scatter(rows, names, tiled=True)
