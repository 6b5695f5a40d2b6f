"""Where phase 2 starts: soft tokens that tell entities apart from the first step.

What a Q-Former makes of different entities is alike: most of its outputs' size is their mean, and
the rest lies in few directions. A random projection keeps both, so the language model is shown
nearly one and the same token for all. Here projection and item head begin behind a whitening: the
mean over all entities is taken away and every principal direction gets the same size.
"""
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from ilm_jax.objectives import inputs
from ilm_jax.runtime import axes

FLOOR = 1e-3               # of the largest variance: what lies below is not blown up further
_BATCH = 256


class Moments(NamedTuple):
  """Sums over N samples of F numbers less `about`, near their mean: float32 then does."""
  count: jax.Array
  sum_F: jax.Array
  outer_FF: jax.Array
  about_F: jax.Array


def spread(graphdef, trainable: dict, frozen: dict, mesh, rows: int | None = None) -> dict:
  """`trainable` with a projection, and a head's key, that begin behind a whitening.

  A soft token keeps the size that the fresh projection gives it; every direction of the Q-Former's
  outputs has the same share of it. What was trained already (the Q-Former) is left as it is.

  Args:
    graphdef: of an `ilm.ILM`.
    trainable: qformer, projection and perhaps head as they begin, on the mesh.
    frozen: vectors and present of all entities, on the mesh.
    mesh: of the job. Every process computes the same.
    rows: of the entity table; what fills it up to divide over the mesh is no entity. None: all.
  """
  everywhere = NamedSharding(mesh, PartitionSpec())
  measure = jax.jit(functools.partial(_moments, graphdef, rows), out_shardings=everywhere)
  ours = {name: part for name, part in trainable.items() if name != "lm"}
  of_soft, of_head = jax.device_get(measure(ours, frozen))
  found = {**trainable, "projection": _behind(mesh, whitening(of_soft), trainable["projection"])}
  if "head_in" in trainable:
    found["head_in"] = _behind(mesh, whitening(of_head), trainable["head_in"])
  elif "head" in trainable:
    found["head"] = {**trainable["head"],
                     "key": _behind(mesh, whitening(of_head), trainable["head"]["key"])}
  return found


def whitening(m: Moments, floor: float = FLOOR) -> tuple[np.ndarray, np.ndarray]:
  """(mean [F], matrix [F, F]): (x - mean) @ matrix has variance 1 on average over the F.

  Directions with less than `floor` of the largest variance are scaled as if they had it. The
  identity and no mean where all samples are the same. The matrix is symmetric: of all whitenings
  the one that hangs neither on the sign nor, among equal variances, on the choice of the axes,
  which rounding decides.
  """
  off_F = np.asarray(m.sum_F, np.float64) / m.count
  mean_F = off_F + m.about_F
  variance_F, axis_FF = np.linalg.eigh(
      np.asarray(m.outer_FF, np.float64) / m.count - np.outer(off_F, off_F))
  if variance_F[-1] <= 1e-9 * max(1.0, float(mean_F @ mean_F)):
    return np.zeros_like(mean_F), np.eye(len(mean_F))
  scaled_F = np.maximum(variance_F, floor * variance_F[-1])
  whole = np.sum(np.maximum(variance_F, 0.0) / scaled_F)
  return mean_F, axis_FF * np.sqrt(len(mean_F) / whole / scaled_F) @ axis_FF.T


def _behind(mesh, white: tuple, linear: dict) -> dict:
  """A linear layer's parameters with the whitening before it multiplied in."""
  mean_F, matrix_FF = white
  kernel = matrix_FF @ jax.device_get(linear["kernel"]).astype(np.float64)
  bias = jax.device_get(linear["bias"]) - mean_F @ kernel
  return axes.place(mesh, {"kernel": kernel.astype(np.float32), "bias": bias.astype(np.float32)})


def _moments(graphdef, rows, trainable, frozen) -> tuple[Moments, Moments]:
  """Of a query's outputs [W], and of all outputs of an entity together [Q W]; row 0 left out."""
  qformer = nnx.merge(graphdef, trainable).qformer
  Q, W = qformer.config.num_queries, qformer.config.width
  rows = rows or len(next(iter(frozen["present"].values())))
  padded_NB = jnp.pad(jnp.arange(1, rows), (0, -(rows - 1) % _BATCH)).reshape(-1, _BATCH)

  near_W = qformer.queries(*inputs.entity_inputs(frozen, padded_NB[0, :1])).mean((0, 1))
  about = (near_W, jnp.tile(near_W, Q))

  def add(sums, rows_B):
    query_BQW = qformer.queries(*inputs.entity_inputs(frozen, rows_B))
    here_B = (rows_B > 0).astype(jnp.float32)
    return jax.tree.map(jnp.add, sums, [
        _sums(query_BQW.reshape(-1, len(a_F)) - a_F[None], jnp.repeat(here_B, Q * W // len(a_F)))
        for a_F in about]), None

  zero = [(jnp.zeros(()), jnp.zeros_like(a_F), jnp.outer(0 * a_F, a_F)) for a_F in about]
  found, _ = jax.lax.scan(add, zero, padded_NB)
  return tuple(Moments(*sums, a_F) for sums, a_F in zip(found, about))


def _sums(x_NF, weight_N) -> tuple:
  weighted_NF = x_NF * weight_N[:, None]
  return (weight_N.sum(), weighted_NF.sum(axis=0),
          jnp.matmul(weighted_NF.T, x_NF, precision="highest"))
