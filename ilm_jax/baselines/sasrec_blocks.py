"""Layers and losses of SASRec and its successors: pure functions and two kinds of layer.

Letters: B users, L positions, W width, N target positions of a batch, I items, K negatives.
"""
import jax
import jax.numpy as jnp
from flax import nnx

from ilm_jax.models import attention


class Plain(nnx.Module):
  """Pre-norm self-attention and a position-wise mlp."""

  def __init__(self, width: int, num_heads: int, dropout_rate: float, *, rngs: nnx.Rngs):
    self.num_heads, self.dropout_rate = num_heads, dropout_rate
    self.attention_norm, self.mlp_norm = (nnx.LayerNorm(width, rngs=rngs) for _ in range(2))
    self.query, self.key, self.value, self.out, self.mlp_in, self.mlp_out = (
        nnx.Linear(width, width, rngs=rngs) for _ in range(6))

  def __call__(self, x_BLW, mask_BLL, key) -> jax.Array:
    keys = (None, None) if key is None else jax.random.split(key)
    x_BLW = x_BLW + dropout(self.attend(x_BLW, mask_BLL), self.dropout_rate, keys[0])
    return x_BLW + dropout(self.mlp(x_BLW), self.dropout_rate, keys[1])

  def attend(self, x_BLW, mask_BLL) -> jax.Array:
    """[B, L, W]: the output of self-attention, to be added to the input."""
    def heads(x):
      return x.reshape(*x.shape[:2], self.num_heads, -1)

    h_BLW = self.attention_norm(x_BLW)
    return self.out(attention.attend(heads(self.query(h_BLW)), heads(self.key(h_BLW)),
                                     heads(self.value(h_BLW)), mask_BLL).reshape(x_BLW.shape))

  def mlp(self, x_BLW) -> jax.Array:
    """[B, L, W]: the output of the mlp, to be added to its input."""
    return self.mlp_out(jax.nn.gelu(self.mlp_in(self.mlp_norm(x_BLW))))


class Ligr(Plain):
  """LiGR's layer (arXiv 2502.03417), used by eSASRec: gated residuals, and a SwiGLU mlp of 4 W.

  A gate is the sigmoid of a linear map of the layer's input before its norm.
  """

  def __init__(self, width: int, num_heads: int, dropout_rate: float, *, rngs: nnx.Rngs):
    super().__init__(width, num_heads, dropout_rate, rngs=rngs)
    self.attention_gate, self.mlp_gate = (nnx.Linear(width, width, rngs=rngs) for _ in range(2))
    self.mlp_in, self.mlp_up = (
        nnx.Linear(width, 4 * width, use_bias=False, rngs=rngs) for _ in range(2))
    self.mlp_out = nnx.Linear(4 * width, width, use_bias=False, rngs=rngs)

  def __call__(self, x_BLW, mask_BLL, key) -> jax.Array:
    keys = (None, None) if key is None else jax.random.split(key)
    x_BLW = x_BLW + jax.nn.sigmoid(self.attention_gate(x_BLW)) * dropout(
        self.attend(x_BLW, mask_BLL), self.dropout_rate, keys[0])
    return x_BLW + jax.nn.sigmoid(self.mlp_gate(x_BLW)) * dropout(
        self.mlp(x_BLW), self.dropout_rate, keys[1])

  def mlp(self, x_BLW) -> jax.Array:
    h_BLW = self.mlp_norm(x_BLW)
    return self.mlp_out(jax.nn.silu(self.mlp_in(h_BLW)) * self.mlp_up(h_BLW))


BLOCKS = {"plain": Plain, "ligr": Ligr}


def full_softmax(target_N, logits_NI) -> jax.Array:
  """[N] cross-entropy in nats of the target's logit among the logits of all items."""
  return jax.nn.logsumexp(logits_NI, axis=1) - target_N


def sampled_softmax(target_N, negative_NK) -> jax.Array:
  """[N] cross-entropy in nats of the target's logit among itself and its negatives; -inf: not a
  negative."""
  logits = jnp.concatenate([target_N[:, None], negative_NK], axis=1)
  return jax.nn.logsumexp(logits, axis=1) - target_N


def gbce(target_N, negative_NK, num_items: int, calibration: float) -> jax.Array:
  """[N] generalised binary cross-entropy of gSASRec (arXiv 2308.07192).

  The target's probability is raised to the power beta = a (t (1 - 1/a) + 1/a), where the share of
  items drawn is a = K / (I - 1). t = 0 is the binary loss; with t = 1 the model learns the
  probabilities of the full catalogue, although few negatives are drawn.

  Args:
    target_N: logits of the targets.
    negative_NK: logits of the negatives; -inf: not a negative.
    num_items: I.
    calibration: t, 0..1.
  """
  share = negative_NK.shape[1] / (num_items - 1)
  beta = share * (calibration * (1 - 1 / share) + 1 / share)
  return (beta * jax.nn.softplus(-target_N) + jnp.sum(jax.nn.softplus(negative_NK), axis=1)) / (
      negative_NK.shape[1] + 1)


def dropout(x, rate: float, key) -> jax.Array:
  """`x` with a share `rate` set to 0 and the rest divided by 1 - rate; unchanged if key is None."""
  if key is None or not rate:
    return x
  return jnp.where(jax.random.bernoulli(key, 1.0 - rate, x.shape), x / (1.0 - rate), 0.0)
