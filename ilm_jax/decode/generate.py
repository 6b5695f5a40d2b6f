"""Greedy text from prompts that hold soft tokens."""
import functools

import jax
import jax.numpy as jnp
from flax import nnx

from ilm_jax.decode import prompt as prompt_lib


@functools.partial(jax.jit, static_argnames=("graphdef", "max_new", "eos_id"))
def greedy(graphdef, params, prompt: prompt_lib.Prompt, *, max_new: int,
           eos_id: int) -> tuple[jax.Array, jax.Array]:
  """The likeliest next token, again and again, until EOS or `max_new` tokens.

  Args:
    graphdef: of the decoder (`nnx.split`).
    params: parameters of the decoder.
    prompt: the prompts, as embeddings.
    max_new: most tokens to write, EOS counted.
    eos_id: the token that ends a text.

  Returns:
    (tokens_BT, length_B): [B, max_new] int32, EOS after the end; tokens before EOS.
  """
  decoder = nnx.merge(graphdef, params)
  B, L = prompt.valid_BL.shape
  start = prompt_lib.prefill(decoder, prompt, extra=max_new - 1)

  def choose(hidden_BD, done_B):
    token_B = jnp.argmax(decoder.logits(hidden_BD), axis=-1).astype(jnp.int32)
    token_B = jnp.where(done_B, eos_id, token_B)
    return token_B, token_B == eos_id

  def unfinished(carry):
    t, _, done_B, _, _ = carry
    return (t < max_new) & ~jnp.all(done_B)

  def step(carry):
    t, token_B, done_B, text_BT, cache = carry
    said_T = jnp.arange(max_new - 1) < t
    mask_BM = jnp.concatenate([start.valid_BL, jnp.broadcast_to(said_T[None], (B, max_new - 1))], 1)
    hidden_B1D, cache = decoder.extend(
        decoder.embed(token_B[:, None]), (start.next_B + t - 1)[:, None], mask_BM[:, None], cache,
        L + t - 1)
    token_B, done_B = choose(hidden_B1D[:, 0], done_B)
    return t + 1, token_B, done_B, text_BT.at[:, t].set(token_B), cache

  token_B, done_B = choose(start.last_BD, jnp.zeros(B, bool))
  text_BT = jnp.full((B, max_new), eos_id, jnp.int32).at[:, 0].set(token_B)
  *_, text_BT, _ = jax.lax.while_loop(
      unfinished, step, (jnp.int32(1), token_B, done_B, text_BT, start.cache))
  return text_BT, jnp.sum(text_BT != eos_id, axis=1)
