"""Stage chat: a conversation with a model whose score of an item is its row."""
import dataclasses
import io

import numpy as np
import pytest

from ilm_jax import errors
from ilm_jax.config import variants
from ilm_jax.conversation import policy, session, wording
from ilm_jax.data import interactions
from ilm_jax.stages import chat, ranker, talker
from tests import talks


@pytest.fixture
def run(monkeypatch):
  return talks.run(monkeypatch)


@pytest.fixture
def talk(run):
  return chat.Chat(run, variants.ILM, k=2)


def test_likes_are_answered_by_a_list_without_them(talk):
  assert talk.greeting().startswith("12 films, ranked by ILM, item head with "
                                    "iALS. Which do you like?")
  assert talk.answer("hello").splitlines() == ["Which do you like? Name a few by title."]
  assert talk.answer("howdy").splitlines() == [
      "I do not know what 'howdy' means here.", "Which do you like? Name a few by title."]
  assert talk.answer("Ghandi").splitlines() == [
      "I do not know what 'Ghandi' means here.", "Spelt almost like it: Gandhi (1982).",
      "Which do you like? Name a few by title."]
  assert talk.answer("I loved Psycho and hated Gandhi").splitlines() == [
      "Noted: you like Psycho (1960); you do not like Gandhi (1982).",
      "1. Speed (1994)  Crime", "2. Clerks (1994)  Comedy"]
  assert talk.session.turns[-1].items == ("i10", "i9") and talk.session.turns[-1].act == "recommend"
  assert talk.answer("/seen 1").splitlines()[:2] == [
      "Noted: you know Speed (1994).", "1. Clerks (1994)  Comedy"]
  assert talk.answer("/state").splitlines() == [
      "likes: Psycho (1960)", "seen: Speed (1994)", "dislikes: Gandhi (1982)"]


def test_few_unread_words_are_held_against_the_titles(talk, monkeypatch):
  asked = []
  monkeypatch.setattr(talk._talker.titles, "near", lambda text: asked.append(text) or 0)
  said = talk.answer("; ".join(f"zorg{n}" for n in range(9)))
  assert said.startswith("I do not know what 'zorg0', 'zorg1', 'zorg2', 'zorg3'")
  assert asked == ["zorg0", "zorg1", "zorg2"]


def test_constraints_are_hard_and_critiques_move(talk):
  talk.answer("I like Heat")
  assert talk.answer("no horror, before 1990").splitlines() == [
      "Noted: without horror; until 1989.", "1. Gandhi (1982)  Comedy", "2. Brazil (1985)  Comedy"]
  assert talk.answer("/undo").splitlines()[0] == "1. Psycho (1960)  Horror"
  talk.answer("/forget Heat")
  assert talk.session.liked == ()
  assert talk.answer("/undo").splitlines()[0] == "1. Psycho (1960)  Horror"
  assert talk.answer("much newer").splitlines()[:2] == [
      "Noted: newer.", "1. Gandhi (1982)  Comedy"]
  assert talk.session.turns[-1].act == "refine"
  assert talk.answer("/why 1").splitlines()[1] == "You asked for newer; its labels fit."
  assert talk.answer("Why?") == talk.answer("why number 1?") == talk.answer("/why 1")
  assert talk.answer("/why") == talk.answer("/why 1")
  assert talk.answer("Not that one!").startswith('Which of the list? E.g. "not 1"')
  assert talk.answer("why 3") == (
      "3: the last list has 2 items; to name an item by its id, write item:ID")
  talk.answer("after 1990")
  assert talk.answer("/state").splitlines()[1:] == ["limits: from 1991", "asked for: newer"]
  assert talk.answer("only crime, from 1950").splitlines() == [
      "Noted: only crime; from 1950; until 1950.",
      "Nothing is left that fits all that you asked for (only crime, from 1950 and until 1950): "
      "take something back."]


def test_words_that_no_label_knows_are_guessed(run, monkeypatch, tmp_path):
  monkeypatch.setattr(ranker, "_LEAST", 4)             # genres have a direction
  talk = chat.Chat(run, variants.ILM, k=2)
  talk.answer("I like Clerks")
  assert talk.answer("something much grimmer and more zing").splitlines()[:2] == [
      "I do not know what 'more zing' means here.",
      "'grim': guessed from the films' texts; no label says it."]
  assert talk.session.critiques == (session.Critique("grim", 2.0, 3),)
  assert "asked for: more grim" in talk.answer("/state")
  assert talk.answer("/why 1").endswith(" from the mean, by a guess from texts.")
  assert "grim" not in talk.answer("only crime").splitlines()[0]       # said once
  talk.answer(f"/save {tmp_path}/talk.json")
  assert talk.answer(f"/load {tmp_path}/talk.json").startswith("1. ")


def test_the_list_can_be_spoken_of(talk):
  talk.answer("I like Heat")
  first, second = talk.session.turns[-1].items
  titles = [talk._talker.title(talk._talker.row_of[item]) for item in (first, second)]
  assert talk.answer("I've already seen 1 and 2").startswith(
      f"Noted: you know {titles[0]} and {titles[1]}.")
  assert talk.session.turns[-2].text == "I've already seen 1 and 2"
  talk.answer("/undo")
  assert talk.answer("more like number 2").startswith(f"Noted: you like {titles[1]}.")
  talk.answer("/undo")
  assert talk.answer("not the first one").startswith(f"Noted: you do not like {titles[0]}.")
  talk.answer("/undo")
  for text in ("none of these", "have you got any more?"):
    shown = talk.session.turns[-1].items
    talk.answer(text)
    assert set(shown) <= set(talk.session.seen) and set(shown).isdisjoint(
        talk.session.turns[-1].items)
  state = talk.answer("/state")
  assert talk.answer("Is Psycho any good?") == talk.answer("/why Psycho")
  assert talk.session.turns[-1].act == "explain" and talk.answer("/state") == state
  assert talk.answer("thanks, that's great!") == "You are welcome."
  assert talk.answer("/state") == state
  assert talk.answer("/new").startswith("12 films") and talk.session == session.Session()
  assert talk.answer("/undo") and talk.answer("/state") == state


def test_more_leaves_what_was_said_of_the_list(run):
  """A like on a card adds no list: "more" is of the same one."""
  speaker = talker.Talker(run, variants.ILM, k=2)
  shown = speaker.reply(session.Session(), "I like Psycho").session
  liked = speaker.edited(speaker.edited(shown, "like", "Gandhi"), "dislike", "Psycho")
  more = speaker.reply(liked, "more")
  assert more.session.liked == ("i11",) and more.session.seen == ("i10",)
  assert more.session.disliked == ("i12",) and more.text == "Try these:"


def renamed(run, titles, years):
  """The run with other titles for its last films."""
  items = run.data.items
  run.data = run.data._replace(items=dataclasses.replace(
      items, titles=[*items.titles[:-len(titles)], *titles],
      years=[*items.years[:-len(years)], *years]))


def test_a_list_that_is_read_again_keeps_its_places(run):
  """Also where two items have the same title, or a title has two blanks."""
  renamed(run, ["Shampoo", "Love  Me", "Shampoo"], [None] * 3)
  speaker = talker.Talker(run, variants.ILM, k=2)
  said = [(session.USER, "I like Brazil"), (session.RECOMMENDER, "Try these:\n"
          "1. Shampoo  Crime\n2. Alien (1979)  Horror\n3. Love  Me  Comedy\n4. i1")]
  before = speaker.replayed(said)
  assert before.turns[-1].items == ("Shampoo", "i3", "i11", '"i1"')
  assert before.turns[-1].act == session.RECOMMEND
  assert speaker.replayed([*said, (session.USER, "I liked 3")]).liked == ("i6", "i11")
  asked = speaker.reply(before, "I liked 1")
  assert asked.session.liked == ("i6",) and asked.notes.startswith(
      "I do not know what 'I liked Shampoo' means here.")
  with pytest.raises(errors.UserError, match="'Shampoo' is the title of several items: say which"):
    speaker.reply(before, "why 1?")
  assert speaker.reply(before, "more").session.seen == ("i3", "i11")
  newer = speaker.reply(before, "newer").session       # than Alien
  assert speaker._fit(newer, newer.critiques[0])[[3, 4]].tolist() == [0, 1]
  silent = [(session.USER, "I like Brazil"), (session.RECOMMENDER, "Try these:\n1. Shampoo")]
  assert speaker.replayed([*said, *silent, (session.USER, "I liked 2")]).liked == ("i6",)


def test_a_name_of_a_list_that_is_no_items_is_short(run):
  speaker = talker.Talker(run, variants.ILM, k=2)
  before = speaker.replayed([(session.RECOMMENDER, f"1. {'x ' * 9000}")])
  assert len(before.turns[-1].items[0]) <= 300
  own = session.add_turn(session.Session(), session.Turn(
      session.RECOMMENDER, "x", ("x" * 200_000,), session.RECOMMEND))
  with pytest.raises(errors.UserError, match=r"the text has [\d,]{6,7} characters"):
    speaker.reply(own, "liked " + ", ".join("1" * 600))


def test_a_session_is_checked_after_each_turn_that_is_read_again(run):
  speaker, seen = talker.Talker(run, variants.ILM, k=2), []

  def check(now):
    seen.append(now.liked)
    if "i3" in now.liked:
      raise errors.UserError("no more")
    if len(seen) > 3:
      raise OverflowError
    return now

  said = [(session.USER, f"I like {title}") for title in ("Heat", "Alien", "Fargo", "Up", "Casino")]
  assert speaker.replayed(said[:3], check).liked == ("i1", "i2")        # one is left out
  with pytest.raises(OverflowError):
    speaker.replayed(said, check)
  assert len(seen) == 4


def test_a_like_of_an_item_with_a_very_long_title(run):
  renamed(run, ["x" * 3000], [None])
  after = talker.Talker(run, variants.ILM, k=2).edited(session.Session(), "like", "i12")
  assert after.liked == ("i12",) and len(after.turns[-1].text) == 2000


def test_a_user_of_the_log_likes_the_newest_of_many_items(run, monkeypatch):
  monkeypatch.setattr(ranker, "_MOST_LIKES", 3)
  items = np.array([4, 1, 3, 2, 5, 6, 7], np.int32)
  run.data = run.data._replace(log=interactions.Interactions(
      ["u"], 12, np.zeros(7, np.int32), items, np.arange(7), np.ones(7, np.float32)))
  assert talker.Talker(run, variants.ILM, k=2).user("u").liked == ("i3", "i2", "i5")


def test_a_wish_may_be_a_command(talk):
  talk.answer("I like Clerks")
  assert talk.answer("/newer").startswith("Noted: newer.")
  assert talk.answer("/no horror").startswith("Noted: without horror.")
  assert talk.answer("/zing").startswith("/zing is no command")


def test_a_wish_that_no_film_of_the_list_fits_is_said(talk):
  talk.answer("I like Heat")
  only = talk.answer("before 1970")
  assert only == "Noted: until 1969.\n1. Psycho (1960)  Horror"
  assert talk.answer("newer") == (
      "None of these fits 'newer'.\nNoted: newer.\n1. Psycho (1960)  Horror")
  assert talk.answer("no comedy").startswith("Noted: without comedy")          # said once


def test_a_list_shows_a_title_of_a_year_once(run):
  speaker = talker.Talker(run, variants.ILM, k=3)
  score_I1 = np.arange(len(speaker.items) + 1, dtype=np.float32)
  may_I1 = score_I1 > 0
  before = speaker.best(score_I1, may_I1, 3)
  items = speaker.items
  titles, years = list(items.titles), list(items.years)
  titles[-2], years[-2] = titles[-1], years[-1]
  speaker.items = dataclasses.replace(items, titles=titles, years=years)
  after = speaker.best(score_I1, may_I1, 3)
  assert [card.id for card in before] == ["i12", "i11", "i10"]
  assert [card.id for card in after] == ["i12", "i10", "i9"]


def test_the_year_is_said_in_words_however_it_is_written():
  for name, steps, words in (("NEW", -2, "older"), ("new", 1, "newer"), ("Comedy", 1, None)):
    one = session.Critique(name, steps)
    assert wording.asked(one) == (words or "more Comedy")


def test_a_wish_is_said_as_it_was_understood_until_it_is_excluded(run, monkeypatch):
  """A critique for more of a genre ends where the genre is excluded, and begins again with it."""
  monkeypatch.setattr(ranker, "_LEAST", 4)             # genres have a direction
  speaker = talker.Talker(run, variants.ILM, k=2)
  liked = speaker.reply(session.Session(), "I like Clerks").session
  asked = speaker.reply(liked, "more horror, and newer")
  assert asked.text == "With what you asked for (more horror, newer), these come first:"
  without = speaker.reply(asked.session, "no horror")
  assert without.text == "With what you asked for, these come first:"
  wishes = [line for line in speaker.why(without.session, without.cards[0].id).splitlines()
            if line.startswith("You asked for")]
  assert len(wishes) == 1 and wishes[0].startswith("You asked for newer")
  newer = speaker.reply(liked, "newer")
  excluded = session.constrain(newer.session, without=("horror",))
  np.testing.assert_allclose(speaker.scored(without.session), speaker.scored(excluded))
  back = session.constrain(without.session, without=())
  assert next(each.attribute.casefold() for each in back.active_critiques) == "horror"


@pytest.mark.parametrize("text, first, count", [
    ("Psycho (1960)", "Psycho (1960)", 1), ("psy", "Psycho (1960)", 1),
    ("PSYCHO", "Psycho (1960)", 1),
    ("Psycho (1998)", "", 0), ("no such film", "", 0)])
def test_a_film_is_found_by_a_part_of_its_title_or_all_with_the_year(run, text, first, count):
  found = talker.Talker(run, variants.ILM, k=2).search(text, 5)
  assert [f"{each.title} ({each.year})" for each in found[:1]] == [first] * bool(first)
  assert len(found) == count


def test_a_conversation_is_kept_in_a_file(talk, run, tmp_path):
  talk.answer("I like Heat, but not Casino")
  assert talk.answer(f"/save {tmp_path}/talk.json") == f"saved in {tmp_path}/talk.json"
  other = chat.Chat(run, variants.ILM, k=2)
  other.answer(f"/load {tmp_path}/talk.json")
  assert other.session.liked == ("i1",) and other.session.disliked == ("i7",)
  for edited, says in ((session.like(session.Session(), "x"), "item 'x' is not in this catalogue"),
                       (session.critique(session.Session(), "dark", 1),
                        "critique 'dark' has no direction")):
    (tmp_path / "bad.json").write_text(session.to_json(edited))
    assert says in other.answer(f"/load {tmp_path}/bad.json")
  assert other.session.liked == ("i1",)


@pytest.mark.parametrize(("line", "says"), [
    ("/bogus", "/bogus is no command, expected one of /like, /dislike"), ("/", "/ is no command"),
    ("/like Xanadu", "no item is called 'Xanadu'"), ("/like user:u", "user:u is a user"),
    ("/why 1", "1: the last list has 0 items"), ("/like", "which item? Name it by its title"),
    ("/like ²", "no item is called '²'"),
    ("/save /dev/null/x", "/save /dev/null/x: "), ("/load /", "/load /: no such file"),
    ("/why Heat", "nothing is liked yet"),
    ("/save", "/save needs a file"), ("/load nowhere.json", "/load nowhere.json: no such file"),
    ("more like Xanadu", "'Xanadu' is the title of no item")])
def test_a_mistake_is_one_line_and_changes_nothing(talk, line, says):
  assert talk.answer(line).startswith(says) and "\n" not in talk.answer(line)
  assert talk.session == session.Session() and not talk.over


@pytest.mark.parametrize("farewell", ["/quit", "Bye!", "thanks, goodbye", "ok bye then"])
def test_lines_are_read_until_the_end(run, monkeypatch, capsys, farewell):
  monkeypatch.setattr("sys.stdin", io.StringIO(f"I like Heat\n\n{farewell}\n/bogus\n"))
  chat.run(run, chat.Wish(k=1))
  assert capsys.readouterr().out.splitlines()[1:] == [
      "Noted: you like Heat (1995).", "1. Psycho (1960)  Horror", "Goodbye."]
  monkeypatch.setattr("sys.stdin", io.StringIO("/help"))
  chat.run(run, chat.Wish())
  assert "/like X, /dislike X, /seen X" in capsys.readouterr().out


def test_what_cannot_hold_a_conversation_is_refused(run):
  run.config.phase2.head.weight, run.config.phase1.losses.ui = 0.0, 0.0
  with pytest.raises(errors.UserError, match="needs an item head"):
    chat.Chat(run, variants.ILM, k=2)


def test_a_policy_asks_first_and_the_answer_is_heard(run):
  asked = talker.Talker(run, variants.ILM, 2, asks=policy.Policy(0.0, 1, top=4, hard=True))
  first = asked.reply(session.Session(), "I loved Psycho")
  # Of the four best, Gandhi (1982) has two thirds of the weight.
  assert (first.act, first.text, first.cards) == ("ask", "From 1994 on, or from before?", ())
  then = asked.reply(first.session, "before")
  assert then.session.turns[-2].text == "before"
  assert then.session.constraint.years == (None, 1993)
  assert [card.title for card in then.cards] == ["Gandhi", "Brazil"] and then.act == "refine"
