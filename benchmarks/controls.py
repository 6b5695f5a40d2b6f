"""Measures how arms of `benchmarks.projectors` depend on the history's order and on item vectors.

    python -m benchmarks.controls --out=runs/projectors --arms=mlp,skip --seeds=0,1

Nothing is trained. The trained arms rank the validation items three times: unchanged; with the
items of every history in random order; and with the vectors of all items permuted, in histories and
candidates alike, so that only popularity is left. A model whose ranks do not change with the order
uses no sequence (arXiv 2502.13909, section 3); one whose ranks do not change with the vectors uses
no item.
"""
import argparse
import functools
import pathlib

import numpy as np

from benchmarks import projectors
from ilm_jax.evaluation import metrics, paired
from ilm_jax.stages import context
from ilm_jax.stages.evals import common, speaker

WAYS = ("as it is", "order shuffled", "vectors shuffled")


def reordered(examples: list[dict], num_items: int, seed: int) -> list[dict]:
  """The examples with the items of each in random order; users (entity rows above `num_items`)
  keep their slots."""
  rng, changed = np.random.default_rng(seed), []
  for example in examples:
    entities = np.array(example["entities"])
    is_item = entities <= num_items
    entities[is_item] = rng.permutation(entities[is_item])
    changed.append({**example, "entities": entities})
  return changed


def dealt(entities: dict, num_items: int, seed: int) -> dict:
  """Entity arrays with the vectors of item rows 1..num_items permuted."""
  rows = len(next(iter(entities["vectors"].values())))
  from_R = np.arange(rows)
  from_R[1:num_items + 1] = 1 + np.random.default_rng(seed).permutation(num_items)
  return {part: {name: x[from_R] for name, x in arrays.items()}
          if part in ("vectors", "present") else arrays for part, arrays in entities.items()}


def score(run: context.Run, examples, user_U, *, variant, way: str, seed: int) -> np.ndarray:
  """[U, I + 1] scores by the item head."""
  asked = speaker.Speaker(run, variant)
  if way == "vectors shuffled":
    asked.entities = dealt(asked.entities, run.data.log.num_items, seed)
  elif way == "order shuffled":
    examples = reordered(examples, run.data.log.num_items, seed)
  return asked.head_score(examples, common.head_spec(run, [examples]))


def measure(args, name: str, seed: int) -> dict[str, np.ndarray]:
  """Way -> [U] ranks of the validation items."""
  run, variant = projectors.trained_arm(args.out, name, seed)
  return {way: projectors.rank(run, "validation", functools.partial(
      score, variant=variant, way=way, seed=seed)) for way in WAYS}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--out", type=pathlib.Path, required=True)
  parser.add_argument("--arms", type=lambda text: text.split(","), required=True)
  parser.add_argument("--seeds", type=lambda text: [int(s) for s in text.split(",")], default=[0])
  args = parser.parse_args()
  bootstrap = paired.Bootstrap(2000, 0)
  print("| arm | way | validation HR@10 | 95 % | minus as it is |\n|---|---|---|---|---|")
  for name in args.arms:
    ranks = [measure(args, name, seed) for seed in args.seeds]
    hits = {way: np.mean([metrics.hit_rate(of_seed[way], 10) for of_seed in ranks], axis=0)
            for way in WAYS}
    for way in WAYS:
      e, d = bootstrap.mean(hits[way]), bootstrap.mean(hits[way] - hits[WAYS[0]])
      print(f"| {name} | {way} | {e['value']:.4f} | [{e['lo']:.3f}, {e['hi']:.3f}] "
            f"| {d['value']:+.4f} [{d['lo']:+.3f}, {d['hi']:+.3f}] |", flush=True)


if __name__ == "__main__":
  main()
