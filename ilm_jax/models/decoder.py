"""Decoder-only language models, one implementation by config: PaLM, T5X, Llama, Qwen, Gemma.

Parameters are stacked over layers ([layers, in, out]) and the layers run in one `lax.scan`. Prompts
are embeddings, not tokens, since they may hold soft tokens. Methods hold no state: the cache is an
argument and a result.
"""
import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from ilm_jax.models import attention, decoder_layers, head, remat
from ilm_jax.runtime import axes


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderConfig:
  """Shape of a decoder. A comment names the model families that use a field."""
  num_layers: int
  width: int
  num_heads: int
  num_kv_heads: int
  head_dim: int
  mlp_width: int
  vocab_size: int
  # A layer.
  norm: str = "rms"            # or "layer": around the mean, no bias (PaLM)
  norm_eps: float = 1e-5
  parallel: bool = False       # attention and MLP read the same normed input (PaLM)
  post_norms: bool = False     # also norms on the outputs of attention and MLP (Gemma 2, 3)
  activation: str = "silu"     # "gelu", "gelu_tanh" (Gemma, T5X), "relu"
  gated: bool = True           # the activation gates a second projection (SwiGLU, GeGLU)
  # Attention.
  qkv_bias: bool = False       # Qwen 2
  qk_norm: bool = False        # RMS norm of every query and key head (Qwen 3, Gemma 3)
  scale: float = 0.0           # of the scores; 0: head_dim ** -0.5 (T5X: 1)
  softcap: float = 0.0         # scores become cap * tanh(score / cap) (Gemma 2); 0: no cap
  rope_base: float = 10000.0   # 0: no rotary positions (T5X)
  rope_scaling: attention.RopeScaling | None = None  # Llama 3, Gemma 3
  local_layers: tuple[bool, ...] = ()  # layers that attend to the last `window` tokens; (): none
  window: int = 0              # in tokens, with the query's own
  local_rope_base: float = 0.0  # of the local layers, never scaled (Gemma 3); 0: rope_base
  relative_buckets: int = 0    # T5's relative position bias, one for all layers; 0: none
  relative_distance: int = 128
  prefix_lm: bool = False      # attention within the prompt is bidirectional
  # Both ends.
  embed_scale: float = 1.0     # of word embeddings, not of soft tokens (Gemma: sqrt(width))
  tied: bool = True            # the output head is the embedding table
  logit_scale: float = 1.0     # T5X with a tied head: width ** -0.5
  logit_softcap: float = 0.0   # Gemma 2
  new_tokens: int = 0          # words added at the end of the vocabulary
  index_only: bool = False     # the model can output these words only (models/head.py)
  lora_rank: int = 0           # rank of the update of every kernel of a layer; 0: no updates
  # How it runs.
  remat: str = "dots"          # what a layer keeps for its backward pass (models/remat.py)
  attention: str = "plain"     # its implementation (attention.attend)
  unroll: int = 1              # layers per iteration of the scan
  dtype: str = "float32"       # of kernels and activations; norms and softmax are float32
  int8: bool = False           # kernels and tables are int8 with scales (weights/int8.py)


class Cache(NamedTuple):
  """Keys (rotated) and values of all layers, [layers, B, M, G, K], and the positions of tokens."""
  k: jax.Array
  v: jax.Array
  position_BM: jax.Array


class Prefilled(NamedTuple):
  """The result of `prefill`: the prompt fills the first L places of the cache, free ones follow."""
  cache: NamedTuple
  last_BD: jax.Array        # hidden state that predicts the first token
  next_B: jax.Array         # position of the first token after the prompt
  valid_BL: jax.Array       # bool: places of the cache that hold prompt


class Decoder(head.Tables):
  """The decoder. Bind trained parameters with `language_model.bind(config, params)`."""

  def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs):
    self._make_tables(config, rngs)
    self.layers = decoder_layers.Layers(config, rngs=rngs)
    if config.lora_rank:
      self.lora = decoder_layers.Lora(config, rngs=rngs)
    self.final_norm = nnx.Param(jnp.ones((config.width,)))
    if config.relative_buckets:
      self.relative_bias = nnx.Param(
          jax.random.normal(rngs.params(), (config.relative_buckets, config.num_heads)))

  def hidden(self, embeds_BLD, position_BL, segment_BL, prefix_BL=None, layers: int = -1,
             fork_BL=None) -> jax.Array:
    """[B, L, D] normed outputs of the last layer; attention is causal within a segment.

    Args:
      embeds_BLD: [batch, length, width] embeddings, soft tokens spliced in.
      position_BL: int position of each token in its own segment, from 0.
      segment_BL: int; tokens attend to their own segment only. Padding may be any segment of its
        own.
      prefix_BL: bool, true at prompts; used and needed with `prefix_lm` only: there all tokens of a
        segment attend to its whole prompt.
      layers: number of layers to run, from the first on; -1: all.
      fork_BL: int; where branches leave the sequence, see `attention.forked`; None: no branches.
    """
    c = self.config
    mask_BLL = attention.causal_mask(segment_BL, prefix_BL if c.prefix_lm else None)
    if fork_BL is not None:
      mask_BLL = mask_BLL & attention.forked(fork_BL, position_BL)
    causal = fork_BL is None and not c.prefix_lm
    see = self._sight(mask_BLL, position_BL, position_BL, segment_BL if causal else None)

    def layer(x_BLD, xs):
      p, local, _ = xs
      x_BLD, _ = decoder_layers.apply(c, p, local, see, x_BLD, lambda k, v: (k, v, None))
      return axes.constrain(x_BLD, "batch"), None

    body = remat.layer(layer, c.remat)
    x_BLD = axes.constrain(embeds_BLD.astype(c.dtype), "batch")
    run = self._layers() if layers < 0 else jax.tree.map(lambda x: x[:layers], self._layers())
    x_BLD, _ = jax.lax.scan(body, x_BLD, run, unroll=c.unroll)
    return decoder_layers.norm(c, x_BLD, self.final_norm[...])

  def target_hidden(self, embeds_BLD, batch: dict, layers: int = -1) -> jax.Array:
    """[B, X, D]: the hidden states that predict the targets of a batch (data/packing.py).

    `layers`: see `hidden`.
    """
    hidden_BLD = self.hidden(
        embeds_BLD, batch["position"], batch["segment"], batch["prefix"], layers,
        batch.get("fork"))
    return jnp.take_along_axis(hidden_BLD, batch["target_at"][..., None], axis=1)

  def init_cache(self, batch: int, length: int) -> Cache:
    """An empty cache of `length` places in each of `batch` rows."""
    c = self.config
    shape = (c.num_layers, batch, length, c.num_kv_heads, c.head_dim)
    return Cache(jnp.zeros(shape, c.dtype), jnp.zeros(shape, c.dtype),
                 jnp.zeros((batch, length), jnp.int32))

  def prefill(self, embeds_BLD, position_BL, valid_BL, extra: int) -> Prefilled:
    """Runs right-padded prompts and fills a cache; `extra` free places follow them in it.

    Args:
      embeds_BLD: [batch, length, width] embeddings of the prompts.
      position_BL: int position of each token.
      valid_BL: bool, true at tokens of the prompt, false at padding.
      extra: free places, for the tokens to generate.
    """
    B, L = valid_BL.shape
    seen_LL = jnp.ones((L, L), bool) if self.config.prefix_lm else jnp.tri(L, dtype=bool)
    mask_BLM = jnp.pad(valid_BL[:, None, :] & seen_LL[None], ((0, 0), (0, 0), (0, extra)))
    hidden_BLD, cache = self.extend(
        embeds_BLD, position_BL, mask_BLM, self.init_cache(B, L + extra), 0)
    row_B, last_B = jnp.arange(B), jnp.sum(valid_BL, axis=1) - 1
    return Prefilled(cache, hidden_BLD[row_B, last_B], position_BL[row_B, last_B] + 1, valid_BL)

  def extend(self, embeds_BTD, position_BT, mask_BTM, cache: Cache, at) -> tuple[jax.Array, Cache]:
    """Runs T new tokens against the cache and writes their keys and values into it.

    They are written to places at..at+T-1 of every row, before attention. Only the mask decides what
    a token attends to, so it must be true at the token's own place. Prefill, beams (ancestor masks)
    and tries (tree masks) all use this method.

    Args:
      embeds_BTD: [batch, new tokens, width].
      position_BT: int position of each new token.
      mask_BTM: boolean, true where new token t attends to cache place m; broadcastable.
      cache: M places; at + T must not exceed M (XLA would silently write to earlier places).
      at: int scalar, may be traced.

    Returns:
      ([B, T, D] normed hidden states, the cache with the new places filled).
    """
    c = self.config
    position_BT = jnp.broadcast_to(position_BT, embeds_BTD.shape[:2]).astype(jnp.int32)
    position_BM = jax.lax.dynamic_update_slice(cache.position_BM, position_BT, (0, at))
    see = self._sight(mask_BTM, position_BT, position_BM)

    def layer(carry, xs):
      x_BTD, all_k, all_v = carry
      p, local, index = xs

      def remember(k_BTGK, v_BTGK):
        k, v = write(all_k, k_BTGK, index, at), write(all_v, v_BTGK, index, at)
        return k[index], v[index], (k, v)

      x_BTD, (k, v) = decoder_layers.apply(c, p, local, see, x_BTD, remember)
      return (x_BTD, k, v), None

    start = (embeds_BTD.astype(c.dtype), cache.k, cache.v)
    (x_BTD, k, v), _ = jax.lax.scan(layer, start, self._layers(), unroll=c.unroll)
    return decoder_layers.norm(c, x_BTD, self.final_norm[...]), Cache(k, v, position_BM)

  def _layers(self) -> tuple:
    params = nnx.to_pure_dict(nnx.state(self.layers, nnx.Param))
    if self.config.lora_rank:
      params |= nnx.to_pure_dict(nnx.state(self.lora, nnx.Param))
    return decoder_layers.layer_inputs(self.config, params)

  def _sight(self, mask_BTM, position_BT, position_BM, segment_BT=None) -> decoder_layers.Sight:
    table = self.relative_bias[...] if self.config.relative_buckets else None
    return decoder_layers.sight(
        self.config, mask_BTM, position_BT, position_BM, table, segment_BT)


def write(cache, new_BTGK, layer, at) -> jax.Array:
  """The cache [layers, B, M, G, K] with new keys or values in a layer's places at..at+T-1."""
  new = new_BTGK[None].astype(cache.dtype)
  return jax.lax.dynamic_update_slice(cache, new, (layer, 0, at, 0, 0))
