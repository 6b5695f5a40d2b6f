"""Tests critiques on a run's item head: does a step move the target into the first ten?

    python -m benchmarks.head_critiques --run=FOLDER [--users=300]

Cases are those of benchmarks.critiques, with genres and years as words. Scores are the item head's,
raised by labels (`attributes.raised`) as in a conversation, or moved along directions
(`directions.moved`). The film shown is the one that the head ranks first among the target's nearest
films. Results and protocol: docs/results/critiques.md.
"""
import argparse
import itertools
import json
import pathlib

import numpy as np

from benchmarks import critiques, simulator
from benchmarks.conversations import BOOTSTRAP, cell, header
from ilm_jax.conversation import attributes, directions
from ilm_jax.conversation import session as s
from ilm_jax.data import splits
from ilm_jax.evaluation import metrics, target_sets

STEPS = {"ridge": (0.01, 0.1, 1.0), "step": (0.05, 0.1, 0.15, 0.25, 0.5, 0.75, 1.0)}
LABEL_STEPS = {"label_step": (0.25, 0.5, 1.0, 2.0, 4.0)}
BEFORE, AFTER, FILTER = critiques.BEFORE, critiques.AFTER, critiques.FILTER
ALONG = "along its direction"
OPPOSITE, DRAWN = critiques.OPPOSITE, critiques.DRAWN
SHUFFLED, SHUFFLED_AFTER = "the head's vectors shuffled", "the head's vectors shuffled, after it"
PAIRS = [(AFTER, BEFORE), (ALONG, BEFORE), (AFTER, ALONG), (OPPOSITE, BEFORE), (DRAWN, BEFORE),
         (FILTER, BEFORE), (FILTER, AFTER),
         (SHUFFLED, BEFORE), (SHUFFLED_AFTER, AFTER)]


def cases(material: simulator.Trained, part: int, count: int) -> list[dict]:
  """The cases: for each user up to `critiques.WORDS` words that lead from the film shown to the
  target, and the head's scores."""
  users, out = material.users(part, count), []
  scores = {False: material.scores([before for _, _, before in users])}
  if part == splits.TEST:
    scores[True] = material.scores([before for _, _, before in users], True)
  item_I1C = np.asarray(material.form.item_I1C, np.float64)
  unit_I1C = item_I1C / np.maximum(np.linalg.norm(item_I1C, axis=1, keepdims=True), 1e-9)
  rng = np.random.default_rng(part)
  for n, (user, target, before) in enumerate(users):
    like_I1 = unit_I1C @ unit_I1C[target]
    like_I1[[0, target, *before]] = -np.inf
    near = np.argsort(-like_I1, kind="stable")[:critiques.NEIGHBOURS]
    shown = int(near[np.argmax(scores[False][n][near])])
    words = material.known.critiques(shown, target)
    for at in rng.permutation(len(words))[:critiques.WORDS]:
      out.append({"user": user, "target": target, "blocked": [0, *before, shown],
                  "word": words[at], "may_I1": _may(material.known, shown, *words[at]),
                  "scores": {way: of[n] for way, of in scores.items()}})
  return out


def _may(known: attributes.Leading, shown: int, name: str, sign: int) -> np.ndarray:
  """bool [I + 1]: items that the labels allow, as in benchmarks.critiques."""
  value_I1 = known.value_AI1[known.names.index(name)]
  if name == attributes.NEW or sign > 0:
    return (value_I1 - (value_I1[shown] if name == attributes.NEW else 0.5)) * sign > 0
  return ~(value_I1 > 0.5)


def rank(case: dict, score_I1, may_I1=None) -> float:
  """The target's rank among items that are neither in the history nor shown."""
  score_I1 = np.array(score_I1, np.float32)
  score_I1[case["blocked"]] = -np.inf
  if may_I1 is not None:
    score_I1[~may_I1] = -np.inf
  return float(metrics.ranks_from_scores(score_I1[None], np.array([case["target"]]))[0])


def after(material, case: dict, setting: dict, word=None, shuffled: bool = False) -> float:
  """The target's rank after a critique (attribute, 1 or -1); None: the case's own critique.

  `setting`: label_step, or ridge and step.
  """
  shown, score_I1 = (material.films.ids[case["blocked"][-1] - 1],), case["scores"][shuffled]
  session = s.add_turn(s.Session(), s.Turn(s.RECOMMENDER, "Try this.", shown, s.RECOMMEND))
  session = s.critique(session, *(word or case["word"]))
  if "label_step" in setting:
    return rank(case, attributes.raised(score_I1, session, material.known, material.films.row_of,
                                        setting["label_step"]))
  return rank(case, directions.moved(
      score_I1, session, material.form.item_I1C, material.ways(setting["ridge"]),
      setting["step"]))


def ranks(material, every: list[dict], setting: dict, along: dict) -> dict[str, np.ndarray]:
  """Row -> [N] ranks of the targets. `setting`: by labels, `along`: of row `ALONG`."""
  rng, names = np.random.default_rng(0), material.known.names
  drawn = [(names[rng.integers(len(names))], int(rng.choice([-1, 1]))) for _ in every]
  got = {
      BEFORE: [rank(case, case["scores"][False]) for case in every],
      AFTER: [after(material, case, setting) for case in every],
      ALONG: [after(material, case, along) for case in every],
      OPPOSITE: [after(material, case, setting, (case["word"][0], -case["word"][1]))
                 for case in every],
      DRAWN: [after(material, *each) for each in
              zip(every, itertools.repeat(setting), drawn)],
      FILTER: [rank(case, case["scores"][False], case["may_I1"]) for case in every],
      SHUFFLED: [rank(case, case["scores"][True]) for case in every],
      SHUFFLED_AFTER: [after(material, case, setting, shuffled=True) for case in every]}
  return {name: np.array(of) for name, of in got.items()}


def chosen(material, every: list[dict], steps: dict) -> dict:
  """The setting of `steps` with the best success@10 after critiques towards the validation
  targets."""
  before_N = metrics.hit_rate(np.array([rank(case, case["scores"][False]) for case in every]), 10)
  print(f"  success@10 of validation: {before_N.mean():.4f} before")
  tried = []
  for values in itertools.product(*steps.values()):
    setting = dict(zip(steps, values))
    hit_N = metrics.hit_rate(np.array([after(material, case, setting) for case in every]), 10)
    tried.append((round(float(hit_N.mean()), 4), setting))
    print(f"  success@10 of validation: {tried[-1][0]:.4f} {setting}", flush=True)
  return max(tried, key=lambda each: each[0])[1]


def tables(got: dict, every: list[dict]) -> str:
  user_N = np.array([case["user"] for case in every])
  kind_N = np.array(["year" if case["word"][0] == attributes.NEW else "genre" for case in every])
  out = [f"{len(every):,} critiques of {len(set(user_N))} users", "",
         *header(["row", *critiques.values(got[BEFORE]), "median rank"])]
  for name, rank_N in got.items():
    shown = target_sets.estimates(BOOTSTRAP, critiques.values(rank_N), user_N)
    out.append(f"| {name} | " + " | ".join(map(cell, shown.values()))
               + f" | {np.median(rank_N):.0f} |")

  def apart(one, other, of_N=slice(None)):
    hits = [metrics.hit_rate(got[name][of_N], 10) for name in (one, other)]
    return cell(target_sets.estimates(
        BOOTSTRAP, {"S@10": hits[0] - hits[1]}, user_N[of_N])["S@10"])

  out += ["", *header(["difference of S@10", "value"])]
  out += [f"| {one}, minus {other} | {apart(one, other)} |" for one, other in PAIRS]
  out += ["", *header(["kind", "critiques", BEFORE, AFTER, FILTER, "after, minus before"])]
  for kind in ("genre", "year"):
    of_N = np.flatnonzero(kind_N == kind)
    means = [f"{metrics.hit_rate(got[name][of_N], 10).mean():.3f}"
             for name in (BEFORE, AFTER, FILTER)]
    out.append(f"| {kind} | {len(of_N)} | {' | '.join(means)} | {apart(AFTER, BEFORE, of_N)} |")
  return "\n".join(out)


def main():
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--run", type=pathlib.Path, required=True)
  parser.add_argument("--users", type=int, default=300, help="users of each part; 0: all")
  parser.add_argument("--model", default="ilm")
  args = parser.parse_args()
  material = simulator.Trained(args.run, args.model)
  every = cases(material, splits.VALID, args.users)
  setting, along = (chosen(material, every, steps) for steps in (LABEL_STEPS, STEPS))
  every = cases(material, splits.TEST, args.users)
  print(f"critiques: {json.dumps(setting)}, along directions: {json.dumps(along)}\n\n"
        f"{tables(ranks(material, every, setting, along), every)}")


if __name__ == "__main__":
  main()
