"""Constrained beam search: ranks items without ever saying anything that is not one.

Keys and values are never copied between beams. Every step appends its W tokens to the one cache of
the row, and a boolean mask says which of the appended tokens are a beam's own past; choosing among
beams moves that mask, not the cache.

A score is the sum of the log-probabilities of an index's tokens, EOS included, normalised over the
decoder's whole vocabulary; no length penalty. A finished beam keeps its place among the W as long
as its score does, which no later step can raise. Only unfinished beams are run: once they have
become few in every row, a step is a narrower one (`_widths`).
"""
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

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
  start = prompt.run(decoder, extra=steps * width)
  # Without a filter every node leads to an item, and nothing grows with the catalogue.
  allowed_BZ = None if blocked_BI is None else trie_lib.allowed(trie, blocked_BI)

  root = Beams(jnp.zeros((B, 1), jnp.int32), jnp.zeros((B, 1)),
               jnp.zeros((B, 1, steps * width), bool))
  beams = _grow(trie, allowed_BZ, root, root, decoder.logits(start.last_BD[:, None]),
                trie.root_fanout, width)
  widths = _widths(width)

  def unfinished(carry):
    t, beams, _ = carry
    return (t < steps) & jnp.any(_alive(trie, beams))

  def step(n, t, beams, cache):
    first_BN = jnp.argsort(~_alive(trie, beams), axis=1)[:, :n]
    some = Beams(*(jnp.take_along_axis(x, first_BN.reshape(B, n, *[1] * (x.ndim - 2)), axis=1)
                   for x in beams))
    own_NA = jax.nn.one_hot(t * width + jnp.arange(n), steps * width, dtype=bool)
    some = some._replace(past_BWA=some.past_BWA | own_NA[None])
    logits_BNV, cache = _run(decoder, trie, some, start, cache, t * width)
    return t + 1, _grow(trie, allowed_BZ, beams, some, logits_BNV, trie.fanout, width), cache

  def narrowest_step(carry):
    most = jnp.max(jnp.sum(_alive(trie, carry[1]), axis=1))
    which = jnp.sum(most <= jnp.array(widths)) - 1
    return jax.lax.switch(which, [functools.partial(step, n) for n in widths], *carry)

  _, beams, _ = jax.lax.while_loop(
      unfinished, narrowest_step, (jnp.int32(0), beams, start.cache))
  items_BW = jnp.where(jnp.isfinite(beams.score_BW), trie.item_Z[beams.node_BW], 0)
  return items_BW, beams.score_BW


def _alive(trie, beams: Beams):
  """[B, W] bool: the beam is the beginning of an index, not a whole one."""
  return jnp.isfinite(beams.score_BW) & (trie.item_Z[beams.node_BW] == 0)


def _widths(width: int) -> list[int]:
  """Widths a step may have, widest first: each is a body to compile, so only three."""
  return sorted({width, -(-width // 2), -(-width // 5)}, reverse=True)


def _run(decoder, trie, beams: Beams, start, cache, at):
  """Says the last token of every beam: ([B, W, V] logits of what may follow, cache)."""
  B, W = beams.node_BW.shape
  L = start.valid_BL.shape[1]
  position_BW = start.next_B[:, None] + trie.depth_Z[beams.node_BW] - 1
  prompt_BWL = jnp.broadcast_to(start.valid_BL[:, None], (B, W, L))
  hidden_BWD, cache = decoder.extend(
      decoder.embed(trie.token_Z[beams.node_BW]), position_BW,
      jnp.concatenate([prompt_BWL, beams.past_BWA], axis=2), cache, L + at)
  return decoder.logits(hidden_BWD), cache


def _grow(trie, allowed_BZ, beams: Beams, some: Beams, logits_BNV, fanout: int,
          width: int) -> Beams:
  """The `width` best among the finished of `beams` and the allowed children of `some` of them."""
  B, W = beams.node_BW.shape
  N = some.node_BW.shape[1]
  finished_BW = trie.item_Z[beams.node_BW] > 0
  stay_BW = jnp.where(finished_BW, beams.score_BW, -jnp.inf)
  child_BNF, score_BNF = _children(trie, allowed_BZ, some, logits_BNV, fanout)
  node_BC = jnp.concatenate([beams.node_BW, child_BNF.reshape(B, -1)], axis=1)
  score_BC = jnp.concatenate([stay_BW, score_BNF.reshape(B, -1)], axis=1)
  from_C = jnp.concatenate([jnp.arange(W), W + jnp.repeat(jnp.arange(N), fanout)])
  missing = max(0, width - node_BC.shape[1])
  node_BC = jnp.pad(node_BC, ((0, 0), (0, missing)))
  score_BC = jnp.pad(score_BC, ((0, 0), (0, missing)), constant_values=-jnp.inf)
  from_BC = jnp.broadcast_to(jnp.pad(from_C, (0, missing))[None], node_BC.shape)
  worse_BC, _, node_BC, from_BC = jax.lax.sort(
      (-score_BC, trie.lowest_Z[node_BC], node_BC, from_BC), num_keys=2)
  past_BCA = jnp.concatenate([beams.past_BWA, some.past_BWA], axis=1)
  past_BWA = jnp.take_along_axis(past_BCA, from_BC[:, :width, None], axis=1)
  return Beams(node_BC[:, :width], -worse_BC[:, :width], past_BWA)


def _children(trie, allowed_BZ, beams: Beams, logits_BWV, fanout: int):
  """Nodes [B, W, fanout] below each beam and their scores; -inf where there is none to enter."""
  edge_F = jnp.arange(fanout)
  edge_BWF = trie.child_start_Z[beams.node_BW][..., None] + edge_F[None, None]
  child_BWF = trie.child_E[jnp.minimum(edge_BWF, trie.child_E.shape[0] - 1)]
  exists_BWF = edge_F[None, None] < trie.child_count_Z[beams.node_BW][..., None]
  if allowed_BZ is not None:
    row_B11 = jnp.arange(child_BWF.shape[0])[:, None, None]
    exists_BWF = exists_BWF & allowed_BZ[row_B11, child_BWF]
  picked_BWF = jnp.take_along_axis(logits_BWV, trie.token_Z[child_BWF], axis=2)
  logp_BWF = picked_BWF - jax.nn.logsumexp(logits_BWV, axis=2, keepdims=True)
  score_BWF = beams.score_BW[..., None] + logp_BWF
  return child_BWF, jnp.where(exists_BWF, score_BWF, -jnp.inf)
