"""A data set prepared by an Apache Beam pipeline: its workers make the examples of `builder`.

Several workers read the parts of a file whose lines are independent; one worker reads each other
file, e.g. a packed one. All workers gather, order and write the users.
"""
import collections

import apache_beam as beam
import numpy as np

from ilm_jax.data import interactions, splits
from ilm_jax.tasks.datasets import examples, registry

_PART = 64 << 20                 # bytes


def items(found: registry.Found) -> beam.PTransform:
  """(number, example) of every item; one worker reads the file."""
  return (beam.Create([None]) | "read items" >> beam.FlatMap(
      lambda _: list(enumerate(examples.of_items(found.read_items())))) | beam.Reshuffle())


def users(found: registry.Found) -> beam.PTransform:
  """(number, example) of every user, numbered in ascending order of their id."""
  return _Users(found)


class _Users(beam.PTransform):
  """See `users`."""

  def __init__(self, found: registry.Found):
    super().__init__()
    self._found = found

  def expand(self, pipeline):
    parts = list(enumerate(self._found.log_readers(_PART)))
    log = (pipeline | "parts" >> beam.Create(parts) | "spread" >> beam.Reshuffle()
           | "read" >> beam.ParDo(_read).with_outputs("counts", main="events"))
    firsts = log.counts | "all counts" >> beam.combiners.ToList() | "firsts" >> beam.Map(_firsts)
    by_user = log.events | "by user" >> beam.GroupByKey()
    numbers = (by_user | beam.Keys() | "all users" >> beam.combiners.ToList()
               | "numbers" >> beam.Map(_numbers))
    return by_user | "examples" >> beam.Map(
        _example, firsts=beam.pvalue.AsSingleton(firsts),
        numbers=beam.pvalue.AsSingleton(numbers))


def _read(part):
  """For a part: (user, (part, places in it, items, times, ratings)), and its number of events."""
  number, read_log = part
  user_ids, item_ids, times, ratings = read_log()
  times = examples.known(times, len(user_ids))
  at = collections.defaultdict(list)
  for place, user in enumerate(user_ids):
    at[user].append(place)
  for user, places in at.items():
    at_N = np.array(places)
    yield user, (number, at_N, item_ids[at_N], times[at_N], ratings[at_N])
  yield beam.pvalue.TaggedOutput("counts", (number, len(user_ids)))


def _firsts(counts) -> list[int]:
  """For each part, the number of events before it in the log."""
  return [0, *np.cumsum([count for _, count in sorted(counts)]).tolist()]


def _numbers(user_ids) -> dict[str, int]:
  return {user: number for number, user in enumerate(interactions.codes(user_ids)[0])}


def _example(gathered, firsts: list[int], numbers: dict[str, int]):
  """(number of the user, example) from the user's events in all parts."""
  user, parts = gathered
  parts = sorted(parts, key=lambda part: part[0])
  place_N = np.concatenate([places + firsts[number] for number, places, *_ in parts])
  item_ids = [item for part in parts for item in part[2]]
  time_N = np.concatenate([part[3] for part in parts])
  rating_N = np.concatenate([part[4] for part in parts])
  order_N = splits.order(splits.STABLE, np.zeros(len(place_N), np.int64), time_N)
  return numbers[user], examples.of_user(
      user, [item_ids[i] for i in order_N], time_N[order_N], rating_N[order_N], place_N[order_N])
