"""conversation/simulator.py: a user who knows the target's labels, in words that `heard` reads."""
import numpy as np
import pytest

from ilm_jax.conversation import attributes, heard, policy, simulator, titles
from ilm_jax.conversation import session as s
from ilm_jax.data import interactions

ITEMS = interactions.Items(["7", "8", "9"], ["Heat", "Up", "Alien"], [1995, 2009, 1979],
                           [["Crime"], ["Comedy"], []])
TITLES = titles.Titles(ITEMS)
KNOWN = attributes.leading({**attributes.of_genres(ITEMS), **attributes.of_years(ITEMS)}, 3)
NAMES = set(KNOWN.names)


def heard_of(text):
  return heard.told(s.Session(), text, items=ITEMS, titles=TITLES, names=NAMES)


@pytest.mark.parametrize(("question", "lies", "text", "critiques", "constraint"), [
    (policy.Question("crime"), False, "More crime.", [("crime", 1)], {}),
    (policy.Question("comedy"), False, "Less comedy.", [("comedy", -1)], {}),
    (policy.Question("comedy"), True, "More comedy.", [("comedy", 1)], {}),
    (policy.Question("crime", None, True), False, "Only crime.", [], {"genres": ("crime",)}),
    (policy.Question("comedy", None, True), False, "No comedy.", [], {"without": ("comedy",)}),
    (policy.Question("new", 1990), False, "Newer.", [("new", 1)], {}),
    (policy.Question("new", 1996), False, "Older.", [("new", -1)], {}),
    (policy.Question("new", 1996, True), False, "Before 1996.", [], {"years": (None, 1995)}),
    (policy.Question("new", 1995, True), False, "Since 1995.", [], {"years": (1995, None)})])
def test_answers_are_those_of_the_targets_labels_and_are_read_as_meant(
    question, lies, text, critiques, constraint):
  user = simulator.Simulator(KNOWN, 1, lies=lies)
  assert user.answer(question) == text
  session, unread = heard_of(text)
  assert [(each.attribute, each.steps) for each in session.critiques] == critiques
  assert not unread and all(getattr(session.constraint, name) == value
                            for name, value in constraint.items())
  assert bool(session.constraints) == bool(constraint)


def test_what_is_not_known_does_not_matter_and_says_nothing():
  user = simulator.Simulator(KNOWN, 3)
  assert user.answer(policy.Question("crime")) == simulator.EITHER
  assert heard_of(simulator.EITHER)[1] == ()


def test_critiques_lead_from_what_is_shown_to_the_target_and_are_not_said_twice():
  rng, user = np.random.default_rng(0), simulator.Simulator(KNOWN, 1)
  said = {user.critique(2, rng) for _ in range(3)}
  assert said == {"More crime.", "Less comedy.", "Older."}
  assert user.critique(2, rng) == ""
  assert simulator.Simulator(KNOWN, 1, critiques=False).critique(2, rng) == ""
  liar = simulator.Simulator(KNOWN, 1, lies=True)
  assert {liar.critique(2, rng) for _ in range(3)} == {"Less crime.", "More comedy.", "Newer."}


def test_openings_and_refusals_are_read_as_meant():
  assert heard_of(simulator.opening(ITEMS, [1, 2]))[0].liked == ("7", "8")
  session, _ = heard_of(simulator.refusal(ITEMS, [2, 3], "More crime."))
  assert session.seen == ("8", "9") and session.critiques[0].attribute == "crime"


def test_a_user_who_names_the_target_first_is_counted():
  told = s.add_turn(s.Session(), s.Turn(s.USER, "I want Heat (1995)."))
  assert simulator.leaks(told, 1, ITEMS, TITLES) == 1
  shown = s.add_turn(s.Session(), s.Turn(s.RECOMMENDER, "Heat.", ("7",)))
  after = s.add_turn(shown, s.Turn(s.USER, "Heat (1995), good."))
  assert simulator.leaks(after, 1, ITEMS, TITLES) == 0
