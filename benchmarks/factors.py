"""What the scores of another model add to those of item heads.

    python -m benchmarks.factors --out=runs/projectors --arms=mlp,ilm,sasrec --seeds=0,1,2 --test
    python -m benchmarks.factors --out=runs/projectors --arms=mlp,ilm --add=sasrec --test

Nothing is trained. Arms that `benchmarks.projectors` has trained in --out rank with several
weights; the arm "sasrec" is the SASRec that taught them or gave vectors. Added are the scores of
the factorisation, as `phase2.head.factors` does, or those of this SASRec; with weight 1 they have
the standard deviation of the arm's own. For each arm the weight with the best HR@10 on the
validation targets, mean of the seeds, is chosen; --test shows the test targets with weight 0 and
with that one. Intervals are over users, of the mean of all seeds.
"""
import argparse
import functools
import pathlib

import numpy as np

from benchmarks import projectors
from ilm_jax.baselines import sasrec
from ilm_jax.data import splits
from ilm_jax.evaluation import metrics, paired
from ilm_jax.stages import factor_scores, sequence_model

WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
SASREC, IALS = "sasrec", "ials"
PARTS = {"validation": splits.VALID, "test": splits.TEST}


def measure(args, name: str, seed: int, split: str) -> np.ndarray:
  """[weights, U]: ranks of the targets of a split."""
  run, variant = projectors.trained_arm(
      args.out, args.arms[0] if name == SASREC else name, seed)
  found = {}

  def score(run, examples, user_U, weight: float):
    if not found:
      histories = [run.data.log.before_target(user, PARTS[split]) for user in user_U]
      found["own"] = (projectors.by_head(run, examples, user_U, variant) if name != SASREC
                      else by_sasrec(run, histories))
      found["added"] = (
          _as_wide(by_sasrec(run, histories), found["own"]) if args.add == SASREC
          else factor_scores.FactorScores(run, 1.0).scores(histories, found["own"]))
    return found["own"] + weight * found["added"]

  return np.array([projectors.rank(run, split, functools.partial(score, weight=weight))
                   for weight in WEIGHTS])


def _as_wide(score_UI1, own_UI1) -> np.ndarray:
  """The scores, each user's with the standard deviation of its own; 0 for row 0, no item."""
  deviation_U, own_U = (x[:, 1:].std(axis=1) for x in (score_UI1, own_UI1))
  score_UI1 = score_UI1 * (own_U / deviation_U)[:, None]
  score_UI1[:, 0] = 0.0
  return score_UI1


def by_sasrec(run, histories) -> np.ndarray:
  """[U, I + 1]: scores of the run's SASRec; -inf in row 0."""
  params, config = sequence_model.load(run)[0], sequence_model.config(run)
  return np.concatenate(list(sasrec.scores(params, config, histories)))


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--out", type=pathlib.Path, required=True)
  parser.add_argument("--arms", type=lambda text: text.split(","), required=True,
                      help=f"trained arms; behind the first also {SASREC}")
  parser.add_argument("--seeds", type=lambda text: [int(s) for s in text.split(",")], default=[0])
  parser.add_argument("--add", choices=(IALS, SASREC), default=IALS, help="whose scores are added")
  parser.add_argument("--test", action="store_true")
  args = parser.parse_args()
  if args.arms[0] == SASREC:
    parser.error(f"--arms begins with {SASREC}: name first an arm that it has taught")
  hits = {(name, split): np.mean(
              [metrics.hit_rate(measure(args, name, seed, split), 10) for seed in args.seeds], 0)
          for name in args.arms for split in (("validation", "test") if args.test else
                                              ("validation",))}
  print("| validation HR@10, weight | " + " | ".join(f"{w:g}" for w in WEIGHTS) + " |")
  print("|" + "---|" * (len(WEIGHTS) + 1))
  for name in args.arms:
    print(f"| {name} | " + " | ".join(f"{of_U.mean():.4f}" for of_U in hits[name, "validation"])
          + " |")
  if args.test:
    bootstrap = paired.Bootstrap(2000, 0)
    print("\n| arm | test HR@10, weight 0 | chosen weight | test HR@10 | gain |")
    print("|" + "---|" * 5)
    for name in args.arms:
      best = int(np.argmax(hits[name, "validation"].mean(axis=1)))
      without_U, with_U = hits[name, "test"][0], hits[name, "test"][best]
      print(f"| {name} | {_cell(bootstrap.mean(without_U))} | {WEIGHTS[best]:g} "
            f"| {_cell(bootstrap.mean(with_U))} | {_cell(bootstrap.mean(with_U - without_U))} |")


def _cell(estimate: dict) -> str:
  return f"{estimate['value']:.4f} [{estimate['lo']:.3f}, {estimate['hi']:.3f}]"


if __name__ == "__main__":
  main()
