"""The parts of a Q-Former: the vector reader, one layer, and the stack of layers.

`models/qformer.py` puts them together.
"""
import jax
import jax.numpy as jnp
from flax import nnx

from ilm_jax.models import attention
from ilm_jax.models.qformer_config import QFormerConfig
from ilm_jax.runtime import axes

_BERT_STD = 0.02


def dropout(x, keep, rate: float) -> jax.Array:
  """Inverted dropout where the boolean `keep` is false; None keeps all."""
  return x if keep is None else jnp.where(keep, x / (1.0 - rate), 0.0)


def draw_keep(key, rate: float, shape) -> jax.Array | None:
  """Boolean, true with probability 1 - rate; None (keep all) without a key."""
  return None if key is None or rate == 0.0 else jax.random.bernoulli(key, 1.0 - rate, shape)


def linear(c: QFormerConfig, n_in: int, n_out: int, rngs: nnx.Rngs,
           std: float = _BERT_STD) -> nnx.Linear:
  return nnx.Linear(n_in, n_out, kernel_init=nnx.initializers.normal(std), rngs=rngs,
                    dot_general=c.dot_general)


def gelu(x) -> jax.Array:
  """Exact GELU with erf; jax.nn.gelu uses erfc, which is slower to compile and to run on CPU."""
  return 0.5 * x * (1.0 + jax.lax.erf(x * 0.5 ** 0.5))


GELU_RMS = 0.65              # RMS of gelu(z) for a unit normal z: E[gelu(z)^2] = 0.425


def norm(width: int, eps: float, rngs: nnx.Rngs) -> nnx.LayerNorm:
  return nnx.LayerNorm(width, epsilon=eps, use_fast_variance=False, rngs=rngs)


class VectorTokens(nnx.Module):
  """LayerNorm, then Linear(C -> N * M): a vector as N key/value tokens of width M = kv_width.

  N = kv_tokens, times the number of queries if each has its own; those of a query are consecutive.
  With `reader_hidden` there is a hidden layer of width reader_hidden * C with a GELU between them.
  """

  def __init__(self, c: QFormerConfig, width: int, *, rngs: nnx.Rngs):
    self.config = c
    self.norm = norm(width, c.norm_eps, rngs)
    if c.reader_hidden:
      self.hidden = linear(c, width, c.reader_hidden * width, rngs, width ** -0.5)
      width = c.reader_hidden * width
    self.tokens = nnx.Linear(width, c.vector_tokens * c.kv_width, rngs=rngs,
                             dot_general=c.dot_general)

  def __call__(self, vector_BC, key=None) -> jax.Array:
    c = self.config
    x_BC = self.norm(vector_BC)
    if key is not None and c.vector_noise:
      noise_BC = jax.random.normal(key, x_BC.shape)
      x_BC = x_BC + c.vector_noise * noise_BC
    if c.reader_hidden:
      x_BC = gelu(self.hidden(x_BC)) / GELU_RMS
    return self.tokens(x_BC).reshape(-1, c.vector_tokens, c.kv_width)


class Reader(nnx.Module):
  """Turns an entity's named vectors into the key/value tokens of cross-attention.

  With `members` it also reads the vectors of the entity's members, with the same parameters and one
  learned vector for each member's place.
  """

  def __init__(self, c: QFormerConfig, *, rngs: nnx.Rngs):
    self.config = c
    self.vectors = nnx.Dict({n: VectorTokens(c, width, rngs=rngs) for n, width in c.vectors})
    self.vector_type = nnx.Param(
        _BERT_STD * jax.random.normal(rngs.params(), (len(c.vectors), c.kv_width)))
    if c.members:
      self.member_place = nnx.Param(
          _BERT_STD * jax.random.normal(rngs.params(), (c.members, c.kv_width)))

  def __call__(self, vectors, present, key=None) -> tuple[jax.Array, jax.Array]:
    """(tokens [B, N, M], bool [B, N]: true for tokens of present vectors)."""
    c = self.config
    tokens, masks = [], []
    for i, (name, _) in enumerate(c.vectors):
      kind_11W = self.vector_type[...][i][None, None]
      own_key = None if key is None else jax.random.fold_in(key, i)
      tokens.append(self.vectors[name](vectors[name], own_key) + kind_11W)
      masks.append(jnp.repeat(present[name][:, None], c.vector_tokens, axis=1))
      if c.members:
        vector_BSC = vectors[members_of(name)][:, :c.members]
        token_BSW = self.vectors[name](vector_BSC.reshape(-1, vector_BSC.shape[-1])).reshape(
            vector_BSC.shape[0], c.members, -1, c.kv_width)
        token_BSW += kind_11W[None] + self.member_place[...][None, :, None]
        tokens.append(token_BSW.reshape(vector_BSC.shape[0], -1, c.kv_width))
        masks.append(jnp.repeat(present[members_of(name)][:, :c.members], c.vector_tokens, axis=1))
    return jnp.concatenate(tokens, axis=1), jnp.concatenate(masks, axis=1)


def members_of(name: str) -> str:
  """The key of the members' vectors [B, S, C] in the dict that holds the entity's own vectors."""
  return f"{name}/members"


class Attention(nnx.Module):
  """Multi-head attention. Without `scored` a query has one key, so it gets its value.

  `init`: "bert" (std 0.02) or "width" (std width ** -0.5: values keep the size of their input).
  """

  def __init__(self, c: QFormerConfig, *, scored: bool = True, kv_width: int = 0,
               init: str = "bert", rngs: nnx.Rngs):
    self.num_heads, self.scored = c.num_heads, scored
    kv_width = kv_width or c.width
    if scored:
      self.query = linear(c, c.width, c.width, rngs)
      self.key = linear(c, kv_width, c.width, rngs)
    value, out = ((kv_width ** -0.5, c.width ** -0.5) if init == "width" else (_BERT_STD,) * 2)
    self.value = linear(c, kv_width, c.width, rngs, value)
    self.out = linear(c, c.width, c.width, rngs, out)

  def __call__(self, x_BTW, kv_BMW, mask_BTM) -> jax.Array:
    if not self.scored:  # softmax over one key is 1: [B, M, W], M = 1 (for all queries) or T
      return self.out(self.value(kv_BMW))

    def heads(x):
      return x.reshape(*x.shape[:2], self.num_heads, -1)

    seen_BTHK = attention.attend(
        heads(self.query(x_BTW)), heads(self.key(kv_BMW)), heads(self.value(kv_BMW)), mask_BTM)
    return self.out(seen_BTHK.reshape(x_BTW.shape))


class Mlp(nnx.Module):
  """Linear, exact GELU, Linear."""

  def __init__(self, c: QFormerConfig, *, rngs: nnx.Rngs):
    self.mlp_in = linear(c, c.width, c.mlp_width, rngs)
    self.mlp_out = linear(c, c.mlp_width, c.width, rngs)

  def __call__(self, x_BTW) -> jax.Array:
    return self.mlp_out(gelu(self.mlp_in(x_BTW)))


class Cross(nnx.Module):
  """Cross-attention of the queries to the reader's tokens, with residual and layer norm.

  If every query has its own tokens, it attends to these alone. One set for all queries makes the
  queries alike: with one token they read the same, and with random scores almost the same.

  With one token to attend to the weight is always 1, so the query and key projections could not
  learn and are left out. An entity without any vector adds zeros.
  """

  def __init__(self, c: QFormerConfig, *, rngs: nnx.Rngs):
    self.attention = Attention(
        c, scored=len(c.vectors) * c.kv_tokens * (1 + c.members) > 1, kv_width=c.kv_width,
        init=c.cross_init, rngs=rngs)
    self.norm = norm(c.width, c.norm_eps, rngs)
    self.own_tokens = c.kv_tokens if c.cross_reads == "own" else 0

  def __call__(self, query_BQW, kv, keep, rate: float) -> jax.Array:
    kv_BNW, present_BN = kv
    mask_BQN = present_BN[:, None, :]
    if self.own_tokens:       # the reader's tokens: vector after vector, each query after query
      Q, N = query_BQW.shape[1], kv_BNW.shape[1]
      query_N = jnp.arange(N) // self.own_tokens % Q
      mask_BQN = mask_BQN & (query_N[None] == jnp.arange(Q)[:, None])[None]
    read = self.attention(query_BQW, kv_BNW, mask_BQN)
    any_B11 = jnp.any(present_BN, axis=1)[:, None, None]
    seen_BQW = jnp.broadcast_to(jnp.where(any_B11, read, 0.0), query_BQW.shape)
    return self.norm(query_BQW + dropout(seen_BQW, keep, rate))


class Layer(nnx.Module):
  """Self-attention over [queries; text], cross-attention of the queries, an MLP for each of both.

  A residual connection and a layer norm follow every part (post-norm, as in BERT).
  """

  def __init__(self, c: QFormerConfig, *, rngs: nnx.Rngs):
    self.config = c
    self.attention = Attention(c, rngs=rngs)
    self.attention_norm = norm(c.width, c.norm_eps, rngs)
    self.query_mlp = Mlp(c, rngs=rngs)
    self.query_norm = norm(c.width, c.norm_eps, rngs)
    if not c.query_path_only:
      self.text_mlp = Mlp(c, rngs=rngs)
      self.text_norm = norm(c.width, c.norm_eps, rngs)

  def __call__(self, x_BLW, mask_BLL, num_queries: int, cross, kv, key=None) -> jax.Array:
    """One layer over [queries; text].

    Args:
      x_BLW: L = num_queries + text length; either may be 0.
      mask_BLL: boolean, broadcastable.
      num_queries: how many of the first positions are queries.
      cross: this layer's Cross, or None.
      kv: (tokens [B, N, M], present [B, N]) of the reader; None without queries.
      key: for dropout; None means none.
    """
    rate, Q = self.config.dropout, num_queries
    keep = draw_keep(key, rate, (3, *x_BLW.shape))  # one draw for all: threefry compiles slowly
    keep_attention, keep_cross, keep_mlp = (None,) * 3 if keep is None else keep
    seen_BLW = dropout(self.attention(x_BLW, x_BLW, mask_BLL), keep_attention, rate)
    x_BLW = self.attention_norm(x_BLW + seen_BLW)
    query_BQW, text_BTW = x_BLW[:, :Q], x_BLW[:, Q:]
    if Q and cross is not None:
      query_BQW = cross(query_BQW, kv, None if keep_cross is None else keep_cross[:, :Q], rate)
    parts = [self.query_mlp(query_BQW)] if Q else []
    if text_BTW.shape[1]:
      parts.append(self.text_mlp(text_BTW))
    mlp_BLW = dropout(jnp.concatenate(parts, axis=1), keep_mlp, rate)
    done = [self.query_norm(query_BQW + mlp_BLW[:, :Q])] if Q else []
    if text_BTW.shape[1]:
      done.append(self.text_norm(text_BTW + mlp_BLW[:, Q:]))
    return jnp.concatenate(done, axis=1)


class Stack(nnx.Module):
  """All layers: parameters stacked over layers, run by a scan over groups of `cross_every` layers.

  `layer` has a leading axis num_layers, `cross` a leading axis over the layers that cross-attend.
  """

  def __init__(self, c: QFormerConfig, *, rngs: nnx.Rngs):
    self.config = c
    crossing = -(-c.num_layers // c.cross_every)
    self.layer = _stacked(Layer, c, c.num_layers, rngs)
    self.cross = _stacked(Cross, c, crossing, rngs)

  def __call__(self, x_BLW, mask_BLL, num_queries: int, kv, key=None) -> jax.Array:
    c, n = self.config, self.config.cross_every
    layer_def, layers = nnx.split(self.layer)
    cross_def, crosses = nnx.split(self.cross)
    layers, crosses = nnx.to_pure_dict(layers), nnx.to_pure_dict(crosses)
    keys = None if key is None else jax.random.split(key, c.num_layers)

    def group(x_BLW, layers, cross, keys, size):
      x_BLW = axes.constrain(x_BLW, "batch")
      for i in range(size):
        layer = nnx.merge(layer_def, _row(layers, i))
        x_BLW = layer(x_BLW, mask_BLL, num_queries,
                      nnx.merge(cross_def, cross) if i == 0 else None, kv,
                      None if keys is None else keys[i])
      return x_BLW

    if c.remat:
      group = jax.checkpoint(group, static_argnums=4)
    whole = c.num_layers // n
    head, tail = _divide((layers, keys), whole * n)
    head = jax.tree.map(lambda p: p.reshape(whole, n, *p.shape[1:]), head)
    first, last = _divide(crosses, whole)
    x_BLW, _ = jax.lax.scan(lambda x, xs: (group(x, xs[0][0], xs[1], xs[0][1], n), None),
                            x_BLW, (head, first), unroll=whole if c.unroll else 1)
    if whole * n < c.num_layers:  # the layers after the last whole group
      x_BLW = group(x_BLW, tail[0], _row(last, 0), tail[1], c.num_layers - whole * n)
    return x_BLW


def _stacked(module, c: QFormerConfig, count: int, rngs: nnx.Rngs):
  """`count` modules as one, whose parameters have a leading axis `count`."""
  make = nnx.vmap(lambda rngs: module(c, rngs=rngs), in_axes=0, out_axes=0)
  return make(rngs.split(count))


def _divide(tree, at: int):
  """(first `at` rows, the rest) of every array."""
  return jax.tree.map(lambda p: p[:at], tree), jax.tree.map(lambda p: p[at:], tree)


def _row(tree, i: int):
  """Row i of every array."""
  return jax.tree.map(lambda p: p[i], tree)
