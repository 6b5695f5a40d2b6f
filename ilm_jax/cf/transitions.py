"""Vectors that reflect the order of events: a factorisation of which item follows which."""
import numpy as np
import scipy.sparse
import scipy.sparse.linalg


def vectors(histories: list, num_items: int, width: int, *, window: int, seed: int
            ) -> tuple[np.ndarray, np.ndarray]:
  """(item_I1C, user_UC) float32 of forward transitions; row 0 of the items is zero.

  An item j that comes d places after i in a history, d <= window, counts 1 / d. A truncated SVD,
  U S V^T, factorises the positive pointwise mutual information of these counts. An item's vector is
  [U S^.5, V S^.5]: the items that follow it, and those that it follows (as in Levy and Goldberg,
  "Neural word embedding as implicit matrix factorization", 2014, section 3.3, whose context is
  unordered). A user's vector is the mean of the last `window` items.

  Args:
    histories: item rows of each user's training interactions, in time order.
    num_items: I.
    width: C, even; for a smaller catalogue the rest is zero.
    window: largest distance d that counts.
    seed: seed of the SVD's start vector. Signs are fixed, so that the result is, too.
  """
  mutual_II = _mutual_information(_counts(histories, num_items, window))
  rank = min(width // 2, num_items - 1)
  item_I1C = np.zeros((num_items + 1, width), np.float32)
  if rank > 0 and mutual_II.nnz:
    start = np.random.default_rng(seed).normal(size=num_items)
    left_IK, size_K, right_KI = scipy.sparse.linalg.svds(mutual_II, k=rank, v0=start)
    order = np.argsort(-size_K, kind="stable")
    left_IK, size_K, right_IK = left_IK[:, order], size_K[order], right_KI[order].T
    sign_K = np.sign(left_IK[np.abs(left_IK).argmax(axis=0), np.arange(rank)])
    # A standardisation would scale dimensions of pure rounding error up to full size.
    scale_K = np.where(size_K > 1e-6 * size_K[0], sign_K * np.sqrt(size_K), 0.0)
    item_I1C[1:, :rank] = left_IK * scale_K
    item_I1C[1:, width // 2:width // 2 + rank] = right_IK * scale_K
  user_UC = np.stack([item_I1C[np.asarray(h, np.int64)[-window:]].mean(axis=0) if len(h) else
                      np.zeros(width, np.float32) for h in histories])
  return item_I1C, user_UC.astype(np.float32)


def _counts(histories: list, num_items: int, window: int) -> scipy.sparse.csr_array:
  """[I, I]: how often the column's item follows the row's; near ones count more."""
  total = scipy.sparse.csr_array((num_items, num_items))
  for far in range(1, window + 1):
    before, after = (np.concatenate([np.zeros(0, np.int64), *(
        np.asarray(h, np.int64)[part] for h in histories)]) - 1
                     for part in (slice(None, -far), slice(far, None)))
    total = total + scipy.sparse.csr_array(
        (np.full(len(before), 1.0 / far), (before, after)), shape=total.shape)
  return total


def _mutual_information(count_II: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
  """[I, I]: max(0, log(n_ij n / (n_i n_j))) where n_ij > 0."""
  pairs = count_II.tocoo()
  row_I, column_I, whole = count_II.sum(axis=1), count_II.sum(axis=0), count_II.sum()
  value = np.log(pairs.data * whole / (row_I[pairs.row] * column_I[pairs.col]))
  mutual_II = scipy.sparse.csr_array(
      (np.maximum(value, 0.0), (pairs.row, pairs.col)), shape=pairs.shape)
  mutual_II.eliminate_zeros()
  return mutual_II
