"""The layers of a decoder: parameters stacked over layers, and the pure functions that apply one.

Masks, biases and rotary angles are computed once for all layers (`Sight`). Each layer then gets its
own parameters, as a dict without the layer axis, and whether it is a local layer.
"""
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from ilm_jax.models import attention, products, splash

ACTIVATIONS = {"silu": jax.nn.silu, "relu": jax.nn.relu,
               "gelu": lambda x: jax.nn.gelu(x, approximate=False),
               "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True)}


class Layers(nnx.Module):
  """The parameters of all layers, stacked; the config decides which of them exist.

  attention_norm [n, D]; query [n, D, H*K], key and value [n, D, G*K] with biases; out [n, H*K, D];
  query_norm and key_norm [n, K]; mlp_norm [n, D]; gate and up [n, D, F], down [n, F, D];
  attention_post_norm and mlp_post_norm [n, D]. In int8, <kernel>_scale [n, out] beside each kernel.
  """

  def __init__(self, c, *, rngs: nnx.Rngs):
    kernels = _kernel_shapes(c)
    for name, shape in kernels.items():
      self._kernel(c, name, shape, rngs)
    norms = {"attention_norm": c.width}
    if not c.parallel:
      norms["mlp_norm"] = c.width
    if c.post_norms:
      norms |= {"attention_post_norm": c.width, "mlp_post_norm": c.width}
    if c.qk_norm:
      norms |= {"query_norm": c.head_dim, "key_norm": c.head_dim}
    for name, size in norms.items():
      setattr(self, name, nnx.Param(jnp.ones((c.num_layers, size))))
    if c.qkv_bias:
      for name in ("query", "key", "value"):
        setattr(self, f"{name}_bias",
                nnx.Param(jnp.zeros((c.num_layers, kernels[name][1]), jnp.dtype(c.dtype))))

  def _kernel(self, c, name, shape, rngs):
    values = jax.random.normal(rngs.params(), (c.num_layers, *shape))
    std = shape[0] ** -0.5
    if c.int8:
      setattr(self, name, nnx.Param(jnp.clip(values * 42, -127, 127).astype(jnp.int8)))
      scale = jnp.full((c.num_layers, shape[1]), std / 42)
      setattr(self, f"{name}_scale", nnx.Param(scale))
    else:
      setattr(self, name, nnx.Param((values * std).astype(jnp.dtype(c.dtype))))


class Lora(nnx.Module):
  """Low-rank updates of the kernels of all layers (LoRA, arXiv 2106.09685, with alpha = rank).

  x @ W becomes x @ W + (x @ A) @ B. A is drawn at unit gain and B starts at zero, so a fresh update
  changes nothing.

  Parameters, float32: <kernel>_lora_a [n, in, r], <kernel>_lora_b [n, r, out].
  """

  def __init__(self, c, *, rngs: nnx.Rngs):
    for name, (n_in, n_out) in _kernel_shapes(c).items():
      draw = n_in ** -0.5 * jax.random.normal(rngs.params(), (c.num_layers, n_in, c.lora_rank))
      setattr(self, f"{name}_lora_a", nnx.Param(draw))
      setattr(self, f"{name}_lora_b", nnx.Param(jnp.zeros((c.num_layers, c.lora_rank, n_out))))


def _kernel_shapes(c) -> dict[str, tuple[int, int]]:
  """(in, out) of a layer's kernels."""
  heads, groups = c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim
  kernels = {"query": (c.width, heads), "key": (c.width, groups), "value": (c.width, groups),
             "out": (heads, c.width), "up": (c.width, c.mlp_width),
             "down": (c.mlp_width, c.width)}
  if c.gated:
    kernels["gate"] = (c.width, c.mlp_width)
  return kernels


class Sight(NamedTuple):
  """How T new tokens attend to M places, for all layers. None: not used by this decoder.

  `segment_BT`: the mask is causal within these segments, and nothing else (see `splash`).
  """
  mask_BTM: jax.Array
  near_BTM: jax.Array | None         # bool: within the window of the local layers
  bias_BHTM: jax.Array | None        # relative position bias
  angles: tuple | None               # rotary cosines and sines of the T new tokens
  local_angles: tuple | None         # the same in local layers
  segment_BT: jax.Array | None = None


def sight(c, mask_BTM, position_BT, position_BM, relative_bias, segment_BT=None) -> Sight:
  """Computes the Sight; `relative_bias` is the decoder's table [buckets, H] or None."""
  back_BTM = position_BT[:, :, None] - position_BM[:, None, :]
  near_BTM = back_BTM < c.window if any(c.local_layers) else None
  bias_BHTM = None
  if relative_bias is not None:
    bucket_BTM = attention.relative_bucket(
        back_BTM, c.relative_buckets, c.relative_distance, bidirectional=False)
    bias_BHTM = jnp.moveaxis(relative_bias.astype(jnp.float32)[bucket_BTM], -1, 1)
  angles = local_angles = None
  if c.rope_base:
    angles = local_angles = attention.rope_angles(
        position_BT, c.head_dim, c.rope_base, c.rope_scaling)
  if c.local_rope_base:
    local_angles = attention.rope_angles(position_BT, c.head_dim, c.local_rope_base)
  return Sight(mask_BTM, near_BTM, bias_BHTM, angles, local_angles,
               None if c.relative_buckets else segment_BT)


def layer_inputs(c, params: dict) -> tuple:
  """The inputs of the scan over layers: (parameters, whether the layer is local, its number)."""
  local_n = jnp.array(c.local_layers or (False,) * c.num_layers)
  return params, local_n, jnp.arange(c.num_layers)


def apply(c, p, local, see: Sight, x_BTD, remember) -> tuple[jax.Array, tuple]:
  """One layer.

  Args:
    c: DecoderConfig.
    p: this layer's parameters.
    local: bool scalar, may be traced; true: a local layer.
    see: masks, bias and angles, from `sight`.
    x_BTD: [batch, new tokens, width].
    remember: takes (k_BTGK, v_BTGK) of the new tokens and returns (k_BMGK, v_BMGK, kept): keys and
      values of all M places, and anything that the caller wants back.

  Returns:
    ([B, T, D] outputs, `kept` from `remember`).
  """
  h_BTD = norm(c, x_BTD, p["attention_norm"])
  q_BTHK, k_BTGK, v_BTGK = _project(c, p, h_BTD, local, see)
  k_BMGK, v_BMGK, kept = remember(k_BTGK, v_BTGK)
  seen_BTHK = _attend(
      c, see, local, q_BTHK, k_BMGK.astype(q_BTHK.dtype), v_BMGK.astype(q_BTHK.dtype))
  a_BTD = dot(p, "out", seen_BTHK.reshape(*seen_BTHK.shape[:2], -1))
  if c.parallel:
    return x_BTD + a_BTD + _mlp(c, p, h_BTD), kept
  if c.post_norms:
    a_BTD = norm(c, a_BTD, p["attention_post_norm"])
  x_BTD = x_BTD + a_BTD
  m_BTD = _mlp(c, p, norm(c, x_BTD, p["mlp_norm"]))
  if c.post_norms:
    m_BTD = norm(c, m_BTD, p["mlp_post_norm"])
  return x_BTD + m_BTD, kept


def _attend(c, see: Sight, local, q_BTHK, k_BMGK, v_BMGK) -> jax.Array:
  scores = {"scale": c.scale or None, "softcap": c.softcap}
  if see.segment_BT is not None and splash.usable(c.attention, q_BTHK.shape[1]):
    alone = functools.partial(
        splash.attend, q_BTHK, k_BMGK, v_BMGK, see.segment_BT, **scores)
    return alone() if see.near_BTM is None else jax.lax.cond(
        local, lambda: alone(window=c.window), alone)
  mask_BTM = see.mask_BTM
  if see.near_BTM is not None:
    mask_BTM = mask_BTM & (see.near_BTM | ~local)
  return attention.attend(q_BTHK, k_BMGK, v_BMGK, mask_BTM, bias_BHTM=see.bias_BHTM,
                          implementation=c.attention, **scores)


def norm(c, x, scale) -> jax.Array:
  """The decoder's norm over the last axis, in float32."""
  wide = x.astype(jnp.float32)
  if c.norm == "layer":
    wide = wide - jnp.mean(wide, axis=-1, keepdims=True)
  return rms_norm(wide, scale, c.norm_eps).astype(x.dtype)


def rms_norm(x, scale, eps: float) -> jax.Array:
  """Root-mean-square norm over the last axis, computed in float32."""
  wide = x.astype(jnp.float32)
  wide = wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + eps)
  return (wide * jnp.expand_dims(scale, range(x.ndim - 1)).astype(jnp.float32)).astype(x.dtype)


def dot(p: dict, name: str, x) -> jax.Array:
  """x @ p[name] in x's dtype, for a kernel of any dtype.

  An int8 kernel has a scale per output; a kernel may have a low-rank update (`Lora`).
  """
  kernel = p[name]
  if x.dtype == jnp.bfloat16 and kernel.dtype in (jnp.bfloat16, jnp.uint16):
    y = products.matmul(x, kernel)
  else:
    y = x @ products.unpacked(kernel).astype(x.dtype)
  if (scale := p.get(f"{name}_scale")) is not None:
    y = y * jnp.expand_dims(scale, range(y.ndim - 1)).astype(y.dtype)
  if (low := p.get(f"{name}_lora_a")) is not None:
    y = y + x @ low.astype(x.dtype) @ p[f"{name}_lora_b"].astype(x.dtype)
  return y


def _project(c, p, h_BTD, local, see: Sight):
  """Queries, keys and values of the new tokens, normed and rotated as the config says."""
  parts = []
  for name, heads in (("query", c.num_heads), ("key", c.num_kv_heads), ("value", c.num_kv_heads)):
    y = dot(p, name, h_BTD)
    if c.qkv_bias:
      y = y + p[f"{name}_bias"][None, None].astype(y.dtype)
    parts.append(y.reshape(*y.shape[:2], heads, c.head_dim))
  q, k, v = parts
  if c.qk_norm:
    q = rms_norm(q, p["query_norm"], c.norm_eps)
    k = rms_norm(k, p["key_norm"], c.norm_eps)
  if c.rope_base:
    angles = see.angles
    if c.local_rope_base:
      angles = [jnp.where(local, near, far) for near, far in zip(see.local_angles, see.angles)]
    q, k = attention.rotate(q, *angles), attention.rotate(k, *angles)
  return q, k, v


def _mlp(c, p, h_BTD):
  """In float32 between the products: one rounding, and on a CPU half of the time."""
  up_BTF = dot(p, "up", h_BTD).astype(jnp.float32)
  act = ACTIVATIONS[c.activation]
  inner_BTF = act(dot(p, "gate", h_BTD).astype(jnp.float32)) * up_BTF if c.gated else act(up_BTF)
  return dot(p, "down", inner_BTF.astype(h_BTD.dtype))
