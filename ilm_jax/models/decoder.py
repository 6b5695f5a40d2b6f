"""A Llama-type decoder: RMS norm, rotary positions, grouped-query attention, gated mlp.

Parameters are stacked over layers ([layers, in, out]) and the layers run in one `lax.scan`. All
methods take embeddings, not tokens, where soft tokens may stand, and none holds state: the cache
goes in and comes out.
"""
import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from ilm_jax.models import attention


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderConfig:
  """Shape of a decoder. `unroll` is the number of layers in one turn of the scan."""
  num_layers: int
  width: int
  num_heads: int
  num_kv_heads: int
  head_dim: int
  mlp_width: int
  vocab_size: int
  rope_base: float = 10000.0
  norm_eps: float = 1e-5
  tied: bool = True          # the output head is the embedding table
  remat: bool = False        # recompute each layer in the backward pass
  unroll: int = 1
  dtype: str = "float32"     # of parameters and activations; norms and softmax are float32


class Cache(NamedTuple):
  """Keys (rotated) and values of all layers, each [layers, B, M, G, K]."""
  k: jax.Array
  v: jax.Array


class Layers(nnx.Module):
  """The parameters of all layers, stacked; applied by `Decoder`."""

  def __init__(self, c: DecoderConfig, *, rngs: nnx.Rngs):
    heads, groups = c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim
    dtype = jnp.dtype(c.dtype)

    def kernel(n_in, n_out):
      init = jax.random.normal(rngs.params(), (c.num_layers, n_in, n_out), dtype)
      return nnx.Param(init * jnp.asarray(n_in ** -0.5, dtype))

    self.attention_norm = nnx.Param(jnp.ones((c.num_layers, c.width), dtype))
    self.query = kernel(c.width, heads)
    self.key = kernel(c.width, groups)
    self.value = kernel(c.width, groups)
    self.out = kernel(heads, c.width)
    self.mlp_norm = nnx.Param(jnp.ones((c.num_layers, c.width), dtype))
    self.gate = kernel(c.width, c.mlp_width)
    self.up = kernel(c.width, c.mlp_width)
    self.down = kernel(c.mlp_width, c.width)


class Decoder(nnx.Module):
  """The decoder. Bind trained parameters with `bind(config, params)`."""

  def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs):
    self.config = config
    dtype = jnp.dtype(config.dtype)
    self.embedding = nnx.Param(
        0.02 * jax.random.normal(rngs.params(), (config.vocab_size, config.width), dtype))
    self.layers = Layers(config, rngs=rngs)
    self.final_norm = nnx.Param(jnp.ones((config.width,), dtype))
    if not config.tied:
      self.head = nnx.Param(config.width ** -0.5 * jax.random.normal(
          rngs.params(), (config.width, config.vocab_size), dtype))

  def embed(self, tokens) -> jax.Array:
    """[...] token ids -> [..., D] embeddings."""
    return self.embedding[...][tokens]

  def hidden(self, embeds_BLD, position_BL, segment_BL) -> jax.Array:
    """Normed outputs of the last layer; causal within equal `segment`.

    Args:
      embeds_BLD: [batch, length, width] embeddings, soft tokens spliced in.
      position_BL: int position of each token in its own segment, from 0.
      segment_BL: int; tokens of different segments do not see each other. Padding may be any
        segment of its own.
    """
    c = self.config
    mask_BLL = attention.causal_mask(segment_BL)
    angles = attention.rope_angles(position_BL, c.head_dim, c.rope_base)

    def layer(x_BLD, p):
      q, k, v = _project(c, p, x_BLD, angles)
      x_BLD = x_BLD + _flat(attention.attend(q, k, v, mask_BLL)) @ p["out"]
      return x_BLD + _mlp(c, p, x_BLD), None

    body = jax.checkpoint(layer) if c.remat else layer
    x_BLD, _ = jax.lax.scan(body, embeds_BLD.astype(c.dtype), self._stacked(), unroll=c.unroll)
    return rms_norm(x_BLD, self.final_norm[...], c.norm_eps)

  def init_cache(self, batch: int, length: int, dtype=None) -> Cache:
    """An empty cache of `length` places in each of `batch` rows."""
    c = self.config
    shape = (c.num_layers, batch, length, c.num_kv_heads, c.head_dim)
    return Cache(jnp.zeros(shape, dtype or c.dtype), jnp.zeros(shape, dtype or c.dtype))

  def extend(self, embeds_BTD, position_BT, mask_BTM, cache: Cache, at) -> tuple[jax.Array, Cache]:
    """Runs T new tokens against the cache and writes them into it.

    Places at..at+T-1 of the cache receive the new keys and values, in every row, before anything
    is attended to: the mask decides alone, so it must let each token see its own place. Prefill,
    beams (ancestor masks) and tries (tree masks) are all this.

    Args:
      embeds_BTD: [batch, new tokens, width].
      position_BT: int rotary position of each new token.
      mask_BTM: boolean, true where new token t sees cache place m; broadcastable.
      cache: M places; at + T must not exceed M (XLA would move the write back silently).
      at: int scalar, may be traced.

    Returns:
      ([B, T, D] normed hidden states, the cache with the new places filled).
    """
    c = self.config
    angles = attention.rope_angles(position_BT, c.head_dim, c.rope_base)

    def layer(carry, xs):
      x_BTD, cache = carry
      p, index = xs
      q, k, v = _project(c, p, x_BTD, angles)
      cache = Cache(_write(cache.k, k, index, at), _write(cache.v, v, index, at))
      k_BMGK, v_BMGK = cache.k[index].astype(q.dtype), cache.v[index].astype(q.dtype)
      x_BTD = x_BTD + _flat(attention.attend(q, k_BMGK, v_BMGK, mask_BTM)) @ p["out"]
      return (x_BTD + _mlp(c, p, x_BTD), cache), None

    start = (embeds_BTD.astype(c.dtype), cache)
    (x_BTD, cache), _ = jax.lax.scan(
        layer, start, (self._stacked(), jnp.arange(c.num_layers)), unroll=c.unroll)
    return rms_norm(x_BTD, self.final_norm[...], c.norm_eps), cache

  def logits(self, hidden) -> jax.Array:
    """[..., D] -> [..., V] float32."""
    if self.config.tied:
      return jnp.einsum("...d,vd->...v", hidden, self.embedding[...],
                        preferred_element_type=jnp.float32)
    return jnp.einsum("...d,dv->...v", hidden, self.head[...], preferred_element_type=jnp.float32)

  def token_nll(self, hidden, targets, *, chunk: int = 256) -> tuple[jax.Array, jax.Array]:
    """Negative log likelihood of `targets`; at most [chunk, V] logits exist at a time.

    Args:
      hidden: [..., D] normed hidden states.
      targets: [...] int token ids.
      chunk: positions whose logits are held at once; recomputed in the backward pass.

    Returns:
      (nll, hit): float32 [...] in nats, and bool [...] whether the target is the arg max.
    """
    D, n = hidden.shape[-1], targets.size
    turns = -(-n // chunk)
    chunk = -(-n // turns)  # even turns: little padding
    pad = turns * chunk - n
    h_NCD = jnp.pad(hidden.reshape(n, D), ((0, pad), (0, 0))).reshape(turns, chunk, D)
    y_NC = jnp.pad(targets.reshape(n), (0, pad)).reshape(turns, chunk)

    @jax.checkpoint
    def one(h_CD, y_C):
      logits_CV = self.logits(h_CD)
      picked_C = jnp.take_along_axis(logits_CV, y_C[:, None], axis=1)[:, 0]
      nll_C = jax.nn.logsumexp(logits_CV, axis=1) - picked_C
      return nll_C, picked_C >= jax.lax.stop_gradient(jnp.max(logits_CV, axis=1))

    nll_NC, hit_NC = jax.lax.map(lambda xs: one(*xs), (h_NCD, y_NC))
    return (nll_NC.reshape(-1)[:n].reshape(targets.shape),
            hit_NC.reshape(-1)[:n].reshape(targets.shape))

  def _stacked(self) -> dict[str, jax.Array]:
    return nnx.to_pure_dict(nnx.state(self.layers, nnx.Param))


def bind(config: DecoderConfig, params) -> Decoder:
  """A decoder over a pure dict of parameters (see `abstract_params` for its shape)."""
  graphdef, _ = nnx.split(nnx.eval_shape(lambda: Decoder(config, rngs=nnx.Rngs(0))))
  return nnx.merge(graphdef, params)


def abstract_params(config: DecoderConfig) -> dict:
  """The pure dict of parameters as ShapeDtypeStructs; costs nothing at any size."""
  model = nnx.eval_shape(lambda: Decoder(config, rngs=nnx.Rngs(0)))
  return nnx.to_pure_dict(nnx.state(model, nnx.Param))


def rms_norm(x, scale, eps: float) -> jax.Array:
  """Root-mean-square norm over the last axis, computed in float32."""
  wide = x.astype(jnp.float32)
  wide = wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + eps)
  return wide.astype(x.dtype) * jnp.expand_dims(scale, range(x.ndim - 1)).astype(x.dtype)


def _project(c: DecoderConfig, p, x_BTD, angles):
  """Rotated queries, rotated keys, and values of one layer."""
  B, T, _ = x_BTD.shape
  x_BTD = rms_norm(x_BTD, p["attention_norm"], c.norm_eps)
  q_BTHK = (x_BTD @ p["query"]).reshape(B, T, c.num_heads, c.head_dim)
  k_BTGK = (x_BTD @ p["key"]).reshape(B, T, c.num_kv_heads, c.head_dim)
  v_BTGK = (x_BTD @ p["value"]).reshape(B, T, c.num_kv_heads, c.head_dim)
  return attention.rotate(q_BTHK, *angles), attention.rotate(k_BTGK, *angles), v_BTGK


def _mlp(c: DecoderConfig, p, x_BTD):
  x_BTD = rms_norm(x_BTD, p["mlp_norm"], c.norm_eps)
  return (jax.nn.silu(x_BTD @ p["gate"]) * (x_BTD @ p["up"])) @ p["down"]


def _flat(x_BTHK):
  return x_BTHK.reshape(*x_BTHK.shape[:2], -1)


def _write(cache, new_BTGK, layer, at):
  new = new_BTGK[None].astype(cache.dtype)
  return jax.lax.dynamic_update_slice(cache, new, (layer, 0, at, 0, 0))
