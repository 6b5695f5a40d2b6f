"""Ranks films in ReDial's test dialogs, by methods without training and by a run; prints Markdown.

    python -m benchmarks.redial --redial=FOLDER --movielens=FOLDER --out=redial.json

--redial: a folder with valid.jsonl and test.jsonl (layouts: see `conversation.redial`).
--movielens: a folder with ratings.csv and movies.csv, e.g. ml-latest-small of 2018. Instances and
targets come from `conversation.instances`: once with consecutive messages of one side joined into a
turn, once message by message. The films of both data sets are ranked. "Fresh" ranks leave out the
films named before.

Settings are chosen on the validation dialogs by fresh R@10. --run adds ILM, which learns from all
of them: choose its weight of --factors on a folder whose valid.jsonl and test.jsonl are parts of
the validation dialogs (docs/results/redial.md).
"""
import argparse
import functools
import itertools
import json
import pathlib
import time

import numpy as np

from benchmarks import conversations, redial_run, redial_tables
from benchmarks.redial_tables import COPY
from ilm_jax.baselines import neighbours, popularity
from ilm_jax.cf import cooccurrence, fold_in
from ilm_jax.conversation import dialogs, instances, redial, session
from ilm_jax.data import interactions
from ilm_jax.evaluation import metrics, target_sets
from tasks.datasets import movielens_files

SIDES = {"seeker": (session.USER,), "both": session.ROLES}     # sides whose films count as liked
REFERENCE = "popularity, validation dialogs"
BOTH, DIALOGS = "fold-in, MovieLens and validation dialogs", "item-kNN, validation dialogs"
SPACES = {
    "fold-in": {"side": tuple(SIDES), "reg": (5.0, 20.0), "alpha": (2.0, 10.0)},
    BOTH: {"side": ("both",), "reg": (20.0,), "alpha": (2.0, 10.0), "dialogs": (1, 5, 20)},
    DIALOGS: {"side": ("both",), "neighbours": (50, 200), "shrinkage": (10.0, 50.0)},
    "item-kNN, MovieLens": {"side": tuple(SIDES), "neighbours": (50, 200),
                            "shrinkage": (10.0, 50.0)},
}
FIXED = {"text": {"words": 20}}
HALVES = 2               # of the validation dialogs: rows learn from one and rank the other
TOGETHER = 128           # instances per batch


class Material(conversations.Material):
  """The data of the rows: the catalogue, the log, the dialogs of a part."""

  def __init__(self, args):
    super().__init__()
    paths = {name: args.movielens / name for name in ("ratings.csv", "movies.csv")}
    users, items, _, ratings, films = movielens_files.read(paths)
    self.talks = {part: redial.read(args.redial, part) for part in ("valid", "test")}
    self.films, self.row_of = redial.catalogue([*self.talks["valid"], *self.talks["test"]], films)
    by_user: dict[str, list[int]] = {}
    for user, item, rating in zip(users, items, ratings):
      if rating >= conversations.LIKED:
        by_user.setdefault(user, []).append(self.films.row_of[item])
    self.log = [np.array(rows) for rows in by_user.values()]
    self.named = [self.rows(dict.fromkeys(item for turn in talk.turns for item in turn.items))
                  for talk in self.talks["valid"]]

  def rows(self, film_ids) -> np.ndarray:
    """Item rows of ReDial films, each once."""
    return np.array(list(dict.fromkeys(self.row_of[raw] for raw in film_ids)), np.int64)

  def turns(self, part: str, joined: bool) -> list[redial.Talk]:
    """The dialogs of a part."""
    return self.once((part, joined), lambda: [
        dialogs.joined(talk) if joined else talk for talk in self.talks[part]])

  def liked(self, turns, side: str) -> np.ndarray:
    """Item rows of the films that a side has named: in ReDial's chats mostly what it likes."""
    return self.rows(item for turn in turns if turn.role in SIDES[side] for item in turn.items)

  @functools.cached_property
  def popular_I1(self) -> np.ndarray:
    """float32 [I + 1]: number of MovieLens users who like each film."""
    return popularity.popularity(self.log, len(self.films))

  @functools.cached_property
  def discussed_I1(self) -> np.ndarray:
    """float32 [I + 1]: number of validation dialogs that name each film."""
    return popularity.popularity(self.named, len(self.films))

  def learned(self, without: int | None) -> list[np.ndarray]:
    """Item rows that each validation dialog names, without the dialogs of half `without`."""
    return [rows for n, rows in enumerate(self.named) if without is None or n % HALVES != without]

  def behind(self, score_NI, popular_I1) -> np.ndarray:
    """Scores in which popularity breaks ties, e.g. for films or contexts unknown to the row."""
    return score_NI + 1e-6 * np.maximum(popular_I1, 0) / popular_I1.max()

  def form(self, reg: float, alpha: float, dialogs: int = 0, without: int | None = None
           ) -> fold_in.Form:
    """Factors of films by who likes them on MovieLens and, `dialogs` times each, in dialogs."""
    more = self.learned(without) * dialogs
    return self.factorised([*self.log, *more], len(self.films), reg, alpha, (dialogs, without))

  def near(self, histories: str, neighbours: int, shrinkage: float, without: int | None):
    """[I, I] similar films by MovieLens, or by the validation dialogs."""
    return self.once((histories, neighbours, shrinkage, without), lambda: cooccurrence.nearest(
        self.log if histories == "log" else self.learned(without), len(self.films), neighbours,
        shrinkage))

  @functools.cached_property
  def item_text_I1W(self) -> np.ndarray:
    texts = [interactions.item_text(self.films, row + 1) for row in range(len(self.films))]
    return np.concatenate([np.zeros((1, 384), np.float32), self.encoder(texts)])


# Rows: (material, turns and films of N contexts, setting) -> scores [N, I + 1].

def by_popularity(material, contexts, films, setting):
  return np.repeat(material.popular_I1[None], len(contexts), axis=0)


def by_discussion(material, contexts, films, setting):
  return np.repeat(material.behind(material.discussed_I1, material.popular_I1)[None],
                   len(contexts), axis=0)


def by_fold_in(material, contexts, films, setting):
  form = material.form(setting["reg"], setting["alpha"], setting.get("dialogs", 0),
                       setting.get("without"))
  user_NC = form.users([material.liked(turns, setting["side"]) for turns in contexts])
  score_NI = popularity.factors(user_NC, form.item_I1C)
  score_NI[:, ~np.any(form.item_I1C, axis=1)] = -1.0       # films without likes
  return material.behind(score_NI, material.popular_I1)


def by_neighbours(material, contexts, films, setting, histories="log"):
  near_II = material.near(histories, setting["neighbours"], setting["shrinkage"],
                          setting.get("without"))
  has_NI = cooccurrence.incidence([material.liked(turns, setting["side"]) for turns in contexts],
                                  len(material.films))
  score_NI = neighbours.with_padding((has_NI @ near_II.T).toarray())
  popular = material.popular_I1 if histories == "log" else popularity.popularity(
      material.learned(setting.get("without")), len(material.films))
  return material.behind(score_NI, popular)


def by_text(material, contexts, films, setting):
  texts = [" ".join(redial.worded(" ".join(turn.text for turn in turns), names).split()
                    [-setting["words"]:]) for turns, names in zip(contexts, films)]
  return material.encoded(texts) @ material.item_text_I1W.T


ROWS = {
    "popularity, MovieLens": by_popularity, REFERENCE: by_discussion, "fold-in": by_fold_in,
    BOTH: by_fold_in, "item-kNN, MovieLens": by_neighbours,
    DIALOGS: functools.partial(by_neighbours, histories="dialogs"),
    "text": by_text}


def ranked(material: Material, name: str, setting: dict, part: str, joined: bool, fresh: bool
           ) -> tuple[list[np.ndarray], np.ndarray]:
  """(ranks of each instance's targets, the dialog of each instance).

  A row that learns from the validation dialogs ranks each half of them after learning from the
  other half.
  """
  talks = material.turns(part, joined)
  every = instances.instances(talks, fresh=fresh)
  if part == "valid" and name in (BOTH, DIALOGS) and "without" not in setting:
    halves = [ranked(material, name, setting | {"without": half}, part, joined, fresh)
              for half in range(HALVES)]
    mine = [(ranks, dialog) for half, (all_ranks, of_dialog) in enumerate(halves)
            for ranks, dialog in zip(all_ranks, of_dialog) if dialog % HALVES == half]
    return [ranks for ranks, _ in mine], np.array([dialog for _, dialog in mine])
  of_dialog = np.array([each.dialog for each in every])
  if name == COPY:
    return [np.array(ranks) for ranks in instances.copied(every)], of_dialog
  ranks = []
  for at in range(0, len(every), TOGETHER):
    some = every[at:at + TOGETHER]
    score_NI = np.array(ROWS[name](
        material, [talks[each.dialog].turns[:each.at] for each in some],
        [talks[each.dialog].films for each in some], setting))
    score_NI[:, 0] = -np.inf
    if fresh:
      for score_I, each in zip(score_NI, some):
        score_I[material.rows(each.named)] = -np.inf
    targets = [[material.row_of[raw] for raw in each.targets] for each in some]
    for score_I, rows in zip(score_NI, targets):
      ranks.append(metrics.ranks_from_scores(np.repeat(score_I[None], len(rows), 0), rows))
  return ranks, of_dialog


def chosen(material: Material, name: str) -> dict:
  """The setting with the best fresh R@10 on the validation dialogs."""
  space = SPACES.get(name)
  if space is None:
    return FIXED.get(name, {})
  tried = []
  for values in itertools.product(*space.values()):
    setting = dict(zip(space, values))
    ranks, _ = ranked(material, name, setting, "valid", True, True)
    tried.append((float(target_sets.recall(ranks, 10).mean()), setting))
    print(f"  {name}: {tried[-1][0]:.4f} {setting}", flush=True)
  return max(tried, key=lambda each: each[0])[1]


def measure(material: Material, names) -> list[dict]:
  """A row for each name, turns or messages, all or fresh."""
  rows = []
  for name in names:
    start, setting = time.perf_counter(), chosen(material, name)
    for joined, fresh in itertools.product((True, False), (False, True)):
      rows.append(redial_tables.measured(
          name, setting, *ranked(material, name, setting, "test", joined, fresh),
          by="turns" if joined else "messages", targets="fresh" if fresh else "all"))
    print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
  return rows


def main():
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--redial", type=pathlib.Path, required=True)
  parser.add_argument("--movielens", type=pathlib.Path, required=True)
  parser.add_argument("--rows", nargs="*", default=(COPY, *ROWS), choices=(COPY, *ROWS))
  parser.add_argument("--run", type=pathlib.Path, nargs="+", default=[], help="workdirs of a "
                      "config with task redial_recommend, trained on this folder of ReDial with "
                      "several seeds: rows are their means")
  parser.add_argument("--factors", type=float, nargs="+", default=[], help="with --run: also a row "
                      "for each weight of the factorisation's scores (phase2.head.factors)")
  parser.add_argument("--prompts", action="store_true", help="with --run: also rows with vectors "
                      "shuffled, without vectors and without words")
  parser.add_argument("--out", type=pathlib.Path, help="JSON file")
  args = parser.parse_args()
  material = Material(args)
  print(f"{len(material.films):,} films ranked")
  rows = measure(material, args.rows) + (redial_run.rows(
      args.run, material.talks, args.factors, args.prompts) if args.run else [])
  print(redial_tables.table(rows, (REFERENCE, BOTH, redial_run.ILM, redial_run.FOLDED)))
  if args.out:
    args.out.write_text(json.dumps([{name: value for name, value in row.items()
                                     if name not in ("values", "dialogs")} for row in rows]))


if __name__ == "__main__":
  main()
