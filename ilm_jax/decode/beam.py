"""Constrained beam search: ranks items without ever saying anything that is not one.

Keys and values are never copied between beams. Every step appends its W tokens to the one cache of
the row, and a boolean mask says which of the appended tokens are a beam's own past; choosing among
beams moves that mask, not the cache.

A score is the sum of the log-probabilities of an index's tokens, EOS included, normalised over the
decoder's whole vocabulary; no length penalty. A finished beam keeps its place among the W as long
as its score does, which no later step can raise.
"""
import functools
from typing import NamedTuple

from flax import nnx
import jax
import jax.numpy as jnp

from ilm_jax.decode import prompt as prompt_lib
from ilm_jax.decode import trie as trie_lib


class Beams(NamedTuple):
  """The W best hypotheses of each row; empty places score -inf."""
  node_BW: jax.Array
  score_BW: jax.Array
  past_BWA: jax.Array       # bool: which of the A appended tokens lead to the beam


@functools.partial(jax.jit, static_argnames=("graphdef", "width"))
def beam_search(graphdef, params, trie: trie_lib.Trie, prompt: prompt_lib.Prompt, blocked_BI=None,
                *, width: int) -> tuple[jax.Array, jax.Array]:
  """The best items of the catalogue by beam search.

  Items come out at most once, best first; equal scores in the order of item rows. A row gets
  min(width, allowed items) items, the same as exact scoring where `width` reaches that number.

  Args:
    graphdef: of the decoder (`nnx.split`).
    params: parameters of the decoder.
    trie: the catalogue.
    prompt: the prompts, as embeddings.
    blocked_BI: boolean [B, I + 1] by item row, or None: items not to propose. They cost no beam:
      nodes that lead to blocked items only are never entered.
    width: beams, and items returned.

  Returns:
    (items_BW, scores_BW): item rows, 0 where the catalogue has no more; float32, -inf there.
  """
  decoder = nnx.merge(graphdef, params)
  B, steps = prompt.valid_BL.shape[0], trie.max_depth - 1
  start = prompt_lib.prefill(decoder, prompt, extra=steps * width)
  if blocked_BI is None:
    blocked_BI = jnp.zeros((B, trie.num_items + 1), bool)
  allowed_BZ = trie_lib.allowed(trie, blocked_BI)

  root = Beams(jnp.zeros((B, 1), jnp.int32), jnp.zeros((B, 1)),
               jnp.zeros((B, 1, steps * width), bool))
  beams = _grow(trie, allowed_BZ, root, decoder.logits(start.last_BD[:, None]), trie.root_fanout,
                width)

  def unfinished(carry):
    t, beams, _ = carry
    return (t < steps) & jnp.any(_alive(trie, beams))

  def step(carry):
    t, beams, cache = carry
    own_WA = jax.nn.one_hot(t * width + jnp.arange(width), steps * width, dtype=bool)
    beams = beams._replace(past_BWA=beams.past_BWA | own_WA[None])
    logits_BWV, cache = _run(decoder, trie, beams, start, cache, t)
    return t + 1, _grow(trie, allowed_BZ, beams, logits_BWV, trie.fanout, width), cache

  _, beams, _ = jax.lax.while_loop(unfinished, step, (0, beams, start.cache))
  items_BW = jnp.where(jnp.isfinite(beams.score_BW), trie.item_Z[beams.node_BW], 0)
  return items_BW, beams.score_BW


def _alive(trie, beams: Beams):
  """[B, W] bool: the beam is the beginning of an index, not a whole one."""
  return jnp.isfinite(beams.score_BW) & (trie.item_Z[beams.node_BW] == 0)


def _run(decoder, trie, beams: Beams, start, cache, t):
  """Says the last token of every beam: ([B, W, V] logits of what may follow, cache)."""
  B, W = beams.node_BW.shape
  L = start.valid_BL.shape[1]
  position_BW = start.next_B[:, None] + trie.depth_Z[beams.node_BW] - 1
  prompt_BWL = jnp.broadcast_to(start.valid_BL[:, None], (B, W, L))
  hidden_BWD, cache = decoder.extend(
      decoder.embed(trie.token_Z[beams.node_BW]), position_BW,
      jnp.concatenate([prompt_BWL, beams.past_BWA], axis=2), cache, L + t * W)
  return decoder.logits(hidden_BWD), cache


def _grow(trie, allowed_BZ, beams: Beams, logits_BWV, fanout: int, width: int) -> Beams:
  """The `width` best among finished beams and the allowed children of the others."""
  B, W = beams.node_BW.shape
  finished_BW = trie.item_Z[beams.node_BW] > 0
  stay_BW = jnp.where(finished_BW, beams.score_BW, -jnp.inf)
  child_BWF, score_BWF = _children(trie, allowed_BZ, beams, logits_BWV, fanout)
  node_BC = jnp.concatenate([beams.node_BW, child_BWF.reshape(B, -1)], axis=1)
  score_BC = jnp.concatenate([stay_BW, score_BWF.reshape(B, -1)], axis=1)
  beam_C = jnp.concatenate([jnp.arange(W), jnp.repeat(jnp.arange(W), fanout)])
  missing = max(0, width - node_BC.shape[1])
  node_BC = jnp.pad(node_BC, ((0, 0), (0, missing)))
  score_BC = jnp.pad(score_BC, ((0, 0), (0, missing)), constant_values=-jnp.inf)
  beam_BC = jnp.broadcast_to(jnp.pad(beam_C, (0, missing))[None], node_BC.shape)
  worse_BC, _, node_BC, beam_BC = jax.lax.sort(
      (-score_BC, trie.lowest_Z[node_BC], node_BC, beam_BC), num_keys=2)
  past_BWA = jnp.take_along_axis(beams.past_BWA, beam_BC[:, :width, None], axis=1)
  return Beams(node_BC[:, :width], -worse_BC[:, :width], past_BWA)


def _children(trie, allowed_BZ, beams: Beams, logits_BWV, fanout: int):
  """Nodes [B, W, fanout] below each beam and their scores; -inf where there is none to enter."""
  edge_F = jnp.arange(fanout)
  edge_BWF = trie.child_start_Z[beams.node_BW][..., None] + edge_F[None, None]
  child_BWF = trie.child_E[jnp.minimum(edge_BWF, trie.child_E.shape[0] - 1)]
  exists_BWF = edge_F[None, None] < trie.child_count_Z[beams.node_BW][..., None]
  row_B11 = jnp.arange(child_BWF.shape[0])[:, None, None]
  picked_BWF = jnp.take_along_axis(logits_BWV, trie.token_Z[child_BWF], axis=2)
  logp_BWF = picked_BWF - jax.nn.logsumexp(logits_BWV, axis=2, keepdims=True)
  score_BWF = beams.score_BW[..., None] + logp_BWF
  return child_BWF, jnp.where(exists_BWF & allowed_BZ[row_B11, child_BWF], score_BWF, -jnp.inf)
