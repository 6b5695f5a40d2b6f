"""Measures time and memory of each step of a large catalogue's collaborative index.

    python -m benchmarks.index --items=100000 --users=200000 --length=10 --out=index.json

Measured with --items=10000 --users=20000 (two busy CPU cores): 556,594 pairs in 0.3 s, clusters in
3.8 s, peak 0.15 GB, of which 0.09 are libraries and log; dense would take 0.8.

The log is synthetic: every item has one of 1,000 themes and a popularity that falls like 1 / rank;
every user has two themes, from which the items are drawn. Memory is the peak of the process, with
libraries and log; `dense` is the size of one float64 array [items, items].
"""
import argparse
import json
import resource
import time

import numpy as np

from tasks import clustering, indexing

_THEMES = 1000


def log(items: int, users: int, length: int, seed: int = 0) -> list[np.ndarray]:
  """Histories of item rows 1..items."""
  random = np.random.default_rng(seed)
  of_theme = np.split(random.permutation(items) + 1, np.arange(1, _THEMES) * items // _THEMES)
  theme_U2 = random.integers(_THEMES, size=(users, 2))
  place_UL = random.integers(2, size=(users, length))
  histories = []
  for themes, places in zip(theme_U2, place_UL):
    rows = [of_theme[theme] for theme in themes[places]]
    # The log of a uniform number is uniform in the logarithm of the rank: density 1 / rank.
    ranks = [int(len(row) ** u) - 1 for row, u in zip(rows, random.random(length))]
    histories.append(np.array([row[rank] for row, rank in zip(rows, ranks)]))
  return histories


def peak() -> float:
  """Peak memory of this process in GB."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  for name, default in (("items", 100_000), ("users", 200_000), ("length", 10)):
    parser.add_argument(f"--{name}", type=int, default=default)
  parser.add_argument("--out", default="")
  args = parser.parse_args()
  histories, rows = log(args.items, args.users, args.length), []

  def step(name, call):
    start = time.perf_counter()
    result = call()
    rows.append({"step": name, "seconds": time.perf_counter() - start, "peak_gb": peak()})
    print(f"{name:<28}{rows[-1]['seconds']:9.1f} s {rows[-1]['peak_gb']:7.2f} GB", flush=True)
    return result

  print(f"{args.items:,} items, {args.users:,} users x {args.length}; dense: "
        f"{args.items ** 2 * 8 / 1e9:.1f} GB; with the log {peak():.2f} GB")
  affinity = step("co-occurrence", lambda: clustering.co_occurrence(histories, args.items))
  print(f"{affinity.nnz:,} pairs")
  scheme = indexing.Scheme(kind="collaborative")
  codes = step("recursive clusters", lambda: clustering.collaborative(
      affinity, scheme.clusters, scheme.size, seed=0))
  assert len(set(codes)) == args.items
  figures = {"items": args.items, "users": args.users, "length": args.length, "pairs": affinity.nnz,
             "longest_code": max(map(len, codes)), "steps": rows}
  print(f"codes of {min(map(len, codes))} to {figures['longest_code']} numbers, all different")
  if args.out:
    with open(args.out, "w") as file:
      json.dump(figures, file, indent=1)


if __name__ == "__main__":
  main()
