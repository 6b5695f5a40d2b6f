"""Codes from similarities between items: spectral clusters of a graph, residual k-means.

Pure numpy and scipy. The same input and seed give the same codes: nothing here depends on the order
of a set or on the process.
"""
import collections

import numpy as np
import scipy.linalg
import scipy.sparse
from scipy.cluster import vq
from scipy.sparse import linalg as sparse_linalg

from ilm_jax.cf import cooccurrence

_DENSE = 400       # for fewer nodes, all eigenvectors are cheaper than a few by iteration


def co_occurrence(histories: list, num_items: int) -> scipy.sparse.csr_array:
  """[I, I] the number of users who have both items; 0 on the diagonal. Item row r is at r - 1."""
  has_UI = cooccurrence.incidence(histories, num_items)
  both_II = (has_UI.T @ has_UI).tocsr()
  both_II.setdiag(0)
  both_II.eliminate_zeros()
  return both_II


def spectral(affinity_II, clusters: int, seed: int) -> np.ndarray:
  """int [I] cluster of each node, 0..clusters-1; all are used if nodes and edges suffice.

  The leading eigenvectors of the normalised affinity, assigned by pivoted QR ("cluster_qr", Damle,
  Minden and Ying, arXiv 1609.08251), as OpenP5 has it from scikit-learn.
  """
  count = affinity_II.shape[0]
  if count <= clusters:
    return np.arange(count)
  degree_I = np.asarray(affinity_II.sum(axis=1)).ravel()
  if not degree_I.any():                  # no edges: no clusters, and ARPACK would fail
    return np.zeros(count, np.int64)
  root_I = 1.0 / np.sqrt(np.where(degree_I > 0, degree_I, 1.0))
  scaled_II = affinity_II * root_I[:, None] * root_I[None]
  if count < max(_DENSE, 3 * clusters):
    dense_II = scaled_II.toarray() if scipy.sparse.issparse(scaled_II) else scaled_II
    _, vectors_IC = scipy.linalg.eigh(dense_II, subset_by_index=[count - clusters, count - 1])
  else:
    start_I = np.random.default_rng(seed).uniform(0.5, 1.5, count)
    _, vectors_IC = sparse_linalg.eigsh(scaled_II, clusters, which="LA", v0=start_I)
  _, _, pivot = scipy.linalg.qr(vectors_IC.T, pivoting=True)
  u, _, vt = scipy.linalg.svd(vectors_IC[pivot[:clusters]].T)
  return np.abs(vectors_IC @ (u @ vt)).argmax(axis=1)


def collaborative(affinity_II, clusters: int, size: int, seed: int) -> list[tuple[int, ...]]:
  """A code for each item by recursive clustering (Hua et al., arXiv 2305.06569, section 4.3).

  Breadth first: a group of more than `size` items is clustered, and each cluster adds the next
  number, running modulo `size`; the items of a smaller group get a last number 0, 1, ... Items
  that share no user with another item are one last group.
  """
  affinity_II = affinity_II.tocsr()
  alone_I = np.asarray(affinity_II.sum(axis=1)).ravel() == 0
  codes: list[tuple[int, ...]] = [()] * affinity_II.shape[0]
  queue = collections.deque([((), np.flatnonzero(~alone_I))])
  running = 0
  while queue:
    prefix, members = queue.popleft()
    if len(members) <= size and prefix:
      for last, item in enumerate(members):
        codes[item] = (*prefix, last)
      continue
    label = spectral(affinity_II[members][:, members], clusters, seed)
    if len(np.unique(label)) == 1:        # no clusters: cut in the order of the rows
      label = np.arange(len(members)) * clusters // len(members)
    for cluster in np.unique(label):
      queue.append(((*prefix, running % size), members[label == cluster]))
      running += 1
    if not prefix and alone_I.any():
      queue.append(((running % size,), np.flatnonzero(alone_I)))
      running += 1
  return codes


def residual_kmeans(vectors_IC: np.ndarray, levels: int, codes: int, seed: int) -> np.ndarray:
  """int [I, levels]: at each level the nearest of `codes` centres to the residual of the last.

  Source: the quantisation of semantic ids (TIGER, arXiv 2305.05065) with k-means for its encoder.
  """
  left_IC, level_codes = np.asarray(vectors_IC, np.float64), []
  for level in range(levels):
    centres = min(codes, len(np.unique(left_IC, axis=0)))
    centre_KC, _ = vq.kmeans2(left_IC, centres, iter=25, minit="++", seed=seed + level)
    code_I, _ = vq.vq(left_IC, centre_KC)
    level_codes.append(code_I)
    left_IC = left_IC - centre_KC[code_I]
  return np.stack(level_codes, axis=1)


def told_apart(code_IL: np.ndarray) -> list[tuple[int, ...]]:
  """Codes with one more number, which counts equal codes in the order of rows."""
  met: collections.Counter = collections.Counter()
  codes = []
  for row in map(tuple, code_IL.tolist()):
    codes.append((*row, met[row]))
    met[row] += 1
  return codes
