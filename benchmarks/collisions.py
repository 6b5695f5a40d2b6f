"""Counts items whose index another item would share, if nothing told them apart.

    python -m benchmarks.collisions --workdir=runs/quickstart

Titles, with and without the year, and semantic codes of several sizes, of the items of a run after
stage prepare. docs/results/questions.md has the figures. What tells such items apart: `indexing`.
"""
import argparse
import collections
import pathlib

import numpy as np

from ilm_jax.config import reading
from ilm_jax.data import interactions
from ilm_jax.stages import context
from tasks import clustering

SIZES = ((2, 64), (3, 64), (2, 256), (3, 256))         # levels, codes a level


def shared(names) -> tuple[int, int]:
  """(items whose name another item has, the most items with one name)."""
  counts = collections.Counter(names)
  return sum(n for n in counts.values() if n > 1), max(counts.values())


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--workdir", type=pathlib.Path, required=True, help="after stage prepare")
  args = parser.parse_args()
  run = context.Run(
      reading.load(f"configs/recorded.py:{args.workdir}/config.prepare.json"), args.workdir)
  items = run.data.items
  rows = np.arange(1, len(items) + 1)
  full = [interactions.full_title(items, row) for row in rows]
  vector_IC = np.asarray(run.sentence_vectors([interactions.item_text(items, r) for r in rows]))
  made = {"title": items.titles, "title and year": full}
  for levels, codes in SIZES:
    code_IL = clustering.residual_kmeans(vector_IC, levels, codes, run.config.seed)
    made[f"semantic, {levels} levels of {codes}"] = list(map(tuple, code_IL.tolist()))
  print(f"| of {len(items):,} items | share their index | most with one index |\n|---|---|---|")
  for name, names in made.items():
    print("| {} | {:,} | {:,} |".format(name, *shared(names)))


if __name__ == "__main__":
  main()
