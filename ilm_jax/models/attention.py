"""Attention and rotary positions: pure functions, shared by all models.

Masks are boolean, true where a query may attend to a key. They broadcast: [1, T, M] serves a whole
batch, [B, 1, M] all queries of a row.
"""
import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np


def attend(q_BTHK, k_BMGK, v_BMGK, mask_BTM, scale: float | None = None, softcap: float = 0.0,
           bias_BHTM=None, implementation: str = "plain") -> jax.Array:
  """Softmax attention with grouped query heads; softmax in float32.

  Query head h reads key/value head h // (H // G); the keys are not repeated in memory. A query
  whose mask is false everywhere gets a finite output, which the caller must ignore.

  Args:
    q_BTHK: [batch, queries, heads, head width].
    k_BMGK: [batch, keys, key/value heads, head width]; G divides H.
    v_BMGK: [batch, keys, key/value heads, head width].
    mask_BTM: boolean, broadcastable to [batch, queries, keys].
    scale: factor of the scores; None means K ** -0.5.
    softcap: scores become softcap * tanh(score / softcap); 0: no cap.
    bias_BHTM: float32 added to the scores, broadcastable; None: no bias.
    implementation: "plain": this function's own code; "xla": jax.nn's, if it can compute this
      attention; "auto": cuDNN's flash attention on a GPU, if it can; else "plain". All agree up to
      rounding. On TPUs `splash` takes the place of this function where a decoder can use it.

  Returns:
    [batch, queries, heads, head width] in q's dtype.

  Raises:
    ValueError: G does not divide H.
  """
  B, T, H, K = q_BTHK.shape
  G = k_BMGK.shape[2]
  if H % G:
    raise ValueError(f"{H} query heads do not divide over {G} key/value heads")
  J, M = H // G, k_BMGK.shape[1]
  able = chosen(implementation, jax.default_backend(), q_BTHK.dtype, (T, K, M),
                softcap=bool(softcap), bias=bias_BHTM is not None)
  if able != "plain":
    mask_B1TM = jnp.broadcast_to(mask_BTM, (mask_BTM.shape[0], T, M))[:, None]
    return jax.nn.dot_product_attention(q_BTHK, k_BMGK, v_BMGK, bias_BHTM, mask_B1TM, scale=scale,
                                        implementation=able)
  # Queries, keys and values are transposed, not the larger scores: both products and all their
  # gradients are then plain matmuls over [B, G]. R = J * T: the query rows of a group.
  q_BGRK = q_BTHK.reshape(B, T, G, J, K).transpose(0, 2, 3, 1, 4).reshape(B, G, J * T, K)
  k_BGMK, v_BGMK = k_BMGK.transpose(0, 2, 1, 3), v_BMGK.transpose(0, 2, 1, 3)
  score_BGRM = jnp.einsum("bgrk,bgmk->bgrm", q_BGRK, k_BGMK, preferred_element_type=jnp.float32)
  score_BGJTM = score_BGRM.reshape(B, G, J, T, M) * (K ** -0.5 if scale is None else scale)
  if softcap:
    score_BGJTM = softcap * jnp.tanh(score_BGJTM / softcap)
  if bias_BHTM is not None:
    score_BGJTM = score_BGJTM + bias_BHTM.reshape(-1, G, J, *bias_BHTM.shape[2:])
  score_BGJTM = jnp.where(mask_BTM[:, None, None], score_BGJTM, jnp.finfo(jnp.float32).min)
  weight_BGRM = jax.nn.softmax(score_BGJTM, axis=-1).astype(v_BMGK.dtype).reshape(B, G, J * T, M)
  seen_BGRK = jnp.einsum("bgrm,bgmk->bgrk", weight_BGRM, v_BGMK)
  return seen_BGRK.reshape(B, G, J, T, K).transpose(0, 3, 1, 2, 4).reshape(B, T, H, K)


def chosen(implementation: str, backend: str, dtype, sizes: tuple[int, int, int], *,
           softcap: bool, bias: bool) -> str:
  """"plain", "xla" or "cudnn": the implementation for an attention of these shapes.

  Args:
    implementation: see `attend`.
    backend: of JAX.
    dtype: of queries, keys and values.
    sizes: queries, head width, keys.
    softcap, bias: whether the scores have them. jax.nn has no soft cap; with "auto" a bias means
      "plain", since it may be trained.
  """
  queries, width, keys = sizes
  if implementation == "plain" or softcap:
    return "plain"
  if implementation == "xla":
    return "xla"
  # cuDNN's limits on all GPUs since Ampere, with a mask and with gradients.
  fits = width % 8 == 0 and width <= 128 and queries % 2 == 0 and keys % 2 == 0
  half = jnp.dtype(dtype) in (jnp.bfloat16, jnp.float16)
  return "cudnn" if backend == "gpu" and half and fits and not bias else "plain"


def causal_mask(segment_BL, prefix_BL=None) -> jax.Array:
  """[B, L, L] boolean: a position attends to itself and to earlier positions of its segment.

  Where `prefix_BL` is true, earlier positions of the segment attend to the position as well.
  """
  L = segment_BL.shape[1]
  same_BLL = segment_BL[:, :, None] == segment_BL[:, None, :]
  seen_BLL = jnp.tri(L, dtype=bool)[None]
  return same_BLL & (seen_BLL if prefix_BL is None else seen_BLL | prefix_BL[:, None, :])


def forked(fork_BL, position_BL) -> jax.Array:
  """[B, L, L] boolean, to combine with a causal mask: attention of branches to their sequence.

  A sequence is followed by its branches. `fork_BL` is 0 on the sequence and p + 1 on a branch that
  leaves the sequence after position p. A branch attends to the sequence up to p and to places
  with its own value of `fork_BL`.
  """
  from_BL1, to_B1L = fork_BL[:, :, None], fork_BL[:, None]
  before_BLL = (from_BL1 == 0) | (position_BL[:, None] < from_BL1)
  return jnp.where(to_B1L == 0, before_BLL, from_BL1 == to_B1L)


def relative_bucket(back_BTM, buckets: int, distance: int, *, bidirectional: bool) -> jax.Array:
  """int [B, T, M]: T5's bucket of a relative position, query position minus key position.

  Half of the buckets hold one distance each; the others widen logarithmically up to `distance`, and
  the last one holds all larger distances. With `bidirectional` the upper half of all buckets is for
  keys after the query.

  Source: Raffel et al. 2020, arXiv 1910.10683, section 2.1; mesh-tensorflow's bucketing.
  """
  start = 0
  if bidirectional:
    buckets //= 2
    start = jnp.where(back_BTM < 0, buckets, 0)
    back_BTM = jnp.abs(back_BTM)
  else:
    back_BTM = jnp.maximum(back_BTM, 0)
  exact = buckets // 2
  far = jnp.log(jnp.maximum(back_BTM, 1).astype(jnp.float32) / exact) / math.log(distance / exact)
  far = jnp.minimum(exact + (far * (buckets - exact)).astype(jnp.int32), buckets - 1)
  return start + jnp.where(back_BTM < exact, back_BTM, far)


@dataclasses.dataclass(frozen=True)
class RopeScaling:
  """Rotary frequencies stretched for long contexts.

  If `original` is 0, linear: f / factor (Gemma 3's global layers). Else Llama 3's rule: waves
  longer than original / low are stretched, waves shorter than original / high are kept, and those
  between are blended.
  """
  factor: float
  low: float = 1.0
  high: float = 4.0
  original: int = 0


def rope_angles(position_BT, head_dim: int, base: float,
                scaling: RopeScaling | None = None) -> tuple[jax.Array, jax.Array]:
  """Cosine and sine of the rotary angles, both float32 [B, T, head_dim / 2]."""
  half = head_dim // 2
  frequency_K = base ** (-jnp.arange(half, dtype=jnp.float32) / half)
  if scaling is not None:
    frequency_K = frequency_K * stretch(head_dim, base, scaling)
  angle_BTK = position_BT[..., None].astype(jnp.float32) * frequency_K[None, None]
  return jnp.cos(angle_BTK), jnp.sin(angle_BTK)


def stretch(head_dim: int, base: float, s: RopeScaling) -> np.ndarray:
  """float32 [head_dim / 2]: the factors by which a scaling multiplies the rotary frequencies."""
  if not s.original:
    return np.full(head_dim // 2, 1 / s.factor, np.float32)
  waves_K = s.original / (2 * np.pi / base ** (-np.arange(0, head_dim, 2) / head_dim))
  keep_K = np.clip((waves_K - s.low) / (s.high - s.low), 0, 1)
  return ((1 - keep_K) / s.factor + keep_K).astype(np.float32)


def rotate(x_BTHK, cos_BTK, sin_BTK) -> jax.Array:
  """Rotates channel j with channel j + K/2 (the half-split layout) by the given angles."""
  first, second = jnp.split(x_BTHK.astype(jnp.float32), 2, axis=-1)
  cos, sin = cos_BTK[:, :, None], sin_BTK[:, :, None]
  turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
  return turned.astype(x_BTHK.dtype)
