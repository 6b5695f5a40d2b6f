"""Weight-only int8: every kernel and table as int8 with one float32 scale for each output channel.

The error of a weight is at most half a step: scale / 2 = max |w| / 254 of its channel. Activations
and norms are not quantised.
"""
import dataclasses

from ilm_jax.models import language_model
from ilm_jax.runtime import axes
from ilm_jax.weights import stream


def quantise(config: language_model.Config, params: dict, mesh=None):
  """(config with int8=True, parameters) of a model in float32 or bfloat16.

  The kernels are the parameters that have a scale in the int8 model. The shape of the scale shows
  the axis of the channels: [n, out] for [n, in, out], [V] for an embedding [V, D] or a head [D, V].
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
      # The scale lacks the axis that the matmul sums over.
      tree[name], tree[f"{name}_scale"] = stream.round_channels(
          params[name], stream.summed_axis(name, want.ndim))
    elif name not in tree:
      tree[name] = params[name]
  return tree

