"""Weight-only int8, by hand; that int8 models compute as their weights say is in test_load.py."""
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilm_jax.models import decoder, language_model
from ilm_jax.weights import int8, stream

CONFIG = decoder.DecoderConfig(num_layers=2, width=4, num_heads=2, num_kv_heads=1, head_dim=2,
                               mlp_width=6, vocab_size=5, tied=False, qkv_bias=True, qk_norm=True)


def test_a_channel_by_hand():
  """Outputs of scale 1/127 and 2: 0.5 is 63.5 steps and goes to the even 64; 3 is 1.5 and 2."""
  w = jnp.array([[1.0, 254.0], [0.5, 3.0], [-1.0, -1.0]])
  ints, scale = stream.round_channels(w, 0)
  np.testing.assert_array_equal(ints, [[127, 127], [64, 2], [-127, 0]])
  np.testing.assert_allclose(scale, [1 / 127, 2], rtol=1e-6)
  assert ints.dtype == jnp.int8 and scale.dtype == jnp.float32


def test_a_channel_of_zeros_stays_zero():
  ints, scale = stream.round_channels(jnp.zeros((3, 2)), 0)
  assert not ints.any() and (scale > 0).all()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_scales_lie_along_outputs(dtype):
  """One large weight widens the step of its own output, word or row, and of no other."""
  config = dataclasses.replace(CONFIG, dtype=dtype)
  params = jax.tree.map(lambda x: jnp.full_like(x, 0.5), language_model.init(config, 0))
  params["embedding"] = params["embedding"].at[3, 1].set(8)
  params["head"] = params["head"].at[1, 2].set(8)
  params["layers"]["up"] = params["layers"]["up"].at[1, 2, 4].set(8)
  small, tree = int8.quantise(config, params)
  assert small == dataclasses.replace(config, int8=True)
  wide = 0.5 / 127
  np.testing.assert_allclose(tree["embedding_scale"], [wide] * 3 + [8 / 127, wide], rtol=1e-6)
  np.testing.assert_allclose(tree["head_scale"], [wide] * 2 + [8 / 127] + [wide] * 2, rtol=1e-6)
  want = np.full((2, 6), wide)
  want[1, 4] = 8 / 127
  np.testing.assert_allclose(tree["layers"]["up_scale"], want, rtol=1e-6)
  for name in ("query_bias", "query_norm", "mlp_norm"):
    np.testing.assert_array_equal(tree["layers"][name], params["layers"][name])
    assert tree["layers"][name].dtype == params["layers"][name].dtype
