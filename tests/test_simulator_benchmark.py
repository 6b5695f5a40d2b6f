"""benchmarks/simulator.py and head_critiques.py on a made-up run."""
import functools

import numpy as np
import pytest

from benchmarks import head_critiques, simulator
from ilm_jax.cf import fold_in
from ilm_jax.conversation import attributes, policy, titles
from ilm_jax.data import interactions, splits

COUNT = 40
KINDS = ("Comedy", "Crime", "Horror", "War")


@pytest.fixture(scope="module")
def material():
  """Films of four genres; factors know genre and year, the head knows nothing."""
  rng = np.random.default_rng(0)
  genres = [[KINDS[n % 4]] for n in range(COUNT)]
  films = interactions.Items([f"i{n}" for n in range(1, COUNT + 1)],
                             [f"Story Part {n}" for n in range(1, COUNT + 1)],
                             [1960 + n for n in range(COUNT)], genres)
  users, met = 16, 6
  item_N = np.concatenate([1 + rng.permutation(COUNT)[:met] for _ in range(users)])
  log = interactions.Interactions(
      [f"u{n}" for n in range(users)], COUNT, np.repeat(np.arange(users), met).astype(np.int32),
      item_N.astype(np.int32), np.tile(np.arange(met), users), np.ones(users * met, np.float32))
  made = simulator.Trained.__new__(simulator.Trained)
  made._made = {}
  made.log, made.films, made.titles = log, films, titles.Titles(films)
  item_I1C = np.zeros((COUNT + 1, 5), np.float32)
  item_I1C[np.arange(1, COUNT + 1), np.arange(COUNT) % 4] = 1
  item_I1C[1:, 4] = np.linspace(-1, 1, COUNT)
  made.form = fold_in.Form(item_I1C + rng.normal(size=item_I1C.shape) / 20 * (item_I1C != 0), 1, 1)
  made.labels = {**attributes.of_genres(films), **attributes.of_years(films)}
  made.known = attributes.leading(made.labels, COUNT)
  made.scores = lambda histories, shuffled=False: rng.normal(
      size=(len(histories), COUNT + 1)).astype(np.float32)
  return made


def test_questions_about_genres_find_the_target_sooner_and_lies_do_not(material):
  who = simulator.people(material, splits.TEST, 0, 2, True)
  assert all(len(session.liked) == 2 for session in who.sessions) and set(who.scores) == {0, 1}
  of = functools.partial(simulator.outcome, material, who, rule=policy.Policy(0.0, 3, 40, True),
                         steps={"step": 0.5, "label_step": 0.0})
  (hard_N, leaks), (none_N, _), (lies_N, _) = (of(simulator.Row(*row)) for row in (
      ("policy", False), ("", False), ("policy", False, True)))
  assert leaks == 0
  won, nothing, lied = (np.isfinite(turn_N).mean() for turn_N in (hard_N, none_N, lies_N))
  assert won > nothing > lied
  few = simulator.people(material, splits.TEST, 4, 2, True)
  text = simulator.tables(material, few, policy.Policy(0.0, 1), {"step": 0.0, "label_step": 4.0})
  assert "4 users" in text and "policy, minus no questions" in text


def test_the_session_after_a_talk_holds_what_was_shown_and_the_target_ends_it(material):
  who = simulator.people(material, splits.VALID, 4, 2, False)
  score_I1 = np.zeros(COUNT + 1)
  target = who.cases[0][1]
  score_I1[target] = 9.0
  turn, session = simulator.converse(
      material, simulator.Row(), policy.Policy(), {"step": 0.5, "label_step": 1.0},
      who.sessions[0], score_I1, target, 0)
  assert turn == 1 and material.films.ids[target - 1] in session.turns[-1].items
  score_I1[target] = -99.0
  turn, session = simulator.converse(
      material, simulator.Row(critiques=False), policy.Policy(), {"step": 0.0, "label_step": 0.0},
      who.sessions[0], score_I1, target, 0)
  shown = [item for each in session.turns[1:] if each.role == "recommender" for item in each.items]
  assert np.isinf(turn) and len(shown) == len(set(shown)) == 5 * simulator.SHOWN


def test_critiques_on_the_heads_scores_help_and_their_opposites_do_not(material):
  every = head_critiques.cases(material, splits.TEST, 0)
  assert every
  for case in every:
    assert case["may_I1"][case["target"]]
  got = head_critiques.ranks(material, every, {"label_step": 4.0}, {"ridge": 0.1, "step": 2.0})
  hit = {name: (of <= 10).mean() for name, of in got.items()}
  assert hit["after the critique"] > hit["before"] > hit["after its opposite"]
  assert hit["along its direction"] > hit["before"]
  assert (got["labels as a filter"] <= got["before"]).all()
  assert "after the critique, minus before" in head_critiques.tables(got, every)


def test_settings_are_chosen_by_successes_then_turns():
  assert simulator.score(np.array([1, np.inf])) == (0.5, -3.5)
  assert simulator.score(np.array([2, np.inf])) < simulator.score(np.array([1, np.inf]))
