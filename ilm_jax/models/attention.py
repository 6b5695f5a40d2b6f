"""Attention and rotary positions: pure functions, shared by every model of the project.

Masks are boolean and true where a query may look. They broadcast: [1, T, M] serves a whole batch,
[B, 1, M] all queries of a row.
"""
import jax
import jax.numpy as jnp


def attend(q_BTHK, k_BMGK, v_BMGK, mask_BTM, scale: float | None = None) -> jax.Array:
  """Softmax attention with grouped query heads; softmax in float32.

  Query head h reads key/value head h // (H // G); the keys are not repeated in memory. A query that
  may look nowhere gets the mean of all values: finite, and for the caller to ignore.

  Args:
    q_BTHK: [batch, queries, heads, head width].
    k_BMGK: [batch, keys, key/value heads, head width]; G divides H.
    v_BMGK: [batch, keys, key/value heads, head width].
    mask_BTM: boolean, broadcastable to [batch, queries, keys].
    scale: factor of the scores; None means K ** -0.5.

  Returns:
    [batch, queries, heads, head width] in q's dtype.
  """
  B, T, H, K = q_BTHK.shape
  G = k_BMGK.shape[2]
  if H % G:
    raise ValueError(f"{H} query heads do not divide over {G} key/value heads")
  q_BTGJK = q_BTHK.reshape(B, T, G, H // G, K)
  score_BGJTM = jnp.einsum("btgjk,bmgk->bgjtm", q_BTGJK, k_BMGK,
                           preferred_element_type=jnp.float32)
  score_BGJTM = score_BGJTM * (K ** -0.5 if scale is None else scale)
  score_BGJTM = jnp.where(mask_BTM[:, None, None], score_BGJTM, jnp.finfo(jnp.float32).min)
  weight_BGJTM = jax.nn.softmax(score_BGJTM, axis=-1).astype(v_BMGK.dtype)
  return jnp.einsum("bgjtm,bmgk->btgjk", weight_BGJTM, v_BMGK).reshape(B, T, H, K)


def causal_mask(segment_BL) -> jax.Array:
  """[B, L, L] boolean: a position sees itself and what is before it in its own segment."""
  L = segment_BL.shape[1]
  same_BLL = segment_BL[:, :, None] == segment_BL[:, None, :]
  return same_BLL & jnp.tri(L, dtype=bool)[None]


def rope_angles(position_BT, head_dim: int, base: float) -> tuple[jax.Array, jax.Array]:
  """Cosine and sine of the rotary angles, both float32 [B, T, head_dim / 2]."""
  half = head_dim // 2
  frequency_K = base ** (-jnp.arange(half, dtype=jnp.float32) / half)
  angle_BTK = position_BT[..., None].astype(jnp.float32) * frequency_K[None, None]
  return jnp.cos(angle_BTK), jnp.sin(angle_BTK)


def rotate(x_BTHK, cos_BTK, sin_BTK) -> jax.Array:
  """Rotates channel j with channel j + K/2 (the half-split layout) by the given angles."""
  first, second = jnp.split(x_BTHK.astype(jnp.float32), 2, axis=-1)
  cos, sin = cos_BTK[:, :, None], sin_BTK[:, :, None]
  turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
  return turned.astype(x_BTHK.dtype)


def rope(x_BTHK, position_BT, base: float) -> jax.Array:
  """Rotary positions in the half-split layout (Llama as published on the Hub).

  Weights kept in the interleaved layout (channel 2j with 2j + 1: GGUF of Llama type) are
  un-permuted when they are read, so there is one layout here.
  """
  return rotate(x_BTHK, *rope_angles(position_BT, x_BTHK.shape[-1], base))
