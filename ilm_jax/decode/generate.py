"""Generates text from prompts that hold soft tokens: greedily or by sampling.

Shapes are static: one compiled program serves all batches of prompts that are padded to the same
length.
"""
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from ilm_jax.decode import prompt as prompt_lib


class Sampling(NamedTuple):
  """How the next token is drawn.

  temperature: divisor of the logits; 0: take the likeliest token (greedy).
  top_p: keep only the likeliest tokens that together reach this probability; 1: keep all.
  """
  temperature: float = 0.0
  top_p: float = 1.0


GREEDY = Sampling()


@functools.partial(jax.jit, static_argnames=("graphdef", "max_new", "eos_id", "ends", "sampling"))
def generate(graphdef, params, prompt: prompt_lib.Prompt, *, max_new: int, eos_id: int,
             ends: tuple[int, ...] = (), sampling: Sampling = GREEDY,
             key=None) -> tuple[jax.Array, jax.Array]:
  """Generates tokens until an end token or `max_new` tokens.

  Args:
    graphdef: of the language model (`nnx.split`).
    params: its parameters.
    prompt: the prompts, as embeddings.
    max_new: most tokens to generate, EOS included.
    eos_id: the token that ends a text.
    ends: further tokens that end a text (`Tokenizer.ends`); the output has EOS in their place.
    sampling: how a token is drawn.
    key: for the draws; may be None when greedy.

  Returns:
    (tokens_BT, length_B): int32 [B, max_new], padded with EOS; int32 [B], tokens before EOS.
  """
  model = nnx.merge(graphdef, params)
  start = prompt.run(model, extra=max_new - 1)
  B, L = start.valid_BL.shape

  def choose(t, hidden_BD, done_B):
    token_B = draw(model.logits(hidden_BD), sampling,
                   key if key is None else jax.random.fold_in(key, t))
    ended_B = functools.reduce(jnp.logical_or, (token_B == end for end in ends), done_B)
    token_B = jnp.where(ended_B, eos_id, token_B)
    return token_B, token_B == eos_id

  def unfinished(carry):
    t, _, done_B, _, _ = carry
    return (t < max_new) & ~jnp.all(done_B)

  def step(carry):
    t, token_B, done_B, text_BT, cache = carry
    said_T = jnp.arange(max_new - 1) < t
    mask_BM = jnp.concatenate([start.valid_BL, jnp.broadcast_to(said_T[None], (B, max_new - 1))], 1)
    hidden_B1D, cache = model.extend(
        model.embed(token_B[:, None]), (start.next_B + t - 1)[:, None], mask_BM[:, None], cache,
        L + t - 1)
    token_B, done_B = choose(t, hidden_B1D[:, 0], done_B)
    return t + 1, token_B, done_B, text_BT.at[:, t].set(token_B), cache

  token_B, done_B = choose(0, start.last_BD, jnp.zeros(B, bool))
  text_BT = jnp.full((B, max_new), eos_id, jnp.int32).at[:, 0].set(token_B)
  *_, text_BT, _ = jax.lax.while_loop(
      unfinished, step, (jnp.int32(1), token_B, done_B, text_BT, start.cache))
  return text_BT, jnp.sum(text_BT != eos_id, axis=1)


def draw(logits_BV, sampling: Sampling, key) -> jax.Array:
  """int32 [B]: one token per row, see `Sampling`. The likeliest token is always allowed."""
  if not sampling.temperature:
    return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
  logits_BV = logits_BV / sampling.temperature
  if sampling.top_p < 1.0:
    sorted_BV = -jnp.sort(-logits_BV, axis=-1)
    chance_BV = jax.nn.softmax(sorted_BV, axis=-1)
    before_BV = jnp.cumsum(chance_BV, axis=-1) - chance_BV
    least_B = jnp.min(jnp.where(before_BV < sampling.top_p, sorted_BV, jnp.inf), axis=-1)
    logits_BV = jnp.where(logits_BV >= least_B[:, None], logits_BV, -jnp.inf)
  return jax.random.categorical(key, logits_BV, axis=-1).astype(jnp.int32)
