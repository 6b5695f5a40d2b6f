"""Items that go together, by shrunk cosines of how many users have both; members of entities."""
import numpy as np
import scipy.sparse

_PRODUCTS = 1 << 25      # most pairs of items that are counted at a time: bounds the memory


def incidence(histories: list, num_items: int) -> scipy.sparse.csr_array:
  """float64 [users, I]: 1 where the history, item rows 1..I, has the item."""
  rows = [np.unique(np.asarray(h, np.int64)) - 1 for h in histories]
  user = np.repeat(np.arange(len(rows)), [len(r) for r in rows])
  item = np.concatenate([np.zeros(0, np.int64), *rows])
  return scipy.sparse.csr_array((np.ones(len(item)), (user, item)),
                                shape=(len(rows), num_items))


def nearest(histories: list, num_items: int, neighbours: int, shrinkage: float = 10.0
            ) -> scipy.sparse.csr_array:
  """float64 [I, I]: in the row of each item, its similarity to its nearest `neighbours` items.

  The similarity is n_ij / (sqrt(n_i n_j) + shrinkage), where n_i users have item i and n_ij have
  both (Sarwar et al. 2001; as tuned in Ferrari Dacrema et al., arXiv 1907.06902). Among equal
  similarities the lower item rows are kept. Blocks of items are made one after another: the pairs
  of a large catalogue would not fit into memory before their nearest are chosen.

  Args:
    histories: item rows of each user's training interactions.
    num_items: I.
    neighbours: number of items to keep for each item, at most.
    shrinkage: pulls similarities of rare items towards 0.
  """
  has_UI = incidence(histories, num_items)
  has_IU, count_I = has_UI.T.tocsr(), has_UI.sum(axis=0)
  # An item is multiplied with all items of its users.
  starts = _starts(has_IU @ has_UI.sum(axis=1))
  near = []
  for first, last in zip(starts, [*starts[1:], num_items]):
    pairs = (has_IU[first:last] @ has_UI).tocoo()
    others = pairs.row + first != pairs.col
    row, col = pairs.row[others], pairs.col[others]
    similar = pairs.data[others] / (np.sqrt(count_I[row + first] * count_I[col]) + shrinkage)
    near.append(_strongest(
        scipy.sparse.csr_array((similar, (row, col)), shape=pairs.shape), neighbours))
  return scipy.sparse.vstack(near, format="csr")


def _starts(work_I: np.ndarray) -> list[int]:
  """First items of blocks with `_PRODUCTS` of `work_I` at most, or with one item."""
  done_I, starts = np.cumsum(work_I), [0]
  while True:
    before = done_I[starts[-1] - 1] if starts[-1] else 0
    start = max(int(np.searchsorted(done_I, before + _PRODUCTS, side="right")), starts[-1] + 1)
    if start >= len(work_I):
      return starts
    starts.append(start)


def _strongest(matrix: scipy.sparse.csr_array, count: int) -> scipy.sparse.csr_array:
  """The `count` largest entries of each row; among equal ones those of the lower columns."""
  (row, entry), place = _ranked(matrix)
  row, entry = row[place < count], entry[place < count]
  return scipy.sparse.csr_array((matrix.data[entry], (row, matrix.indices[entry])),
                                shape=matrix.shape)


def members(histories: list, num_items: int, count: int) -> np.ndarray:
  """int32 [1 + I + U, count]: the entity rows that belong to each entity row, strongest first.

  The members of an item are its nearest items. Those of a user are the last items of the history,
  newest first, each once. Rows with fewer members end in 0.

  Args:
    histories: item rows of each user's training interactions, in time order.
    num_items: I.
    count: number of members, at most.
  """
  table_RS = np.zeros((1 + num_items + len(histories), count), np.int32)
  near_II = nearest(histories, num_items, count)
  (row, entry), place = _ranked(near_II)
  table_RS[row + 1, place] = near_II.indices[entry] + 1
  table_RS[1 + num_items:] = last_items(histories, count)
  return table_RS


def last_items(histories, count: int) -> np.ndarray:
  """int32 [N, count]: the last items of each history, newest first, each once; then 0."""
  last_NS = np.zeros((len(histories), count), np.int32)
  for last_S, history in zip(last_NS, histories):
    last = list(dict.fromkeys(np.asarray(history)[::-1].tolist()))[:count]
    last_S[:len(last)] = last
  return last_NS


def _ranked(matrix: scipy.sparse.csr_array):
  """((row, entry), place) of all entries, by row, then by falling value; place: rank in its row."""
  row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
  order = np.lexsort((matrix.indices, -matrix.data, row))
  place = np.arange(len(order)) - matrix.indptr[row[order]]
  return (row[order], order), place
