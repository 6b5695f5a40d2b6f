"""Exact scores of the whole catalogue: runs every inner node of the trie through the decoder once.

The nodes with children are split, in pre-order, into chunks of `chunk` tokens. A chunk begins with
the ancestors of its first node that lie in earlier chunks; it therefore needs the prompt's cache
only, and nothing is kept between chunks. About `HELD` rows of logits are in memory at a time.
"""
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ilm_jax import errors
from ilm_jax.decode import prompt as prompt_lib
from ilm_jax.decode import trie as trie_lib

HELD = 512  # rows of [V] logits in memory at once: 100 MB for 49,152 words


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Plan:
  """A trie split into C chunks of T tokens, which score at most X edges each."""
  node_CT: jax.Array    # int32, node of each token; 0: padding
  past_CTT: jax.Array   # bool: token t attends to token u (an ancestor, or itself)
  slot_CX: jax.Array    # int32, token of the chunk whose logits score the edge
  child_CX: jax.Array   # int32, node that the edge leads to; Z: padding


def plan(trie: trie_lib.Trie, chunk: int) -> Plan:
  """Splits a trie for `score_catalogue`; computed on the host, once per catalogue.

  Args:
    trie: the catalogue.
    chunk: tokens per call of the decoder; at least twice the longest index.

  Raises:
    UserError: `chunk` is too small for the longest index.
  """
  if chunk < 2 * trie.max_depth:
    raise errors.UserError(
        f"chunk={chunk} is too small for an index of {trie.max_depth} tokens: set it to at least "
        f"{2 * trie.max_depth} (256 is a good value)")
  parent_Z = np.asarray(trie.parent_Z)
  inner = 1 + np.flatnonzero(np.asarray(trie.child_count_Z)[1:])
  chunk = min(chunk, max(len(inner), 2 * trie.max_depth))      # a small trie needs no more
  chunks, repeated, at = [], [], 0
  while at < len(inner):
    head = _ancestors(parent_Z, inner[at])
    chunks.append(np.concatenate([head, inner[at:at + chunk - len(head)]]))
    repeated.append(len(head))
    at += chunk - len(head)
  return _pack(trie, chunks, repeated, chunk)


def _ancestors(parent_Z, node) -> np.ndarray:
  """Nodes strictly between the root and `node`, from the top."""
  path = []
  while (node := parent_Z[node]):
    path.append(node)
  return np.array(path[::-1], np.int64)


def _pack(trie: trie_lib.Trie, chunks, repeated, T: int) -> Plan:
  parent_Z, end_Z = np.asarray(trie.parent_Z), np.asarray(trie.end_Z)
  start_Z, count_Z = np.asarray(trie.child_start_Z), np.asarray(trie.child_count_Z)
  child_E, C = np.asarray(trie.child_E), len(chunks)
  edges = [[(slot, child) for slot, z in enumerate(nodes) if slot >= skip
            for child in child_E[start_Z[z]:start_Z[z] + count_Z[z]]]
           for nodes, skip in zip(chunks, repeated)]
  X = max(map(len, edges), default=1)
  node_CT = np.zeros((C, T), np.int32)
  past_CTT = np.zeros((C, T, T), bool)
  slot_CX = np.zeros((C, X), np.int32)
  child_CX = np.full((C, X), len(parent_Z), np.int32)
  for c, (nodes, pairs) in enumerate(zip(chunks, edges)):
    n = len(nodes)
    node_CT[c, :n] = nodes
    above = (nodes[None] <= nodes[:, None]) & (nodes[:, None] < end_Z[nodes][None])
    past_CTT[c, :n, :n] = above
    past_CTT[c, np.arange(T), np.arange(T)] = True
    slot_CX[c, :len(pairs)], child_CX[c, :len(pairs)] = np.array(pairs).T
  return Plan(*map(jnp.asarray, (node_CT, past_CTT, slot_CX, child_CX)))


@functools.partial(jax.jit, static_argnames=("graphdef",))
def score_catalogue(graphdef, params, trie: trie_lib.Trie, plan: Plan,
                    prompt: prompt_lib.Prompt) -> jax.Array:
  """The log-probability of every item's index after every prompt.

  The score is defined as in `beam`: the sum over the index's tokens, EOS included, each normalised
  over the decoder's whole vocabulary.

  Args:
    graphdef: of the decoder (`nnx.split`).
    params: parameters of the decoder.
    trie: the catalogue.
    plan: of the trie.
    prompt: the prompts, as embeddings.

  Returns:
    float32 [B, I + 1], in nats, by item row; column 0 is -inf.
  """
  decoder = nnx.merge(graphdef, params)
  T = plan.node_CT.shape[1]
  start = prompt.run(decoder, extra=T)
  B, L = start.valid_BL.shape

  def one(logp_BZ, cut: Plan):
    position_BT = start.next_B[:, None] + trie.depth_Z[cut.node_CT][None] - 1
    mask_BTM = jnp.concatenate([jnp.broadcast_to(start.valid_BL[:, None], (B, T, L)),
                                jnp.broadcast_to(cut.past_CTT[None], (B, T, T))], axis=2)
    token_BT = jnp.broadcast_to(trie.token_Z[cut.node_CT][None], (B, T))
    hidden_BTD, _ = decoder.extend(decoder.embed(token_BT), position_BT, mask_BTM, start.cache, L)
    return _decide(decoder, trie, logp_BZ, hidden_BTD, cut.slot_CX, cut.child_CX), None

  first = trie.child_E[:trie.root_fanout]
  logp_BZ = _decide(decoder, trie, jnp.zeros((B, trie.num_nodes)), start.last_BD[:, None],
                    jnp.zeros_like(first), first)
  logp_BZ, _ = jax.lax.scan(one, logp_BZ, plan)
  score_BI = jnp.sum(logp_BZ[:, trie.path_IT], axis=2)
  return jnp.pad(score_BI, ((0, 0), (1, 0)), constant_values=-jnp.inf)


def _decide(decoder, trie, logp_BZ, hidden_BTD, slot_X, child_X):
  """Writes the log-probabilities of the edges to nodes `child_X`, from the logits of `slot_X`."""
  B, T, D = hidden_BTD.shape
  turns = -(-T // max(1, HELD // B))
  t = -(-T // turns)
  hidden_BTD = jnp.pad(hidden_BTD, ((0, 0), (0, turns * t - T), (0, 0)))
  column_X = decoder.columns(trie.token_Z[jnp.minimum(child_X, trie.num_nodes - 1)])

  def one(turn_and_hidden):
    turn, hidden_BtD = turn_and_hidden
    logits_BtV = decoder.logits(hidden_BtD)
    at_X = jnp.clip(slot_X - turn * t, 0, t - 1)
    logp_BX = logits_BtV[:, at_X, column_X] - jax.nn.logsumexp(logits_BtV, axis=2)[:, at_X]
    return jnp.where((slot_X // t == turn)[None], logp_BX, 0.0)

  cut_nBtD = jnp.moveaxis(hidden_BTD.reshape(B, turns, t, D), 1, 0)
  logp_BX = jnp.sum(jax.lax.map(one, (jnp.arange(turns), cut_nBtD)), axis=0)
  return logp_BZ.at[:, child_X].set(logp_BX, mode="drop")
