"""Simulates conversations on a trained run: is the target shown, and after how many turns?

    python -m benchmarks.simulator --run=FOLDER [--users=300]

A simulated user is a user of the log. It is either new and names its last films before the target,
or known by its whole history. It answers questions, and says how the first film shown differs from
the target, by genre and year alone (`conversation.simulator`); `conversation.heard` reads its
answers. The policy's settings are chosen on validation targets; the tables are on test targets.
Results and protocol: docs/results/critiques.md.
"""
import argparse
import functools
import itertools
import pathlib
from typing import NamedTuple

import numpy as np

from benchmarks import controls, conversations
from benchmarks.conversations import BOOTSTRAP, cell, header
from configs import base
from ilm_jax.cf import fold_in
from ilm_jax.config import reading, variants
from ilm_jax.conversation import attributes, directions, heard, policy, simulator
from ilm_jax.conversation import session as s
from ilm_jax.conversation import titles as titles_lib
from ilm_jax.data import splits
from ilm_jax.evaluation import target_sets
from ilm_jax.stages import context, recommender, vectors

TURNS, SHOWN, NAMED = 5, 5, 3        # turns of the recommender; films per turn; films named first
LEAST, RIDGE = 5, 0.1                # arguments of `directions.learn`
SPACE = {"entropy": (0.0, 0.5), "questions": (1, 2, 3), "hard": (False, True)}   # see `chosen`
STEPS = {"step": (0.0, 0.25, 0.5, 1.0), "label_step": (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)}


class Row(NamedTuple):
  """What the recommender and the user do."""
  asks: str = ""               # "": never; "policy", "random"
  critiques: bool = True
  lies: bool = False           # answers and critiques are reversed
  vectors: str = ""            # "shuffled": shuffle the vectors that the head reads;
                               # "directions": shuffle the labels of the attributes' directions


ROWS = {
    "no questions, no critiques": Row(critiques=False),
    "no questions": Row(),
    "policy, no critiques": Row("policy", critiques=False),
    "policy": Row("policy"),
    "random questions": Row("random"),
    "policy, answers and critiques turned round": Row("policy", lies=True),
    "policy, directions shuffled": Row("policy", vectors="directions"),
    "policy, the head's vectors shuffled": Row("policy", vectors="shuffled"),
}
PAIRS = [("no questions", "no questions, no critiques"), ("policy", "no questions"),
         ("policy", "random questions"), ("policy, no critiques", "no questions, no critiques"),
         ("policy", "policy, answers and critiques turned round"),
         ("policy", "policy, directions shuffled"),
         ("policy", "policy, the head's vectors shuffled")]


class Trained(conversations.Material):
  """A finished run: its log, the scores of its head, labels and directions of its factors."""

  def __init__(self, folder: pathlib.Path, model: str = "ilm"):
    super().__init__()
    config = base.get_config()       # gives fields that are newer than the run
    config.update(reading.from_json((folder / "config.phase2.json").read_text()))
    self.run, self.model = context.Run(config, folder), model
    self.log, self.films, _ = self.run.data
    self.titles = titles_lib.Titles(self.films)
    self.titles.row = functools.cache(self.titles.row)     # the same films are named repeatedly
    self.form = fold_in.Form(vectors.factors(self.run)[1], config.cf.reg, config.cf.alpha)
    self.labels = {**attributes.of_genres(self.films), **attributes.of_years(self.films)}
    ways = self.ways(RIDGE, False)
    self.known = attributes.leading({name: self.labels[name] for name in ways}, len(self.films))

  def ways(self, ridge: float, unit: bool = False) -> dict[str, np.ndarray]:
    return self.once(("ways", ridge, unit), lambda: directions.learn(
        self.form.item_I1C, self.labels, least=LEAST, ridge=ridge, unit=unit))

  @functools.cached_property
  def dealt(self) -> tuple[dict[str, np.ndarray], attributes.Leading]:
    """(directions, labels) of critiques, where each film has the labels of another one."""
    to_I1 = np.r_[0, 1 + np.random.default_rng(0).permutation(len(self.films))]
    labels = {name: attributes.Labels(to_I1[row_N], value_N)
              for name, (row_N, value_N) in self.labels.items()}
    ways = directions.learn(self.form.item_I1C, labels, least=LEAST, ridge=RIDGE)
    return ways, attributes.leading({name: labels[name] for name in ways}, len(self.films))

  def recommender(self, shuffled: bool) -> recommender.Recommender:
    def make():
      made = recommender.Recommender(self.run, variants.named(self.run.config, self.model))
      if shuffled:
        speaker = made.speaker       # it computes its items from these entities at the first call
        speaker.entities = controls.dealt(speaker.entities, self.log.num_items, 0)
      return made
    return self.once(("recommender", shuffled), make)

  def scores(self, histories, shuffled: bool = False) -> np.ndarray:
    """float32 [N, I + 1] by the item head."""
    asked = self.recommender(shuffled)
    return np.concatenate([np.asarray(asked.scores(histories[at:at + asked.together]), np.float32)
                           for at in range(0, len(histories), asked.together)])

  def users(self, part: int, count: int) -> list[tuple[int, int, np.ndarray]]:
    """(user, target row, rows before it) of `count` drawn users; 0: of all users."""
    every = []
    for user in range(self.log.num_users):
      span = self.log.of_user(user)
      at = np.flatnonzero(self.log.part_N[span] == part)
      if len(at) and at[0]:
        every.append((user, int(self.log.item_N[span][at[0]]),
                      self.log.before_target(user, part)))
    order = np.random.default_rng(1).permutation(len(every))[:count or None]
    return [every[n] for n in sorted(order)]


class People(NamedTuple):
  """Simulated users of a part, at the start of their conversations."""
  cases: list[tuple[int, int, np.ndarray]]
  sessions: list[s.Session]
  scores: dict[bool, np.ndarray]      # by whether the head's vectors are shuffled


def people(material: Trained, part: int, count: int, named: int, shuffled: bool) -> People:
  """Users who name their last `named` films; 0: the whole history is known."""
  cases, sessions = material.users(part, count), []
  for _, _, before in cases:
    session = s.Session()
    if named:
      text = simulator.opening(material.films, before[-named:])
      session, _ = heard.told(session, text, items=material.films, titles=material.titles,
                              names=set(material.known.names))
    if not session.liked:
      for row in before[-named:]:
        session = s.like(session, material.films.ids[row - 1])
    sessions.append(session)
  histories = [np.array([material.films.row_of[raw] for raw in session.liked], np.int32)
               for session in sessions]
  ways = (False, True) if shuffled else (False,)
  return People(cases, sessions, {way: material.scores(histories, way) for way in ways})


def converse(material: Trained, row: Row, rule: policy.Policy, steps: dict[str, float],
             session: s.Session, score_I1, target: int, seed: int) -> tuple[float, s.Session]:
  """(the turn in which the target is shown, infinite if never; the session)."""
  rng = np.random.default_rng(seed)
  user = simulator.Simulator(material.known, target, row.critiques, row.lies)
  ways, known = (material.dealt if row.vectors == "directions" else
                 (material.ways(RIDGE), material.known))
  names, shown = set(material.known.names), []
  for turn in range(1, TURNS + 1):
    moved_I1 = directions.moved(score_I1, session, material.form.item_I1C, ways, steps["step"])
    moved_I1 = attributes.raised(moved_I1, session, known, material.films.row_of,
                                 steps["label_step"])
    may_I1 = s.allowed(session, material.films)
    may_I1[shown] = False
    asked = question(session, moved_I1, may_I1, material, row, rule, rng) if turn < TURNS else None
    if asked:
      said, words = s.Turn(s.RECOMMENDER, asked.text, (), s.ASK), user.answer(asked)
    else:
      rows = np.flatnonzero(may_I1)
      rows = rows[np.argsort(-moved_I1[rows], kind="stable")[:SHOWN]]
      if not len(rows):
        break
      raw = tuple(material.films.ids[each - 1] for each in rows)
      said = s.Turn(s.RECOMMENDER, "Try one of these.", raw, s.RECOMMEND)
      if target in rows:
        return turn, s.add_turn(session, said)
      shown.extend(rows)
      words = simulator.refusal(material.films, rows, user.critique(int(rows[0]), rng))
    session, _ = heard.told(s.add_turn(session, said), words, items=material.films,
                            titles=material.titles, names=names)
  return np.inf, session


def question(session, score_I1, may_I1, material, row: Row, rule: policy.Policy, rng):
  """The next question, or None."""
  step = policy.next_step(session, score_I1, may_I1, material.known, rule) if row.asks else None
  if not step or not step.question:
    return None
  if row.asks == "random":
    put = {each.name for each in policy.questions(session)}
    return policy.any_question(rng, material.known, rule, put)
  return step.question


def outcome(material, who: People, row: Row, rule, steps: dict[str, float],
            count_leaks: bool = True) -> tuple[np.ndarray, int]:
  """(float64 [N]: the turn of each user's success; number of user turns that name the target)."""
  turn_N, leaked = [], 0
  score_NI = who.scores[row.vectors == "shuffled"]
  for (user, target, _), session, score_I1 in zip(who.cases, who.sessions, score_NI):
    turn, after = converse(material, row, rule, steps, session, score_I1, target, user)
    turn_N.append(turn)
    if count_leaks:
      leaked += simulator.leaks(after, target, material.films, material.titles)
  return np.array(turn_N), leaked


def values(turn_N) -> dict[str, np.ndarray]:
  """Success within one, three and all turns; number of turns, TURNS + 1 for a failure."""
  return {**{f"success in {n}": (turn_N <= n).astype(float) for n in (1, 3, TURNS)},
          "turns": np.minimum(turn_N, TURNS + 1)}


def chosen(material, who: People) -> tuple[policy.Policy, dict[str, float]]:
  """(policy, steps) with the most successes on validation targets.

  The steps are chosen first, without questions, then the policy. The entropies in `SPACE` are
  quantiles of the users' initial entropies.
  """
  no_rule, tried = policy.Policy(), []
  for values_ in itertools.product(*STEPS.values()):
    steps = dict(zip(STEPS, values_))
    tried.append((score(outcome(material, who, Row(), no_rule, steps, False)[0]), steps))
    print(f"  no questions, validation: {tried[-1][0]} {steps}", flush=True)
  steps = max(tried, key=lambda each: each[0])[1]
  begin_N = [policy.entropy(score_I1, s.allowed(session, material.films), no_rule.top)
             for session, score_I1 in zip(who.sessions, who.scores[False])]
  tried = []
  for share, questions, hard in itertools.product(*SPACE.values()):
    rule = policy.Policy(round(float(np.quantile(begin_N, share)) if share else 0.0, 3), questions,
                         hard=hard)
    tried.append((score(outcome(material, who, Row("policy"), rule, steps, False)[0]), rule))
    print(f"  policy, validation: {tried[-1][0]} {rule}", flush=True)
  return max(tried, key=lambda each: each[0])[1], steps


def score(turn_N) -> tuple[float, float]:
  """Sort key of settings: more successes first, then fewer turns."""
  of = values(turn_N)
  return round(float(of[f"success in {TURNS}"].mean()), 4), -round(float(of["turns"].mean()), 3)


def tables(material, who: People, rule, steps: dict[str, float]) -> str:
  user_N = np.array([user for user, _, _ in who.cases])
  got, out, leaked = {}, [], 0
  for name, row in ROWS.items():
    turn_N, of_row = outcome(material, who, row, rule, steps)
    got[name], leaked = values(turn_N), leaked + of_row
    if not out:
      out += [f"{len(user_N)} users", "", *header(["row", *got[name]])]
    shown = target_sets.estimates(BOOTSTRAP, got[name], user_N)
    out.append(f"| {name} | " + " | ".join(map(cell, shown.values())) + " |")
    print(out[-1], flush=True)
  metric = f"success in {TURNS}"
  out += ["", *header(["difference", metric, "turns"])]
  for one, other in PAIRS:
    apart = {name: got[one][name] - got[other][name] for name in (metric, "turns")}
    shown = target_sets.estimates(BOOTSTRAP, apart, user_N)
    out.append(f"| {one}, minus {other} | " + " | ".join(map(cell, shown.values())) + " |")
  return "\n".join([*out, "", f"turns in which a user named the target: {leaked}"])


def main():
  parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
  parser.add_argument("--run", type=pathlib.Path, required=True)
  parser.add_argument("--users", type=int, default=300, help="users of each part; 0: all")
  parser.add_argument("--model", default="ilm")
  parser.add_argument("--no-test", action="store_true", help="only choose the settings")
  args = parser.parse_args()
  material = Trained(args.run, args.model)
  rule, steps = chosen(material, people(material, splits.VALID, args.users, NAMED, False))
  print(f"chosen: {rule}, {steps}", flush=True)
  if args.no_test:
    return
  for named in (NAMED, 0):
    who = people(material, splits.TEST, args.users, named, True)
    print(f"{f'{named} films named' if named else 'the whole history known'}\n\n"
          f"{tables(material, who, rule, steps)}\n", flush=True)


if __name__ == "__main__":
  main()
