"""Exact nearest items of each item, in memory that does not grow with the catalogue.

A batch of queries is compared with one block of the catalogue after another; a block's candidates
must beat the last of the best k so far. Dimensions: I items, E vector width, N queries,
K neighbours.
"""
from collections.abc import Iterator

import numpy as np

TOGETHER, BLOCK = 512, 16384       # queries and items of one block of scores: 32 MiB
_FIRST = 1024                      # size of the first block: later blocks then have few candidates
_SMALL = 1e-12


def neighbours(vector_IE, first: int, stop: int, k: int, *, together: int = TOGETHER,
               block: int = BLOCK) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
  """Yields (items, near_NK, cosine_NK) for items first..stop-1, `together` at a time.

  Args:
    vector_IE: float [I, E]; may be a np.memmap, of which two blocks are read at a time.
    first, stop: items, counted from 0.
    k: neighbours of each item, without the item itself; 1..I - 1.
    together: queries per batch.
    block: items that a batch is compared with at once.

  Yields:
    range of items; int32 [N, k] neighbours, counted from 0, nearest first, on a tie the lower item
    first; float32 [N, k] cosines. A vector of zeros has cosine 0 with all others.

  Raises:
    ValueError: k is out of range.
  """
  if not 0 < k < len(vector_IE):
    raise ValueError(f"k={k} neighbours of {len(vector_IE)} items: expected "
                     f"1..{len(vector_IE) - 1}")
  for start in range(first, stop, together):
    items = range(start, min(start + together, stop))
    query_NE = _unit(vector_IE[items.start:items.stop])
    near_NK = np.zeros((len(items), 0), np.int32)
    cosine_NK = np.zeros((len(items), 0), np.float32)
    at, size = 0, min(block, _FIRST)
    while at < len(vector_IE):
      cosine_NB = query_NE @ _unit(vector_IE[at:at + size]).T
      inside = np.arange(max(items.start, at), min(items.stop, at + cosine_NB.shape[1]))
      cosine_NB[inside - items.start, inside - at] = -np.inf          # the item itself
      near_NK, cosine_NK = _merged(near_NK, cosine_NK, cosine_NB, at, k)
      at, size = at + size, block
    yield items, near_NK, cosine_NK


def _merged(near_NK, cosine_NK, cosine_NB, at: int, k: int) -> tuple[np.ndarray, np.ndarray]:
  """Merges the best k so far with a block that begins with item `at`.

  Only candidates that beat the last of the k are sorted: on a tie the earlier item stays in front.
  """
  if cosine_NK.shape[1] == k:
    row_M, column_M = np.nonzero(cosine_NB > cosine_NK[:, k - 1:])
  else:
    row_M, column_M = np.nonzero(cosine_NB > -np.inf)
  count_N = np.bincount(row_M, minlength=len(cosine_NB))
  place_M = np.arange(len(row_M)) - (count_N.cumsum() - count_N)[row_M]
  shape = (len(cosine_NB), int(count_N.max(initial=0)))
  near, cosine = np.zeros(shape, np.int32), np.full(shape, -np.inf, np.float32)
  near[row_M, place_M], cosine[row_M, place_M] = column_M + at, cosine_NB[row_M, column_M]
  near = np.concatenate([near_NK, near], axis=1)
  cosine = np.concatenate([cosine_NK, cosine], axis=1)
  order_NK = np.argsort(-cosine, axis=1, kind="stable")[:, :k]
  return np.take_along_axis(near, order_NK, axis=1), np.take_along_axis(cosine, order_NK, axis=1)


def _unit(vector_NE) -> np.ndarray:
  vector_NE = np.asarray(vector_NE, np.float32)
  return vector_NE / np.maximum(np.linalg.norm(vector_NE, axis=1, keepdims=True), _SMALL)
