"""conversation/policy.py: which act comes next."""
import time

import numpy as np
import pytest

from ilm_jax.conversation import attributes, policy
from ilm_jax.conversation import session as s

# Of six items: half are comedies, one is a war film; of the fourth it is not known.
KNOWN = attributes.leading({
    "comedy": attributes.Labels(np.array([1, 2, 3, 5, 6]), np.array([1.0, 1, 1, 0, 0])),
    "war": attributes.Labels(np.array([1, 2, 3, 5, 6]), np.array([0.0, 0, 0, 0, 1])),
    attributes.NEW: attributes.Labels(np.array([1, 2]), np.array([1990, 1999]))}, 6)
MAY = np.array([False] + [True] * 6)
LEVEL, SURE = np.zeros(7), np.array([0, 9.0, 0, 0, 0, 0, 0])
LIKES = s.add_turn(s.like(s.Session(), "x"), s.Turn(s.USER, "I liked X."))
RULE = policy.Policy(entropy=0.5, questions=1, top=6, hard=False)


def act(session, scores, rule=RULE):
  return policy.next_step(session, scores, MAY, KNOWN, rule)


def test_asks_while_scores_are_level_and_questions_are_left():
  step = act(LIKES, LEVEL)
  assert step == (s.ASK, policy.Question("comedy"))
  assert act(LIKES, SURE) == (s.RECOMMEND, None)
  asked = s.add_turn(LIKES, s.Turn(s.RECOMMENDER, f"Well. {step.question.text}", act=s.ASK))
  answered = s.critique(s.add_turn(asked, s.Turn(s.USER, "More comedy.")), "comedy", 1)
  assert act(answered, LEVEL) == (s.REFINE, None)
  again = act(answered, LEVEL, RULE._replace(questions=2))
  assert again.act == s.ASK and again.question.name != "comedy"


def test_nothing_liked_is_asked_about():
  assert act(s.Session(), None) == (s.ASK, None)
  assert act(LIKES, LEVEL, policy.NEVER) == (s.RECOMMEND, None)
  assert policy.next_step(LIKES, SURE, np.zeros(7, bool), KNOWN, RULE) == (s.ASK, None)


def test_entropy_is_a_share_of_that_of_level_scores():
  assert policy.entropy(LEVEL, MAY, 6) == pytest.approx(1.0)
  assert policy.entropy(np.r_[0, 50.0, np.zeros(5)], MAY, 6) == pytest.approx(0.0, abs=1e-6)
  two = np.r_[0, 50.0, 50.0, np.zeros(4)]
  assert policy.entropy(two, MAY, 6) == pytest.approx(np.log(2) / np.log(6))
  only_one = np.array([False, True, *[False] * 5])
  assert policy.entropy(LEVEL, only_one, 6) == 0.0


def test_the_question_parts_the_best_items():
  old_against_new = np.r_[0, 5.0, 5.0, np.zeros(4)]            # both of the best are comedies
  question = policy.parting(old_against_new, MAY, KNOWN, RULE)
  assert question == policy.Question(attributes.NEW, 1999)
  assert policy.parting(old_against_new, MAY, KNOWN, RULE, {attributes.NEW}).name == "comedy"
  alike = np.array([False, False, False, False, True, False, False])      # nothing is known of it
  assert policy.parting(LEVEL, alike, KNOWN, RULE) is None


@pytest.mark.parametrize("hard", [False, True])
def test_a_question_is_read_off_its_words(hard):
  for question in (policy.Question("film-noir", None, hard),
                   policy.Question(attributes.NEW, 1987, hard)):
    assert policy.read(f"One question. {question.text}") == question
  assert policy.read("Which do you like?") is None


@pytest.mark.parametrize("text", ["More of " * 8000, "With " * 13_000,
                                  f"More of {'war ' * 16_000}, or less?"])
def test_words_of_any_length_are_read_in_little_time(text):
  began = time.process_time()
  assert policy.read(text) is None
  asked = s.add_turn(LIKES, s.Turn(s.RECOMMENDER, text, act=s.ASK))
  assert policy.meant(asked, "no") == "no" and policy.questions(asked) == []
  assert time.process_time() - began < 2


def test_a_question_about_no_year_is_none():
  assert policy.read(f"Newer than {'9' * 5000}, or older?") is None


@pytest.mark.parametrize(("text", "says"), [
    ("without", "No war."), ("With!", "Only war."), ("no thanks", "No war."),
    ("No, thanks.", "No war."), ("maybe with war, please", "Only war."), ("with wars", "with wars"),
    ("No horror", "No horror"), ("I like Heat", "I like Heat")])
def test_a_word_answers_the_last_question(text, says):
  asked = s.add_turn(LIKES, s.Turn(
      s.RECOMMENDER, policy.Question("war", None, True).text, act=s.ASK))
  assert policy.meant(asked, text) == says
  assert policy.meant(LIKES, text) == text
  year = s.add_turn(LIKES, s.Turn(
      s.RECOMMENDER, policy.Question(attributes.NEW, 1990, True).text, act=s.ASK))
  for text in ("before", "from before"):
    assert policy.meant(year, text) == "Before 1990."
  assert policy.meant(year, "From 1990 on, please") == "Since 1990."
  assert policy.meant(year, "From 1985 on") == "From 1985 on"


def test_a_drawn_question_is_none_of_those_that_are_over():
  rng = np.random.default_rng(0)
  drawn = {policy.any_question(rng, KNOWN, RULE, {"war"}).name for _ in range(40)}
  assert drawn == {"comedy", attributes.NEW}
  assert policy.any_question(rng, KNOWN, RULE, set(KNOWN.names)) is None
