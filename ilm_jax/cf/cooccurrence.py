"""Which items go together: shrunk cosines of how often users have both; members of entities."""
import numpy as np
import scipy.sparse


def incidence(histories: list, num_items: int) -> scipy.sparse.csr_array:
  """[users, I] 1 where the history, item rows from 1, has the item."""
  rows = [np.unique(np.asarray(h, np.int64)) - 1 for h in histories]
  user = np.repeat(np.arange(len(rows)), [len(r) for r in rows])
  item = np.concatenate([np.zeros(0, np.int64), *rows])
  return scipy.sparse.csr_array((np.ones(len(item)), (user, item)),
                                shape=(len(rows), num_items))


def nearest(histories: list, num_items: int, neighbours: int, shrinkage: float = 10.0
            ) -> scipy.sparse.csr_array:
  """[I, I]: of each item its most similar others, at most `neighbours`, in a row.

  Similarity is n_ij / (sqrt(n_i n_j) + shrinkage), n counting the users who have one or both
  (Sarwar et al. 2001; as tuned in Ferrari Dacrema et al., arXiv 1907.06902). Of equal ones the
  lower column stays.

  Args:
    histories: item rows of each user's training interactions.
    num_items: I.
    neighbours: kept for each item.
    shrinkage: draws similarities of rare items towards 0.
  """
  has_UI = incidence(histories, num_items)
  both_II = (has_UI.T @ has_UI).tocsr()
  count_I = both_II.diagonal()
  both_II.setdiag(0)
  both_II.eliminate_zeros()
  pairs = both_II.tocoo()
  pairs.data = pairs.data / (np.sqrt(count_I[pairs.row] * count_I[pairs.col]) + shrinkage)
  near_II = pairs.tocsr()
  (row, entry), place = _ranked(near_II)
  row, entry = row[place < neighbours], entry[place < neighbours]
  return scipy.sparse.csr_array((near_II.data[entry], (row, near_II.indices[entry])),
                                shape=near_II.shape)


def members(histories: list, num_items: int, count: int) -> np.ndarray:
  """int32 [1 + I + U, count] entity rows that belong to each entity row, the strongest first.

  Of an item its nearest others, of a user the last items of its history, newest first, each once;
  0 where there are no more.

  Args:
    histories: item rows of each user's training interactions, in time order.
    num_items: I.
    count: how many.
  """
  table_RS = np.zeros((1 + num_items + len(histories), count), np.int32)
  near_II = nearest(histories, num_items, count)
  (row, entry), place = _ranked(near_II)
  table_RS[row + 1, place] = near_II.indices[entry] + 1
  for user, history in enumerate(histories):
    last = list(dict.fromkeys(np.asarray(history)[::-1].tolist()))[:count]
    table_RS[1 + num_items + user, :len(last)] = last
  return table_RS


def _ranked(matrix: scipy.sparse.csr_array):
  """((row, entry), place) of all entries, in the order of rows and, in a row, of falling values."""
  row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
  order = np.lexsort((matrix.indices, -matrix.data, row))
  place = np.arange(len(order)) - matrix.indptr[row[order]]
  return (row[order], order), place
