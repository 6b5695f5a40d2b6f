"""Compares trained arms with the SASRec that taught them or whose vectors they read.

    python -m benchmarks.beside_teacher --rows=runs/beauty/mlp,runs/beauty/ilm --seeds=0 --test

A row is a folder that `benchmarks.projectors` trained: <out>/<arm>. The SASRec is that of the last
row, for each seed. Shows HR@10 and NDCG@10 and their differences to the SASRec and to the first
row, and HR@10 by the number of training interactions of the target. Validation targets; --test:
test targets. Intervals are over users, of the mean of all seeds.
"""
import argparse
import pathlib

import numpy as np

from benchmarks import factors, projectors
from ilm_jax.evaluation import metrics, paired
from ilm_jax.stages.evals import common

SASREC = "SASRec"
EDGES = (0, 5, 10, 30)                # fewest training interactions of each group of targets
_FIGURES = {"HR@10": metrics.hit_rate, "NDCG@10": metrics.ndcg}


def ranks(args, split: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
  """(row -> [seeds, U] ranks; [U] training interactions of the users' targets)."""
  found = {str(row): np.array([np.load(row / str(seed) / "ranks.npz")[split]
                               for seed in args.seeds]) for row in args.rows}
  theirs, count_U = [], np.zeros(0)

  def score(run, examples, user_U):
    nonlocal count_U
    count_U = run.data.log.train_counts[common.item_rows(examples)]
    return factors.by_sasrec(
        run, [run.data.log.before_target(user, factors.PARTS[split]) for user in user_U])

  for seed in args.seeds:
    run, _ = projectors.trained_arm(args.rows[-1].parent, args.rows[-1].name, seed)
    theirs.append(projectors.rank(run, split, score))
  return found | {SASREC: np.array(theirs)}, count_U


def table(rank_SU: dict[str, np.ndarray]) -> str:
  """HR@10 and NDCG@10 of all rows, and differences, in Markdown."""
  bootstrap, first = paired.Bootstrap(2000, 0), next(iter(rank_SU))
  out = [f"| | {' | '.join(f'{name} | minus {SASREC} | minus {first}' for name in _FIGURES)} |",
         "|" + "---|" * (1 + 3 * len(_FIGURES))]
  for row, of_row in rank_SU.items():
    cells = []
    for value in _FIGURES.values():
      mean_U, sasrec_U, first_U = (value(x, 10).mean(axis=0)
                                   for x in (of_row, rank_SU[SASREC], rank_SU[first]))
      cells += [_cell(bootstrap.mean(mean_U)), _cell(bootstrap.mean(mean_U - sasrec_U), "+"),
                _cell(bootstrap.mean(mean_U - first_U), "+")]
    out.append(f"| {row} | {' | '.join(cells)} |")
  return "\n".join(out)


def by_count(rank_SU: dict[str, np.ndarray], count_U: np.ndarray) -> str:
  """HR@10 by the number of training interactions of the target, in Markdown."""
  group_U = np.searchsorted(EDGES, count_U, side="right") - 1
  groups = [group_U == g for g in range(len(EDGES))]
  titles = [f"from {edge} ({of.sum():,} targets)" for edge, of in zip(EDGES, groups)]
  out = [f"| training interactions | {' | '.join(titles)} |", "|" + "---|" * (1 + len(EDGES))]
  for row, of_row in rank_SU.items():
    hit_U = metrics.hit_rate(of_row, 10).mean(axis=0)
    shown = [f"{hit_U[of].mean():.4f}" if of.any() else "" for of in groups]
    out.append(f"| {row} | {' | '.join(shown)} |")
  return "\n".join(out)


def _cell(estimate: dict, sign: str = "") -> str:
  return f"{estimate['value']:{sign}.4f} [{estimate['lo']:{sign}.4f}, {estimate['hi']:{sign}.4f}]"


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--rows", required=True,
                      type=lambda text: [pathlib.Path(row) for row in text.split(",")])
  parser.add_argument("--seeds", type=lambda text: [int(s) for s in text.split(",")], default=[0])
  parser.add_argument("--test", action="store_true")
  args = parser.parse_args()
  rank_SU, count_U = ranks(args, "test" if args.test else "validation")
  print(table(rank_SU), by_count(rank_SU, count_U), sep="\n\n")


if __name__ == "__main__":
  main()
