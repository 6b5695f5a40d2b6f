"""The trie of a catalogue: its paths are exactly the items' indices.

Dimensions of this package, in addition to those of `ilm_jax.runtime.axes`:

  Z trie nodes    E edges of the trie (each node z > 0 has one parent: E = Z - 1)    T new tokens

Nodes are numbered in depth-first pre-order, so node z and its descendants are z..end[z]-1.
"""
import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ilm_jax import errors


@dataclasses.dataclass(frozen=True)
class Trie:
  """A catalogue's indices as int32 arrays. Node 0 is the root: the empty index.

  `child[child_start[z] : child_start[z] + child_count[z]]` are the children of z, in order.
  """
  token_Z: jax.Array        # token on the edge into a node; 0 at the root
  parent_Z: jax.Array       # 0 at the root
  depth_Z: jax.Array        # tokens from the root
  end_Z: jax.Array          # one past the last descendant
  item_Z: jax.Array         # item row (1..I) of a leaf, else 0
  lowest_Z: jax.Array       # lowest item row at or below the node: the order among equal scores
  items_Z: jax.Array        # number of items at or below the node
  child_start_Z: jax.Array
  child_count_Z: jax.Array
  child_E: jax.Array        # node
  path_IT: jax.Array        # nodes of item row i + 1 from depth 1 to its leaf, padded with 0
  num_items: int
  max_depth: int            # tokens of the longest index, EOS counted
  root_fanout: int          # children of the root
  fanout: int               # most children of any other node

  @property
  def num_nodes(self) -> int:
    return self.token_Z.shape[0]


jax.tree_util.register_dataclass(
    Trie,
    data_fields=[f.name for f in dataclasses.fields(Trie) if f.type is jax.Array],
    meta_fields=[f.name for f in dataclasses.fields(Trie) if f.type is not jax.Array])


def build(indices: list[list[int]], eos_id: int | None, names: list[str] | None = None) -> Trie:
  """The trie of a catalogue.

  Args:
    indices: `indices[i]` is the index of item row i + 1: token ids that end in `eos_id` and hold
      it nowhere else. Without its EOS an index may be the beginning of another one.
    eos_id: the end-of-sequence token; None: indices have no EOS, and none may begin another.
    names: names of the items for errors; None: their rows.

  Raises:
    UserError: an index is empty, is not closed by EOS, is the index of two items, or without EOS
      the beginning of another one.
  """
  names = names or [f"row {i + 1}" for i in range(len(indices))]
  _check(indices, eos_id, names)
  I, T = len(indices), max(map(len, indices))
  length_I = np.array([len(index) for index in indices])
  token_IT = np.full((I, T), -1, np.int64)
  token_IT[np.arange(T)[None] < length_I[:, None]] = np.concatenate(indices)
  order_I = np.lexsort(token_IT.T[::-1])
  layout = _number(token_IT[order_I], length_I[order_I], [names[i] for i in order_I])
  if eos_id is None:
    _check_apart(layout, [names[i] for i in order_I])
  return _finish(layout, token_IT[order_I], order_I + 1)


class _Layout(NamedTuple):
  node_IT: np.ndarray     # node of sorted index i at depth t + 1; 0 past its end
  new_IT: np.ndarray      # bool: the first sorted index to reach that node
  leaf_I: np.ndarray


def _check(indices, eos_id: int, names) -> None:
  if not indices:
    raise errors.UserError("the catalogue is empty, expected at least one item: give item indices")
  for index, name in zip(indices, names):
    index = list(index)
    if not index or (eos_id is not None and (index[-1] != eos_id or eos_id in index[:-1])):
      raise errors.UserError(
          f"index of item {name!r} is {index}, expected tokens closed by one EOS ({eos_id}): "
          "tokenise the item's name and append EOS")


def _check_apart(layout: _Layout, names) -> None:
  for at in np.flatnonzero((layout.node_IT[1:] == layout.leaf_I[:-1, None]).any(axis=1)):
    raise errors.UserError(
        f"the index of item {names[at]!r} is the beginning of that of {names[at + 1]!r}, so its "
        "end is ambiguous: close indices by EOS, or make all codes equally long")


def _number(token_IT, length_I, names) -> _Layout:
  """Numbers the nodes of lexically sorted indices in pre-order."""
  I, T = token_IT.shape
  differs_IT = token_IT[1:] != token_IT[:-1]
  if (same := np.flatnonzero(~differs_IT.any(axis=1))).size:
    a, b = names[same[0]], names[same[0] + 1]
    raise errors.UserError(
        f"items {a!r} and {b!r} have the same index, expected one index per item: make the names "
        "of items distinct, for example by a number after repeated titles")
  first_I = np.concatenate([[0], differs_IT.argmax(axis=1)])
  depth_IT = np.broadcast_to(np.arange(T), (I, T))
  inside_IT = depth_IT < length_I[:, None]
  new_IT = inside_IT & (depth_IT >= first_I[:, None])
  node_IT = np.where(new_IT, np.cumsum(new_IT).reshape(I, T), 0)
  node_IT = np.where(inside_IT, np.maximum.accumulate(node_IT, axis=0), 0)
  return _Layout(node_IT, new_IT, node_IT[np.arange(I), length_I - 1])


def _finish(layout: _Layout, token_IT, row_I) -> Trie:
  """Fills the arrays. `row_I` is the item row of each sorted index."""
  node_IT, new_IT, leaf_I = layout
  (I, T), Z = node_IT.shape, int(node_IT.max()) + 1
  parent_IT = np.concatenate([np.zeros((I, 1), np.int64), node_IT[:, :-1]], axis=1)
  token, parent, depth, end, item = (np.zeros(Z, np.int32) for _ in range(5))
  made = node_IT[new_IT]
  token[made], parent[made] = token_IT[new_IT], parent_IT[new_IT]
  depth[made] = np.nonzero(new_IT)[1] + 1
  item[leaf_I] = row_I
  lowest = np.full(Z, np.iinfo(np.int32).max, np.int32)
  np.maximum.at(end, node_IT, np.broadcast_to(leaf_I[:, None] + 1, (I, T)))
  np.minimum.at(lowest, node_IT, np.broadcast_to(row_I[:, None], (I, T)))
  end[0], lowest[0] = Z, 1
  upto = np.concatenate([[0], np.cumsum(item > 0)])
  child = 1 + np.argsort(parent[1:], kind="stable")
  count = np.bincount(parent[1:], minlength=Z)
  path = np.zeros((I, T), np.int32)
  path[row_I - 1] = node_IT
  arrays = (token, parent, depth, end, item, lowest, upto[end] - upto[:-1],
            np.cumsum(count) - count, count, child, path)
  return Trie(*(jnp.asarray(a, jnp.int32) for a in arrays), num_items=I, max_depth=T,
              root_fanout=int(count[0]), fanout=max(1, int(count[1:].max())))


def blocked_leaves(trie: Trie, rows: list) -> np.ndarray:
  """int32 [len(rows), K]: a filter that holds, ascending, the leaves of each list of item rows.

  Rows are padded with the number of nodes; K is a power of two, so that few shapes are compiled.

  Args:
    trie: the catalogue.
    rows: for each user the item rows (1..I) to block.
  """
  longest = max([1, *(len(listed) for listed in rows)])
  leaf_BK = np.full((len(rows), 1 << (longest - 1).bit_length()), trie.num_nodes, np.int32)
  leaf_I = np.asarray(trie.path_IT.max(axis=1))     # pre-order: a leaf comes after all above it
  for b, listed in enumerate(rows):
    leaf_BK[b, :len(listed)] = np.sort(leaf_I[np.asarray(listed, np.int64) - 1])
  return leaf_BK


def is_open(trie: Trie, leaf_BK, node_BX) -> jax.Array:
  """Boolean [B, X...]: whether any unblocked item lies at or below the node.

  The leaves below a node are a range. Two binary searches count the blocked leaves among them, so
  the cost grows with the number of nodes in `node_BX`, not with the catalogue.

  Args:
    trie: the catalogue.
    leaf_BK: from `blocked_leaves`; a row holds a leaf at most once.
    node_BX: int nodes, with any number of axes after the first.
  """
  flat_BN = node_BX.reshape(len(node_BX), -1)
  before = jax.vmap(jnp.searchsorted)
  blocked_BN = before(leaf_BK, trie.end_Z[flat_BN]) - before(leaf_BK, flat_BN)
  return (trie.items_Z[flat_BN] > blocked_BN).reshape(node_BX.shape)
