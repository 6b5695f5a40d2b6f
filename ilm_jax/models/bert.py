"""A BERT encoder (post-norm, learned positions, exact GELU) and sentence vectors made with it.

The parameters, as a pure dict:

  word [V, W]  position [512, W]  type [2, W]  norm {scale, bias}
  layers/<n>/ query key value out mlp_in mlp_out  {kernel [in, out], bias}
              attention_norm mlp_norm             {scale, bias}
"""
import dataclasses
import functools
from collections.abc import Sequence
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ilm_jax.models import attention


@dataclasses.dataclass(frozen=True, kw_only=True)
class BertConfig:
  """Shape of a BERT encoder; the defaults are MiniLM-L6."""
  num_layers: int = 6
  width: int = 384
  num_heads: int = 12
  mlp_width: int = 1536
  vocab_size: int = 30522
  max_positions: int = 512
  num_types: int = 2
  norm_eps: float = 1e-12


class Encodes(Protocol):
  """The tokenizer that `sentence_vectors` needs."""

  def encode(self, text: str) -> list[int]:
    """Token ids of `text`, from [CLS] to [SEP], unpadded."""


class BertLayer(nnx.Module):
  """Self-attention and MLP, each followed by a residual connection and a layer norm."""

  def __init__(self, c: BertConfig, *, rngs: nnx.Rngs):
    self.num_heads = c.num_heads

    def linear(n_in, n_out):
      return nnx.Linear(n_in, n_out, rngs=rngs)

    def norm():
      return nnx.LayerNorm(c.width, epsilon=c.norm_eps, use_fast_variance=False, rngs=rngs)

    self.query, self.key = linear(c.width, c.width), linear(c.width, c.width)
    self.value, self.out = linear(c.width, c.width), linear(c.width, c.width)
    self.mlp_in, self.mlp_out = linear(c.width, c.mlp_width), linear(c.mlp_width, c.width)
    self.attention_norm, self.mlp_norm = norm(), norm()

  def __call__(self, x_BTW, mask_BTT) -> jax.Array:
    B, T, W = x_BTW.shape

    def heads(linear):
      return linear(x_BTW).reshape(B, T, self.num_heads, W // self.num_heads)

    seen_BTHK = attention.attend(
        heads(self.query), heads(self.key), heads(self.value), mask_BTT)
    x_BTW = self.attention_norm(x_BTW + self.out(seen_BTHK.reshape(B, T, W)))
    mlp_BTW = self.mlp_out(jax.nn.gelu(self.mlp_in(x_BTW), approximate=False))
    return self.mlp_norm(x_BTW + mlp_BTW)


class Bert(nnx.Module):
  """The encoder without BERT's pooler."""

  def __init__(self, config: BertConfig, *, rngs: nnx.Rngs):
    self.config = config

    def table(rows):
      return nnx.Param(0.02 * jax.random.normal(rngs.params(), (rows, config.width)))

    self.word = table(config.vocab_size)
    self.position = table(config.max_positions)
    self.type = table(config.num_types)
    self.norm = nnx.LayerNorm(config.width, epsilon=config.norm_eps, use_fast_variance=False,
                              rngs=rngs)
    self.layers = nnx.List([BertLayer(config, rngs=rngs) for _ in range(config.num_layers)])

  def hidden(self, ids_BT, mask_BT, type_BT=None) -> jax.Array:
    """[B, T, W] outputs of the last layer.

    Args:
      ids_BT: int token ids.
      mask_BT: bool, true at tokens, false at padding; no token attends to padding.
      type_BT: int token types; None: 0.
    """
    T = ids_BT.shape[1]
    type_BTW = self.type[...][jnp.zeros_like(ids_BT) if type_BT is None else type_BT]
    x_BTW = self.norm(self.word[...][ids_BT] + type_BTW + self.position[...][None, :T])
    for layer in self.layers:
      x_BTW = layer(x_BTW, mask_BT[:, None, :])
    return x_BTW

  def sentence(self, ids_BT, mask_BT) -> jax.Array:
    """[B, W] float32 unit vectors: the mean of the outputs where the mask is true."""
    x_BTW = self.hidden(ids_BT, mask_BT).astype(jnp.float32)
    keep_BT1 = mask_BT[..., None].astype(jnp.float32)
    mean_BW = jnp.sum(x_BTW * keep_BT1, axis=1) / jnp.maximum(jnp.sum(keep_BT1, axis=1), 1.0)
    norm_B1 = jnp.linalg.norm(mean_BW, axis=-1, keepdims=True)
    return mean_BW / jnp.maximum(norm_B1, 1e-12)


def bind(config: BertConfig, params) -> Bert:
  """The encoder with the given pure dict of parameters."""
  graphdef, _ = nnx.split(nnx.eval_shape(lambda: Bert(config, rngs=nnx.Rngs(0))))
  return nnx.merge(graphdef, params)


def abstract_params(config: BertConfig) -> dict:
  """The pure dict of parameters as ShapeDtypeStructs; costs nothing at any size.

  One layer is traced, and the others are like it: tracing 256 takes minutes, and a damaged
  config.json may claim so many.
  """
  one = dataclasses.replace(config, num_layers=1)
  model = nnx.eval_shape(lambda: Bert(one, rngs=nnx.Rngs(0)))
  params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
  params["layers"] = dict.fromkeys(range(config.num_layers), params["layers"][0])
  return params


def sentence_vectors(config: BertConfig, params, tokenizer: Encodes, texts: Sequence[str], *,
                     batch_size: int = 64, max_length: int = 128, multiple: int = 16,
                     progress=None) -> np.ndarray:
  """Unit vectors of texts, in their order.

  Texts are sorted by length and padded to a multiple of `multiple` tokens. The last batch is padded
  to a power of two of rows. So few shapes are compiled and little padding is computed.

  Args:
    config: shape of the encoder.
    params: its parameters, a pure dict.
    tokenizer: gives the ids of one text from [CLS] to [SEP].
    texts: the texts.
    batch_size: texts per call of the encoder.
    max_length: in tokens; longer texts lose their tail and keep their [SEP].
    multiple: lengths are rounded up to a multiple of so many tokens; with `max_length` one length
      is compiled.
    progress: called after each batch with the number of texts done, if given.

  Returns:
    float32 [len(texts), W] unit vectors.
  """
  max_length = min(max_length, config.max_positions)
  ids = [_truncate(tokenizer.encode(text), max_length) for text in texts]
  order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
  vectors_NW = np.zeros((len(ids), config.width), np.float32)
  for start in range(0, len(order), batch_size):
    rows = order[start:start + batch_size]
    longest = max(1, max(len(ids[i]) for i in rows))
    room = min(batch_size, 1 << (len(rows) - 1).bit_length())
    length = min(-(-longest // multiple) * multiple, config.max_positions)
    ids_BT = np.zeros((room, length), np.int32)
    mask_BT = np.zeros(ids_BT.shape, bool)
    for b, i in enumerate(rows):
      ids_BT[b, :len(ids[i])] = ids[i]
      mask_BT[b, :len(ids[i])] = True
    vectors_NW[rows] = np.asarray(_encode(config, params, ids_BT, mask_BT))[:len(rows)]
    if progress:
      progress(start + len(rows))
  return vectors_NW


@functools.partial(jax.jit, static_argnums=0)
def _encode(config: BertConfig, params, ids_BT, mask_BT) -> jax.Array:
  return bind(config, params).sentence(ids_BT, mask_BT)


def _truncate(ids: list[int], length: int) -> list[int]:
  return ids if len(ids) <= length else ids[:length - 1] + ids[-1:]
