"""What phase 2 trains: Q-Former and projection; and how soft tokens enter a prompt."""
import jax
import jax.numpy as jnp
from flax import nnx

from ilm_jax.models.qformer import QFormer, QFormerConfig


class ILM(nnx.Module):
  """A Q-Former and one linear layer into the embedding space of a frozen language model.

  The projection's kernel starts as N(0, r^2 / W) and its bias as 0, with r = soft_token_rms. A
  fresh Q-Former ends in a layer norm of scale 1, so its outputs have an RMS of 1 and the soft
  tokens start with an RMS of r (another start: see `output_rms`). Give the RMS of the language
  model's embeddings (`language_model.embedding_rms`): soft tokens much larger than words drown the
  prompt, much smaller ones are not seen.

  Parameters, a pure dict: qformer/ (see qformer.py), projection/ {kernel [W, D], bias [D]}.
  """

  def __init__(self, config: QFormerConfig, lm_width: int, *, soft_token_rms: float,
               rngs: nnx.Rngs):
    self.qformer = QFormer(config, rngs=rngs)
    std = soft_token_rms * config.width ** -0.5
    self.projection = nnx.Linear(
        config.width, lm_width, kernel_init=nnx.initializers.normal(std), rngs=rngs)

  def soft_tokens(self, vectors, present, key=None) -> jax.Array:
    """[B, Q, D] soft tokens of B entities, given as in `QFormer`."""
    return self.projection(self.qformer.queries(vectors, present, key))


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
