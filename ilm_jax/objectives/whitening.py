"""Whitens the start of phase 2, so that soft tokens differ between entities from the first step.

A Q-Former's outputs for different entities are similar: most of their size is their mean, and the
rest lies in few directions. A random projection keeps both, so the language model gets nearly the
same token for all entities. Here projection and item head start after a whitening: it subtracts the
mean over all entities and gives every principal direction the same size.
"""
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from ilm_jax.objectives import inputs
from ilm_jax.runtime import axes, placement

FLOOR = 1e-3               # share of the largest variance: smaller variances count as this much
_BATCH = 256


class Moments(NamedTuple):
  """Sums over N samples of F numbers minus `about`, a point near their mean: float32 suffices."""
  count: jax.Array
  sum_F: jax.Array
  outer_FF: jax.Array
  about_F: jax.Array


def spread(graphdef, trainable: dict, frozen: dict, mesh, rows: int | None = None) -> dict:
  """`trainable` with the whitening multiplied into the projection and the head's first layer.

  A soft token keeps the size that the fresh projection gives it, and every direction of the
  Q-Former's outputs has the same share in it. The Q-Former, which is already trained, is unchanged.

  Args:
    graphdef: of an `ilm.ILM`.
    trainable: fresh qformer, projection and optionally head, on the mesh.
    frozen: vectors and present of all entities, on the mesh.
    mesh: of the job. Every process computes the same result.
    rows: rows of the entity table without those that pad it for the mesh; None: all.
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


def whitening(m: Moments) -> tuple[np.ndarray, np.ndarray]:
  """(mean [F], matrix [F, F]), float64: (x - mean) @ matrix has mean variance 1 over the F numbers.

  Directions with less than `FLOOR` of the largest variance are scaled as if they had that much. If
  all samples are equal the mean is 0 and the matrix the identity. The matrix is symmetric: only
  this whitening depends neither on the signs of the axes nor on the choice of axes with equal
  variance, both of which rounding decides.
  """
  off_F = np.asarray(m.sum_F, np.float64) / m.count
  mean_F = off_F + m.about_F
  variance_F, axis_FF = np.linalg.eigh(
      np.asarray(m.outer_FF, np.float64) / m.count - np.outer(off_F, off_F))
  if variance_F[-1] <= 1e-9 * max(1.0, float(mean_F @ mean_F)):
    return np.zeros_like(mean_F), np.eye(len(mean_F))
  scaled_F = np.maximum(variance_F, FLOOR * variance_F[-1])
  whole = np.sum(np.maximum(variance_F, 0.0) / scaled_F)
  return mean_F, axis_FF * np.sqrt(len(mean_F) / whole / scaled_F) @ axis_FF.T


def _behind(mesh, white: tuple, linear: dict) -> dict:
  """A linear layer's parameters with the preceding whitening multiplied in."""
  mean_F, matrix_FF = white
  kernel = matrix_FF @ placement.fetch(linear["kernel"]).astype(np.float64)
  bias = placement.fetch(linear["bias"]) - mean_F @ kernel
  return axes.place(mesh, {"kernel": kernel.astype(np.float32), "bias": bias.astype(np.float32)})


def _moments(graphdef, rows, trainable, frozen) -> tuple[Moments, Moments]:
  """Moments of single query outputs [W], and of all outputs of an entity [Q W]; without row 0."""
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
