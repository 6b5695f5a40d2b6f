"""Ranks for users folded in, beside their trained rows of the factorisation; prints Markdown.

    python -m benchmarks.folded --run=FOLDER

iALS alone ranks the catalogue for each user with a test target, without the user's history. A user
is the trained row; the half step from the same training history; or the half step from the whole
history before the target, as in `--stage=recommend --user=..`. Results: docs/results/quickstart.md.
"""
import argparse
import pathlib

import numpy as np

from benchmarks.conversations import BOOTSTRAP, cell, header
from ilm_jax.baselines import popularity
from ilm_jax.cf import fold_in
from ilm_jax.config import reading
from ilm_jax.data import interactions
from ilm_jax.evaluation import metrics
from ilm_jax.stages import context, vectors

TRAINED = "trained rows"


def ranks(log: interactions.Interactions, user_UC, item_I1C, reg: float, alpha: float
          ) -> dict[str, np.ndarray]:
  """How users are made -> [U] ranks of their test targets, among items outside the history.

  Args:
    log: users without a test target are left out.
    user_UC, item_I1C: iALS' factors of all users, and of items by row.
    reg, alpha: of iALS.
  """
  form, trained = fold_in.Form(item_I1C, reg, alpha), interactions.train_histories(log)
  users = log.user_N[log.split.test]
  before = [log.before_target(user) for user in users]
  blocked_UI = np.zeros((len(users), log.num_items + 1), bool)
  for blocked_I, history in zip(blocked_UI, before):
    blocked_I[history] = True
  made = {TRAINED: user_UC[users],
          "folded in from the training history": form.users([trained[user] for user in users]),
          "folded in from the whole history before the target": form.users(before)}
  return {name: metrics.ranks_from_scores(
      popularity.factors(row_UC, item_I1C), log.item_N[log.split.test], blocked_UI)
      for name, row_UC in made.items()}


def main():
  parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
  parser.add_argument("--run", type=pathlib.Path, required=True, help="after stage cf")
  args = parser.parse_args()
  run = context.Run(reading.load(f"configs/recorded.py:{args.run}/config.cf.json"), args.run)
  c = run.config.cf
  rank_of = ranks(run.data.log, *vectors.factors(run), c.reg, c.alpha)
  hits = {name: metrics.hit_rate(rank_U, 10) for name, rank_U in rank_of.items()}
  print("\n".join(header(["users", "HR@10", "minus trained rows, paired"])))
  for name, hit_U in hits.items():
    print(f"| {name} | {cell(BOOTSTRAP.mean(hit_U))} | "
          f"{'' if name == TRAINED else cell(BOOTSTRAP.mean(hit_U - hits[TRAINED]))} |")
  print(f"\n{len(hits[TRAINED])} users.")


if __name__ == "__main__":
  main()
