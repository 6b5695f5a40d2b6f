"""The Q-Former: learned queries that read an entity's vectors and generate the text of items.

BLIP-2's design (arXiv 2301.12597) on vectors instead of image patches: one BERT-like post-norm
transformer. Queries and text share self-attention, each has its own MLP, and only queries
cross-attend to the entity's named vectors. Parameters, a pure dict:

  query_tokens [Q, W]   embed_norm {scale, bias}
  reader/ vectors/<name>/ {norm {scale, bias}, tokens {kernel [C, n*M], bias}}  vector_type [., M]
  stack/layer/ attention/ query key value out {kernel, bias}   attention_norm  [num_layers, ..]
               query_mlp/ mlp_in mlp_out                       query_norm
               text_mlp/ mlp_in mlp_out                        text_norm       (T)
  stack/cross/ attention/ [query key] value out   norm      [layers 0, cross_every, .. alone, ..]
  text_embed/ word [V, W]  position [max_text, W]     (T)
  lm/ transform {kernel, bias}  norm  bias [V]        (T)  head tied to text_embed/word
  heads/ query_projection text_projection match [vectors] [user_projection] {kernel, bias}
         log_temperature_{itc,ii,ui}                                                         (T)

(T): absent when `query_path_only`, the form in which phase 2 stores and trains it.
"""
import math

import jax
import jax.numpy as jnp
from flax import nnx

from ilm_jax import losses
from ilm_jax.models import qformer_layers
from ilm_jax.models.qformer_config import QFormerConfig, attention_mask
from ilm_jax.runtime import axes

__all__ = ["QFormer", "QFormerConfig", "attention_mask", "phase2_subtree"]

TEXT_BRANCH = ("text_embed", "lm", "heads", "text_mlp", "text_norm")


class TextEmbedding(nnx.Module):
  """Words and positions. BERT's token type 0 is folded into the positions."""

  def __init__(self, c: QFormerConfig, *, rngs: nnx.Rngs):
    self.word = nnx.Param(0.02 * jax.random.normal(rngs.params(), (c.vocab_size, c.width)))
    self.position = nnx.Param(0.02 * jax.random.normal(rngs.params(), (c.max_text, c.width)))

  def __call__(self, ids_BT) -> jax.Array:
    return self.word[...][ids_BT] + self.position[...][None, :ids_BT.shape[1]]


class LmHead(nnx.Module):
  """BERT's masked-language-model head; its output matrix is the word table of the caller."""

  def __init__(self, c: QFormerConfig, *, rngs: nnx.Rngs):
    self.dot_general = c.dot_general
    self.transform = qformer_layers.linear(c, c.width, c.width, rngs)
    self.norm = qformer_layers.norm(c.width, c.norm_eps, rngs)
    self.bias = nnx.Param(jnp.zeros((c.vocab_size,)))

  def __call__(self, hidden_BTW, word_VW) -> jax.Array:
    x_BTW = self.norm(qformer_layers.gelu(self.transform(hidden_BTW)))
    return self.dot_general(x_BTW, word_VW, (((2,), (1,)), ((), ()))) + self.bias[...][None, None]


class Heads(nnx.Module):
  """Contrastive projections, the matching classifier and the learned temperatures."""

  def __init__(self, c: QFormerConfig, *, rngs: nnx.Rngs):
    self.query_projection = qformer_layers.linear(c, c.width, c.proj_width, rngs)
    self.text_projection = qformer_layers.linear(c, c.width, c.proj_width, rngs)
    if c.proj_init == "identity":
      self.text_projection.kernel[...] = jnp.eye(c.width)
    self.match = qformer_layers.linear(c, c.width, 2, rngs)
    if c.reconstructs:
      self.vectors = qformer_layers.linear(
          c, c.num_queries * c.width, sum(C for _, C in c.vectors), rngs)
    if c.user_projection:
      self.user_projection = qformer_layers.linear(c, c.width, c.proj_width, rngs)
    for name in ("itc", "ii", "ui"):
      setattr(self, f"log_temperature_{name}", nnx.Param(jnp.array(math.log(c.temperature))))


class QFormer(nnx.Module):
  """See the module's docstring. `key` in all methods: for dropout; None means deterministic.

  `vectors` maps a name to float [B, C] and `present` a name to bool [B]; names that the config does
  not list are ignored. `ids_BT` are int token ids, and `mask_BT` is true where they are no padding.
  """

  def __init__(self, config: QFormerConfig, *, rngs: nnx.Rngs):
    c = self.config = config
    self.query_tokens = nnx.Param(
        0.02 * jax.random.normal(rngs.params(), (c.num_queries, c.width)))
    self.embed_norm = qformer_layers.norm(c.width, c.norm_eps, rngs)
    self.reader = qformer_layers.Reader(c, rngs=rngs)
    self.stack = qformer_layers.Stack(c, rngs=rngs)
    if not c.query_path_only:
      self.text_embed = TextEmbedding(c, rngs=rngs)
      self.lm = LmHead(c, rngs=rngs)
      self.heads = Heads(c, rngs=rngs)

  # Passes. Each returns normed outputs of the last layer.

  def queries(self, vectors, present, key=None) -> jax.Array:
    """[B, Q, W]: query outputs for the entities. Phase 2 needs this pass only."""
    batch = next(iter(present.values())).shape[0]
    return self._run(None, jnp.ones((1, 1, self.config.num_queries), bool),
                     (vectors, present), batch, key)

  def text(self, ids_BT, mask_BT, key=None) -> jax.Array:
    """[B, T, W]: text outputs without queries, bidirectional (the text half of the ITC mask)."""
    return self._run(self.text_embed(ids_BT), mask_BT[:, None, :], None, ids_BT.shape[0], key)

  def joint(self, vectors, present, ids_BT, mask_BT, key=None) -> jax.Array:
    """[B, Q, W]: query outputs that attend to the entity and the text, for matching (ITM)."""
    Q = self.config.num_queries
    x_BLW = self._run(self.text_embed(ids_BT), attention_mask("itm", Q, mask_BT),
                      (vectors, present), ids_BT.shape[0], key)
    return x_BLW[:, :Q]

  def speak(self, vectors, present, ids_BT, mask_BT, key=None) -> tuple[jax.Array, jax.Array]:
    """The generation pass (ITG): the first text position becomes the decoder-start token.

    Returns:
      ([B, Q, W] query outputs, equal to those of `queries`, since queries attend to no text here;
       [B, T, W] text outputs for `lm_logits` and `token_loss`: position t predicts token t + 1).
    """
    Q = self.config.num_queries
    x_BLW = self._run(self._opened(ids_BT), attention_mask("itg", Q, mask_BT),
                      (vectors, present), ids_BT.shape[0], key)
    return x_BLW[:, :Q], x_BLW[:, Q:]

  def align(self, vectors, present, ids_BT, mask_BT, key=None):
    """`queries`, `text` and `speak` in one pass over [queries; text; text to generate].

    Under the ITC and the ITG mask queries attend only to queries, so both masks share one query
    pass. The two copies of the text do not attend to each other.

    Returns:
      (query outputs [B, Q, W], text outputs [B, T, W], generation outputs [B, T, W]).
    """
    (B, T), Q = ids_BT.shape, self.config.num_queries
    itc, itg = (attention_mask(mode, Q, mask_BT) for mode in ("itc", "itg"))
    nothing = jnp.zeros((B, Q + T, T), bool)
    mask = jnp.concatenate([
        jnp.concatenate([itc, nothing], axis=2),
        jnp.concatenate([itg[:, Q:, :Q], nothing[:, Q:], itg[:, Q:, Q:]], axis=2)], axis=1)
    text = jnp.concatenate([self.text_embed(ids_BT), self._opened(ids_BT)], axis=1)
    x_BLW = self._run(text, mask, (vectors, present), B, key)
    return x_BLW[:, :Q], x_BLW[:, Q:Q + T], x_BLW[:, Q + T:]

  def generate(self, vectors, present, ids_BT, mask_BT, key=None) -> jax.Array:
    """[B, T, V] logits; position t predicts token t + 1."""
    return self.lm_logits(self.speak(vectors, present, ids_BT, mask_BT, key)[1])

  # Heads.

  def lm_logits(self, hidden_BTW) -> jax.Array:
    return self.lm(hidden_BTW, self.text_embed.word[...])

  def token_loss(self, hidden_BTW, targets_BT, smoothing: float, chunk: int = 2048):
    """(smoothed cross-entropy, negative log likelihood), each [B, T] in nats.

    A device holds the [V] logits of about `chunk` positions at once. Positions are split along T,
    so a batch that is sharded over devices stays sharded. Each turn sums its gradient of the word
    table over all devices, so there are as few turns as fit.
    """
    B, T, W = hidden_BTW.shape
    most = chunk * axes.batch_ways()
    turns = next(n for n in range(1, T + 1) if T % n == 0 and (B * T // n <= most or n == T))

    def one(xs):
      hidden_BtW, targets_Bt = xs
      return losses.token_cross_entropy(self.lm_logits(hidden_BtW), targets_Bt, smoothing)

    if turns == 1:
      return one((hidden_BTW, targets_BT))
    hidden = jnp.moveaxis(hidden_BTW.reshape(B, turns, T // turns, W), 1, 0)
    targets = jnp.moveaxis(targets_BT.reshape(B, turns, T // turns), 1, 0)
    _, parts = jax.lax.scan(lambda _, xs: (None, jax.checkpoint(one)(xs)), None,
                            (hidden, targets), unroll=turns if self.config.unroll else 1)
    return tuple(jnp.moveaxis(x, 0, 1).reshape(B, T) for x in parts)

  def project_queries(self, hidden_BQW, users: bool = False) -> jax.Array:
    """Unit vectors [B, Q, P]; [B, 1, P] where the mean of an entity's queries stands for it.

    Args:
      hidden_BQW: outputs of the queries.
      users: the entities are users for whom items are ranked.
    """
    apart = users and self.config.user_projection
    project = self.heads.user_projection if apart else self.heads.query_projection
    if self.config.query_pool == "mean":
      # The losses then reach every query. Of the nearest they reach one of an entity and step.
      hidden_BQW = jnp.mean(hidden_BQW, axis=1, keepdims=True)
    return losses.unit(project(hidden_BQW))

  def reconstructed(self, hidden_BQW) -> jax.Array:
    """[B, sum of C]: all named vectors in their order, reconstructed from the query outputs."""
    return self.heads.vectors(hidden_BQW.reshape(hidden_BQW.shape[0], -1))

  def project_text(self, hidden_BTW, mask_BT, key=None) -> jax.Array:
    """[B, P] unit vectors of the pooled text: its first output or the mean of its outputs."""
    if self.config.text_pool == "cls":
      pooled_BW = hidden_BTW[:, 0]
    else:
      keep_BT1 = mask_BT[..., None].astype(hidden_BTW.dtype)
      pooled_BW = jnp.sum(hidden_BTW * keep_BT1, axis=1) / jnp.maximum(keep_BT1.sum(axis=1), 1.0)
    rate = self.config.text_dropout
    keep_BW = qformer_layers.draw_keep(key, rate, pooled_BW.shape)
    return losses.unit(self.heads.text_projection(
        qformer_layers.dropout(pooled_BW, keep_BW, rate)))

  def itm_logits(self, hidden_BQW) -> jax.Array:
    """[B, 2] logits of (no match, match), the mean of all queries' logits."""
    return jnp.mean(self.heads.match(hidden_BQW), axis=1)

  def temperature(self, name: str) -> jax.Array:
    """The learned temperature of "itc", "ii" or "ui", at least `min_temperature`."""
    log_temperature = getattr(self.heads, f"log_temperature_{name}")[...]
    return jnp.maximum(jnp.exp(log_temperature), self.config.min_temperature)

  # Inside.

  def _opened(self, ids_BT) -> jax.Array:
    """Embeddings of the text with the decoder-start token in its first position."""
    return self.text_embed(ids_BT.at[:, 0].set(self.config.decoder_start))

  def _run(self, text_BTW, mask_BLL, entities, batch: int, key) -> jax.Array:
    """The stack over [queries; text]: queries if there are `entities`, text if `text_BTW`."""
    c = self.config
    keys = (None,) * 3 if key is None else jax.random.split(key, 3)
    parts = []
    if entities is not None:
      parts.append(jnp.broadcast_to(
          self.query_tokens[...][None], (batch, c.num_queries, c.width)))
    if text_BTW is not None:
      parts.append(text_BTW)
    x_BLW = self.embed_norm(jnp.concatenate(parts, axis=1))
    x_BLW = axes.constrain(x_BLW, "batch")
    keep = qformer_layers.draw_keep(keys[0], c.dropout, x_BLW.shape)
    kv = None if entities is None else self.reader(*entities, keys[1])
    return self.stack(qformer_layers.dropout(x_BLW, keep, c.dropout), mask_BLL,
                      0 if kv is None else c.num_queries, kv, keys[2])


def phase2_subtree(params: dict) -> dict:
  """The parameters of the query path: exactly those of a `query_path_only` Q-Former."""
  return {k: phase2_subtree(v) if isinstance(v, dict) else v
          for k, v in params.items() if k not in TEXT_BRANCH}
