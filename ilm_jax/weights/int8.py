"""Weight-only int8: every kernel and table as int8 with one float32 scale for each output channel.

A weight is off by at most half a step, scale / 2 = max |w| / 254 of its channel. Activations and
norms stay as they are.
"""
import dataclasses

from ilm_jax.models import language_model
from ilm_jax.runtime import axes
from ilm_jax.weights import stream


def quantise(config: language_model.Config, params: dict, mesh=None):
  """(config with int8=True, parameters) of a model in float32 or bfloat16.

  The scales of the int8 model tell which parameters are kernels and along which axis their channels
  lie: [n, out] beside [n, in, out], [V] beside an embedding [V, D] or a head [D, V].
  """
  config = dataclasses.replace(config, int8=True)
  tree = _tree(language_model.abstract_params(config), params)
  return config, tree if mesh is None else axes.place(mesh, tree)


def _tree(abstract: dict, params: dict) -> dict:
  tree = {}
  for name, want in abstract.items():
    if isinstance(want, dict):
      tree[name] = _tree(want, params[name])
    elif f"{name}_scale" in abstract:
      # The scale lacks exactly the axis that the matmul sums over.
      tree[name], tree[f"{name}_scale"] = stream.round_channels(
          params[name], stream.summed_axis(name, want.ndim))
    elif name not in tree:
      tree[name] = params[name]
  return tree

