"""Ask or recommend? Compares a learned policy with a fixed rule on acts labelled by people.

    python -m benchmarks.act_labels --iard=umap2020_IARD_Cai.json

IARD (Cai and Chen, UMAP 2020): 336 dialogs of ReDial whose recommenders' acts are labelled. A turn
counts if the recommender either asks (Request, not Recommend) or recommends (not Request). The rule
asks until the seeker has named a film, like `conversation.policy` without questions. The model is a
logistic regression on features known before the turn, cross-validated over ten folds of dialogs.
Results: docs/results/conversations.md.
"""
import argparse
import json
import pathlib
import re
from typing import NamedTuple

import numpy as np

from benchmarks.conversations import BOOTSTRAP, cell, header
from ilm_jax.evaluation import target_sets

FOLDS, PENALTY = 10, 1.0
_FILM = re.compile(r"@\d+")
_ACT = "top-level intent/action"
FEATURES = ("films named", "any film named", "films in the last words", "questions put",
            "lists shown", "turn", "words of the last turn", "asks in the last turn")


class Turns(NamedTuple):
  """The turns that count: features [N, F], whether the recommender asks, number of the dialog."""
  x_NF: np.ndarray
  asks_N: np.ndarray
  dialog_N: np.ndarray


def read(dialogs: dict) -> Turns:
  """The turns of IARD's JSON."""
  rows = []
  for number, dialog in enumerate(dialogs.values()):
    films, asked, shown, last = 0, 0, 0, ""
    for at, turn in enumerate(dialog["dialogue_info"].values()):
      if turn["role"] == "seeker":
        last = turn["utterance_text"]
        films += len(_FILM.findall(last))
        continue
      acts = set(turn[_ACT])
      asks, recommends = "Request" in acts, "Recommend" in acts
      if asks != recommends:
        rows.append((number, asks, films, films > 0, len(_FILM.findall(last)), asked, shown, at,
                     len(last.split()), "?" in last))
      asked, shown = asked + asks, shown + recommends
  table = np.array(rows, float)
  return Turns(table[:, 2:], table[:, 1] > 0, table[:, 0].astype(int))


def fitted(x_NF, y_N, steps: int = 30) -> np.ndarray:
  """float [F + 1]: weights of a ridge logistic regression by Newton's method, the constant last."""
  x_NG = np.c_[x_NF, np.ones(len(x_NF))]
  penalty_G = np.r_[np.full(x_NF.shape[1], PENALTY), 1e-9]
  weight_G = np.zeros(x_NG.shape[1])
  for _ in range(steps):
    p_N = 1 / (1 + np.exp(-x_NG @ weight_G))
    slope_G = x_NG.T @ (p_N - y_N) + penalty_G * weight_G
    curve_GG = (x_NG * (p_N * (1 - p_N))[:, None]).T @ x_NG + np.diag(penalty_G)
    weight_G -= np.linalg.solve(curve_GG, slope_G)
  return weight_G


def held_out(turns: Turns) -> np.ndarray:
  """bool [N]: predictions of a model that was fitted on other dialogs."""
  x_NF = np.log1p(turns.x_NF)
  spread_F = x_NF.std(axis=0)
  x_NF = (x_NF - x_NF.mean(axis=0)) / np.where(spread_F > 0, spread_F, 1)
  fold_D = np.random.default_rng(0).permutation(turns.dialog_N.max() + 1) % FOLDS
  says_N = np.zeros(len(x_NF), bool)
  for fold in range(FOLDS):
    of_N = fold_D[turns.dialog_N] == fold
    weight_G = fitted(x_NF[~of_N], turns.asks_N[~of_N])
    says_N[of_N] = np.c_[x_NF[of_N], np.ones(of_N.sum())] @ weight_G > 0
  return says_N


def table(turns: Turns) -> str:
  """The share of turns in which each policy acts like the person."""
  rule_N, learned_N = turns.x_NF[:, 1] == 0, held_out(turns)
  rows = {"always recommend": ~turns.asks_N, "the rule": rule_N == turns.asks_N,
          "logistic regression": learned_N == turns.asks_N}
  out = []
  for name, of_N in (("all turns", np.ones(len(rule_N), bool)), ("a film was named", ~rule_N)):
    out += [f"{name}: {of_N.sum()} turns of {len(set(turns.dialog_N[of_N]))} dialogs, "
            f"{turns.asks_N[of_N].mean():.3f} of them ask", "",
            *header(["row", "does as the person", "minus the rule"])]
    for row, right_N in rows.items():
      shown = target_sets.estimates(BOOTSTRAP, {
          "right": right_N[of_N].astype(float),
          "more": right_N[of_N].astype(float) - rows["the rule"][of_N]}, turns.dialog_N[of_N])
      out.append(f"| {row} | {cell(shown['right'])} | {cell(shown['more'])} |")
    out.append("")
  return "\n".join(out)


def main():
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--iard", type=pathlib.Path, required=True)
  args = parser.parse_args()
  turns = read(json.loads(args.iard.read_text()))
  print(table(turns))
  x_NF = np.log1p(turns.x_NF)
  weight_G = fitted((x_NF - x_NF.mean(axis=0)) / x_NF.std(axis=0), turns.asks_N)
  print(dict(zip(FEATURES, weight_G.round(2).tolist())))


if __name__ == "__main__":
  main()
