"""Where the rows of one side lie on the shards, and the padded batches in which they are solved.

Rows are sorted into buckets by the length of their history, and the rows of a bucket are dealt out
to the shards in turn. So every shard has the same number of rows of every bucket, and solves its
own. The rows of a batch are neighbours in the shard, so a solved batch is written as one slice. A
row therefore has a number (1..H) and a slot, its place in the sharded table:

    a shard: [ bucket of length 16: batch, batch | bucket of length 24: batch | no history | zero ]

Places that fill up a batch have no history. The last place of every shard always holds zeros;
padded histories point there.
"""
import dataclasses

import numpy as np

from ilm_jax.cf import histories as histories_lib

SHORTEST = 8          # padded lengths are multiples of it
BUCKETS = 12          # most padded lengths of a side: each is one compiled program
TIGHT = 1.05          # the fewest buckets are chosen that pad to at most so many times the best
PIECE = 1 << 24       # history entries that are made and sent to a shard at a time
WORK = 1 << 20        # history entries that are copied at a time


@dataclasses.dataclass(frozen=True)
class Piece:
  """n batches of B rows of one bucket, histories padded to T: a shard's places from `offset` on."""
  offset: int
  batches: int      # n
  rows: int         # B
  length: int       # T


@dataclasses.dataclass(frozen=True)
class Layout:
  """The layout of one side."""
  histories: histories_lib.Histories
  shards: int
  local: int                 # number of places in a shard
  slot_H1: np.ndarray        # int32: slot of row h; that of row 0 (padding) stays zero
  row_SL: np.ndarray         # int32 [shards, solved places]: the row to solve there; 0: none
  pieces: tuple[Piece, ...]

  def batches(self, piece: Piece, shard: int, slot_O1) -> np.ndarray:
    """int32 [n, B, T]: the histories of a shard's rows in `piece`, as slots of the other side."""
    rows = piece.batches * piece.rows
    h_R = self.row_SL[shard, piece.offset:piece.offset + rows].astype(np.int64) - 1
    start_R = self.histories.start_H1[h_R]
    length_R = np.where(h_R < 0, 0, self.histories.start_H1[h_R + 1] - start_R)
    slots = np.full((rows, piece.length), slot_O1[0], np.int32)
    step = max(WORK // piece.length, 1)
    for at in range(0, rows, step):
      _copy(slots[at:at + step], self.histories.other_N, start_R[at:at + step],
            length_R[at:at + step], slot_O1)
    return slots.reshape(piece.batches, piece.rows, piece.length)


def plan(histories: histories_lib.Histories, shards: int, entries: int, most_rows: int) -> Layout:
  """The layout of one side.

  Args:
    histories: the histories of its rows.
    shards: number of devices that share the rows.
    entries: history entries in a shard's batch, padding included.
    most_rows: most rows in a shard's batch: each needs a system of its own.

  Raises:
    ValueError: there are more slots than an int32 can count.
  """
  length_H = histories.length_H
  padded_K = lengths(length_H[length_H > 0], entries)
  bucket_H = np.where(length_H > 0, np.searchsorted(padded_K, length_H), len(padded_K))
  slot_H1 = np.zeros(len(length_H) + 1, np.int64)
  pieces, columns, offset = [], [], 0
  for bucket, padded in enumerate([*padded_K, 0]):
    row_R = np.flatnonzero(bucket_H == bucket).astype(np.int32) + 1
    share = -(-len(row_R) // shards)
    new = _cut(offset, share, int(padded), entries, most_rows) if padded else []
    slot_H1[row_R] = offset + np.arange(len(row_R)) // shards      # the shard is added below
    dealt = np.zeros((sum(p.batches * p.rows for p in new), shards), np.int32)
    if padded:
      dealt.reshape(-1)[:len(row_R)] = row_R
    pieces, columns = pieces + new, columns + [dealt.T]
    offset += len(dealt) if padded else share
  local = offset + 1
  for bucket in range(len(padded_K) + 1):
    row_R = np.flatnonzero(bucket_H == bucket) + 1
    slot_H1[row_R] += local * (np.arange(len(row_R)) % shards)
  slot_H1[0] = offset
  if local * shards > np.iinfo(np.int32).max:
    raise ValueError(f"{local * shards} slots: more than an int32 can count")
  return Layout(histories, shards, local, slot_H1.astype(np.int32), np.hstack(columns),
                tuple(pieces))


def lengths(length_H, entries: int) -> np.ndarray:
  """int [buckets]: padded lengths, ascending; the last is at least the longest history.

  These are the fewest lengths, at most `BUCKETS`, whose padded total is at most `TIGHT` times the
  least possible total, or at most `entries`.

  Args:
    length_H: lengths of the histories, all above 0.
    entries: history entries in a batch, a power of two. Padded lengths above it are its multiples.
  """
  if not len(length_H):
    return np.zeros(0, int)
  # Eight candidates from one power of two to the next.
  step_H = np.maximum(2.0 ** (np.floor(np.log2(length_H)) - 3), SHORTEST).astype(int)
  step_H = np.where(length_H > entries, entries, step_H)
  value_M, count_M = np.unique(-(-length_H // step_H) * step_H, return_counts=True)
  upto_M1 = np.concatenate([[0], np.cumsum(count_M)])
  # cost[m]: least entries if the first m candidates share the buckets chosen so far.
  cost, chosen = np.where(upto_M1 == 0, 0.0, np.inf), []
  for _ in range(min(BUCKETS, len(value_M))):
    total = cost[:-1, None] + value_M * (upto_M1[1:] - upto_M1[:-1, None])
    total = np.where(np.tri(len(value_M), dtype=bool).T, total, np.inf)
    chosen.append(np.argmin(total, axis=0))
    cost = np.concatenate([[np.inf], total.min(axis=0)])
    chosen[-1] = (cost[-1], chosen[-1])
  enough = max(TIGHT * chosen[-1][0], entries)
  count = next(k for k, (padded, _) in enumerate(chosen) if padded <= enough)
  longest, m = [], len(value_M)
  for k in range(count, -1, -1):
    longest.append(value_M[m - 1])
    m = chosen[k][1][m - 1]
  return np.array(longest[::-1])


def _cut(offset: int, share: int, padded: int, entries: int, most_rows: int) -> list[Piece]:
  """Equal pieces for `share` rows of a shard, in batches of about `entries`."""
  batches = -(-share // min(max(entries // padded, 1), most_rows))
  count = -(-batches // max(PIECE // max(entries, padded), 1))
  batches = -(-batches // count)                      # of a piece
  rows = -(-share // (batches * count))               # of a batch
  size = batches * rows
  return [Piece(offset + k * size, batches, rows, padded) for k in range(-(-share // size))]


def _copy(found_RT, other_N, start_R, length_R, slot_O1) -> None:
  """Writes histories, as slots, to the beginnings of the rows of `found_RT`."""
  first_R = np.cumsum(length_R) - length_R
  within_N = np.arange(length_R.sum()) - np.repeat(first_R, length_R)
  to_N = np.repeat(np.arange(len(length_R)) * found_RT.shape[1], length_R) + within_N
  from_N = np.repeat(start_R, length_R) + within_N
  found_RT.reshape(-1)[to_N] = slot_O1[other_N[from_N]]
