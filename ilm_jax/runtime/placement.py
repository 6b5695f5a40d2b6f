"""Moves arrays between hosts and the mesh for evaluation, where all processes hold all arrays.

Training gives each process its share of a batch (`loop.to_devices`). Evaluation reads little data:
all processes read all of it, the devices share the rows, and every process gets the whole result.
"""
import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

from ilm_jax.runtime import axes


def over_rows(mesh, batch):
  """A tree of host arrays [B, ..] with rows spread over the mesh; replicated if B does not divide.
  """
  ways = axes.ways(mesh, "batch")
  return jax.tree.map(lambda x: axes.put(x, axes.sharding(
      mesh, "batch" if np.ndim(x) and not len(x) % ways else None)), batch)


def everywhere(mesh, tree):
  """A tree of host arrays, replicated on all devices."""
  return jax.tree.map(lambda x: axes.put(x, NamedSharding(mesh, PartitionSpec())), tree)


def fetch(x) -> np.ndarray:
  """A whole array of the mesh as a numpy array, in every process; all processes must call."""
  if x.is_fully_addressable or x.is_fully_replicated:
    return np.asarray(x)
  return multihost_utils.process_allgather(x, tiled=True)
