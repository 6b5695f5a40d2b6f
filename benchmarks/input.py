"""Batches of phase 2 per second from prepared examples, compared with the same SeqIO mixture.

    python -m ilm_jax.main --config=configs/quickstart.py --workdir=runs/input --stage=prepare
    python -m benchmarks.input --workdir=runs/input --out=input.json

Batches have four rows of 128 tokens from the quickstart's mixture and rates, shuffled and repeated,
in one process. Three readers: `data.batches.lm_batches` over the prepared ArrayRecord; SeqIO's
`get_dataset` of the registered mixture, which renders and tokenises each example again every epoch;
and the same over TFRecords of tokenised examples, as `seqio_cache_tasks` writes them. SeqIO's
converter is PrefixLMFeatureConverter, once with one example per row and once packed.

Differences: ours gives each slot its four soft tokens, so rows are fuller and fewer examples fit
(for packed rows compare examples per second). Ours carries entities, task and target positions;
SeqIO packed leaves the entities out (pass-through features cannot be packed), unpacked pads them.
Ours shuffles a whole epoch, SeqIO among 1,000 examples (its default). Readers take turns and the
median round counts; the second column is per second of CPU time, of all threads of the process.
"first" is the time from opening the files (ours checks every sha256) to the first batch, without
imports; "resume" is the same at step 1,000,000. SeqIO gets there only by making all earlier
batches: its figure is computed from its rate, and marked with ~.
"""
import argparse
import itertools
import json
import os
import pathlib
import statistics
import tempfile
import time

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from ilm_jax.config import mixture
from ilm_jax.config import reading as config_lib
from ilm_jax.data import batches, packing, store
from ilm_jax.stages import context

LENGTH, ROWS, TARGETS, SLOTS, QUERIES = 128, 4, 40, 28, 4
RESUME = 1_000_000


def ours(run: context.Run, packed: bool):
  """Returns a function from a step to an iterator over the batches from that step on."""
  rates = {n: r for n, r in run.config.tasks.mixture.items() if r}
  spec = packing.LmBatchSpec(
      rows=ROWS, length=LENGTH, slots=SLOTS, targets=TARGETS, queries=QUERIES,
      slot_id=run.lm_tokenizer.slot_id, pad_id=run.lm_tokenizer.pad_id, task_names=tuple(rates),
      examples_per_group=12 if packed else 1, rows_per_group=ROWS if packed else 1, whole_words=0,
      before=run.lm_tokenizer.before, after=run.lm_tokenizer.after)

  def start(step: int):
    tasks = {n: store.Prepared(run.workdir / "prepared" / f"ml100k_{n}" / "train") for n in rates}
    return batches.lm_batches(tasks, rates, spec, seed=0).iterate(step, step + 10 ** 9)

  return start, lambda batch: sum(len(set(row) - {0}) for row in batch["segment"])


def theirs(name: str, packed: bool):
  """The same for a SeqIO mixture."""
  import seqio
  import tensorflow as tf
  entities = {} if packed else {"entities": seqio.FeatureConverter.FeatureSpec(dtype=tf.int32)}
  lengths = {"inputs": LENGTH - TARGETS, "targets": TARGETS, **dict.fromkeys(entities, SLOTS)}

  def start(step: int):
    converter = seqio.PrefixLMFeatureConverter(pack=packed, passthrough_features=entities or None)
    dataset = seqio.get_dataset(name, lengths, converter, "train", shuffle=True, num_epochs=None,
                                seed=0, verbose=False)
    dataset = dataset.batch(ROWS, drop_remainder=True).skip(step).prefetch(8)
    return dataset.as_numpy_iterator()

  def examples(batch):
    return batch["decoder_segment_ids"].max(axis=1).sum() if packed else ROWS

  return start, examples


def register(run: context.Run) -> str:
  """The mixture that the tasks define, in SeqIO's registry."""
  from tasks import catalog
  return catalog.register(run.workdir / "data", run.lm_tokenizer, run.text_tokenizer,
                          run.config)["ilm"]


def register_cached(run: context.Run, folder) -> str:
  """The same mixture over TFRecords of tokenised examples."""
  import seqio
  import tensorflow as tf
  features = ("inputs", "targets", "entities")
  passed = seqio.PassThroughVocabulary(2 ** 30)
  mixed = []
  for name, rate in run.config.tasks.mixture.items():
    if not rate:
      continue
    prepared = store.Prepared(run.workdir / "prepared" / f"ml100k_{name}" / "train")
    path = f"{folder}/{name}.tfrecord"
    with tf.io.TFRecordWriter(path) as writer:
      for i in range(len(prepared)):
        writer.write(tf.train.Example(features=tf.train.Features(feature={
            k: tf.train.Feature(int64_list=tf.train.Int64List(value=prepared[i][k]))
            for k in features})).SerializeToString())
    source = seqio.TFExampleDataSource(
        {"train": path}, {k: tf.io.RaggedFeature(tf.int64) for k in features})
    cast = seqio.map_over_dataset(lambda e: {k: tf.cast(v, tf.int32) for k, v in e.items()})
    seqio.TaskRegistry.add(f"cached_{name}", source=source, preprocessors=[cast], metric_fns=[],
                           output_features={k: seqio.Feature(passed, add_eos=False)
                                            for k in features})
    mixed.append((f"cached_{name}", rate))
  seqio.MixtureRegistry.add("cached_ilm", mixed)
  return "cached_ilm"


def first_batch(start, step: int) -> float:
  """Seconds to the first batch at a step."""
  at = time.perf_counter()
  next(start(step))
  return time.perf_counter() - at


def rates(readers: dict, seconds: float, rounds: int) -> dict[str, tuple[float, float, float]]:
  """{reader: median (batches per second, per CPU second, examples per second)}, taking turns."""
  feeds = {name: start(0) for name, (start, _) in readers.items()}
  speeds = {name: [] for name in readers}
  for feed in feeds.values():
    for _ in itertools.islice(feed, 20):
      pass
  for _ in range(rounds):
    for name, feed in feeds.items():
      made, examples, at, cpu = 0, 0, time.perf_counter(), time.process_time()
      while time.process_time() - cpu < seconds:     # in CPU time: a busy machine shortens no turn
        examples += int(readers[name][1](next(feed)))
        made += 1
      spent = time.perf_counter() - at
      speeds[name].append((made / spent, made / (time.process_time() - cpu), examples / spent))
  return {name: tuple(statistics.median(x) for x in zip(*all_)) for name, all_ in speeds.items()}


def measure(run: context.Run, seconds: float, rounds: int, cached: str) -> list[dict]:
  """One row per reader and form of batch."""
  mixture, rows = register(run), []
  for packed in (False, True):
    readers = {"prepared": ours(run, packed), "SeqIO": theirs(mixture, packed),
               "SeqIO, cached": theirs(cached, packed)}
    speed = rates(readers, seconds, rounds)
    for name, (start, _) in readers.items():
      first, mine = first_batch(start, 0), name == "prepared"
      rows.append({
          "batches": "packed" if packed else "one example a row", "reader": name,
          **dict(zip(("batches_per_second", "batches_per_cpu_second", "examples_per_second"),
                     speed[name])),
          "first_batch_seconds": first,
          "resume_seconds": (first_batch(start, RESUME) if mine
                             else first + RESUME / speed[name][0]),
          "resume_is_worked_out": not mine})
  return rows


def show(rows: list[dict]) -> None:
  print(f"{'':19}{'reader':15}{'batches/s':>10}{'/CPU s':>8}{'examples/s':>12}{'first':>8}"
        f"{'resume':>10}")
  for row in rows:
    resume = f"{'~' * row['resume_is_worked_out']}{row['resume_seconds']:.3g}s"
    print(f"{row['batches']:19}{row['reader']:15}{row['batches_per_second']:10.0f}"
          f"{row['batches_per_cpu_second']:8.0f}{row['examples_per_second']:12.0f}"
          f"{row['first_batch_seconds']:7.2f}s{resume:>10}")


def main():
  args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  args.add_argument("--workdir", required=True, help="a quickstart after stage prepare")
  args.add_argument("--seconds", type=float, default=2.0, help="CPU seconds per turn")
  args.add_argument("--rounds", type=int, default=5)
  args.add_argument("--out", help="write the figures here as JSON")
  args = args.parse_args()
  config = config_lib.load(pathlib.Path(__file__).parents[1] / "configs" / "quickstart.py")
  # Texts alone: histories that are only ranked have longer rows of their own.
  config.tasks.mixture.update(dict.fromkeys(mixture.rank_tasks(config), 0.0))
  run = context.Run(config, args.workdir, devices=False)
  with tempfile.TemporaryDirectory() as folder:
    rows = measure(run, args.seconds, args.rounds, register_cached(run, folder))
  show(rows)
  if args.out:
    with open(args.out, "w") as file:
      json.dump({"cores": len(os.sched_getaffinity(0)), "rows": rows}, file, indent=2)


if __name__ == "__main__":
  main()
