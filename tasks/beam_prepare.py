"""Tasks prepared by an Apache Beam pipeline, in its own processes or by Dataflow, Flink, Spark.

The stored files equal those that `prepare` writes without Beam, byte for byte. This module and
`datasets.beam_log` need requirements-beam.lock.
"""
import collections

import apache_beam as beam

from ilm_jax.tasks import beam_options, pieces


def make(works: list[pieces.Work], options: tuple[str, ...]) -> None:
  """Makes and writes all pieces of `works`; returns when all shards are there.

  Args:
    works: of `pieces.cut`.
    options: of Beam's pipeline, "--runner=FlinkRunner", ...
  """
  todo = [(number, piece) for number, work in enumerate(works) for piece in range(work.count)]
  if not todo:
    return
  with beam_options.mistakes_told(), beam.Pipeline(
      options=beam_options.parsed(options)) as pipeline:
    made = (pipeline | "pieces" >> beam.Create(todo) | "spread" >> beam.Reshuffle()
            | "make" >> beam.Map(_make, works))
    firsts = (made | "count" >> beam.MapTuple(lambda at, records: (at, len(records)))
              | "all counts" >> beam.combiners.ToList() | "firsts" >> beam.Map(_firsts))
    _ = (made | "to shards" >> beam.FlatMap(_to_shards, works, beam.pvalue.AsSingleton(firsts))
         | "gather" >> beam.GroupByKey() | "write" >> beam.Map(_write, works))


def _make(at: tuple[int, int], works) -> tuple[tuple[int, int], list[bytes]]:
  """(number of a work, piece) -> ((number, piece), its records)."""
  return at, pieces.make(works[at[0]], at[1])


def _firsts(counts: list) -> dict[tuple[int, int], int]:
  """(work, piece) -> the number of its first example in the split."""
  firsts, following = {}, collections.Counter()
  for (number, piece), count in sorted(counts):
    firsts[number, piece] = following[number]
    following[number] += count
  return firsts


def _to_shards(made, works, firsts: dict):
  """((work, shard), (piece, records)) for each shard that gets records of the piece."""
  (number, piece), records = made
  found_in = pieces.by_shard(works[number], firsts[number, piece], records)
  for shard, of_shard in found_in.items():
    yield (number, shard), (piece, of_shard)


def _write(gathered, works) -> None:
  (number, shard), records = gathered
  pieces.write_shard(works[number], shard, records)
