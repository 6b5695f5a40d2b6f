"""Dialogs from files: your own, and ReDial; what is measured on them."""
import dataclasses
import json
import zipfile

import pytest
import real

from ilm_jax import errors
from ilm_jax.conversation import corpora, dialogs, instances, redial, session, titles
from ilm_jax.data import interactions

ITEMS = interactions.Items(
    ids=["7", "50", "99", "3", "4"],
    titles=["Heat", "Léon (a.k.a. The Professional)", "The Matrix", "Emma", "Emma"],
    years=[1995, 1994, 1999, 1996, 2020], genres=[[], [], [], [], []])
GOOD = {"id": "a", "turns": [{"role": "user", "text": "I liked Heat", "items": [7]},
                             {"role": "recommender", "text": "The Matrix?", "act": "recommend",
                              "items": ["item:99", "matrix (1999)"]}]}


def write(path, *rows):
  path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
  return path


def turn(**fields):
  return {"turns": [{"role": "user", "text": "Hi", **fields}]}


@pytest.mark.parametrize(("name", "row"), [
    ("Heat (1995)", 1), ("HEAT", 1), ("heat  (1996)", 1), ("Heat (1990)", 0), ("Matrix", 3),
    ("The Professional (1994)", 2), ("Leon (1994)", 2), ("Emma", 0), ("Emma (1996)", 4),
    ("Emma (2019)", 5), ("", 0), ("The Matrix%3F (1999)", 3)])
def test_items_by_title_and_year(name, row):
  assert titles.Titles(ITEMS).row(name) == row


def test_an_item_that_is_listed_twice_is_found_without_its_year():
  twice = interactions.Items(ids=["1", "2", "3", "4"], titles=["Amy", "Amy", "Emma", "Emma"],
                             years=[1997, 1997, 1996, 2020], genres=[[], [], [], []])
  assert titles.Titles(twice).row("amy") == 1 and titles.Titles(twice).row("emma") == 0


def test_a_year_that_is_part_of_the_title(tmp_path):
  films = interactions.Items(["1", "2", "3"], ["Heat (1995)", "Heat (1986)", "Up (2009)"],
                             [None] * 3, [[]] * 3)
  found = titles.Titles(films)
  assert [found.row(name) for name in ("Heat (1995)", "heat (1987)", "Up", "Heat", "2009")] == [
      1, 2, 3, 0, 0]


def test_dialogs_of_your_own(tmp_path):
  first, second = dialogs.read(write(tmp_path / "talk.jsonl", GOOD, "\n", turn(items=["Heat"])),
                               ITEMS)
  assert first.id == "a" and second.id == "2"
  assert first.turns[1] == session.Turn("recommender", "The Matrix?", ("99", "99"), "recommend")
  assert second.turns[0].items == ("7",)


@pytest.mark.parametrize(("row", "says"), [
    ({"turns": [{"text": "Hi"}]}, r"turns\[0\] lacks 'role'"),
    (turn(role="system"), r"turns\[0\].role is 'system', expected 'user' or 'recommender'"),
    (turn(text=""), r"turns\[0\].text is '', expected a text that is not empty"),
    (turn(item=["7"]), r"turns\[0\] has the field 'item', .* did you mean 'items'"),
    (turn(items=["8"]), r"turns\[0\].items\[0\] is '8', expected .* of the 5 items"),
    (turn(items=["Heet (1995)"]), r"near it: 'Heat \(1995\)'"),
    ({"turns": [GOOD["turns"][0]] * 10_000}, "has 10,000 turns, expected at most 1,000"),
    ({"turns": []}, r"is \[\], expected an object"), ([], r"is \[\], expected an object"),
    ({"turns": GOOD["turns"], "id": {}}, r"id is \{\}"),
    (GOOD, r"line 2 has the id 'a', which .*line 1 has already: give"),
    ('{"turns": [\n', "is no JSON"), ("[" * 100_000 + "\n", "is no JSON"),
])
def test_a_mistake_is_one_line_with_file_and_line(tmp_path, row, says):
  with pytest.raises(errors.UserError, match=says) as caught:
    dialogs.read(write(tmp_path / "talk.jsonl", GOOD, row), ITEMS)
  assert str(caught.value).startswith(f"{tmp_path}/talk.jsonl, line 2")
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("content", "says"), [
    (None, "is no file"), (b"", "is empty"), (b"\xff\xfe{}", "line 1 is not UTF-8")])
def test_files_without_dialogs(tmp_path, content, says):
  if content is not None:
    (tmp_path / "talk.jsonl").write_bytes(content)
  with pytest.raises(errors.UserError, match=says):
    dialogs.read(tmp_path / "talk.jsonl", ITEMS)


def said(role, text, *items):
  return session.Turn(role, text, items)


TALK = dialogs.Dialog("1", (
    said("recommender", "Hello, know A?", "A"), said("recommender", "Or B?", "B", "A"),
    said("user", "I like B and C", "B", "C"), said("recommender", "Then D, D! Or C", "D", "C", "D"),
    said("user", "E?", "E"), said("recommender", "B", "B")))


def test_instances_and_targets_by_the_rule():
  every = instances.instances([TALK], fresh=False)
  # The first turn has nothing before it.
  assert [(each.at, each.targets) for each in every] == [
      (1, ("B", "A")), (3, ("D", "C")), (5, ("B",))]
  assert [each.named for each in every] == [("A",), ("C", "B", "A"), ("E", "D", "C", "B", "A")]
  assert [(each.at, each.targets) for each in instances.instances([TALK], fresh=True)] == [
      (1, ("B",)), (3, ("D",))]


def test_turns_of_one_side_in_a_row_are_one():
  one = dialogs.joined(TALK)
  assert [turn.items for turn in one.turns] == [("A", "B"), ("B", "C"), ("D", "C"), ("E",), ("B",)]
  assert one.turns[0].text == "Hello, know A? Or B?"
  assert [each.at for each in instances.instances([one], fresh=False)] == [2, 4]


def test_the_copy_of_the_context_ranks_what_was_named_last():
  every = instances.instances([TALK], fresh=False)
  assert instances.copied(every) == [[float("inf"), 1], [float("inf"), 1], [4]]
  fresh = instances.instances([TALK], fresh=True)
  assert {rank for ranks in instances.copied(fresh) for rank in ranks} == {float("inf")}


REDIAL = {"conversationId": "5", "initiatorWorkerId": 1, "respondentWorkerId": 2,
          "movieMentions": {"11": "Heat (1995)", "12": "Emma"},
          "initiatorQuestions": {"11": {"suggested": 0, "seen": 1, "liked": 2}},
          "messages": [{"senderWorkerId": 1, "text": "Like @11, not @99"},
                       {"senderWorkerId": 2, "text": ""},
                       {"senderWorkerId": 2, "text": "@12! @12?"}]}


def test_redials_files(tmp_path):
  talk, bare = redial.read(write(tmp_path / "rd-test-data.jsonl", REDIAL,
                                 {**REDIAL, "movieMentions": []}))
  assert talk.turns == (said("user", "Like @11, not @99", "11"), said("recommender", ""),
                        said("recommender", "@12! @12?", "12"))
  assert talk.answers == {"11": redial.Answer(False, True, None)}
  assert redial.worded(talk.turns[0].text, talk.films) == "Like Heat (1995), not @99"
  assert [turn.items for turn in bare.turns] == [(), (), ()]
  assert redial.read(tmp_path)[0] == talk                            # the folder
  with zipfile.ZipFile(tmp_path / "redial_dataset.zip", "w") as archive:
    archive.write(tmp_path / "rd-test-data.jsonl", "test_data.jsonl")
  assert redial.read(tmp_path / "redial_dataset.zip")[0] == talk
  with pytest.raises(errors.UserError, match="redial_dataset.zip has none of train_data.jsonl"):
    redial.read(tmp_path / "redial_dataset.zip", "train")


def test_redials_films_on_another_catalogue():
  names = {"9": "Heat  (1995)", "10": "Dune (2021)", "11": "matrix", "12": "Dune  (2021)",
           "13": "", "14": "", "15": "Emma ", "8": "dune", "16": "The Matrix (2021)",
           "17": "The Matrix (2022)"}
  talk = redial.Talk("1", (), names, {})
  every, row_of = redial.catalogue([talk, talk], ITEMS)
  assert row_of == {"9": 1, "11": 3, "10": 6, "12": 6, "8": 6, "16": 7, "17": 8, "13": 9, "14": 10,
                    "15": 11}
  assert every.ids[5:] == [f"redial:{film}" for film in (10, 16, 17, 13, 14, 15)]
  assert every.titles[5:] == ["Dune", "The Matrix", "The Matrix", "@13", "@14", "Emma"]
  assert every.years[5:] == [2021, 2021, 2022, None, None, None]
  assert len(every) == len(every.genres) == 11
  assert redial.catalogue([talk], every) == (every, row_of)       # names mean the same films again
  left, named = redial.with_films([talk, talk], ITEMS)
  assert left.titles[5:] == ["Dune", "The Matrix", "The Matrix"]
  assert set(named) == {"7", "99", *(f"redial:{film}" for film in (10, 16, 17))}
  assert redial.catalogue([], ITEMS) == (ITEMS, {})
  renamed = dataclasses.replace(talk, films={"12": "Another Name (1950)"})
  own = interactions.Items(["redial:12"], ["Heard Of"], [2001], [[]])
  assert redial.catalogue([renamed], own) == (own, {"12": 1})


def test_a_name_that_several_films_have_is_none_that_only_dialogs_name():
  """Nor an item of its own where it could be one of the log's."""
  log = interactions.Items(["1", "2", "3"], ["Frozen", "Frozen", "Alien"], [2010, 2013, 1979],
                           [[], [], []])
  talk = redial.Talk("1", (), {"7": "Frozen", "8": "Frozen (2019)", "9": "Alien (1990)"}, {})
  assert redial.catalogue([talk], log)[1] == {"8": 4, "9": 5, "7": 6}
  left, named = redial.with_films([talk], log)
  assert left.ids[3:] == named == ["redial:8", "redial:9"]
  found = titles.Titles(left)
  assert found.row("Alien") == 3 and found.row("Alien (1990)") == 5 and found.row("frozen") == 0


def test_two_items_of_a_title_without_a_year_are_two():
  mugs = interactions.Items(["1", "2"], ["Mug", "Mug"], [None, None], [[], []])
  assert titles.Titles(mugs).row("mug") == 0


@pytest.mark.parametrize(("row", "says"), [
    ({"turns": []}, "lacks messages, movieMentions"), ([], "lacks messages"),
    ({**REDIAL, "messages": [{"text": "Hi"}]}, r"messages\[0\] is .*expected an object with"),
    ({**REDIAL, "messages": [{"text": "Hi", "senderWorkerId": 3}]}, "senderWorkerId is '3'"),
    ({**REDIAL, "initiatorWorkerId": [1]}, r"initiatorWorkerId is \[1\]"),
    ({**REDIAL, "movieMentions": {"11": 5}}, r"movieMentions\['11'\] is 5, expected a text"),
    ({**REDIAL, "messages": [{"text": None, "senderWorkerId": 1}]}, "text is None"),
])
def test_a_line_that_is_no_dialog_of_redial(tmp_path, row, says):
  with pytest.raises(errors.UserError, match=f"test.jsonl, line 2.*{says}"):
    redial.read(write(tmp_path / "test.jsonl", REDIAL, row))


def test_a_broken_zip_and_a_folder_without_redial(tmp_path):
  (tmp_path / "x.zip").write_bytes(b"PK")
  with pytest.raises(errors.UserError, match="x.zip cannot be read as a zip"):
    redial.read(tmp_path / "x.zip")
  with pytest.raises(errors.UserError, match="has none of test_data.jsonl, test.jsonl"):
    redial.read(tmp_path)


@pytest.mark.parametrize(("part", "join", "every", "fresh"), [
    ("test", False, (4198, 4975), (3838, 4472)), ("test", True, (3617, 4897), (3372, 4426)),
    ("valid", False, (2880, 3823), (2732, 3544))])
def test_the_published_counts_of_redial(part, join, every, fresh):
  (path,) = real.shared("redial")
  talks = redial.read(path, part)
  talks = [dialogs.joined(talk) for talk in talks] if join else talks
  for only_fresh, counts in ((False, every), (True, fresh)):
    made = instances.instances(talks, fresh=only_fresh)
    assert (len(made), sum(len(each.targets) for each in made)) == counts


def spoken(role, items=(), act=None):
  return {"role": role, "text": "x", "items": list(items), **({"act": act} if act else {})}


@pytest.mark.parametrize("turns, rows", [
    ([spoken("user", ["7"]), spoken("recommender", ["99"])], [1, 3]),
    ([spoken("recommender", ["99"]), spoken("user", act="reject"),
      spoken("recommender", ["3"])], [4]),
    ([spoken("recommender", ["99"]), spoken("user", act="why"),
      spoken("user", act="critique")], None),
    ([spoken("user", ["7", "50"]), spoken("user", ["7"], "reject")], [2])])
def test_what_people_of_a_dialog_like(tmp_path, turns, rows):
  """All that they name but what the user turns down; the last dialog of a file is for test."""
  path = write(tmp_path / "talks.jsonl", {"turns": turns}, turn(items=["Heat"]))
  found = corpora.liked(f"synthetic,{path}", ITEMS)
  assert [each.tolist() for each in found] == ([rows] if rows else [])


def test_films_of_redials_training_part_are_liked(tmp_path):
  for part, text, more in (("valid", "@11 and @12", {}), ("test", "@12", {"13": "New (2018)"})):
    write(tmp_path / f"{part}.jsonl", {
        "conversationId": "1", "initiatorWorkerId": 0, "respondentWorkerId": 1,
        "movieMentions": {"11": "Heat (1995)", "12": "Unheard Of (2001)", **more},
        "messages": [{"senderWorkerId": 0, "text": text}]})
  sources = f"synthetic,redial:{tmp_path}"
  assert [each.tolist() for each in corpora.liked(sources, ITEMS)] == [[1]]
  assert [talk.films for talk in corpora.redial_training(sources)] == [
      {"11": "Heat (1995)", "12": "Unheard Of (2001)"}]
