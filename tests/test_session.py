"""A conversation's state: edits return new sessions, undo is exact, JSON says what is wrong."""
import functools
import json

import numpy as np
import pytest

from ilm_jax import errors
from ilm_jax.cf import fold_in
from ilm_jax.conversation import session as lib
from ilm_jax.data import interactions

ITEMS = interactions.Items(
    ids=["7", "50", "99", "101"], titles=["Heat", "Alien", "Emma", "Untitled"],
    years=[1995, 1979, 1996, None], genres=[["Crime"], ["Horror", "Sci-Fi"], ["Romance"], []])


def talk():
  """Two exchanges; the second takes an opinion back and adds to everything."""
  s = lib.like(lib.Session(), "7", rating=4.5)
  s = lib.add_turn(s, lib.Turn("user", "I liked Heat", ("7",)))
  s = lib.add_turn(s, lib.Turn("recommender", "Alien?", ("50",), "recommend"))
  before = lib.constrain(s, years=(1970, 1999))
  s = lib.add_turn(before, lib.Turn("user", "No. Darker, no crime"))
  s = lib.dislike(lib.mark_seen(s, "50"), "7")
  s = lib.constrain(lib.critique(s, "dark", 1), without=("Crime",))
  return before, lib.add_turn(s, lib.Turn("recommender", "What else?", act="ask"))


def test_the_last_opinion_counts():
  before, after = talk()
  assert (before.liked, before.disliked, before.seen) == (("7",), (), ())
  assert (after.liked, after.disliked, after.seen) == ((), ("7",), ("50",))
  assert after.constraint.years == (1970, 1999) and after.constraint.without == ("Crime",)


def test_undo_gives_back_what_was_before_the_users_last_turn():
  before, after = talk()
  assert lib.undo(after) == before
  # What was said before any turn stays; what was said after the turn goes.
  assert lib.undo(before) == lib.like(lib.Session(), "7", rating=4.5)
  assert lib.undo(lib.Session()) == lib.Session()


def test_json_and_back():
  _, after = talk()
  assert lib.from_json(lib.to_json(after)) == after
  assert json.loads(lib.to_json(after))["opinions"][0] == {
      "item": "7", "kind": "liked", "rating": 4.5, "turn": 0}
  assert lib.from_json('{"opinions": [{"item": 7, "kind": "liked"}]}').liked == ("7",)


def test_statements_can_be_removed():
  _, after = talk()
  assert lib.forget(after, "7").disliked == () and lib.forget(after, "7").seen == ("50",)
  assert lib.remove(after, "opinions", 2).liked == ("7",)      # the dislike was the third
  assert lib.remove(after, "critiques", 0).critiques == ()
  with pytest.raises(errors.UserError, match=r"critiques\[1\] does not exist: .* 1 critiques"):
    lib.remove(after, "critiques", 1)


@pytest.mark.parametrize(("text", "says"), [
    ('{"turns"', "talk.json is no JSON"),
    ("[]", r"talk.json is \[\], expected an object with 'opinions'"),
    ('{"turn": []}', "talk.json has the field 'turn', expected .*; did you mean 'turns'"),
    ('{"turns": {}}', r"talk.json: turns is \{\}, expected a list"),
    ('{"turns": [{"text": "Hi"}]}', r"talk.json: turns\[0\] lacks 'role'"),
    ('{"turns": [{"role": "bot", "text": "Hi"}]}',
     r"turns\[0\].role is 'bot', expected 'user' or 'recommender'"),
    ('{"turns": [{"role": ["user"], "text": "Hi"}]}', r"turns\[0\].role is \['user'\]"),
    ('{"turns": [{"role": "user", "text": " "}]}', r"turns\[0\].text is ' ', expected a text"),
    ('{"turns": [{"role": "user", "text": "Hi", "act": "sing"}]}',
     r"turns\[0\].act is 'sing', expected 'ask' or 'recommend' or 'explain'"),
    ('{"turns": [{"role": "user", "text": "Hi", "items": [true]}]}', r"items\[0\] is True"),
    ('{"opinions": [{"item": "7", "kind": "loved"}]}', r"opinions\[0\].kind is 'loved'"),
    ('{"opinions": [{"item": "7", "kind": "liked", "rating": NaN}]}', r"rating is nan"),
    ('{"opinions": [{"item": "7", "kind": "liked", "turn": 1}]}',
     r"opinions\[0\].turn is 1, expected at most 0"),
    ('{"critiques": [{"attribute": "dark", "steps": "more"}]}', r"steps is 'more', expected a num"),
    ('{"constraints": [{"years": [1999, 1990]}]}', r"constraints\[0\].years is \[1999, 1990\]"),
    ('{"constraints": [{"years": 1999}]}', r"constraints\[0\].years is 1999, expected two years"),
    ('{"constraints": [{"genres": [""]}]}', r"constraints\[0\].genres\[0\] is ''"),
])
def test_wrong_json_is_one_line_that_names_the_field(text, says):
  with pytest.raises(errors.UserError, match=says) as caught:
    lib.from_json(text, "talk.json")
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize("edit", [
    lambda s: lib.add_turn(s, lib.Turn("bot", "Hi")),
    lambda s: lib.add_turn(s, lib.Turn("user", "")),
    lambda s: lib.like(s, "7", rating=float("nan")), lambda s: lib.critique(s, "", 1),
    lambda s: lib.constrain(s, years=(2000, 1990))])
def test_no_edit_makes_a_session_that_cannot_be_read(edit):
  with pytest.raises(errors.UserError):
    edit(lib.Session())


def test_what_may_be_recommended():
  _, after = talk()
  assert lib.allowed(lib.Session(), ITEMS).tolist() == [False, True, True, True, True]
  # Heat and Alien have an opinion; the last has no year, and years are bound.
  assert lib.allowed(after, ITEMS).tolist() == [False, False, False, True, False]
  horror = lib.constrain(lib.Session(), genres=("horror",))
  assert lib.allowed(horror, ITEMS).tolist() == [False, False, True, False, False]
  assert not lib.allowed(lib.constrain(horror, without=("SCI-FI",)), ITEMS).any()
  for nowhere, count in (({"genres": ("western",)}, 0), ({"without": ("western",)}, 4)):
    assert lib.allowed(lib.constrain(lib.Session(), **nowhere), ITEMS).sum() == count
  assert lib.allowed(lib.like(lib.Session(), "of no catalogue"), ITEMS).sum() == 4


def test_a_film_that_the_log_lists_twice_is_known_by_either_id():
  twice = interactions.Items([*"1234567"], ["Heat", "Heat", "Heat", "", "", "Mug", "Mug"],
                             [1995, 1995, 1986, 1999, 1999, None, None], [[]] * 7)
  talk = functools.reduce(lib.like, "257", lib.Session())
  assert np.flatnonzero(~lib.allowed(talk, twice)).tolist() == [0, 1, 2, 5, 7]


def test_the_users_vector_is_the_fold_in_of_what_is_liked():
  form = fold_in.Form(np.random.default_rng(0).normal(size=(5, 3)), reg=1.0, alpha=2.0)
  before, after = talk()
  both = lib.like(before, "99")
  np.testing.assert_array_equal(lib.user_vector(both, form, ITEMS), form.users([[1, 3]])[0])
  assert np.abs(lib.user_vector(both, form, ITEMS)).max() > 0
  np.testing.assert_array_equal(lib.user_vector(after, form, ITEMS), 0)
  with pytest.raises(errors.UserError, match="likes item '8', expected one of the 4 items"):
    lib.user_vector(lib.like(before, "8"), form, ITEMS)
