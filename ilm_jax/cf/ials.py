"""Implicit alternating least squares: one vector per user and per item from who met what.

Minimises over users u and items i, each pair once (Hu, Koren and Volinsky 2008):

    sum_ui c_ui (p_ui - x_u . y_i)^2 + reg (sum_u |x_u|^2 + sum_i |y_i|^2)

with p = 1, c = 1 + alpha for the pairs that met, p = 0, c = 1 for all others. Given all y, each x_u
is the solution of a C x C system that needs only u's history and the Gram matrix of all y; so users
go in padded batches, bucketed by length, and the U x I matrix never exists.
"""
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from jax.sharding import NamedSharding, PartitionSpec

from ilm_jax import axes

ENTRIES = 1 << 16          # history entries (padding included) gathered at a time
SHORTEST = 8               # the smallest padded history
_EXACT = jax.lax.Precision.HIGHEST


class Bucket(NamedTuple):
  """Histories of about one length, in n batches of B, padded to T.

  Row 0 of the other side's table is zeros, so padding adds nothing. Rows that fill up the last
  batch point at row 0 of this side, where an empty history solves to zero.
  """
  row_nB: np.ndarray     # int32: where the solution goes
  other_nBT: np.ndarray  # int32: rows of the other side's table


def ials(histories, num_items: int, width: int, *, reg: float, alpha: float, iterations: int,
         seed: int, mesh=None) -> tuple[np.ndarray, np.ndarray]:
  """Vectors of users and items.

  Args:
    histories: for each user, the entity rows (1..num_items) of the items met.
    num_items: I.
    width: C.
    reg: weight of the squared norms, > 0.
    alpha: extra weight of a pair that met.
    iterations: how often users and then items are solved.
    seed: of the first item vectors.
    mesh: batches are spread over its batch axes; None: one device.

  Returns:
    (user_UC, item_I1C), float32; row 0 of the items is zeros.
  """
  users_of_item = _transpose(histories, num_items)
  shards = 1 if mesh is None else mesh.shape["data"] * mesh.shape["fsdp"]
  by_user = _place(buckets(histories, shards), mesh)
  by_item = _place(buckets(users_of_item, shards), mesh)
  item_I1C = jax.random.normal(jax.random.key(seed), (num_items + 1, width)) / width
  item_I1C = item_I1C.at[0].set(0.0)
  for _ in tqdm.trange(iterations, desc="iALS", disable=None, leave=False):
    user_U1C = half_step(item_I1C, by_user, len(histories), reg=reg, alpha=alpha)
    item_I1C = half_step(user_U1C, by_item, num_items, reg=reg, alpha=alpha)
  user_U1C = half_step(item_I1C, by_user, len(histories), reg=reg, alpha=alpha)
  return np.asarray(user_U1C)[1:], np.asarray(item_I1C)


def buckets(histories, shards: int = 1) -> list[Bucket]:
  """Histories grouped by length up to the next power of two. History h solves row h + 1.

  Args:
    histories: lists of rows of the other side's table.
    shards: the batch size is a multiple of it.
  """
  length_H = np.array([max(len(history), SHORTEST) for history in histories])
  padded_H = 1 << np.ceil(np.log2(length_H)).astype(int)
  found = []
  for padded in np.unique(padded_H):
    chosen = np.flatnonzero(padded_H == padded)
    batch = min(max(ENTRIES // padded, 1), len(chosen))
    batch = -(-batch // shards) * shards
    count = -(-len(chosen) // batch)
    row = np.zeros(count * batch, np.int32)
    other = np.zeros((count * batch, padded), np.int32)
    for place, h in enumerate(chosen):
      row[place] = h + 1
      other[place, :len(histories[h])] = histories[h]
    found.append(Bucket(row.reshape(count, batch), other.reshape(count, batch, padded)))
  return found


def half_step(other_O1C, found: list[Bucket], num_rows: int, *, reg, alpha) -> jax.Array:
  """Solves all rows of one side, given the vectors of the other.

  Args:
    other_O1C: [O + 1, C], row 0 zeros.
    found: this side's histories.
    num_rows: how many rows this side has.
    reg, alpha: as in `ials`.

  Returns:
    [num_rows + 1, C]; row 0, and rows without history, are zeros.
  """
  gram_CC = _gram(other_O1C, reg)
  solved_H1C = jnp.zeros((num_rows + 1, other_O1C.shape[1]))
  # One program a bucket, each waiting for the one before: XLA's CPU runtime dead-locks when more
  # Cholesky calls than it has threads run side by side in one program (jax 0.10.2).
  for bucket in found:
    solved_H1C = _solve_into(solved_H1C, bucket, other_O1C, gram_CC, alpha)
  return solved_H1C


@jax.jit
def _gram(other_O1C, reg) -> jax.Array:
  """[C, C]: what every row of this side shares."""
  width = other_O1C.shape[1]
  return jnp.matmul(other_O1C.T, other_O1C, precision=_EXACT) + reg * jnp.eye(width)


@jax.jit(donate_argnums=0)
def _solve_into(solved_H1C, bucket: Bucket, other_O1C, gram_CC, alpha) -> jax.Array:
  """`solved_H1C` with the rows of `bucket` solved."""
  def solve(other_BT):
    met_BTC = other_O1C[other_BT]
    extra_BCC = jnp.einsum("btc,btd->bcd", met_BTC, met_BTC, precision=_EXACT)
    factor = jax.scipy.linalg.cho_factor(gram_CC[None] + alpha * extra_BCC, lower=True)
    wanted_BC = (1.0 + alpha) * met_BTC.sum(axis=1)
    return jax.scipy.linalg.cho_solve(factor, wanted_BC[..., None])[..., 0]

  return solved_H1C.at[bucket.row_nB].set(jax.lax.map(solve, bucket.other_nBT))


def scores(user_BC, item_I1C, seen=None) -> np.ndarray:
  """How much each user is expected to like each item.

  Args:
    user_BC: [B, C] user vectors.
    item_I1C: [I + 1, C] item vectors.
    seen: for each of the B users, rows to leave out; None: leave out nothing.

  Returns:
    [B, I + 1] float32; -inf for row 0 and what was seen.
  """
  scores_BI1 = np.asarray(user_BC) @ np.asarray(item_I1C).T
  scores_BI1[:, 0] = -np.inf
  for score_I1, rows in zip(scores_BI1, seen or []):
    score_I1[rows] = -np.inf
  return scores_BI1


def _transpose(histories, num_items: int) -> list[np.ndarray]:
  """For each item 1..num_items, the rows (user + 1) of the users who met it."""
  item_N = np.concatenate([np.asarray(h, np.int64) for h in histories])
  row_N = np.repeat(np.arange(1, len(histories) + 1), [len(h) for h in histories])
  order_N = np.argsort(item_N, kind="stable")
  counts = np.bincount(item_N, minlength=num_items + 1)
  return np.split(row_N[order_N], np.cumsum(counts))[1:-1]


def _place(found: list[Bucket], mesh) -> list[Bucket]:
  """The buckets on the devices, batches spread over the mesh's batch axes."""
  if mesh is None:
    return jax.device_put(found)
  return jax.device_put(found, NamedSharding(mesh, PartitionSpec(None, axes.RULES["batch"])))
