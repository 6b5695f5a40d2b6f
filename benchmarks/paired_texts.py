"""Losses on test texts by models of several workdirs, paired by example; prints Markdown.

    python -m benchmarks.paired_texts runs/wide0:ilm runs/texts0:mlp runs/texts0:ilm
    python -m benchmarks.paired_texts runs/wide{}:ilm runs/texts{}:mlp --seeds=0,1,2

Each argument is a workdir and one of its trained models. The workdirs must have the same prepared
test examples (same data, seed and tasks). The first model's loss minus that of each other is given
with a 95 % interval as in stage eval's loss table: over examples, for "all" over items.
"""
import argparse
import pathlib

import numpy as np

from ilm_jax import errors
from ilm_jax.config import reading, variants
from ilm_jax.stages import context, recipe
from ilm_jax.stages.evals import common, losses, methods, speaker


def measured(argument: str) -> tuple[context.Run, dict, dict]:
  """(the run, its test examples by task, their (nats, tokens) by task)."""
  workdir, _, key = argument.rpartition(":")
  config = reading.load(f"configs/recorded.py:{workdir}/config.phase2.json")
  run = context.Run(config, pathlib.Path(workdir))
  tasks = recipe.said_tasks(config)
  examples = {task: some for task in tasks if (some := common.sample(run, task, 0))}
  model = speaker.Speaker(run, variants.named(config, key))
  method = methods.Method(argument, model, None)
  return run, examples, losses.method_sums(
      method, examples, lambda groups: common.spec(run, groups))


def same(one: dict, other: dict) -> bool:
  """Whether two sets of examples ask for the same targets in the same order."""
  return one.keys() == other.keys() and all(
      len(one[task]) == len(other[task]) and all(
          np.array_equal(a["targets"], b["targets"]) for a, b in zip(one[task], other[task]))
      for task in one)


def pooled(models: list[str]) -> tuple[context.Run, dict, dict]:
  """(the first model's run, test examples by task, {model: (nats, tokens) by task}).

  Raises:
    UserError: models have other test examples than the first.
  """
  sums, first = {}, None
  for argument in models:
    run, examples, sums[argument] = measured(argument)
    first = first or (run, examples)
    if not same(first[1], examples):
      raise errors.UserError(f"{argument} has other test examples than {models[0]}: name "
                             "workdirs of the same data, seed and tasks")
  return *first, sums


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("models", nargs="+", help="WORKDIR:ilm, :rand, :mlp or :blind")
  parser.add_argument("--seeds", type=lambda text: text.split(","), default=[""],
                      help="e.g. 0,1,2: what {} in the models stands for; examples are pooled")
  args = parser.parse_args()
  found = [pooled([model.replace("{}", seed) for model in args.models]) for seed in args.seeds]
  run, tasks = found[0][0], list(found[0][1])
  sums = {model: {task: tuple(np.concatenate(part) for part in zip(
      *(list(of.values())[m][task] for _, _, of in found))) for task in ("all", *tasks)}
          for m, model in enumerate(args.models)}
  # A film that several seeds hold out counts as several.
  rows = losses.loss_rows(
      common.bootstrap(run), sums, dict.fromkeys(args.models[1:], args.models[0]),
      {task: np.concatenate([np.asarray(common.item_rows(of[task])) + n * run.data.log.num_items
                             for n, (_, of, _) in enumerate(found)]) for task in tasks})
  columns = ["all", *tasks]
  print("| | " + " | ".join(columns) + " |\n|" + "---|" * (len(columns) + 1))
  for row in rows:
    name = row["method"] + (f" minus {row['minus']}" if "minus" in row else "")
    cells = [row["metrics"][column] for column in columns]
    print(f"| {name} | " + " | ".join(
        f"{c['value']:.3f} [{c['lo']:.3f}, {c['hi']:.3f}]" for c in cells) + " |")


if __name__ == "__main__":
  main()
