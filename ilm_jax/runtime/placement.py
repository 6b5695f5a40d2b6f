"""Arrays of a job whose processes all do the same: whole on the host, spread over the mesh.

Training gives each process its share of a batch (`loop.to_devices`). Evaluation reads little: all
processes read all of it, the devices share the rows, and every process gets the whole answer.
"""
import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

from ilm_jax.runtime import axes


def over_rows(mesh, batch):
  """A tree of host arrays [B, ..] with their rows over the mesh; whole where B does not divide."""
  ways = axes.ways(mesh, "batch")
  return jax.tree.map(lambda x: axes.put(x, axes.sharding(
      mesh, "batch" if np.ndim(x) and not len(x) % ways else None)), batch)


def everywhere(mesh, tree):
  """A tree of host arrays, whole on each device."""
  return jax.tree.map(lambda x: axes.put(x, NamedSharding(mesh, PartitionSpec())), tree)


def fetch(x) -> np.ndarray:
  """An array of the mesh, whole, in every process: all of them must ask for it."""
  if x.is_fully_addressable or x.is_fully_replicated:
    return np.asarray(x)
  return multihost_utils.process_allgather(x, tiled=True)
