"""Attention of packed rows on TPUs: JAX's flash attention in Pallas, spread over the mesh.

The kernel writes no scores to memory, neither forward nor backward. It computes what the rows of a
training step need, causal attention within segments; other masks are `attention.attend`'s.
"""
import functools

import jax
import jax.numpy as jnp

from ilm_jax.runtime import axes

INTERPRET = False              # tests set it: the kernel runs on any device, slowly
_BLOCKS = (512, 256, 128)      # lengths of the kernel's tiles; the last is the width of its lanes


def usable(implementation: str, length: int) -> bool:
  """Whether the kernel computes attention of rows of `length` places in this trace.

  Args:
    implementation: of the decoder, see `attention.attend`; only "auto" uses the kernel.
    length: the kernel needs a multiple of 128.
  """
  return (implementation == "auto" and length % _BLOCKS[-1] == 0
          and (INTERPRET or axes.platform() == "tpu"))


def attend(q_BLHK, k_BLGK, v_BLGK, segment_BL, *, scale: float | None = None,
           softcap: float = 0.0, window: int = 0) -> jax.Array:
  """Causal softmax attention within segments; equal to `attention.attend` up to rounding.

  Args:
    q_BLHK: [batch, length, heads, head width].
    k_BLGK, v_BLGK: [batch, length, key/value heads, head width]; G divides H.
    segment_BL: int; a place attends to its own segment only, whose positions are in order.
    scale, softcap: see `attention.attend`.
    window: a place attends to the last `window` places, with its own; 0: to all before it.

  Returns:
    [batch, length, heads, head width] in q's dtype.
  """
  scale = q_BLHK.shape[-1] ** -0.5 if scale is None else scale
  inside = functools.partial(_attend, scale=scale, softcap=softcap, window=window)
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or mesh.size == 1:
    return inside(q_BLHK, k_BLGK, v_BLGK, segment_BL)
  # XLA cannot cut a kernel: each device computes its rows and heads.
  rows, *_ = axes.fitting(mesh, segment_BL.shape, "batch", None)
  heads = axes.fitting(mesh, k_BLGK.shape, None, None, "heads", None)[2]
  whole = jax.P(rows, None, heads, None)
  return jax.shard_map(inside, in_specs=(whole, whole, whole, jax.P(rows, None)), out_specs=whole,
                       check_vma=False)(q_BLHK, k_BLGK, v_BLGK, segment_BL)


def _attend(q_BLHK, k_BLGK, v_BLGK, segment_BL, *, scale, softcap, window) -> jax.Array:
  """`attend` on one device."""
  from jax.experimental.pallas.ops.tpu import splash_attention
  _, L, H, _ = q_BLHK.shape
  block = next(size for size in _BLOCKS if L % size == 0)
  mask = (splash_attention.LocalMask((L, L), (window - 1, 0), 0) if window else
          splash_attention.CausalMask((L, L)))
  kernel = splash_attention.make_splash_mha(
      splash_attention.MultiHeadMask([mask] * H), head_shards=1, q_seq_shards=1,
      attn_logits_soft_cap=softcap or None, interpret=INTERPRET,
      block_sizes=splash_attention.BlockSizes(
          block_q=block, block_kv=block, block_q_dkv=block, block_kv_dkv=block,
          use_fused_bwd_kernel=True))

  def row(q_LHK, k_LGK, v_LGK, segment_L):
    seen_HLK = kernel(*(x.swapaxes(0, 1) for x in (q_LHK, k_LGK, v_LGK)),
                      segment_ids=splash_attention.SegmentIds(segment_L, segment_L))
    return seen_HLK.swapaxes(0, 1)

  scaled_BLHK = (q_BLHK.astype(jnp.float32) * scale).astype(q_BLHK.dtype)
  return jax.vmap(row)(scaled_BLHK, k_BLGK, v_BLGK, segment_BL).astype(q_BLHK.dtype)
