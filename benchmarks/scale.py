"""Runs every stage on a synthetic log of growing size: time and memory of each stage.

    python -m benchmarks.scale --out=runs/scale --items=10000,100000,1000000
    python -m benchmarks.scale --out=runs/scale --items=ml32m

A size of I items has 2 I users and about 47 I interactions (a user never has the same item twice,
and the 5-core leaves out users and items with fewer than 5). The k-th most popular item is drawn in
proportion to k^-.8. Items belong to clusters of 100; a user draws from three clusters and, for a
fifth of the interactions, from all items. ml32m has MovieLens-32M's numbers of items, users and
interactions, and larger clusters. Only 1,000 users are ranked in stages eval and recommend.

Each stage is a command of its own, so its peak memory (of the largest process) and its processor
time are the operating system's. A second call runs only what is missing. Prints a table, and the
exponent b of cost = a x items^b for each pair of sizes. The models are small: steps of training
show the cost of a step, not what is learnt.
"""
import argparse
import json
import math
import pathlib
import subprocess
import sys
import time
from typing import NamedTuple

import numpy as np

from benchmarks import jobs

STAGES = ("prepare", "cf", "phase1", "phase2", "eval", "export", "recommend")
_POWER, _CLUSTERS, _ANY = 0.8, 3, 0.2
_TOGETHER = 100_000                # users drawn at a time
_ASKED, _ACTIVE = 1000, 30         # users who get a list: the first with so many interactions
FLAGS = (
    "--config.data.name=table", "--config.data.columns.interactions_file=log.parquet",
    "--config.data.columns.user=user", "--config.data.columns.item=item",
    "--config.data.columns.time=time", "--config.data.columns.items_file=items.parquet",
    "--config.data.columns.id=item", "--config.data.columns.title=title",
    "--config.cf.stream=True", "--config.cf.iterations=3", "--config.tasks.draws=1",
    f"--config.tasks.eval_targets={_ASKED}", "--config.tasks.prompt_targets=10",
    "--config.qformer.init=", "--config.qformer.width=64", "--config.qformer.num_heads=4",
    "--config.qformer.mlp_width=128", "--config.qformer.proj_width=64",
    "--config.phase1.steps=20", "--config.phase1.warmup=2", "--config.phase1.negatives=4096",
    "--config.phase1.draw=popularity", "--config.phase2.compare=()",
    "--config.phase2.head.negatives=4096", "--config.phase2.steps=20", "--config.phase2.warmup=2",
    "--config.eval.baselines=('popularity','ials')")


class Shape(NamedTuple):
  """A synthetic log. Interactions of users have a heavy tail: log-normal, cut at both ends."""
  items: int
  users: int
  median: float              # of a user's interactions, before equal ones are left out
  sigma: float               # of their logarithms
  least: int
  most: int
  cluster: int               # items of a cluster


def shape(name: str) -> Shape:
  """Of a number of items, or of "ml32m": 87,585 items, 200,948 users, 32,000,204 ratings."""
  if name == "ml32m":
    return Shape(87_585, 200_948, 102, 1.15, 20, 9000, 3000)
  return Shape(int(name), 2 * int(name), 18, 1.0, 5, 1000, 100)


# A process's peak begins with that of the process that started it: here a small one.
_WATCHED = """
import json, os, subprocess, sys
job = subprocess.Popen(sys.argv[2:])
_, status, used = os.wait4(job.pid, 0)
with open(sys.argv[1], "w") as file:
  json.dump({"processor": used.ru_utime + used.ru_stime, "peak": used.ru_maxrss / 2**20}, file)
sys.exit(status != 0)
"""


def draw(log: Shape, seed: int = 0):
  """Yields (user, item, time) int arrays, users in order, each with distinct items."""
  rng, items, size = np.random.default_rng(seed), log.items, log.cluster
  weight = np.arange(1, items + 1) ** -_POWER
  rank = rng.permutation(items)                     # of an item: clusters have popular items, too
  below = np.cumsum(weight[rank])                   # over items, in the order of clusters
  clusters = math.ceil(items / size)
  edge = np.minimum(np.arange(clusters + 1) * size, items)
  start = np.concatenate([[0.0], below])[edge]      # of a cluster, on the scale of `below`
  for first in range(0, log.users, _TOGETHER):
    count = min(_TOGETHER, log.users - first)
    many = np.clip(rng.lognormal(np.log(log.median), log.sigma, count), log.least, log.most
                   ).astype(np.int64)
    user = np.repeat(np.arange(count), many)
    liked = rng.integers(clusters, size=(count, _CLUSTERS))
    cluster = liked[user, rng.integers(_CLUSTERS, size=len(user))]
    low, high = start[cluster], start[cluster + 1]
    anything = rng.random(len(user)) < _ANY
    at = np.where(anything, 0, low) + rng.random(len(user)) * np.where(
        anything, below[-1], high - low)
    item = np.minimum(np.searchsorted(below, at, side="right"), items - 1)
    _, kept = np.unique(user * items + item, return_index=True)
    kept.sort()
    yield user[kept] + first, item[kept], rng.integers(10 ** 9, size=len(kept))


def write(folder: pathlib.Path, log: Shape) -> int:
  """Writes log.parquet, items.parquet and asked.txt; returns the number of interactions."""
  import pyarrow
  from pyarrow import parquet
  folder.mkdir(parents=True, exist_ok=True)
  schema, count = pyarrow.schema([(name, "int64") for name in ("user", "item", "time")]), 0
  asked: list[int] = []
  with parquet.ParquetWriter(folder / "log.parquet", schema) as writer:
    for arrays in draw(log):
      writer.write_table(pyarrow.table(dict(zip(schema.names, arrays)), schema=schema))
      count += len(arrays[0])
      users, many = np.unique(arrays[0], return_counts=True)
      asked += users[many >= _ACTIVE][:_ASKED - len(asked)].tolist()
  (folder / "asked.txt").write_text("\n".join(map(str, asked)))
  parquet.write_table(pyarrow.table({
      "item": np.arange(log.items), "title": [f"Thing {n} of kind {n // log.cluster}"
                                              for n in range(log.items)]}),
                      folder / "items.parquet")
  return count


def command(stage: str, folder: pathlib.Path, more: tuple[str, ...]) -> list[str]:
  """The command line of a stage."""
  asked = (f"--users={folder / 'data' / 'asked.txt'}", f"--out={folder / 'lists.parquet'}"
           ) if stage == "recommend" else ()
  return [sys.executable, "-m", "ilm_jax.main", "--config=configs/ml100k_head.py",
          f"--workdir={folder / 'run'}", f"--stage={stage}",
          f"--config.data.path={folder / 'data'}", *FLAGS, *more, *asked]


def measured(stage: str, folder: pathlib.Path, more: tuple[str, ...]) -> dict:
  """Runs a stage. {"seconds", "processor" seconds, "peak" GiB}.

  Raises:
    SystemExit: it failed; its output is in <folder>/<stage>.log.
  """
  began, told = time.perf_counter(), folder / f"{stage}.json"
  with (folder / f"{stage}.log").open("w") as log:
    done = subprocess.run([sys.executable, "-c", _WATCHED, told, *command(stage, folder, more)],
                          cwd=jobs.ROOT, stdout=log, stderr=log, check=False)
  if done.returncode:
    raise SystemExit(f"stage {stage} failed: see {folder / stage}.log")
  return {"seconds": time.perf_counter() - began, **json.loads(told.read_text())}


def size(folder: pathlib.Path, name: str, stages, more: tuple[str, ...]) -> dict:
  """Stage -> its figures, for the log of this name; kept in <folder>/figures.json."""
  path = folder / "figures.json"
  told = json.loads(path.read_text()) if path.exists() else {}
  if "log" not in told:
    began = time.perf_counter()
    told["log"] = {"interactions": write(folder / "data", shape(name)),
                   "seconds": time.perf_counter() - began}
  for stage in (stage for stage in stages if stage not in told):
    path.write_text(json.dumps(told))
    told[stage] = measured(stage, folder, more)
    print(f"{name}, {stage}: {told[stage]}", flush=True)
  path.write_text(json.dumps(told))
  return told


def table(told: dict[str, dict], stages) -> str:
  """All sizes in Markdown: seconds, processor seconds, GiB; exponents from size to size."""
  by_items = {shape(name).items: of for name, of in told.items()}
  sizes = sorted(by_items)
  lines = [f"| stage | {' | '.join(f'{n:,} items: s, processor s, GiB' for n in sizes)} "
           "| exponents of processor time | of memory |", "|" + "---|" * (len(sizes) + 3)]
  for stage in stages:
    rows = [by_items[n][stage] for n in sizes]
    cells = [f"{r['seconds']:,.0f}, {r['processor']:,.0f}, {r['peak']:.2f}" for r in rows]
    grown = [", ".join(f"{math.log(b[what] / a[what]) / math.log(n / m):.2f}"
                       for a, b, m, n in zip(rows, rows[1:], sizes, sizes[1:]))
             for what in ("processor", "peak")]
    lines.append(f"| {stage} | {' | '.join(cells)} | {grown[0]} | {grown[1]} |")
  return "\n".join(lines)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  names = lambda text: text.split(",")  # noqa: E731
  parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/scale"))
  parser.add_argument("--items", type=names, default=["10000", "100000", "1000000"],
                      help="numbers of items, or ml32m")
  parser.add_argument("--stages", type=names, default=STAGES, help=f"of {', '.join(STAGES)}")
  parser.add_argument("--set", action="append", default=[], help="a flag for every stage, e.g. "
                      "--set=--beam_runner=DirectRunner")
  args = parser.parse_args()
  told = {name: size((args.out / name).absolute(), name, args.stages, tuple(args.set))
          for name in args.items}
  for name, stages in told.items():
    print(f"{name}: {stages['log']['interactions']:,} interactions")
  print(table(told, args.stages))


if __name__ == "__main__":
  main()
