"""Tasks prepared by an Apache Beam pipeline, in its own processes or by Dataflow, Flink, Spark.

What is stored is what `prepare` stores without Beam, byte for byte. The one module that needs
requirements-beam.lock, with `datasets.beam_log`.
"""
import collections
import functools

import apache_beam as beam
from apache_beam.options import pipeline_options

from tasks import pieces


def make(works: list[pieces.Work], options: tuple[str, ...]) -> None:
  """Makes and writes all pieces of `works`; returns when all shards are there.

  Args:
    works: of `pieces.cut`.
    options: of Beam's pipeline, "--runner=FlinkRunner", ...
  """
  todo = [(number, piece) for number, work in enumerate(works) for piece in range(work.count)]
  if not todo:
    return
  with beam.Pipeline(options=pipeline_options.PipelineOptions(list(options))) as pipeline:
    made = (pipeline | "pieces" >> beam.Create(todo) | "spread" >> beam.Reshuffle()
            | "make" >> beam.Map(functools.partial(_make, works)))
    firsts = (made | "count" >> beam.MapTuple(lambda at, records: (at, len(records)))
              | "all counts" >> beam.combiners.ToList() | "firsts" >> beam.Map(_firsts))
    _ = (made | "to shards" >> beam.FlatMap(functools.partial(_to_shards, works),
                                            beam.pvalue.AsSingleton(firsts))
         | "gather" >> beam.GroupByKey() | "write" >> beam.Map(functools.partial(_write, works)))


def _make(works, at: tuple[int, int]) -> tuple[tuple[int, int], list[bytes]]:
  """(number of a work, piece) -> itself, the records."""
  return at, pieces.make(works[at[0]], at[1])


def _firsts(counts: list) -> dict[tuple[int, int], int]:
  """(work, piece) -> the number of its first example in the split."""
  firsts, following = {}, collections.Counter()
  for (number, piece), count in sorted(counts):
    firsts[number, piece] = following[number]
    following[number] += count
  return firsts


def _to_shards(works, made, firsts: dict):
  """((work, shard), (piece, records)) of each shard that the piece has records of."""
  (number, piece), records = made
  found_in = pieces.by_shard(works[number], firsts[number, piece], records)
  for shard, found in found_in.items():
    yield (number, shard), (piece, found)


def _write(works, gathered) -> None:
  (number, shard), found = gathered
  pieces.write_shard(works[number], shard, found)
