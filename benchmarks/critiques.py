"""Measures directions of attributes: do they order films like raters, and do critiques help?

    python -m benchmarks.critiques --movielens=FOLDER --soft-attributes=FILE

--movielens: a folder with ratings.csv, movies.csv and tags.csv, e.g. ml-latest-small of 2018;
--soft-attributes: soft-attributes.csv. Prints tables in Markdown. Results and protocol:
docs/results/critiques.md.
"""
import argparse
import functools
import itertools
import json
import pathlib

import numpy as np

from benchmarks import conversations, critique_gamma, critique_guesses
from benchmarks.conversations import BOOTSTRAP, cell, header
from ilm_jax.baselines import popularity
from ilm_jax.cf import fold_in
from ilm_jax.conversation import attributes, directions
from ilm_jax.data import interactions, splits
from ilm_jax.evaluation import gamma, metrics, target_sets
from tasks.datasets import delimited, movielens_files

LEAST = 5                # least items per attribute
NEIGHBOURS = 20          # nearest films of the target; one of them is shown
WORDS = 4                # most critiques per user
FORMS = {"reg": (5.0, 20.0), "alpha": (2.0, 10.0)}
STEPS = {"ridge": (0.01, 0.1, 1.0), "unit": (False, True),
         "step": (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)}
BEFORE, AFTER, FILTER = "before", "after the critique", "labels as a filter"
OPPOSITE, DRAWN = "after its opposite", "after a critique drawn at random"
LIKES, BOTH = "the shown film liked", "the shown film liked, and the critique"


class Material(conversations.Material):
  """The log of likes with its factors, tags and sentence vectors."""
  least = LEAST

  def __init__(self, args):
    super().__init__()
    paths = {name: args.movielens / name for name in ("ratings.csv", "movies.csv")}
    users, items, times, ratings, films = movielens_files.read(paths)
    liked = [n for n, rating in enumerate(ratings) if rating >= conversations.LIKED]
    self.log, self.films = interactions.build(
        *([each[n] for n in liked] for each in (users, items, times, ratings)), films, 0)
    self.tags = [values for _, values in delimited.table(
        args.movielens / "tags.csv", ["userId", "movieId", "tag"])]
    self.train = interactions.train_histories(self.log)
    self.form = self._form(**self.chosen_form())

  def _form(self, reg: float, alpha: float) -> fold_in.Form:
    return self.factorised(self.train, len(self.films), reg, alpha)

  def chosen_form(self) -> dict:
    """The reg and alpha with the best HR@10 on the validation targets."""
    tried = []
    for values in itertools.product(*FORMS.values()):
      setting = dict(zip(FORMS, values))
      self.form = self._form(**setting)
      _, targets, before, user_NC = zip(*users_of(self, splits.VALID))
      rank_U = ranks_of(self, user_NC, targets, before)
      tried.append((metrics.hit_rate(rank_U, 10).mean(), setting))
      print(f"  iALS, HR@10 of validation: {tried[-1][0]:.4f} {setting}", flush=True)
    self.setting = max(tried, key=lambda each: each[0])[1]
    return self.setting

  @functools.cached_property
  def popular_I1(self) -> np.ndarray:
    return popularity.popularity(self.train, len(self.films))

  @property
  def met_I1(self) -> np.ndarray:
    """bool [I + 1]: items with a training interaction."""
    return self.popular_I1 > 0

  def vectors(self, unit: bool) -> np.ndarray:
    item_I1C = np.asarray(self.form.item_I1C, np.float64)
    length_I11 = np.linalg.norm(item_I1C, axis=1, keepdims=True)
    return item_I1C / np.where(length_I11 > 0, length_I11, 1) if unit else item_I1C

  @functools.cached_property
  def labels(self) -> dict[str, attributes.Labels]:
    return {**attributes.of_tags(self.films, [(raw, tag) for _, raw, tag in self.tags]),
            **self.genres, **attributes.of_years(self.films)}

  def ways(self, ridge: float, unit: bool) -> dict[str, np.ndarray]:
    return self.once(("ways", ridge, unit), lambda: directions.learn(
        self.form.item_I1C, self.labels, least=LEAST, ridge=ridge, unit=unit))

  def tags_of_row(self) -> dict[int, list[str]]:
    out: dict[int, list[str]] = {}
    for _, raw, tag in self.tags:
      out.setdefault(self.films.row_of[raw], []).append(tag)
    return out

  @functools.cached_property
  def taggers(self) -> dict[tuple[int, str], set[str]]:
    """(item row, tag) -> raw ids of the users who gave the tag."""
    out: dict[tuple[int, str], set[str]] = {}
    for user, raw, tag in self.tags:
      out.setdefault((self.films.row_of[raw], tag.strip().casefold()), set()).add(user)
    return out

  @functools.cached_property
  def genres(self) -> dict[str, attributes.Labels]:
    return attributes.of_genres(self.films)

  def kind(self, name: str) -> str:
    if name == attributes.NEW:
      return "year"
    return "genre" if name in self.genres else "tag"


def users_of(material: Material, part: int):
  """(user, target row, rows before it, folded-in vector) of each user whose target has a vector."""
  for user in range(material.log.num_users):
    span = material.log.of_user(user)
    at = np.flatnonzero(material.log.part_N[span] == part)
    if len(at) and material.met_I1[target := int(material.log.item_N[span][at[0]])]:
      before = material.log.before_target(user, part)
      yield user, target, before, material.form.users([before])[0]


def ranks_of(material, user_NC, targets, blocked, may=()) -> np.ndarray:
  """float64 [N]: the targets' ranks among items with training interactions.

  Args:
    material: the items.
    user_NC: user vectors.
    targets: each user's target row.
    blocked: each user's rows that are left out.
    may: for each user bool [I + 1], the items that may be ranked; (): all items.
  """
  score_NI = np.asarray(user_NC, np.float32) @ np.asarray(material.form.item_I1C, np.float32).T
  score_NI[:, ~material.met_I1] = -np.inf
  for score_I, rows in zip(score_NI, blocked):
    score_I[rows] = -np.inf
  for score_I, may_I1 in zip(score_NI, may):
    score_I[~may_I1] = -np.inf
  return metrics.ranks_from_scores(score_NI, np.array(targets))


def cases(material: Material, part: int, words=()) -> tuple[list[dict], int]:
  """(cases, number of users whose shown film differs from the target in no word).

  Args: `words`: attributes for critiques; (): all that have a direction.
  """
  leading = attributes.leading(material.labels, len(material.films))
  known = set(words or material.ways(1.0, False))
  unit_I1C, rng, out, wordless = material.vectors(True), np.random.default_rng(part), [], 0
  for user, target, before, user_C in users_of(material, part):
    like_I1 = unit_I1C @ unit_I1C[target]
    like_I1[[0, target, *before]] = -np.inf
    near = np.argsort(-like_I1, kind="stable")[:NEIGHBOURS]
    shown = int(near[np.argmax(material.form.item_I1C[near] @ user_C)])
    words = [(name, sign) for name, sign in leading.critiques(shown, target) if name in known
             and others_say(material, user, target if sign > 0 else shown, name)]
    wordless += not words
    for at in rng.permutation(len(words))[:WORDS]:
      name, sign = words[at]
      value_I1 = leading.value_AI1[leading.names.index(name)]
      than = value_I1[shown] if name == attributes.NEW else 0.5
      may_I1 = (value_I1 - than) * sign > 0 if name == attributes.NEW or sign > 0 else (
          ~(value_I1 > 0.5))
      out.append({"user": user, "target": target, "shown": shown, "before": before,
                  "user_C": user_C, "name": name, "sign": sign, "may_I1": may_I1})
  return out, wordless


def others_say(material, user: int, row: int, name: str) -> bool:
  """Whether another user gave the tag; true for genres and years, which users do not give."""
  if material.kind(name) != "tag":
    return True
  return bool(material.taggers.get((row, name), set()) - {material.log.user_ids[user]})


def ranks(material, every: list[dict], setting: dict, names=None) -> dict[str, np.ndarray]:
  """Row -> rank of each case's target. Args: `names`: rows to compute; None: all."""
  ways = material.ways(setting["ridge"], setting["unit"])
  rng, known = np.random.default_rng(0), sorted(ways)
  user_NC = np.stack([case["user_C"] for case in every])
  blocked = [np.r_[case["before"], case["shown"]] for case in every]
  move_NC = setting["step"] * np.stack([case["sign"] * ways[case["name"]] for case in every])
  drawn_NC = setting["step"] * np.stack([rng.choice([-1, 1]) * ways[rng.choice(known)]
                                         for _ in every])
  liking_NC = material.form.users(blocked)
  of_user_N1, of_liking_N1 = (directions.spread(material.form.item_I1C, vectors_NC)[:, None]
                              for vectors_NC in (user_NC, liking_NC))
  vectors = {BEFORE: user_NC, AFTER: user_NC + of_user_N1 * move_NC,
             OPPOSITE: user_NC - of_user_N1 * move_NC, DRAWN: user_NC + of_user_N1 * drawn_NC,
             FILTER: user_NC, LIKES: liking_NC, BOTH: liking_NC + of_liking_N1 * move_NC}
  targets, may = [case["target"] for case in every], [case["may_I1"] for case in every]
  return {name: ranks_of(material, vectors[name], targets, blocked, may if name == FILTER else ())
          for name in names or vectors}


def chosen_step(material) -> dict:
  """The setting with the best success@10 after critiques towards the validation targets."""
  every, _ = cases(material, splits.VALID)
  tried = []
  for values in itertools.product(*STEPS.values()):
    setting = dict(zip(STEPS, values))
    got = metrics.hit_rate(ranks(material, every, setting, (AFTER,))[AFTER], 10).mean()
    tried.append((got, setting))
    print(f"  critiques, success@10 of validation: {got:.4f} {setting}", flush=True)
  return max(tried, key=lambda each: each[0])[1]


def values(rank_N) -> dict[str, np.ndarray]:
  return {**{f"S@{k}": metrics.hit_rate(rank_N, k) for k in (1, 10, 50)},
          "MRR": metrics.reciprocal_rank(rank_N)}


def success_tables(material, setting: dict) -> str:
  every, wordless = cases(material, splits.TEST)
  user_N = np.array([case["user"] for case in every])
  kind_N = np.array([material.kind(case["name"]) for case in every])
  got = ranks(material, every, setting)
  out = [f"{len(every):,} critiques of {len(set(user_N))} users, {int(material.met_I1.sum()):,} "
         f"films ranked; {wordless} users without a word", "",
         *header(["row", *values(got[BEFORE]), "median rank", "target went up"])]
  for name, rank_N in got.items():
    shown = target_sets.estimates(BOOTSTRAP, values(rank_N), user_N)
    start_N = got[LIKES if name == BOTH else BEFORE]
    out.append(f"| {name} | " + " | ".join(map(cell, shown.values()))
               + f" | {np.median(rank_N):.0f} | {(rank_N < start_N).mean():.2f} |")
  out += ["", *header(["difference of S@10", "value"])]
  for name, other in [(AFTER, BEFORE), (OPPOSITE, BEFORE), (DRAWN, BEFORE), (FILTER, BEFORE),
                      (FILTER, AFTER), (BOTH, LIKES)]:
    out.append(f"| {name}, minus {other} | " + cell(_difference(got, name, other, user_N)) + " |")
  out += ["", *header(["kind", "critiques", BEFORE, AFTER, FILTER, "after, minus before"])]
  for kind in ("genre", "tag", "year"):
    of_N = kind_N == kind
    if of_N.any():
      some = {name: rank_N[of_N] for name, rank_N in got.items()}
      out.append(f"| {kind} | {of_N.sum()} | " + " | ".join(
          f"{metrics.hit_rate(some[name], 10).mean():.3f}" for name in (BEFORE, AFTER, FILTER))
          + f" | {cell(_difference(some, AFTER, BEFORE, user_N[of_N]))} |")
  return "\n".join(out)


def _difference(got, name, other, user_N) -> dict:
  difference_N = metrics.hit_rate(got[name], 10) - metrics.hit_rate(got[other], 10)
  return target_sets.estimates(BOOTSTRAP, {"S@10": difference_N}, user_N)["S@10"]


def gamma_tables(material, sortings) -> str:
  settings, counts = critique_gamma.measure(material, sortings)
  few = sorted(set.intersection(*map(set, counts.values())))
  text, out = critique_gamma.TEXT, []
  for names in (sortings.attributes, few):
    rater_pairs = sum(len(sortings.pairs(name, False)) for name in names)
    out += [f"{len(names)} attributes, {rater_pairs:,} pairs", "",
            *header(["row", "gamma", f"minus {text}"])]
    for row, of in counts.items():
      if set(names) <= set(of):
        both = critique_gamma.tables_of(names, of, counts[text])
        minus = "" if row == text else cell(gamma.difference(BOOTSTRAP, *both))
        out.append(f"| {row} | {cell(gamma.estimate(BOOTSTRAP, *both[0]))} | {minus} |")
    taught = critique_gamma.tables_of(names, *(counts[row] for row in (
        critique_gamma.FACTORS_TAUGHT, critique_gamma.TEXT_TAUGHT)))
    out += ["", f"{critique_gamma.FACTORS_TAUGHT}, minus {critique_gamma.TEXT_TAUGHT}: "
            f"{cell(gamma.difference(BOOTSTRAP, *taught))}", ""]
  out += [critique_guesses.agreement_table(material, sortings, counts), ""]
  out += [*header(["attribute", *counts]), *(
      f"| {name} | " + " | ".join(
          f"{of[name][0].sum() / of[name][1].sum():.2f}" if name in of else "" for of in
          counts.values()) + " |" for name in sortings.attributes)]
  names = material.ways(1.0, False)
  said = critique_gamma.meant(sortings, names)
  return "\n".join([*out, "", f"settings: {json.dumps(settings)}", f"{len(names)} attributes with "
                    f"{LEAST} items or more; read as one of them: {json.dumps(said)}"])


def main():
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--movielens", type=pathlib.Path, required=True)
  parser.add_argument("--soft-attributes", type=pathlib.Path, help="without it: only critiques")
  args = parser.parse_args()
  material = Material(args)
  print(f"iALS: {material.setting}")
  setting = chosen_step(material)
  print(f"critiques: {setting}\n\n{success_tables(material, setting)}\n", flush=True)
  if args.soft_attributes:
    sortings = critique_gamma.Sortings(args.soft_attributes, material.films, material.met_I1)
    print(f"{len(sortings.films)} films, {len(sortings.absent)} not in the catalogue", flush=True)
    print(gamma_tables(material, sortings))
    print(critique_guesses.success_table(material, sortings))


if __name__ == "__main__":
  main()
