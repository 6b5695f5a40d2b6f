"""The T5 family, one implementation by config: T5 1.0 and 1.1, LM-adapted, FLAN, mT5, UMT5.

Soft tokens enter the encoder's input. The interface is the same as the decoder's (see
language_model.py): a prompt is encoded once, and answer tokens go through `extend` with a cache.
"""
import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from ilm_jax.models import attention, decoder, decoder_layers, head, products, remat
from ilm_jax.runtime import axes


@dataclasses.dataclass(frozen=True, kw_only=True)
class T5Config:
  """Shape of a T5. A comment names the releases that use a value."""
  num_layers: int              # of the decoder
  num_encoder_layers: int
  width: int
  num_heads: int
  head_dim: int
  mlp_width: int
  vocab_size: int
  activation: str = "gelu_tanh"  # "relu": 1.0
  gated: bool = True           # 1.0: False
  tied: bool = False           # the output head is the embedding table (1.0)
  logit_scale: float = 1.0     # 1.0: width ** -0.5
  relative_buckets: int = 32
  relative_distance: int = 128
  bias_per_layer: bool = False  # UMT5: True; else all layers of encoder or decoder share a table
  norm_eps: float = 1e-6
  start_id: int = 0            # the decoder's input before the first token
  whole_words: int = 0         # P5's whole-word embeddings on the encoder's input; 0: none
  new_tokens: int = 0          # words added at the end of the vocabulary
  index_only: bool = False     # the model can output these words only
  remat: str = "dots"          # what a layer keeps for its backward pass (models/remat.py)
  unroll: int = 1              # layers in one turn of a scan
  dtype: str = "float32"       # of kernels and activations; norms and softmax are float32
  int8: bool = False           # kernels and tables are int8 with scales (weights/int8.py)
  embed_scale: float = 1.0
  logit_softcap: float = 0.0


class Cache(NamedTuple):
  """The decoder's keys and values: of its own tokens [layers, B, M, H, K] and of the prompt."""
  k: jax.Array
  v: jax.Array
  position_BM: jax.Array
  cross_k: jax.Array         # [layers, B, L, H, K]
  cross_v: jax.Array
  prompt_BL: jax.Array       # bool: places that hold prompt


class Layers(nnx.Module):
  """The parameters of all layers of the encoder or of the decoder, stacked.

  <attention>_{query,key,value} [n, D, H*K] and <attention>_out [n, H*K, D] for self and, in the
  decoder, cross attention; gate and up [n, D, F], down [n, F, D]; a norm [n, D] before each part;
  relative_bias [n or 1, buckets, H]; final_norm [D]. In int8, <kernel>_scale beside each kernel.
  """

  def __init__(self, c: T5Config, n: int, cross: bool, *, rngs: nnx.Rngs):
    heads = c.num_heads * c.head_dim
    kernels = {"up": (c.width, c.mlp_width), "down": (c.mlp_width, c.width)}
    if c.gated:
      kernels["gate"] = (c.width, c.mlp_width)
    for part in ("self", "cross") if cross else ("self",):
      kernels |= {f"{part}_{x}": (c.width, heads) for x in ("query", "key", "value")}
      kernels[f"{part}_out"] = (heads, c.width)
      setattr(self, f"{part}_norm", nnx.Param(jnp.ones((n, c.width))))
    for name, shape in kernels.items():
      # T5 does not scale its scores: the initial query kernel is scaled instead.
      std = shape[0] ** -0.5 * (c.head_dim ** -0.5 if name.endswith("query") else 1.0)
      values = jax.random.normal(rngs.params(), (n, *shape))
      if c.int8:
        setattr(self, name, nnx.Param(jnp.clip(values * 42, -127, 127).astype(jnp.int8)))
        setattr(self, f"{name}_scale", nnx.Param(jnp.full((n, shape[1]), std / 42)))
      else:
        setattr(self, name, nnx.Param((values * std).astype(c.dtype)))
    self.mlp_norm = nnx.Param(jnp.ones((n, c.width)))
    self.relative_bias = nnx.Param(0.3 * jax.random.normal(
        rngs.params(), (n if c.bias_per_layer else 1, c.relative_buckets, c.num_heads)))
    self.final_norm = nnx.Param(jnp.ones((c.width,)))


class T5(head.Tables):
  """The model. Bind trained parameters with `language_model.bind(config, params)`."""

  def __init__(self, config: T5Config, *, rngs: nnx.Rngs):
    self._make_tables(config, rngs)
    self.encoder = Layers(config, config.num_encoder_layers, False, rngs=rngs)
    self.decoder = Layers(config, config.num_layers, True, rngs=rngs)
    if config.whole_words:
      self.whole_word = nnx.Param(
          0.02 * jax.random.normal(rngs.params(), (config.whole_words, config.width)))

  def add_whole_words(self, embeds_BLD, word_BL) -> jax.Array:
    """Adds the embedding of the word that each token is a part of (P5, arXiv 2203.13366)."""
    return embeds_BLD + self.whole_word[...][word_BL].astype(embeds_BLD.dtype)

  def encode(self, embeds_BLD, position_BL, segment_BL) -> jax.Array:
    """[B, L, D] normed outputs of the encoder; positions of a segment attend to each other."""
    c = self.config
    mask_BLL = segment_BL[:, :, None] == segment_BL[:, None, :]
    params, bias = self._side(self.encoder)
    bucket_BLL = attention.relative_bucket(
        position_BL[:, :, None] - position_BL[:, None, :], c.relative_buckets, c.relative_distance,
        bidirectional=True)

    def layer(x_BLD, p):
      h_BLD = _norm(c, x_BLD, p["self_norm"])
      k_BLHK, v_BLHK = _heads(c, p, "self_key", h_BLD), _heads(c, p, "self_value", h_BLD)
      x_BLD = x_BLD + _attend(c, p, "self", h_BLD, k_BLHK, v_BLHK, mask_BLL, bias(p, bucket_BLL))
      return axes.constrain(x_BLD + _mlp(c, p, x_BLD), "batch"), None

    body = remat.layer(layer, c.remat)
    x_BLD = axes.constrain(embeds_BLD.astype(c.dtype), "batch")
    x_BLD, _ = jax.lax.scan(body, x_BLD, params, unroll=c.unroll)
    return _norm(c, x_BLD, self.encoder.final_norm[...])

  def decode(self, embeds_BXD, position_BX, segment_BX, encoded_BLD, segment_BL) -> jax.Array:
    """[B, X, D] normed outputs of the decoder over whole targets, causal within a segment.

    Args:
      embeds_BXD: embeddings of the targets, shifted right.
      position_BX: int, from 0 in every segment.
      segment_BX: int; a target attends to the encoded positions whose `segment_BL` is its own.
      encoded_BLD: from `encode`.
      segment_BL: of the encoder's input.
    """
    c = self.config
    mask_BXX = attention.causal_mask(segment_BX)
    cross_BXL = segment_BX[:, :, None] == segment_BL[:, None, :]
    params, bias = self._side(self.decoder)
    bucket_BXX = self._back(position_BX, position_BX)

    def layer(x_BXD, p):
      h_BXD = _norm(c, x_BXD, p["self_norm"])
      k, v = _heads(c, p, "self_key", h_BXD), _heads(c, p, "self_value", h_BXD)
      x_BXD = x_BXD + _attend(c, p, "self", h_BXD, k, v, mask_BXX, bias(p, bucket_BXX))
      h_BXD = _norm(c, x_BXD, p["cross_norm"])
      k, v = _heads(c, p, "cross_key", encoded_BLD), _heads(c, p, "cross_value", encoded_BLD)
      x_BXD = x_BXD + _attend(c, p, "cross", h_BXD, k, v, cross_BXL, None)
      return axes.constrain(x_BXD + _mlp(c, p, x_BXD), "batch"), None

    body = remat.layer(layer, c.remat)
    x_BXD = axes.constrain(embeds_BXD.astype(c.dtype), "batch")
    x_BXD, _ = jax.lax.scan(body, x_BXD, params, unroll=c.unroll)
    return _norm(c, x_BXD, self.decoder.final_norm[...])

  def target_hidden(self, embeds_BLD, batch: dict) -> jax.Array:
    """[B, X, D]: the hidden states that predict the targets of a batch (data/packing.py)."""
    before_BX = jnp.pad(batch["targets"], ((0, 0), (1, 0)))[:, :-1]
    before_BX = jnp.where(batch["target_position"] == 0, self.config.start_id, before_BX)
    encoded_BLD = self.encode(embeds_BLD, batch["position"], batch["segment"])
    return self.decode(self.embed(before_BX), batch["target_position"], batch["target_segment"],
                       encoded_BLD, batch["segment"])

  def prefill(self, embeds_BLD, position_BL, valid_BL, extra: int) -> decoder.Prefilled:
    """Encodes right-padded prompts and runs the start token at place 0 of the decoder's cache.

    Args: see `Decoder.prefill`.
    """
    c, B = self.config, valid_BL.shape[0]
    encoded_BLD = self.encode(embeds_BLD, position_BL, valid_BL.astype(jnp.int32))
    params, _ = self._side(self.decoder)
    cross_k, cross_v = (jax.lax.map(lambda p, n=name: _heads(c, p, n, encoded_BLD), params)
                        for name in ("cross_key", "cross_value"))
    shape = (c.num_layers, B, 1 + extra, c.num_heads, c.head_dim)
    cache = Cache(jnp.zeros(shape, c.dtype), jnp.zeros(shape, c.dtype),
                  jnp.zeros((B, 1 + extra), jnp.int32), cross_k, cross_v, valid_BL)
    mask_B1M = jnp.broadcast_to((jnp.arange(1 + extra) == 0)[None, None], (B, 1, 1 + extra))
    hidden_B1D, cache = self.extend(self.embed(jnp.full((B, 1), c.start_id)),
                                    jnp.zeros((B, 1), jnp.int32), mask_B1M, cache, 0)
    return decoder.Prefilled(cache, hidden_B1D[:, 0], jnp.ones((B,), jnp.int32),
                             jnp.ones((B, 1), bool))

  def extend(self, embeds_BTD, position_BT, mask_BTM, cache: Cache, at) -> tuple[jax.Array, Cache]:
    """Runs T new tokens of the decoder against the cache; see `Decoder.extend`."""
    c = self.config
    position_BT = jnp.broadcast_to(position_BT, embeds_BTD.shape[:2]).astype(jnp.int32)
    position_BM = jax.lax.dynamic_update_slice(cache.position_BM, position_BT, (0, at))
    params, bias = self._side(self.decoder)
    bucket_BTM = self._back(position_BT, position_BM)
    prompt_B1L = cache.prompt_BL[:, None, :]

    def layer(carry, xs):
      x_BTD, all_k, all_v = carry
      p, cross_k, cross_v, index = xs
      h_BTD = _norm(c, x_BTD, p["self_norm"])
      all_k = decoder.write(all_k, _heads(c, p, "self_key", h_BTD), index, at)
      all_v = decoder.write(all_v, _heads(c, p, "self_value", h_BTD), index, at)
      x_BTD = x_BTD + _attend(c, p, "self", h_BTD, all_k[index], all_v[index], mask_BTM,
                              bias(p, bucket_BTM))
      h_BTD = _norm(c, x_BTD, p["cross_norm"])
      x_BTD = x_BTD + _attend(c, p, "cross", h_BTD, cross_k, cross_v, prompt_B1L, None)
      return (x_BTD + _mlp(c, p, x_BTD), all_k, all_v), None

    start = (embeds_BTD.astype(c.dtype), cache.k, cache.v)
    (x_BTD, k, v), _ = jax.lax.scan(
        layer, start, (params, cache.cross_k, cache.cross_v, jnp.arange(c.num_layers)),
        unroll=c.unroll)
    hidden_BTD = _norm(c, x_BTD, self.decoder.final_norm[...])
    return hidden_BTD, cache._replace(k=k, v=v, position_BM=position_BM)

  def _side(self, layers: Layers) -> tuple:
    """(parameters for the scan over layers, (a layer's parameters, bucket) -> its bias)."""
    params = nnx.to_pure_dict(nnx.state(layers, nnx.Param))
    del params["final_norm"]
    shared = None if self.config.bias_per_layer else params.pop("relative_bias")[0]

    def bias(p, bucket_BTM):
      table = products.unpacked(p["relative_bias"] if shared is None else shared)
      return jnp.moveaxis(table.astype(jnp.float32)[bucket_BTM], -1, 1)

    return params, bias

  def _back(self, position_BT, position_BM) -> jax.Array:
    c = self.config
    return attention.relative_bucket(
        position_BT[:, :, None] - position_BM[:, None, :], c.relative_buckets,
        c.relative_distance, bidirectional=False)


def _norm(c: T5Config, x, scale):
  return decoder_layers.rms_norm(x, scale, c.norm_eps)


def _heads(c: T5Config, p, name: str, x_BTD):
  y = decoder_layers.dot(p, name, x_BTD)
  return y.reshape(*y.shape[:2], c.num_heads, c.head_dim)


def _attend(c: T5Config, p, part: str, h_BTD, k_BMHK, v_BMHK, mask_BTM, bias_BHTM):
  q_BTHK = _heads(c, p, f"{part}_query", h_BTD)
  seen_BTHK = attention.attend(q_BTHK, k_BMHK.astype(q_BTHK.dtype), v_BMHK.astype(q_BTHK.dtype),
                               mask_BTM, scale=1.0, bias_BHTM=bias_BHTM)
  return decoder_layers.dot(p, f"{part}_out", seen_BTHK.reshape(*seen_BTHK.shape[:2], -1))


def _mlp(c: T5Config, p, x_BTD):
  h_BTD, act = _norm(c, x_BTD, p["mlp_norm"]), decoder_layers.ACTIVATIONS[c.activation]
  up_BTF = decoder_layers.dot(p, "up", h_BTD)
  gated = act(decoder_layers.dot(p, "gate", h_BTD)) * up_BTF if c.gated else act(up_BTF)
  return decoder_layers.dot(p, "down", gated)
