"""The models of phase 2: ILM (Q-Former and projection) and the MLP projector; and `splice`.

Both turn entities into soft tokens, which `splice` puts into a prompt. Both may have an item head,
which scores items without generating their names.
"""
import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from ilm_jax.models import qformer_layers
from ilm_jax.models.qformer import QFormer, QFormerConfig


class ItemHead(nnx.Module):
  """Scores items by a dot product of the hidden state at a history's end and an item's features.

    score = q(hidden) . k(features) / sqrt(P) + b(features) + a log_draws

  Here q, k, b are linear, P is the width of the head, and log_draws is the log of the item's count
  in the training part. One matmul ranks a catalogue. An item without interactions is scored by its
  vectors like any other. The paper has no such head: its model generates the item.

  The head starts close to popularity: keys are a tenth of unit size.

  Parameters, a pure dict: query {kernel [D, P]}, key {kernel [F, P], bias}, bias {kernel [F, 1],
  bias}, popularity [1], a.
  """

  def __init__(self, c: QFormerConfig, features: int, lm_width: int, width: int, rngs: nnx.Rngs):
    self.query = nnx.Linear(lm_width, width, use_bias=False, rngs=rngs, dot_general=c.dot_general)
    self.key = qformer_layers.linear(c, features, width, rngs, 0.1 * features ** -0.5)
    self.bias = nnx.Linear(features, 1, kernel_init=nnx.initializers.zeros, rngs=rngs)
    self.popularity = nnx.Param(jnp.ones((1,)))

  def items(self, features_IF, log_draws_I) -> tuple[jax.Array, jax.Array]:
    """([I, P] keys, [I] biases) of items, from their features."""
    bias_I = self.bias(features_IF)[:, 0] + self.popularity[...] * log_draws_I
    return self.key(features_IF) * self.key.out_features ** -0.5, bias_I


@dataclasses.dataclass(frozen=True, kw_only=True)
class Form:
  """Variants of the paper's soft tokens and head features; all False is the paper's form.

  docs/results/ measures each of them alone.
  """
  skip: bool        # ILM: the Q-Former's soft tokens are added to those of an `MlpProjector`
  per_query: bool   # ILM: every query has its own projection
  soft_norm: bool   # soft tokens are layer-normed and start at the size of word embeddings
  equal_head: bool  # ILM: the head reads 10 C features, as with the MLP projector

  @classmethod
  def of(cls, section) -> "Form":
    """The Form in section phase2 of a config."""
    return cls(**{field.name: section[field.name] for field in dataclasses.fields(cls)})


class Projector(nnx.Module):
  """Base class of ILM and the MLP projector; `key`: for dropout and noise, None: no randomness."""

  def __init__(self, config: QFormerConfig, lm_width: int, form: Form, soft_token_rms: float,
               rngs: nnx.Rngs):
    self.config, self.form = config, form
    if form.soft_norm:
      self.soft_norm = qformer_layers.norm(lm_width, config.norm_eps, rngs)
      self.soft_norm.scale[...] = jnp.full((lm_width,), soft_token_rms)

  def read(self, vectors, present, key=None) -> tuple[jax.Array, jax.Array]:
    """([B, Q, D] soft tokens, [B, F] features for the head) of B entities, given as in `QFormer`.

    Under jit the compiler removes the result that the caller does not use.
    """
    soft_BQD, features_BF = self._read(vectors, present, key)
    return self.soft_norm(soft_BQD) if self.form.soft_norm else soft_BQD, features_BF

  def soft_tokens(self, vectors, present, key=None) -> jax.Array:
    """[B, Q, D]: the first of `read`."""
    return self.read(vectors, present, key)[0]

  def features(self, vectors, present, key=None) -> jax.Array:
    """[B, F]: the second of `read`."""
    return self.read(vectors, present, key)[1]


class ILM(Projector):
  """A Q-Former and a linear layer into the embedding space of a frozen language model.

  The projection's kernel starts as N(0, r^2 / W) and its bias as 0, with r = soft_token_rms. A
  fresh Q-Former ends in a layer norm of scale 1, so its outputs have an RMS of 1 and the soft
  tokens start with an RMS of r (for a loaded Q-Former see `output_rms`). Pass the RMS of the
  language model's embeddings (`language_model.embedding_rms`): much larger soft tokens drown the
  words of the prompt, much smaller ones have no effect.

  With `form.skip` the model contains the MLP projector:

    soft token = MLP(vectors) + projection(Q-Former(vectors))
    features = MLP's hidden layer + s * head_in(Q-Former(vectors)),  s = 0 in R^F at the start

  Both parts of a soft token start at an RMS of r. The scales s are LayerScale's (arXiv 2103.17239,
  section 2), one a channel: at full size the Q-Former's features slow the head's start. One gate
  for all channels of both would collect all their gradients; it stayed shut, and kept the rest from
  learning (docs/results/ml1m.md).

  Parameters, a pure dict: qformer/ (see qformer.py), projection/ {kernel [W, D], bias [D]}, with
  `form.per_query` {kernel [Q, W, D], bias [Q, D]}; skip/ with `form.skip`; soft_norm/ with
  `form.soft_norm`; with `head_width` also head/ (see `ItemHead`). The head's features are all query
  outputs, F = Q W; with `form.equal_head` or `form.skip` they pass through head_in/ {kernel [Q W,
  10 C], bias} first, F = 10 C, and with `form.skip` there is feature_scale [F].
  """

  def __init__(self, config: QFormerConfig, lm_width: int, form: Form, *, soft_token_rms: float,
               head_width: int = 0, rngs: nnx.Rngs):
    super().__init__(config, lm_width, form, soft_token_rms, rngs)
    self.qformer = QFormer(config, rngs=rngs)
    self.projection = _projection(config, form, lm_width, soft_token_rms, rngs)
    if form.skip:
      self.skip = MlpProjector(config, lm_width, dataclasses.replace(form, soft_norm=False),
                               soft_token_rms=soft_token_rms, rngs=rngs)
    self.equal = bool(head_width) and (form.equal_head or form.skip)
    features, hidden = config.num_queries * config.width, 10 * _vector_width(config)
    if self.equal:
      self.head_in = qformer_layers.linear(config, features, hidden, rngs, features ** -0.5)
      if form.skip:
        self.feature_scale = nnx.Param(jnp.zeros((hidden,)))
    if head_width:
      self.head = ItemHead(config, hidden if self.equal else features, lm_width, head_width, rngs)

  def _read(self, vectors, present, key) -> tuple[jax.Array, jax.Array]:
    # Derived keys of one key can be equal: two networks that read the same need two.
    own, of_skip = (None, None) if key is None else jax.random.split(key)
    query_BQW = self.qformer.queries(vectors, present, own)
    soft_BQD, features_BF = self.projection(query_BQW), query_BQW.reshape(query_BQW.shape[0], -1)
    if self.equal:
      features_BF = self.head_in(features_BF)
    if not self.form.skip:
      return soft_BQD, qformer_layers.gelu(features_BF) if self.equal else features_BF
    mlp_BQD, hidden_BF = self.skip.read(vectors, present, of_skip)
    if self.equal:
      hidden_BF = hidden_BF + self.feature_scale[...][None] * features_BF
    return mlp_BQD + soft_BQD, hidden_BF


class MlpProjector(Projector):
  """Two linear layers with a GELU between them, from an entity's vectors to its soft tokens.

  CoLLM (arXiv 2310.19488) and ELM (arXiv 2310.04475) use such a network instead of a Q-Former. It
  is here for comparison, with as many soft tokens. An absent vector counts as zeros. It reads the
  mean of an entity's members, so that its input is the Q-Former's.

  Parameters, a pure dict: norm/<name>/ and [member_norm/<name>/] {scale, bias}, mlp_in {kernel
  [C, 10 C], bias} and projection {kernel [10 C, Q * D], bias}. C is the sum of the vectors' widths
  (twice that with members); the factor 10 is CoLLM's. soft_norm/ as in ILM. With `head_width` also
  head/ (see `ItemHead`), F = 10 C.
  """

  def __init__(self, config: QFormerConfig, lm_width: int, form: Form, *, soft_token_rms: float,
               head_width: int = 0, rngs: nnx.Rngs):
    width = _vector_width(config)
    super().__init__(config, lm_width, form, soft_token_rms, rngs)
    self.norm = nnx.Dict({n: qformer_layers.norm(C, config.norm_eps, rngs)
                          for n, C in config.vectors})
    self.member_norm = nnx.Dict({n: qformer_layers.norm(C, config.norm_eps, rngs)
                                 for n, C in config.vectors if config.members})
    std = soft_token_rms / qformer_layers.GELU_RMS * (10 * width) ** -0.5
    self.mlp_in = qformer_layers.linear(config, width, 10 * width, rngs, width ** -0.5)
    self.projection = qformer_layers.linear(
        config, 10 * width, config.num_queries * lm_width, rngs, std)
    if head_width:
      self.head = ItemHead(config, 10 * width, lm_width, head_width, rngs)

  def _read(self, vectors, present, key) -> tuple[jax.Array, jax.Array]:
    hidden_BH = self._hidden(vectors, present, key)
    soft = self.projection(hidden_BH)
    return soft.reshape(soft.shape[0], self.config.num_queries, -1), hidden_BH

  def _hidden(self, vectors, present, key) -> jax.Array:
    """[B, 10 C]: the hidden layer."""
    parts = []
    for i, (name, _) in enumerate(self.config.vectors):
      x_BC = self.norm[name](vectors[name])
      if key is not None and self.config.vector_noise:
        noise = jax.random.normal(jax.random.fold_in(key, i), x_BC.shape)
        x_BC = x_BC + self.config.vector_noise * noise
      parts.append(jnp.where(present[name][:, None], x_BC, 0.0))
    for name in sorted(self.member_norm):      # the order in which nnx keeps them once merged
      members = qformer_layers.members_of(name)
      there_BS1 = present[members][:, :self.config.members, None]
      sum_BC = jnp.sum(jnp.where(there_BS1, vectors[members][:, :self.config.members], 0.0), axis=1)
      count_B1 = jnp.sum(there_BS1, axis=1)
      mean_BC = self.member_norm[name](sum_BC / jnp.maximum(count_B1, 1))
      parts.append(jnp.where(count_B1 > 0, mean_BC, 0.0))
    hidden_BH = qformer_layers.gelu(self.mlp_in(jnp.concatenate(parts, axis=1)))
    keep = qformer_layers.draw_keep(
        None if key is None else jax.random.fold_in(key, len(parts)), self.config.dropout,
        hidden_BH.shape)
    return qformer_layers.dropout(hidden_BH, keep, self.config.dropout)


def _vector_width(config: QFormerConfig) -> int:
  """C: the sum of the widths of an entity's vectors, twice that with members."""
  return sum(C for _, C in config.vectors) * (2 if config.members else 1)


def _projection(c: QFormerConfig, form: Form, lm_width: int, soft_token_rms: float,
                rngs: nnx.Rngs):
  """[B, Q, W] -> [B, Q, D]: a linear layer, one for each query or one for all."""
  std = soft_token_rms * c.width ** -0.5
  if not form.per_query:
    return qformer_layers.linear(c, c.width, lm_width, rngs, std)
  return nnx.Einsum("bqi,qio->bqo", (c.num_queries, c.width, lm_width), (c.num_queries, lm_width),
                    kernel_init=nnx.initializers.normal(std), rngs=rngs)


def output_rms(qformer: QFormer) -> jax.Array:
  """float32 scalar: the RMS of a Q-Former's outputs, measured on 64 random entities.

  1 when fresh; 0.41 with the weights of MiniLM-L6. Random vectors suffice: the reader norms them.
  """
  widths = qformer.config.vectors
  keys = jax.random.split(jax.random.key(0), len(widths))
  vectors = {name: jax.random.normal(key, (64, C)) for key, (name, C) in zip(keys, widths)}
  present = {name: jnp.ones((64,), bool) for name, _ in widths}
  if S := qformer.config.members:
    members_of = qformer_layers.members_of
    vectors |= {members_of(name): jnp.zeros((64, S, C)) for name, C in widths}
    present |= {members_of(name): jnp.zeros((64, S), bool) for name, _ in widths}
  return jnp.sqrt(jnp.mean(jnp.square(qformer.queries(vectors, present))))


def splice(embeds_BLD, soft_BXD, slot_BL) -> jax.Array:
  """Puts a row's soft tokens where its prompt has slots.

  Args:
    embeds_BLD: [batch, length, width] embeddings of the words.
    soft_BXD: [batch, X, width] soft tokens of the row, entity after entity, X = S * Q.
    slot_BL: int, the index of the soft token at this position; -1: the position keeps its word.

  Returns:
    [batch, length, width] in the dtype of `embeds_BLD`.
  """
  here_BLD = jnp.take_along_axis(soft_BXD, jnp.maximum(slot_BL, 0)[..., None], axis=1)
  return jnp.where(slot_BL[..., None] >= 0, here_BLD.astype(embeds_BLD.dtype), embeds_BLD)
