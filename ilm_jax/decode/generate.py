"""Generates text from prompts that hold soft tokens: greedily, by sampling, or by beam search.

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


class _Beams(NamedTuple):
  text_BWT: jax.Array
  score_BW: jax.Array       # sum of log-probabilities; -inf: no hypothesis
  done_BW: jax.Array
  past_BWA: jax.Array       # bool: which of the A appended tokens lead to the beam


@functools.partial(jax.jit, static_argnames=("graphdef", "max_new", "eos_id", "width", "alpha"))
def beam_text(graphdef, params, prompt: prompt_lib.Prompt, *, max_new: int, eos_id: int, width: int,
              alpha: float = 0.0) -> tuple[jax.Array, jax.Array]:
  """The likeliest texts by unconstrained beam search (for items of a catalogue see `beam`).

  Hypotheses compete by score / ((5 + length) / 6) ** alpha, where the length includes EOS (Wu et
  al. 2016, arXiv 1609.08144, equation 14); a finished one stays as long as it is among the best.
  As in `beam`, selecting beams reorders a mask, not the cache.

  Args:
    graphdef: of the language model (`nnx.split`).
    params: its parameters.
    prompt: the prompts, as embeddings.
    max_new: most tokens to generate, EOS included.
    eos_id: the token that ends a text.
    width: number of beams, and of texts returned.
    alpha: exponent of the length penalty; 0: no penalty.

  Returns:
    (text_BWT, score_BW): int32 [B, width, max_new], best first, padded with EOS; float32
    [B, width], sums of log-probabilities in nats, without the length penalty.
  """
  model = nnx.merge(graphdef, params)
  A = (max_new - 1) * width
  start = prompt.run(model, extra=A)
  B, L = start.valid_BL.shape
  first = _Beams(jnp.full((B, 1, max_new), eos_id, jnp.int32), jnp.zeros((B, 1)),
                 jnp.zeros((B, 1), bool), jnp.zeros((B, 1, A), bool))
  logits_B1V = model.logits(start.last_BD[:, None])
  beams = _next(first, logits_B1V, jnp.int32(0), eos_id, width, alpha)

  def unfinished(carry):
    t, beams, _ = carry
    return (t < max_new) & ~jnp.all(beams.done_BW)

  def step(carry):
    t, beams, cache = carry
    at = (t - 1) * width
    own_WA = jax.nn.one_hot(at + jnp.arange(width), A, dtype=bool)
    beams = beams._replace(past_BWA=beams.past_BWA | own_WA[None])
    seen_BWL = jnp.broadcast_to(start.valid_BL[:, None], (B, width, L))
    token_BW = jax.lax.dynamic_index_in_dim(beams.text_BWT, t - 1, axis=2, keepdims=False)
    position_BW = jnp.broadcast_to((start.next_B + t - 1)[:, None], (B, width))
    hidden_BWD, cache = model.extend(
        model.embed(token_BW), position_BW, jnp.concatenate([seen_BWL, beams.past_BWA], axis=2),
        cache, L + at)
    return t + 1, _next(beams, model.logits(hidden_BWD), t, eos_id, width, alpha), cache

  _, beams, _ = jax.lax.while_loop(unfinished, step, (jnp.int32(1), beams, start.cache))
  return beams.text_BWT, beams.score_BW


def _next(beams: _Beams, logits_BWV, t, eos_id: int, width: int, alpha: float) -> _Beams:
  """The best `width` continuations by token number t; a finished beam continues as itself."""
  B, W, V = logits_BWV.shape
  logp_BWV = jax.nn.log_softmax(logits_BWV, axis=-1)
  only_eos_V = jnp.where(jnp.arange(V) == eos_id, 0.0, -jnp.inf)
  logp_BWV = jnp.where(beams.done_BW[..., None], only_eos_V[None, None], logp_BWV)
  score_BWV = beams.score_BW[..., None] + logp_BWV
  length_BW = jnp.where(beams.done_BW, jnp.sum(beams.text_BWT != eos_id, axis=2) + 1, t + 1)
  worth_BWV = score_BWV / (((5.0 + length_BW) / 6.0) ** alpha)[..., None]
  missing = max(0, width - W * V)
  worth_BC = jnp.pad(worth_BWV.reshape(B, -1), ((0, 0), (0, missing)), constant_values=-jnp.inf)
  _, best_BW = jax.lax.top_k(worth_BC, width)
  from_BW, token_BW = jnp.minimum(best_BW // V, W - 1), best_BW % V
  score_BC = jnp.pad(score_BWV.reshape(B, -1), ((0, 0), (0, missing)), constant_values=-jnp.inf)
  text_BWT = jnp.take_along_axis(beams.text_BWT, from_BW[..., None], axis=1)
  done_BW = jnp.take_along_axis(beams.done_BW, from_BW, axis=1) | (token_BW == eos_id)
  return _Beams(text_BWT.at[:, :, t].set(token_BW.astype(jnp.int32)),
                jnp.take_along_axis(score_BC, best_BW, axis=1), done_BW,
                jnp.take_along_axis(beams.past_BWA, from_BW[..., None], axis=1))
