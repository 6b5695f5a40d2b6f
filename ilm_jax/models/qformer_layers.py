"""The parts of a Q-Former: config, attention masks, the vector reader, one layer.

`models/qformer.py` puts them together.
"""
import dataclasses
from collections.abc import Mapping

from flax import nnx
import jax
import jax.numpy as jnp

from ilm_jax import errors
from ilm_jax.models import attention

_BERT_STD = 0.02


@dataclasses.dataclass(frozen=True, kw_only=True)
class QFormerConfig:
  """Shape of a Q-Former. The defaults are MiniLM-L6's, so that its weights fit."""
  vectors: tuple[tuple[str, int], ...]  # (name, width) of the named vectors; a dict is accepted
  num_layers: int = 6
  width: int = 384
  num_heads: int = 12
  mlp_width: int = 1536
  vocab_size: int = 30522
  max_text: int = 64           # text positions
  num_queries: int = 8
  cross_every: int = 2         # cross-attention in layers 0, cross_every, 2 * cross_every ..
  kv_tokens: int = 1           # key/value tokens made from each named vector
  proj_width: int = 256        # width of the contrastive space
  proj_init: str = "normal"    # "identity": texts start as their pooled outputs (needs width)
  text_pool: str = "cls"       # "mean" suits encoders trained with mean pooling (MiniLM)
  decoder_start: int = 1       # token that opens generated text; MiniLM's [unused0]
  temperature: float = 0.07    # start of every learned temperature
  dropout: float = 0.1
  vector_dropout: float = 0.0  # of the normed vector's channels, training only
  vector_noise: float = 0.0    # std of noise on the normed vector (its own std is 1)
  norm_eps: float = 1e-12
  query_path_only: bool = False  # phase 2: no text branch, no heads

  def __post_init__(self):
    if isinstance(self.vectors, Mapping):
      object.__setattr__(self, "vectors", tuple(self.vectors.items()))
    wrong = []
    if not self.vectors:
      wrong.append("vectors is empty: name at least one, e.g. behavioral")
    if self.width % self.num_heads:
      wrong.append(f"width={self.width} does not divide over num_heads={self.num_heads}")
    if self.text_pool not in ("cls", "mean"):
      wrong.append(f"text_pool={self.text_pool!r}: expected 'cls' or 'mean'")
    if self.proj_init not in ("normal", "identity"):
      wrong.append(f"proj_init={self.proj_init!r}: expected 'normal' or 'identity'")
    if self.proj_init == "identity" and self.proj_width != self.width:
      wrong.append(f"proj_init='identity' needs proj_width={self.width} (the width), found "
                   f"{self.proj_width}")
    if wrong:
      raise errors.UserError("qformer config: " + "; ".join(wrong))


def attention_mask(mode: str, num_queries: int, text_mask_BT) -> jax.Array:
  """BLIP-2's self-attention masks over [queries; text], true where a row sees a column.

    mode   query->query  query->text  text->query  text->text
    itc    full          none         none         full
    itm    full          full         full         full
    itg    full          none         full         causal

  Padding is never seen. Rows of padding follow the same rule as other text: their outputs are
  for the caller to ignore.

  Args:
    mode: "itc", "itm" or "itg".
    num_queries: Q.
    text_mask_BT: boolean, true where the text is not padding.

  Returns:
    boolean [B, Q + T, Q + T].
  """
  query_to_text, text_to_query, causal = {
      "itc": (False, False, False), "itm": (True, True, False), "itg": (False, True, True)}[mode]
  B, T = text_mask_BT.shape
  Q = num_queries
  text_BTT = jnp.broadcast_to(text_mask_BT[:, None, :], (B, T, T))
  if causal:
    text_BTT = text_BTT & jnp.tri(T, dtype=bool)[None]
  seen_by_query_BQT = jnp.broadcast_to(text_mask_BT[:, None, :] & query_to_text, (B, Q, T))
  queries = jnp.concatenate([jnp.ones((B, Q, Q), bool), seen_by_query_BQT], axis=2)
  texts = jnp.concatenate([jnp.full((B, T, Q), text_to_query), text_BTT], axis=2)
  return jnp.concatenate([queries, texts], axis=1)


def dropout(x, rate: float, rngs: nnx.Rngs | None) -> jax.Array:
  """Inverted dropout; the identity without `rngs`."""
  if rngs is None or rate == 0.0:
    return x
  keep = jax.random.bernoulli(rngs.dropout(), 1.0 - rate, x.shape)
  return jnp.where(keep, x / (1.0 - rate), 0.0)


def linear(n_in: int, n_out: int, rngs: nnx.Rngs) -> nnx.Linear:
  return nnx.Linear(n_in, n_out, kernel_init=nnx.initializers.normal(_BERT_STD), rngs=rngs)


def norm(width: int, eps: float, rngs: nnx.Rngs) -> nnx.LayerNorm:
  return nnx.LayerNorm(width, epsilon=eps, use_fast_variance=False, rngs=rngs)


class VectorTokens(nnx.Module):
  """LayerNorm, then Linear(C -> kv_tokens * W): one named vector as key/value tokens."""

  def __init__(self, c: QFormerConfig, width: int, *, rngs: nnx.Rngs):
    self.config = c
    self.norm = norm(width, c.norm_eps, rngs)
    self.tokens = nnx.Linear(width, c.kv_tokens * c.width, rngs=rngs)

  def __call__(self, vector_BC, rngs=None) -> jax.Array:
    c = self.config
    x_BC = self.norm(vector_BC)
    if rngs is not None and c.vector_noise:
      x_BC = x_BC + c.vector_noise * jax.random.normal(rngs.dropout(), x_BC.shape)
    x_BC = dropout(x_BC, c.vector_dropout, rngs)
    return self.tokens(x_BC).reshape(-1, c.kv_tokens, c.width)


class Reader(nnx.Module):
  """Turns an entity's named vectors into the key/value tokens of cross-attention."""

  def __init__(self, c: QFormerConfig, *, rngs: nnx.Rngs):
    self.config = c
    self.vectors = nnx.Dict({n: VectorTokens(c, width, rngs=rngs) for n, width in c.vectors})
    self.vector_type = nnx.Param(
        _BERT_STD * jax.random.normal(rngs.params(), (len(c.vectors), c.width)))

  def __call__(self, vectors, present, rngs=None) -> tuple[jax.Array, jax.Array]:
    """(tokens [B, N, W], boolean [B, N]: which of them stand for a present vector)."""
    c = self.config
    tokens, masks = [], []
    for i, (name, _) in enumerate(c.vectors):
      kind_11W = self.vector_type[...][i][None, None]
      tokens.append(self.vectors[name](vectors[name], rngs) + kind_11W)
      masks.append(jnp.repeat(present[name][:, None], c.kv_tokens, axis=1))
    return jnp.concatenate(tokens, axis=1), jnp.concatenate(masks, axis=1)


class Attention(nnx.Module):
  """Multi-head attention. Without `scored` every query takes the one value there is."""

  def __init__(self, c: QFormerConfig, *, scored: bool = True, rngs: nnx.Rngs):
    self.num_heads, self.scored = c.num_heads, scored
    if scored:
      self.query, self.key = linear(c.width, c.width, rngs), linear(c.width, c.width, rngs)
    self.value, self.out = linear(c.width, c.width, rngs), linear(c.width, c.width, rngs)

  def __call__(self, x_BTW, kv_BMW, mask_BTM) -> jax.Array:
    if not self.scored:  # softmax over one key is 1: [B, 1, W], the same for every query
      return self.out(self.value(kv_BMW))

    def heads(x):
      return x.reshape(*x.shape[:2], self.num_heads, -1)

    seen_BTHK = attention.attend(
        heads(self.query(x_BTW)), heads(self.key(kv_BMW)), heads(self.value(kv_BMW)), mask_BTM)
    return self.out(seen_BTHK.reshape(x_BTW.shape))


class Mlp(nnx.Module):
  """Linear, exact GELU, Linear."""

  def __init__(self, c: QFormerConfig, *, rngs: nnx.Rngs):
    self.mlp_in = linear(c.width, c.mlp_width, rngs)
    self.mlp_out = linear(c.mlp_width, c.width, rngs)

  def __call__(self, x_BTW) -> jax.Array:
    return self.mlp_out(jax.nn.gelu(self.mlp_in(x_BTW), approximate=False))


class Layer(nnx.Module):
  """Self-attention over [queries; text], cross-attention of the queries, an mlp for each.

  Every part is followed by residual and layer norm (post-norm, as in BERT). With one key/value
  token an entity the cross-attention weights are identically 1, so its query and key
  projections, which could never learn, are left out.
  """

  def __init__(self, c: QFormerConfig, index: int, *, rngs: nnx.Rngs):
    self.config = c
    self.attention = Attention(c, rngs=rngs)
    self.attention_norm = norm(c.width, c.norm_eps, rngs)
    self.crosses = index % c.cross_every == 0
    if self.crosses:
      self.cross = Attention(c, scored=len(c.vectors) * c.kv_tokens > 1, rngs=rngs)
      self.cross_norm = norm(c.width, c.norm_eps, rngs)
    self.query_mlp = Mlp(c, rngs=rngs)
    self.query_norm = norm(c.width, c.norm_eps, rngs)
    if not c.query_path_only:
      self.text_mlp = Mlp(c, rngs=rngs)
      self.text_norm = norm(c.width, c.norm_eps, rngs)

  def __call__(self, x_BLW, mask_BLL, num_queries: int, kv, rngs=None) -> jax.Array:
    """One layer over [queries; text].

    Args:
      x_BLW: L = num_queries + text length; either may be 0.
      mask_BLL: boolean, broadcastable.
      num_queries: how many of the first positions are queries.
      kv: (tokens [B, N, W], present [B, N]) of the reader; None without queries.
      rngs: for dropout; None means none.
    """
    rate = self.config.dropout
    seen_BLW = dropout(self.attention(x_BLW, x_BLW, mask_BLL), rate, rngs)
    x_BLW = self.attention_norm(x_BLW + seen_BLW)
    query_BQW, text_BTW = x_BLW[:, :num_queries], x_BLW[:, num_queries:]
    done = []
    if query_BQW.shape[1]:
      if self.crosses:
        query_BQW = self.cross_norm(query_BQW + self._look(query_BQW, kv, rngs))
      query_BQW = self.query_norm(query_BQW + dropout(self.query_mlp(query_BQW), rate, rngs))
      done.append(query_BQW)
    if text_BTW.shape[1]:
      done.append(self.text_norm(text_BTW + dropout(self.text_mlp(text_BTW), rate, rngs)))
    return jnp.concatenate(done, axis=1)

  def _look(self, query_BQW, kv, rngs):
    """What the queries read from the entity; exactly zero if none of its vectors is present."""
    kv_BNW, present_BN = kv
    seen = self.cross(query_BQW, kv_BNW, present_BN[:, None, :])
    any_B11 = jnp.any(present_BN, axis=1)[:, None, None]
    seen_BQW = jnp.broadcast_to(jnp.where(any_B11, seen, 0.0), query_BQW.shape)
    return dropout(seen_BQW, self.config.dropout, rngs)
