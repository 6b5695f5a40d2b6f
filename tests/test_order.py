"""The order of the examples is Grain's, worked out hundreds of places at a time."""
import time

import grain
import numpy as np
import pytest

from ilm_jax.data import order


@pytest.mark.parametrize("size", [1, 2, 3, 1075, 65536, 65538, 300_000, 5_000_000])
@pytest.mark.parametrize("epoch", [0, 1, 999_999])
def test_shuffled_as_grain_shuffles(size, epoch):
  seed = 123456789
  theirs = grain.MapDataset.range(size).seed(seed).shuffle().repeat()
  places = epoch * size + np.unique(np.r_[0, size - 1, np.arange(0, size, max(size // 50, 1))])
  assert order.shuffled(places, size, seed).tolist() == [theirs[int(place)] for place in places]


def test_an_epoch_holds_every_example_once():
  for size in (1075, 65_537, 70_000):
    got = order.shuffled(np.arange(3 * size, 4 * size), size, 7)
    np.testing.assert_array_equal(np.sort(got), np.arange(size))
  assert np.mean(got == np.arange(size)) < 0.01


@pytest.mark.parametrize("rates", [[2.0, 1.0], [4.0, 1.0, 1.0, 0.3], [1e-3, 5.0, 0.77]])
@pytest.mark.parametrize("start", [0, 240, 10 ** 9])
def test_mixed_as_grain_mixes(rates, start):
  """Across a border of blocks, and far out."""
  sizes, seeds = [7, 40, 1000, 3][:len(rates)], [11, 22, 33, 44][:len(rates)]
  parts = [grain.MapDataset.range(n).seed(s).shuffle().repeat().map(lambda i, t=t: (t, i))
           for t, (n, s) in enumerate(zip(sizes, seeds))]
  theirs = grain.MapDataset.mix(parts, rates)
  task, example = order.Stream(sizes, rates, seeds).at(start, start + 60)
  assert list(zip(task.tolist(), example.tolist())) == [
      theirs[i] for i in range(start, start + 60)]


def test_it_is_worked_out_far_faster_than_place_by_place():
  """Fifty times is measured; ten holds on a busy machine."""
  theirs = grain.MapDataset.range(1075).seed(5).shuffle().repeat()
  at = time.process_time()
  for place in range(2000):
    _ = theirs[place]
  middle = time.process_time()
  order.Stream([1075], [1.0], [6]).at(0, 20_000)
  assert (time.process_time() - middle) / 20_000 < (middle - at) / 2000 / 10
