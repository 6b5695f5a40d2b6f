"""Constrained beam search: ranks items and generates nothing but items of the catalogue.

Keys and values are never copied between beams. Every step appends its W tokens to the row's cache,
and a boolean mask marks the appended tokens that are a beam's own past. Selecting beams reorders
the mask, not the cache.

A score is the sum of the log-probabilities of an index's tokens, EOS included, normalised over the
decoder's whole vocabulary; there is no length penalty. The search is that of `transformers` with
length_penalty=0: finished hypotheses are stored apart and take no place among the W beams, and a
hypothesis that is not among the W best continuations of its step is dropped. A beam that scores
below the W-th finished hypothesis cannot change the result and is not run: once few beams are left
in every row, steps are narrower (`_widths`).
"""
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from ilm_jax.decode import prompt as prompt_lib
from ilm_jax.decode import trie as trie_lib


class Beams(NamedTuple):
  """The W best unfinished indices of each row, best first; empty places score -inf."""
  node_BW: jax.Array
  score_BW: jax.Array
  past_BWA: jax.Array       # bool: which of the A appended tokens lead to the beam


class Finished(NamedTuple):
  """The W best complete indices of each row, best first; empty places score -inf."""
  node_BW: jax.Array
  score_BW: jax.Array


@functools.partial(jax.jit, static_argnames=("graphdef", "width"))
def beam_search(graphdef, params, trie: trie_lib.Trie, prompt: prompt_lib.Prompt, blocked_BK=None,
                *, width: int) -> tuple[jax.Array, jax.Array]:
  """The best items of the catalogue by beam search.

  Each item is returned at most once, best first; equal scores in the order of item rows. A row gets
  up to `width` items; if `width` is at least the number of allowed items, the ranking is that of
  exact scoring.

  Args:
    graphdef: of the decoder (`nnx.split`).
    params: parameters of the decoder.
    trie: the catalogue.
    prompt: the prompts, as embeddings.
    blocked_BK: from `trie.blocked_leaves`: items to leave out; None: none. They take no beam:
      nodes that lead to blocked items only are never entered.
    width: number of beams, and of items returned.

  Returns:
    (items_BW, scores_BW): int32 item rows, 0 where no item is left; float32 in nats, -inf there.
  """
  decoder = nnx.merge(graphdef, params)
  B, steps = prompt.valid_BL.shape[0], trie.max_depth - 1
  start = prompt.run(decoder, extra=steps * width)
  root = Beams(jnp.zeros((B, 1), jnp.int32), jnp.zeros((B, 1)),
               jnp.zeros((B, 1, steps * width), bool))
  none = Finished(jnp.zeros((B, width), jnp.int32), jnp.full((B, width), -jnp.inf))
  beams, finished = _grow(decoder, trie, blocked_BK, root, none,
                          decoder.logits(start.last_BD[:, None]), trie.root_fanout)
  widths = _widths(width)

  def unfinished(carry):
    t, beams, finished, _ = carry
    return (t < steps) & jnp.any(_alive(beams, finished))

  def step(n, t, beams, finished, cache):
    some = Beams(*(x[:, :n] for x in beams))
    own_NA = jax.nn.one_hot(t * width + jnp.arange(n), steps * width, dtype=bool)
    some = some._replace(past_BWA=some.past_BWA | own_NA[None])
    logits_BNV, cache = _run(decoder, trie, some, start, cache, t * width)
    grown = _grow(decoder, trie, blocked_BK, some, finished, logits_BNV, trie.fanout)
    return t + 1, *grown, cache

  def narrowest_step(carry):
    _, beams, finished, _ = carry
    most = jnp.max(jnp.sum(_alive(beams, finished), axis=1))
    which = jnp.sum(most <= jnp.array(widths)) - 1
    return jax.lax.switch(which, [functools.partial(step, n) for n in widths], *carry)

  _, _, finished, _ = jax.lax.while_loop(
      unfinished, narrowest_step, (jnp.int32(0), beams, finished, start.cache))
  items_BW = jnp.where(jnp.isfinite(finished.score_BW), trie.item_Z[finished.node_BW], 0)
  return items_BW, finished.score_BW


def _alive(beams: Beams, finished: Finished):
  """bool [B, W]: true while a beam may still enter the list; true places come first in a row."""
  return jnp.isfinite(beams.score_BW) & (beams.score_BW >= finished.score_BW[:, -1:])


def _widths(width: int) -> list[int]:
  """Possible widths of a step, widest first; only three, since each must be compiled."""
  return sorted({width, -(-width // 2), -(-width // 5)}, reverse=True)


def _run(decoder, trie, beams: Beams, start, cache, at):
  """Runs the last token of every beam: ([B, W, V] logits of the next token, cache)."""
  B, W = beams.node_BW.shape
  L = start.valid_BL.shape[1]
  position_BW = start.next_B[:, None] + trie.depth_Z[beams.node_BW] - 1
  prompt_BWL = jnp.broadcast_to(start.valid_BL[:, None], (B, W, L))
  hidden_BWD, cache = decoder.extend(
      decoder.embed(trie.token_Z[beams.node_BW]), position_BW,
      jnp.concatenate([prompt_BWL, beams.past_BWA], axis=2), cache, L + at)
  return decoder.logits(hidden_BWD), cache


def _grow(decoder, trie, blocked_BK, some: Beams, finished: Finished, logits_BNV,
          fanout: int) -> tuple[Beams, Finished]:
  """Extends beams by one token: the best allowed children, and the updated finished hypotheses.

  The best 2 W children hold at most W finished ones (one per beam), so W unfinished ones remain.
  """
  B, W = finished.node_BW.shape
  child_BNF, score_BNF = _children(decoder, trie, blocked_BK, some, logits_BNV, fanout)
  missing = max(0, 2 * W - child_BNF.shape[1] * fanout)
  child_BC = jnp.pad(child_BNF.reshape(B, -1), ((0, 0), (0, missing)))
  score_BC = jnp.pad(score_BNF.reshape(B, -1), ((0, 0), (0, missing)), constant_values=-jnp.inf)
  best_BK = _best(score_BC, trie.lowest_Z, child_BC, 2 * W)
  node_BK, score_BK = (jnp.take_along_axis(x, best_BK, axis=1) for x in (child_BC, score_BC))
  node_BK, score_BK, from_BK = _sorted(trie, node_BK, score_BK, best_BK)

  ends_BK = trie.item_Z[node_BK] > 0
  ended_BW = jnp.where(ends_BK[:, :W], score_BK[:, :W], -jnp.inf)
  node_BC = jnp.concatenate([finished.node_BW, node_BK[:, :W]], axis=1)
  ended_BC = jnp.concatenate([finished.score_BW, ended_BW], axis=1)
  node_BC, ended_BC, _ = _sorted(trie, node_BC, ended_BC, node_BC)

  score_BK = jnp.where(ends_BK, -jnp.inf, score_BK)
  on_BW = jnp.argsort(~jnp.isfinite(score_BK), axis=1, stable=True)[:, :W]
  node_BW, score_BW, from_BW = (
      jnp.take_along_axis(x, on_BW, axis=1) for x in (node_BK, score_BK, from_BK))
  from_BW = jnp.minimum(from_BW // fanout, some.node_BW.shape[1] - 1)
  past_BWA = jnp.take_along_axis(some.past_BWA, from_BW[..., None], axis=1)
  return Beams(node_BW, score_BW, past_BWA), Finished(node_BC[:, :W], ended_BC[:, :W])


def _best(score_BC, lowest_Z, node_BC, count: int):
  """int [B, count]: places of the best scores; on a tie those with the lowest item rows."""
  top_BK, place_BK = jax.lax.top_k(score_BC, count)
  # Not top_BK[:, -1:]: with a slice of a slice XLA sorts everything instead of using TopK.
  last_B1 = jnp.min(top_BK, axis=1, keepdims=True)
  tied = jnp.any((jnp.sum(score_BC >= last_B1, axis=1) > count) & jnp.isfinite(last_B1[:, 0]))

  def by_row():
    row_BC = -lowest_Z[node_BC].astype(jnp.float32)
    key_BC = jnp.where(score_BC > last_B1, jnp.inf,
                       jnp.where(score_BC == last_B1, row_BC, -jnp.inf))
    return jax.lax.top_k(key_BC, count)[1]

  return jax.lax.cond(tied, by_row, lambda: place_BK)


def _sorted(trie, node_BK, score_BK, from_BK):
  """(nodes, scores, from), sorted by descending score, on a tie by item row."""
  worse_BK, _, node_BK, from_BK = jax.lax.sort(
      (-score_BK, trie.lowest_Z[node_BK], node_BK, from_BK), num_keys=2)
  return node_BK, -worse_BK, from_BK


def _children(decoder, trie, blocked_BK, beams: Beams, logits_BWV, fanout: int):
  """(nodes, scores), each [B, W, fanout]: children of each beam; -inf: no child, or blocked."""
  edge_F = jnp.arange(fanout)
  edge_BWF = trie.child_start_Z[beams.node_BW][..., None] + edge_F[None, None]
  child_BWF = trie.child_E[jnp.minimum(edge_BWF, trie.child_E.shape[0] - 1)]
  exists_BWF = edge_F[None, None] < trie.child_count_Z[beams.node_BW][..., None]
  if blocked_BK is not None:
    exists_BWF = exists_BWF & trie_lib.is_open(trie, blocked_BK, child_BWF)
  picked_BWF = jnp.take_along_axis(
      logits_BWV, jnp.maximum(decoder.columns(trie.token_Z[child_BWF]), 0), axis=2)
  logp_BWF = picked_BWF - jax.nn.logsumexp(logits_BWV, axis=2, keepdims=True)
  score_BWF = beams.score_BW[..., None] + logp_BWF
  return child_BWF, jnp.where(exists_BWF, score_BWF, -jnp.inf)
