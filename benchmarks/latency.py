"""How long a recommendation takes, warm: from a history to ten items of the full catalogue.

    python -m benchmarks.latency --config=configs/quickstart.py --workdir=runs/quickstart

By every way that the trained run has (docs/results/speed.md): its item head, of ILM and of what
`phase2.compare` has trained, and phase 1's dot product. Histories are those of the log's users;
the catalogue is projected once, before the clock starts. Prints the median and the 90th percentile
of one call, and users a second.
"""
import argparse
import importlib
import time

import numpy as np

from ilm_jax.config import variants
from ilm_jax.stages import context, recipe, recommender


def ways(config) -> list[tuple[str, variants.Variant]]:
  """(`by` of a Recommender, variant) of what a run of `config` can answer by."""
  by = recommender.way(config)
  models = variants.trained(config) if by != recommender.DOT else (variants.ILM,)
  found = [(by, variant) for variant in models]
  if by != recommender.DOT and recipe.joins_users(config):
    found.append((recommender.DOT, variants.ILM))
  return found


def seconds(makes: recommender.Recommender, histories: list, users: int, calls: int) -> np.ndarray:
  """[calls] seconds of a call with so many users; two calls before them are not counted."""
  taken = []
  for n in range(calls + 2):
    some = [histories[(n * users + u) % len(histories)] for u in range(users)]
    began = time.perf_counter()
    makes.top(some, 10)
    taken.append(time.perf_counter() - began)
  return np.array(taken[2:])


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--config", default="configs/quickstart.py")
  parser.add_argument("--workdir", required=True)
  parser.add_argument("--users", type=lambda text: [int(n) for n in text.split(",")],
                      default=[1, 16, 256])
  parser.add_argument("--calls", type=int, default=20)
  args = parser.parse_args()
  module = importlib.import_module(args.config.removesuffix(".py").replace("/", "."))
  run = context.Run(module.get_config(), args.workdir)
  log = run.data.log
  histories = [log.item_N[log.of_user(user)] for user in range(log.num_users)]
  print("| by | users in a call | median, ms | 90 %, ms | users a second |\n|---|---|---|---|---|")
  for by, variant in ways(run.config):
    makes = recommender.Recommender(run, variant)
    makes.by = by
    for users in args.users:
      taken_C = seconds(makes, histories, users, args.calls)
      print(f"| {variant.label}, {by} | {users} | {1e3 * np.median(taken_C):.0f} "
            f"| {1e3 * np.quantile(taken_C, 0.9):.0f} | {users / np.median(taken_C):.0f} |",
            flush=True)


if __name__ == "__main__":
  main()
