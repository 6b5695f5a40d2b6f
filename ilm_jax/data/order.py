"""Which example is at each place of an endless stream, computed for hundreds of places at once.

Each task's examples are shuffled anew in every epoch, and tasks are interleaved at their rates. The
rules are Grain's, and every index equals that of its MapDataset (tests/test_order.py; except for
tasks of 2**k + 1 examples, k even and at least 16, where Grain 0.2 draws one example twice):

  shuffle   the first word of numpy's SeedSequence([seed, 1]), plus the epoch, keys a Simon cipher
            of four rounds, applied again until its value is below the number of examples
  mix       the task with rate r gives place k if floor(k r / R) changes from k to k + 1

In Grain each place costs some 50 microseconds in Python, so this module replaces it. Most of that
time goes into repeating the cipher: it has at least 65,536 values, and a task of 1,000 examples
uses one in 65 of them.
"""
import functools
import math

import numpy as np

_TABLE = 1 << 16       # the cipher's smallest domain; tasks up to it are shuffled by whole epochs
_BLOCK = 256           # places computed together


class Stream:
  """The places of a mixture.

  Args:
    sizes: number of examples of each task, above 0.
    rates: rate of each task, above 0, any scale.
    seeds: seed of each task, 0 ... 2**32 - 1.
  """

  def __init__(self, sizes: list[int], rates: list[float], seeds: list[int]):
    self._sizes, self._seeds = sizes, seeds
    scale = 100 / min(rates)                   # as in Grain: rates in hundredths of the smallest
    whole = [int(rate * scale) for rate in rates]
    self._rates = [w // math.gcd(*whole) for w in whole]
    self._block = functools.lru_cache(16)(self._work_out)

  def at(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """(task, example of that task), int64 each, of the places start ... stop - 1."""
    blocks = [self._block(b) for b in range(start // _BLOCK, (stop - 1) // _BLOCK + 1)]
    first = start // _BLOCK * _BLOCK
    whole = blocks[0] if len(blocks) == 1 else np.concatenate(blocks, axis=1)
    return tuple(whole[:, start - first:stop - first])

  def _work_out(self, block: int) -> np.ndarray:
    """int64 [2, _BLOCK]: (task, example) of the places of a block."""
    task_N, place_N = _mixed(block * _BLOCK + np.arange(_BLOCK), self._rates)
    example_N = np.zeros_like(place_N)
    for task, (size, seed) in enumerate(zip(self._sizes, self._seeds)):
      of_task = task_N == task
      example_N[of_task] = shuffled(place_N[of_task], size, seed)
    return np.stack([task_N, example_N])


def shuffled(place_N: np.ndarray, size: int, seed: int) -> np.ndarray:
  """int64 [N]: the examples at places of one task's endless stream, shuffled anew in each epoch."""
  first = int(np.random.SeedSequence([seed, 1]).generate_state(1)[0])
  epoch_N, at_N = np.divmod(place_N, size)
  out_N = np.zeros_like(at_N)
  for epoch in np.unique(epoch_N):
    of_epoch = epoch_N == epoch
    key = (first + int(epoch)) % 2 ** 32
    out_N[of_epoch] = (_epoch(size, key)[at_N[of_epoch]] if size <= _TABLE
                       else _walk(at_N[of_epoch], size, key))
  return out_N


def _mixed(place_N, rates: list[int]) -> tuple[np.ndarray, np.ndarray]:
  """(task, place in that task's own stream) of places of the mixture, int64 each."""
  task_N, own_N = np.full(len(place_N), -1), np.zeros(len(place_N), np.int64)
  now_N, then_N, left = place_N, place_N + 1, sum(rates)
  for task, rate in enumerate(rates):
    next_N, after_N = now_N * (left - rate) // left, then_N * (left - rate) // left
    here = (task_N < 0) & (now_N - next_N != then_N - after_N)
    task_N[here], own_N[here] = task, (then_N - after_N)[here] - 1
    now_N, then_N, left = next_N, after_N, left - rate
  return task_N, own_N


@functools.lru_cache(256)
def _epoch(size: int, key: int) -> np.ndarray:
  """int32 [size]: the order of a whole epoch, for at most _TABLE examples.

  Repeats the cipher for all values at once: `onward` keeps values below `size` and maps all others
  through the cipher; composing it with itself doubles the number of steps.
  """
  if size == 1:
    return np.zeros(1, np.int32)
  table = _cipher(np.arange(_TABLE, dtype=np.uint32), 8, _keys(key)).astype(np.int32)
  onward = np.where(np.arange(_TABLE) < size, np.arange(_TABLE), table)
  at = table[:size]
  while (at >= size).any():
    at = onward[at]
    onward = onward[onward]
  return at


def _walk(at_N, size: int, key: int) -> np.ndarray:
  """int64 [N]: the same for any number of examples, computed for single places."""
  bits = math.ceil(math.log2(size - 1))
  half, keys, out_N = (bits + 1) // 2, _keys(key), at_N.astype(np.uint64)
  outside = np.ones(len(out_N), bool)
  while outside.any():
    out_N[outside] = _cipher(out_N[outside], half, keys)
    outside = out_N >= size
  return out_N.astype(np.int64)


def _cipher(value_N, half: int, keys: list[int]) -> np.ndarray:
  """Simon (eprint.iacr.org/2013/404), four rounds, on words of `half` bits."""
  kind = value_N.dtype.type
  mask = kind((1 << half) - 1)

  def turned(x, by):
    return (x << kind(by) | x >> kind(half - by)) & mask

  def mixed(x):
    return turned(x, 1) & turned(x, 8) ^ turned(x, 2)

  left, right = value_N >> kind(half), value_N & mask
  for one, two in (keys[:2], keys[2:]):
    left = left ^ mixed(right) ^ (kind(one) & mask)
    right = right ^ mixed(left) ^ (kind(two) & mask)
  return left << kind(half) | right


def _keys(seed: int) -> list[int]:
  """The four words that C++'s std::seed_seq{seed} generates."""
  words, n, given = [0x8b8b8b8b] * 4, 4, [seed]

  def scrambled(x):
    x &= 0xffffffff
    return x ^ x >> 27

  for k in range(n):
    one = 1664525 * scrambled(words[k] ^ words[(k + 1) % n] ^ words[k - 1])
    two = one + (len(given) if k == 0 else k + (given[k - 1] if k <= len(given) else 0))
    words[(k + 1) % n] = words[(k + 1) % n] + one & 0xffffffff
    words[(k + 2) % n] = words[(k + 2) % n] + two & 0xffffffff
    words[k] = two & 0xffffffff
  for k in range(n):
    one = 1566083941 * scrambled(words[k] + words[(k + 1) % n] + words[k - 1])
    two = one - k
    words[(k + 1) % n] ^= one & 0xffffffff
    words[(k + 2) % n] ^= two & 0xffffffff
    words[k] = two & 0xffffffff
  return words
