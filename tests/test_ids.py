"""Ids of events as numbers of the distinct ids: like a list of str, in a few bytes an event."""
import tracemalloc

import numpy as np
import pytest
from logs import listed

from ilm_jax.data import interactions
from ilm_jax.data.ids import Ids
from tasks.datasets import lines

RAW = ["b", "a", "b", "c", "a"]


def test_like_a_list_of_text():
  ids = Ids.of(iter(RAW))
  assert ids == RAW and RAW == ids and list(ids) == RAW and Ids.of(ids) is ids
  assert ids != RAW[:4] and ids != [*RAW[:4], "b"] and ids != 5
  assert (ids[3], ids[-1], ids[1:3], ids[np.array([4, 0])]) == ("c", "a", ["a", "b"], ["a", "b"])
  assert ids.names == ["b", "a", "c"] and "c" in ids and "d" not in ids
  assert Ids.of([]) == [] and Ids.of([7, "7"]).names == ["7"]


def test_order_and_more():
  ids = Ids.of(RAW)
  assert ids.take(np.array([4, 3, 2, 1, 0])) == RAW[::-1]
  more = ids.followed_by(["d", "a", "d"])
  assert more == [*RAW, "d", "a", "d"] and more.names == ["b", "a", "c", "d"] and ids == RAW


def test_codes_are_those_of_plain_lists():
  for raw in (RAW, ["10", "9", "-7", "9"], []):
    (names, code_N), (known, of_ids_N) = interactions.codes(raw), interactions.codes(Ids.of(raw))
    assert names == known and [names[code] for code in code_N] == raw
    np.testing.assert_array_equal(code_N, of_ids_N)


def test_a_log_keeps_few_bytes_an_event():
  """Lists of str, int and float would keep 90 or more."""
  count = 50_000
  tracemalloc.start()
  try:
    log = lines.Log(per_second=10 ** 9)
    for n in range(count):
      log.add(f"user {n % 100}", f"item {n % 1000}", 1_700_000_000_000_000_000 - n, n / 3)
    before = tracemalloc.get_traced_memory()[0]
    events = log.done("log.csv")
    after = tracemalloc.get_traced_memory()[0]
  finally:
    tracemalloc.stop()
  assert before < 40 * count and after - before < 30 * count
  assert listed(events)[1][:2] == [f"item {(count - 1) % 1000}", f"item {(count - 2) % 1000}"]


@pytest.mark.parametrize("timed, times", [(False, None), (True, [5, -3])])
def test_whole_seconds_keep_the_order_of_the_file(timed, times):
  log = lines.Log(timed=timed)
  for n, (user, item) in enumerate([("u", "b"), ("v", "a")]):
    log.add(user, item, times[n] if timed else None, 1.0)
  assert listed(log.done("x")) == (["u", "v"], ["b", "a"], times, [1.0, 1.0])
