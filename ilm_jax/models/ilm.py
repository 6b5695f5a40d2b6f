"""What phase 2 trains: Q-Former and projection, or an mlp; and how soft tokens enter a prompt.

Also the item head, where one is asked for: it scores items without saying their names.
"""
import jax
import jax.numpy as jnp
from flax import nnx

from ilm_jax.models import qformer_layers
from ilm_jax.models.qformer import QFormer, QFormerConfig


class ItemHead(nnx.Module):
  """Scores items by a dot product of the state at a history's end and what an item's vectors are.

    score = q(hidden) . k(features) / sqrt(P) + b(features) + a log_draws

  with q, k, b linear, P the width of the head, and log_draws the log of how often the item is in
  the training part. One matmul ranks a catalogue. An item that nobody has met yet is scored by its
  vectors like any other. Not in the paper, whose model says the item.

  It starts as popularity alone, nearly: keys are a tenth of unit size.

  Parameters, a pure dict: query {kernel [D, P]}, key {kernel [F, P], bias}, bias {kernel [F, 1],
  bias}, popularity [1], a.
  """

  def __init__(self, features: int, lm_width: int, width: int, rngs: nnx.Rngs):
    small = nnx.initializers.normal(0.1 * features ** -0.5)
    self.query = nnx.Linear(lm_width, width, use_bias=False, rngs=rngs)
    self.key = nnx.Linear(features, width, kernel_init=small, rngs=rngs)
    self.bias = nnx.Linear(features, 1, kernel_init=nnx.initializers.zeros, rngs=rngs)
    self.popularity = nnx.Param(jnp.ones((1,)))

  def items(self, features_IF, log_draws_I) -> tuple[jax.Array, jax.Array]:
    """([I, P] keys, [I] biases) of items by their features."""
    bias_I = self.bias(features_IF)[:, 0] + self.popularity[...] * log_draws_I
    return self.key(features_IF) * self.key.out_features ** -0.5, bias_I


class ILM(nnx.Module):
  """A Q-Former and one linear layer into the embedding space of a frozen language model.

  The projection's kernel starts as N(0, r^2 / W) and its bias as 0, with r = soft_token_rms. A
  fresh Q-Former ends in a layer norm of scale 1, so its outputs have an RMS of 1 and the soft
  tokens start with an RMS of r (another start: see `output_rms`). Give the RMS of the language
  model's embeddings (`language_model.embedding_rms`): soft tokens much larger than words drown the
  prompt, much smaller ones are not seen.

  Parameters, a pure dict: qformer/ (see qformer.py), projection/ {kernel [W, D], bias [D]}; with
  `head_width` also head/ (see `ItemHead`), whose features are all query outputs, F = Q W.
  """

  def __init__(self, config: QFormerConfig, lm_width: int, *, soft_token_rms: float,
               head_width: int = 0, rngs: nnx.Rngs):
    self.config = config
    self.qformer = QFormer(config, rngs=rngs)
    std = soft_token_rms * config.width ** -0.5
    self.projection = nnx.Linear(
        config.width, lm_width, kernel_init=nnx.initializers.normal(std), rngs=rngs)
    if head_width:
      self.head = ItemHead(config.num_queries * config.width, lm_width, head_width, rngs)

  def soft_tokens(self, vectors, present, key=None) -> jax.Array:
    """[B, Q, D] soft tokens of B entities, given as in `QFormer`."""
    return self.projection(self.qformer.queries(vectors, present, key))

  def features(self, vectors, present, key=None) -> jax.Array:
    """[B, F] what the head is given of B entities."""
    query_BQW = self.qformer.queries(vectors, present, key)
    return query_BQW.reshape(len(query_BQW), -1)


class MlpProjector(nnx.Module):
  """Two linear layers with a GELU between, from an entity's vectors to its soft tokens.

  What CoLLM (arXiv 2310.19488) and ELM (arXiv 2310.04475) put in the Q-Former's place; here for
  comparison, with as many soft tokens. An absent vector counts as zeros.

  Parameters, a pure dict: norm/<name>/ {scale, bias}, mlp_in {kernel [C, 10 C], bias} and
  projection {kernel [10 C, Q * D], bias}, C the sum of the vectors' widths; ten times as in CoLLM.
  With `head_width` also head/ (see `ItemHead`), F = 10 C.
  """

  def __init__(self, config: QFormerConfig, lm_width: int, *, soft_token_rms: float,
               head_width: int = 0, rngs: nnx.Rngs):
    self.config = config
    self.norm = nnx.Dict({n: qformer_layers.norm(C, config.norm_eps, rngs)
                          for n, C in config.vectors})
    width = sum(C for _, C in config.vectors)
    # GELU turns a unit normal into an RMS of 0.65 (E[gelu(z)^2] = 0.425).
    std = soft_token_rms / 0.65 * (10 * width) ** -0.5
    self.mlp_in = nnx.Linear(
        width, 10 * width, kernel_init=nnx.initializers.normal(width ** -0.5), rngs=rngs)
    self.projection = nnx.Linear(10 * width, config.num_queries * lm_width,
                                 kernel_init=nnx.initializers.normal(std), rngs=rngs)
    if head_width:
      self.head = ItemHead(10 * width, lm_width, head_width, rngs)

  def soft_tokens(self, vectors, present, key=None) -> jax.Array:
    """[B, Q, D] soft tokens of B entities; vectors, present, key: as in `QFormer`."""
    soft = self.projection(self.features(vectors, present, key))
    return soft.reshape(len(soft), self.config.num_queries, -1)

  def features(self, vectors, present, key=None) -> jax.Array:
    """[B, 10 C]: the hidden layer."""
    parts = []
    for i, (name, _) in enumerate(self.config.vectors):
      x_BC = self.norm[name](vectors[name])
      if key is not None and self.config.vector_noise:
        noise = jax.random.normal(jax.random.fold_in(key, i), x_BC.shape)
        x_BC = x_BC + self.config.vector_noise * noise
      parts.append(jnp.where(present[name][:, None], x_BC, 0.0))
    hidden_BH = qformer_layers.gelu(self.mlp_in(jnp.concatenate(parts, axis=1)))
    keep = qformer_layers.draw_keep(
        None if key is None else jax.random.fold_in(key, len(parts)), self.config.dropout,
        hidden_BH.shape)
    return qformer_layers.dropout(hidden_BH, keep, self.config.dropout)


def output_rms(qformer: QFormer) -> jax.Array:
  """The RMS of a Q-Former's outputs, measured on 64 random entities.

  1 when fresh; 0.41 with the weights of MiniLM-L6. Random vectors do: the reader norms them.
  """
  widths = qformer.config.vectors
  keys = jax.random.split(jax.random.key(0), len(widths))
  vectors = {name: jax.random.normal(key, (64, C)) for key, (name, C) in zip(keys, widths)}
  present = {name: jnp.ones((64,), bool) for name, _ in widths}
  return jnp.sqrt(jnp.mean(jnp.square(qformer.queries(vectors, present))))


def splice(embeds_BLD, soft_BXD, slot_BL) -> jax.Array:
  """Puts a row's soft tokens where its prompt has slots.

  Args:
    embeds_BLD: [batch, length, width] embeddings of the words.
    soft_BXD: [batch, X, width] soft tokens of the row, entity after entity, X = S * Q.
    slot_BL: int, which of the X soft tokens stands here; -1: the word does.

  Returns:
    [batch, length, width] in the dtype of `embeds_BLD`.
  """
  here_BLD = jnp.take_along_axis(soft_BXD, jnp.maximum(slot_BL, 0)[..., None], axis=1)
  return jnp.where(slot_BL[..., None] >= 0, here_BLD.astype(embeds_BLD.dtype), embeds_BLD)
