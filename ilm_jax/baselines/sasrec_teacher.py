"""A trained SASRec for vectors and the item head: saves and loads it, and computes with it."""
import functools
from collections.abc import Callable

import jax
import numpy as np
from flax import nnx

from ilm_jax import errors
from ilm_jax.baselines import sasrec
from ilm_jax.data import arrays
from ilm_jax.runtime import axes


def states(params: dict, config: sasrec.Config, histories: list) -> np.ndarray:
  """float32 [users, W]: the output at the end of each history; zeros for an empty one."""
  last = _last(config, params["item"].shape[0] - 1)
  parts = [np.asarray(last(params, rows))[:count]
           for rows, count in sasrec.padded(histories, config)]
  there_U = np.array([len(history) > 0 for history in histories])
  return np.where(there_U[:, None], np.concatenate(parts), np.float32(0))


@functools.lru_cache(maxsize=8)
def _last(config: sasrec.Config, num_items: int) -> Callable:
  """(params, row_BL) -> [B, W] outputs at the last place, compiled once for all calls."""
  graphdef = nnx.split(sasrec.abstract(config, num_items))[0]
  return jax.jit(lambda params, row_BL: nnx.merge(graphdef, params).hidden(row_BL)[:, -1])


def scorer(config: sasrec.Config, num_items: int) -> Callable:
  """(params, row_BL, segment_BL) -> [B, L, I] scores of items 1..I; see `SASRec.packed`."""
  graphdef = nnx.split(sasrec.abstract(config, num_items))[0]

  def score(params, row_BL, segment_BL):
    hidden_BLW, item_IW = sasrec.compared(
        config, nnx.merge(graphdef, params).packed(row_BL, segment_BL), params["item"])
    return hidden_BLW @ item_IW[1:].T

  return score


def save(folder, params: dict, made_from: dict) -> None:
  """Writes sasrec.npz and manifest.json; `made_from` goes into the manifest."""
  leaves = jax.tree_util.tree_leaves_with_path(params)
  arrays.save(folder, "sasrec", {axes.path_name(path): np.asarray(x) for path, x in leaves},
              made_from=made_from)


def load(folder, config: sasrec.Config, num_items: int) -> tuple[dict, str]:
  """(parameters, fingerprint) of the SASRec that `save` wrote.

  Raises:
    UserError: the folder holds none, or one that is damaged or of another shape than `config`.
  """
  stored, _, manifest = arrays.load(folder, "sasrec", "run --stage=cf")
  shapes = nnx.to_pure_dict(nnx.split(sasrec.abstract(config, num_items), nnx.Param)[1])
  leaves, tree = jax.tree_util.tree_flatten_with_path(shapes)
  want = {axes.path_name(path): tuple(x.shape) for path, x in leaves}
  if want != {name: array.shape for name, array in stored.items()}:
    raise errors.UserError(f"{folder} holds a SASRec of another shape than cf.sasrec says: delete "
                           "it and run --stage=cf")
  return tree.unflatten(stored[name] for name in want), manifest["fingerprint"]
