"""What a user's words say, by the rule of conversation/heard.py."""
import contextlib
import time

import pytest

from ilm_jax import errors
from ilm_jax.conversation import (
    heard,
    limits,
    listed,
    opinions,
    policy,
    remarks,
    session,
    titles,
    wishes,
)
from ilm_jax.data import interactions

ITEMS = interactions.Items(
    list("abcdefghij"), ["Heat", "Pulp Fiction", "The Game", "Big", "Sabrina", "Sabrina", "Seven",
                         "Never Say Never", "Love Actually", "Who Framed Roger Rabbit?"],
    [1995, 1994, 1997, 1988, 1954, 1995, 1995, 2010, 2003, 1988],
    [["Crime"], ["Crime", "Drama"], ["Thriller"], ["Comedy"], ["Comedy"], ["Comedy"], ["Crime"],
     *[["Comedy"]] * 3])
TITLES = titles.Titles(ITEMS)
NAMES = {"crime", "comedy", "new", "drama"}


def told(text, talk=None):
  return heard.told(talk or session.Session(), text, items=ITEMS, titles=TITLES, names=NAMES)


@pytest.mark.parametrize(("text", "liked", "disliked", "seen"), [
    ("I loved Heat and Pulp Fiction, but I hated The Game", "ab", "c", ""),
    ("Heat (1995)", "a", "", ""), ("loved Heat and hated The Game", "a", "c", ""),
    ("I hate Heat and I have seen The Game", "", "a", "c"),
    ("i did not like pulp fiction. Heat was great!", "a", "b", ""),
    ("I have seen Heat; more like Pulp Fiction", "b", "", "a"),
    ("what a big game in the heat, seven times", "", "", ""),      # words that anybody says
    ("Big", "", "", ""), ("Big (1988) was fun", "d", "", ""),
    ("Sabrina", "", "", ""), ("Sabrina (1954)", "e", "", ""),      # one cannot say which
    ("less like Heat", "", "a", ""), ("Is Heat good? I like The Game", "c", "", ""),
    ("I loved Never Say Never, hated Heat", "h", "a", ""),
    ("I have seen Love Actually", "", "", "i"),
    ("I haven't seen Heat", "", "", ""), ("I don't mind Heat", "a", "", ""),
    ("I loved Who Framed Roger Rabbit?", "j", "", ""), ("what about Heat", "", "", ""),
    ("Can you give me something like Heat?", "a", "", ""),
    ("Heat is overrated", "", "a", ""), ("I like neither Heat nor The Game", "", "ac", ""),
    ("Heat wasn't bad actually", "a", "", ""), ("Who doesn't love Heat?", "a", "", ""),
    ("why not Heat?", "", "", ""), ("why is Heat so long?", "", "", ""),
    ("I never get tired of Heat", "a", "", ""), ("anything but Heat", "", "a", ""),
    ("I loved Heat and Pulp Fiction except The Game", "ab", "c", ""),
    ("I loved Heat, not The Game", "a", "c", ""), ("I fell asleep during Heat", "", "a", ""),
    ("I loved Heat 2 and Heat Part II", "", "", ""), ("Seven of Nine", "", "", ""),
    ("Heat Waves was great", "", "", ""), ("I LOVED HEAT AND PULP FICTION", "ab", "", ""),
    ("I love Heat The Game", "ac", "", ""), ("Heat 10/10", "a", "", ""),
    ("Can you find a thriller like Heat?", "a", "", "")])
def test_titles_and_what_is_said_of_them(text, liked, disliked, seen):
  talk, _ = told(text)
  assert "".join(talk.liked) == liked and "".join(talk.disliked) == disliked
  assert "".join(talk.seen) == seen
  assert talk.turns[-1].text == text and set(talk.turns[-1].items) >= set(liked + disliked + seen)


@pytest.mark.parametrize(("text", "years"), [
    ("from the nineties", (1990, 1999)), ("something in the 80s", (1980, 1989)),
    ("in the 1970s", (1970, 1979)), ("after 1990 please", (1991, None)),
    ("since 1990", (1990, None)), ("before 1980", (None, 1979)), ("from 1994", (1994, 1994)),
    ("between 1970 and 1979", (1970, 1979)), ("between 1979 and 1970", (None, None)),
    ("I was 12 in the summer", (None, None)), ("I was born in 1990", (None, None)),
    ("not from the nineties", (None, None)), ("nothing before 1990", (1990, None)),
    ("don't show me anything before 1990", (1990, None)), ("no movies after 1990", (None, 1990)),
    ("I don't want to see anything from the 70s", (None, None)),
    ("nothing sad, and before 1990", (None, 1989)), ("no crime before 1990", (None, 1989)),
    ("From 1990 on", (1990, None)), ("1990 and newer", (1990, None)),
    ("from 1990 to 1999", (1990, 1999)), ("1990-1999", (1990, 1999)), ("from 1980s", (1980, 1989)),
    ("after 1980 and before 1990", (1981, 1989)), ("1995 or later", (1995, None))])
def test_spans_of_years(text, years):
  assert told(text)[0].constraint.years == years


def test_genres_are_constraints_and_the_rest_critiques():
  talk, unread = told("only comedies, no crime and something newer, more zing")
  assert (talk.constraint.genres, talk.constraint.without) == (("comedy",), ("crime",))
  assert [(c.attribute, c.steps) for c in talk.critiques] == [("new", 1.0)]
  assert unread == ("more zing",)
  later = told("before 1990", talk)[0]
  assert later.constraint.genres == ("comedy",) and later.constraint.years == (None, 1989)
  assert session.undo(later) == talk and session.undo(talk) == session.Session()


def test_what_is_unwanted_adds_up():
  talk, _ = told("no comedies or crime")
  assert talk.constraint.without == ("comedy", "crime")
  talk = told("before 1990", told("no drama, after 1980", talk)[0])[0]
  assert talk.constraint.without == ("comedy", "crime", "drama")
  assert talk.constraint.years == (1981, 1989)
  assert told("from 1995", talk)[0].constraint.years == (1995, 1995)
  assert told("not only comedies")[0].constraint.genres == ()


@pytest.mark.parametrize(("text", "genres", "without", "asked"), [
    ("I loved Heat, no comedy please", (), ("comedy",), {}),
    ("I loved Heat and The Game, no comedy, something newer", (), ("comedy",), {"new": 1}),
    ("I loved Heat so no comedies please", (), ("comedy",), {}),
    ("Something funny like Heat", (), (), {"comedy": 1}),
    ("I want a drama like Heat", (), (), {"drama": 1}),
    ("I loved the crime in Heat", (), (), {}),
    ("anything but comedy", (), ("comedy",), {}), ("I'm sick of comedy", (), (), {"comedy": -1}),
    ("not enough comedy", (), (), {"comedy": 1}),
    ("there isn't enough comedy", (), (), {"comedy": 1}), ("enough comedy", (), (), {"comedy": -1}),
    ("Less crime more comedy", (), (), {"crime": -1, "comedy": 1}),
    ("much less crime a bit more comedy", (), (), {"crime": -2, "comedy": 0.5}),
    ("more drama that is not crime", (), (), {"drama": 1, "crime": -1}),
    ("a lot more drama", (), (), {"drama": 2})])
def test_wishes_are_read_beside_titles_and_beside_each_other(text, genres, without, asked):
  talk, unread = told(text)
  assert (talk.constraint.genres, talk.constraint.without) == (genres, without)
  assert {each.attribute: each.steps for each in talk.critiques} == asked and unread == ()


def test_names_that_no_item_has_are_named():
  talk, unread = told("I liked Termintor 2 and Jurasic Park, also Heat by Michael Mann")
  assert talk.liked == ("a",) and unread == ("Termintor 2 and Jurasic Park", "Michael Mann")
  assert told("I loved Game of Thrones and Heat")[1] == ("Game of Thrones",)


def test_years_beside_a_title_that_is_an_example():
  talk, unread = told("Movies like Heat from the nineties")
  assert talk.liked == ("a",) and talk.constraint.years == (1990, 1999) and unread == ()
  assert told("I loved Heat from 1995")[0].constraint.years == (None, None)


def test_what_is_said_last_about_a_genre_counts():
  talk, _ = told("only drama, no comedy")
  assert told("only comedy", talk)[0].constraint.without == ()
  assert told("no drama", talk)[0].constraint == session.Constraint((), ("comedy", "drama"), turn=2)
  freed, unread = told("actually comedies are fine again", talk)
  assert freed.constraint.without == () and freed.constraint.genres == ("drama",) and unread == ()
  assert told("no comedy is fine", talk)[0].constraint.without == ("comedy",)
  assert told("more comedy", talk)[0].constraint.without == ()
  assert told("less comedy", talk)[0].constraint.without == ("comedy",)
  eighties = told("from the eighties", talk)[0]
  assert told("any year is fine", eighties)[0].constraint.years == (None, None)


def test_what_else_is_said_beside_a_title_is_named():
  talk, unread = told("I loved Heat, but more zing")
  assert talk.liked == ("a",) and unread == ("more zing",)


def test_a_long_turn_is_refused_and_blanks_cost_nothing():
  with pytest.raises(errors.UserError, match="text has 2,001 characters, expected 2,000 at most"):
    told("a" * 2001)
  assert told("Heat" + " " * 10000 + "was great")[0].liked == ("a",)


@pytest.mark.parametrize("text", [
    "not " * 240 + "and " + "from 1990 " * 100, "not " * 300 + "and " + "1990-1991 " * 75,
    "n't " * 240 + "and " + "since 1990 " * 100, "never " * 240 + "and " + "only crime " * 50,
    "not before 1990 " * 125, "no crime " * 220, "no movies from " * 140, "crime is fine " * 150,
    "a-" * 1000, "a b c d e f g h " * 125, "Heat Xq " * 250, "%41 " * 500, "ﷺ " * 1000, "_ " * 1000,
    "crime, " * 280, "more xcrime, " * 150, "less like Heat but " * 100, "not a bad " * 200,
    "something a " * 160, "anything but " * 150, "too " * 500, "any more " * 220, "not 1, 1 " * 220,
    "thanks " * 280, "do ? " * 400, "More of " * 250, "1990 or " * 250, "I like The Game 2 " * 110])
def test_words_said_again_and_again_take_no_quadratic_time(text):
  text = text[:2000]
  asked = session.add_turn(session.Session(), session.Turn(
      session.RECOMMENDER, "More of crime, or less?", act=session.ASK))
  began = time.process_time()
  with contextlib.suppress(errors.UserError):
    told(text)
  for read in (lambda: limits.read(text, NAMES, session.Constraint()), lambda: opinions.kinds(text),
               lambda: wishes.read(text, NAMES), lambda: opinions.wishes(text),
               lambda: opinions.names(text), lambda: listed.resolved(text, ["Heat (1995)"] * 3),
               lambda: listed.wants_others(text), lambda: listed.places(text),
               lambda: remarks.thanks(text), lambda: policy.meant(asked, text),
               lambda: policy.read(text), lambda: titles.split(text), lambda: TITLES.row(text),
               lambda: TITLES.near(text)):
    read()
  assert time.process_time() - began < 2


def test_few_runs_of_words_are_looked_up(monkeypatch):
  looked, row = [], TITLES.row
  monkeypatch.setattr(TITLES, "row", lambda name: looked.append(name) or row(name))
  talk, _ = told("a b c d e f g h " * 124 + "Never Say Never")
  assert talk.liked == ("h",) and len(looked) < 1000


def test_a_genre_that_is_said_twice_is_one():
  assert told("no crime, no drama and no crime")[0].constraint.without == ("crime", "drama")
  assert told("only crime, only crime")[0].constraint.genres == ("crime",)


def test_an_unknown_title_that_is_asked_for_is_an_error():
  for name, hint in (("Xanadu", ""),
                     ("Pulp Ficton", r" \(spelt almost like it: Pulp Fiction \(1994\)\)")):
    with pytest.raises(errors.UserError, match=f"'{name}' is .* of several{hint}; expected"):
      told(f"more like {name}")


@pytest.mark.parametrize(("text", "near"), [
    ("Puld Fiction", "b"), ("pulp ficton", "b"), ("I like Pulp Ficton", "b"),
    ("Sabrin", "e"),                                # the first of that title
    ("Never Say Nevr was fun", "h"), ("Who Framed Roger Rabit (1988)", "j"),
    ("Bulp Fiction", ""),                           # another first letter
    ("Hat", ""), ("Pulp", ""), ("howdy", ""), ("", ""),
    ("i like pulp ficton", "")])                    # where the title begins cannot be seen
def test_the_title_that_is_spelt_almost_like_it(text, near):
  row = TITLES.near(text)
  assert (ITEMS.ids[row - 1] if row else "") == near


def test_a_text_full_of_capitals_is_not_held_against_a_catalogue_for_ever(monkeypatch):
  held = []
  monkeypatch.setattr(titles.difflib, "get_close_matches",
                      lambda letters, alike, *how: held.append(len(alike)) or [])
  many = titles.Titles(interactions.Items(
      [str(n) for n in range(30_000)], [f"Thing {n:05d}" for n in range(30_000)], [None] * 30_000,
      [[] for _ in range(30_000)]))
  assert many.near("Thing 0000x " * 100) == 0
  assert sum(held) <= 10_000


def test_a_year_behind_a_title_that_ends_in_a_mark_belongs_to_it():
  talk, unread = told("I have seen Who Framed Roger Rabbit? (1988) and Heat (1995).")
  assert talk.seen == ("j", "a") and unread == ()
