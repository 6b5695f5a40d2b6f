"""conversation/rewording.py, and stage targets with `dialogs.reword`: a teacher words dialogs."""
import json
import types

import pytest
from etils import epath

from configs import base, tiny
from ilm_jax import errors
from ilm_jax.config import reading
from ilm_jax.conversation import rewording
from ilm_jax.conversation import session as s
from ilm_jax.data import interactions, targets, teachers
from ilm_jax.stages import dialogs as stage
from ilm_jax.stages import vectors
from tests import test_synthetic

ITEMS = interactions.Items(["h", "b", "f"], ["Heat", "Big", "Fargo"], [1995, 1988, 1996],
                           [["Crime"], ["Comedy"], ["Crime", "Film-Noir"]])


def turn(act, text, *items):
  role = s.USER if act in s.USER_ACTS else s.RECOMMENDER
  return s.Turn(role, text, items, act)


TELL = turn(s.TELL, "I liked Heat (1995) and Fargo (1996). What next?", "h", "f")
CRITIQUE = turn(s.CRITIQUE, "More comedy, please.")
NEWER = turn(s.CRITIQUE, "Something newer.")
EITHER = turn(s.ANSWER, "Either is fine.")
QUESTION = turn(s.ASK, "Newer than 1990, or older?")
REFINE = turn(s.REFINE, "With less crime: Heat (1995).", "h")
REJECT, ACCEPT = turn(s.REJECT, "Not that one."), turn(s.ACCEPT, "Good, I will take that one.")


@pytest.mark.parametrize("was, text, why", [
    (TELL, "Heat (1995) and Fargo (1996) were great. Anything like them?", ""),
    (TELL, "Heat (1995) was great. Anything like it?", "title lost"),
    (TELL, "Heat and Fargo were great.", "title lost"),
    (TELL, "Fargo (1996) and Heat (1995) were great.", "title lost"),
    (TELL, "Heat (1995), Fargo (1996), Lost (1999): what?", "title not in the catalogue"),
    (TELL, "Heat (1995), Fargo (1996), Big (1988): what next?", "another title"),
    (CRITIQUE, "Fargo has more comedy, please.", "another title"),
    (CRITIQUE, "I would enjoy more comedies.", ""),
    (CRITIQUE, "I would enjoy more drama.", "attribute changed"),     # it is lost
    (CRITIQUE, "I would enjoy more comedy and crime.", "attribute changed"),
    (CRITIQUE, "I would enjoy less comedy.", "attribute changed"),
    (CRITIQUE, "Not more comedy, please.", "attribute changed"),
    (NEWER, "A more recent one would be good.", ""),
    (NEWER, "An older one would be good.", "attribute changed"),
    (EITHER, "I do not mind at all.", ""),
    (EITHER, "The newer the better.", "attribute changed"),
    (QUESTION, "Should it be newer than 1990, or older?", ""),
    (QUESTION, "Should it be newer than 1980, or older?", "attribute changed"),
    (QUESTION, "Tell me: newer than 1990, or older.", "act changed"),
    (REFINE, "Heat (1995) has less crime in it.", ""),
    (REFINE, "Heat (1995) has more crime in it.", "attribute changed"),
    (REFINE, "Heat (1995) has less film-noir in it.", "attribute changed"),
    (REJECT, "Something else would be better.", ""),
    (REJECT, "Sounds wonderful to me!", "act changed"),
    (ACCEPT, "Great, that is the one.", ""),
    (ACCEPT, "No, give me another.", "act changed"),
    (ACCEPT, "Sure:\nthat one.", "several lines")])
def test_an_answer_that_changes_more_than_words_is_dropped(was, text, why):
  assert rewording.Rewording(ITEMS, None).flaw(was, text) == why


@pytest.mark.parametrize("text", ["More comedy, like Big (1988).", "More comedy, as in Big.",
                                  "More comedy, like Fargo."])
def test_what_is_recommended_later_is_not_named_before(text):
  secret = 3 if "Fargo" in text else 2
  assert rewording.Rewording(ITEMS, None).flaw(CRITIQUE, text, secret) == "target named early"


def test_a_dialog_keeps_its_acts_items_and_target_and_counts_what_became_of_its_turns():
  turns = [TELL, turn(s.RECOMMEND, "Try Big (1988).", "b"), ACCEPT]
  line = {"id": "1", "target": "b", "history": ["h"],
          "turns": [{**each._asdict(), "items": list(each.items)} if hasattr(each, "_asdict")
                    else {"role": each.role, "text": each.text, "items": list(each.items),
                          "act": each.act} for each in turns]}
  said = {rewording.request(turns, 0).text: targets.Answer("Big or Heat (1995)?", ""),
          rewording.request(turns, 1).text: targets.Answer("Big (1988) is one for you.", "")}
  words = rewording.Rewording(ITEMS, lambda request: said.get(request.text))
  made = words.line(line)
  assert [each["text"] for each in made["turns"]] == [
      TELL.text, "Big (1988) is one for you.", ACCEPT.text]
  assert words.counts == {"target named early": 1, "reworded": 1, "absent": 1}
  for was, now in zip(line["turns"], made["turns"]):
    assert {**was, "text": ""} == {**now, "items": list(now["items"]), "text": ""}
  assert {**made, "turns": 0} == {**line, "turns": 0}


def test_a_request_shows_the_turn_before_and_gives_its_sentence_back():
  asked = rewording.request([ACCEPT, QUESTION], 1)
  assert asked.text == f"User: {ACCEPT.text}\nRecommender: {QUESTION.text}"
  assert rewording.sentence(asked) == QUESTION.text
  assert rewording.sentence(rewording.request([turn(s.ASK, "Well: which?")], 0)) == "Well: which?"


class Teacher:
  """Says the sentence behind "Well,"; fails once it has answered `most` batches."""

  def __init__(self, most=10 ** 6):
    self.most, self.asked = most, []

  def write(self, requests):
    if not self.most:
      raise teachers.TeacherFailed("the teacher is gone", [None] * len(requests))
    self.most -= 1
    self.asked += [request.text for request in requests]
    return [(f"Well, {rewording.sentence(request)}", True) for request in requests]


@pytest.fixture
def new_run(tmp_path, monkeypatch):
  monkeypatch.setattr(vectors, "factorise", lambda *_: (None, test_synthetic.ITEM_I1C))

  def make(name, reword=True, **changes):
    config = tiny.get_config()
    config.dialogs.update(count=8, reword=reword)
    config.targets.update(batch_size=7, **changes)
    return types.SimpleNamespace(
        config=config, workdir=epath.Path(tmp_path / name), mesh=None,
        teacher_fingerprint="f" * 64,
        data=interactions.Data(test_synthetic.log_of(30), test_synthetic.ITEMS, "data-1"))
  return make


def written(run):
  folder = run.workdir / "dialogs"
  return ([json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()],
          json.loads((folder / "manifest.json").read_text()))


def test_the_stage_goes_on_where_its_teacher_failed_and_writes_the_same(new_run, capsys):
  whole, broken, plain = new_run("whole"), new_run("broken"), new_run("plain", reword=False)
  teacher = Teacher()
  stage.run(whole, lambda: teacher)
  lines, manifest = written(whole)
  assert "turns in the words of" in capsys.readouterr().out
  with pytest.raises(errors.UserError, match="the teacher is gone"):
    stage.run(broken, lambda: Teacher(3))
  assert not (broken.workdir / "dialogs" / "manifest.json").exists()
  later = Teacher()
  stage.run(broken, lambda: later)
  assert len(later.asked) == len(teacher.asked) - 21
  assert written(broken) == (lines, manifest)
  stage.run(plain, lambda: pytest.fail("no teacher is needed"))
  templates, without = written(plain)
  assert "turns" not in without and "teacher" not in without["made_from"]
  assert "dialogs.reword" not in without["made_from"]["settings"]
  count = sum(len(line["turns"]) for line in lines) + sum(
      len(json.loads(line)["turns"]) for line in
      (whole.workdir / "dialogs/validation.jsonl").read_text().splitlines())
  assert sum(manifest["turns"].values()) == count and manifest["turns"]["reworded"] == count
  for line, template in zip(lines, templates, strict=True):
    assert [each["text"] for each in line["turns"]] == [
        f"Well, {each['text']}" for each in template["turns"]]
  stage.run(whole, lambda: pytest.fail("all is there"))
  whole.teacher_fingerprint = "e" * 64
  stage.run(whole, lambda: teacher)
  assert written(whole)[1]["made_from"]["teacher"] == "e" * 64


def test_a_users_file_gives_other_words_by_sentence(new_run, tmp_path):
  file = tmp_path / "words.jsonl"
  file.write_text(json.dumps({"task": "dialogs", "ids": ["Not that one."],
                              "target": "Something else, please."}) + "\n")
  run = new_run("file", teacher="file", file=str(file))
  stage.run(run)
  lines, manifest = written(run)
  texts = [each["text"] for line in lines for each in line["turns"]]
  assert "Something else, please." in texts and "Not that one." not in texts
  assert set(manifest["turns"]) == {"absent", "reworded"}


@pytest.mark.parametrize("changes, line", [
    ({"dialogs.reword": True}, "dialogs.reword=True with dialogs.count=0: there is nothing to"),
    ({"dialogs.reword": True, "dialogs.count": 9, "targets.teacher": "file"},
     "targets.file='' does not exist"),
    ({"dialogs.reword": True, "dialogs.count": 9, "targets.teacher": "endpoint"},
     "targets.endpoint='': expected the address")])
def test_a_teacher_that_cannot_be_asked_is_known_before_any_work(changes, line):
  c = base.get_config()
  for name, value in changes.items():
    section, _, field = name.partition(".")
    c[section][field] = value
  with pytest.raises(errors.UserError, match=line):
    reading.validate(c, 1)
