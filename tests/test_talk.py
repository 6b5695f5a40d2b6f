"""Dialogs as multi-turn tasks: what is shown, what is learned, what the head is asked."""
import json
import types

import numpy as np
import pytest
import real

pytest.importorskip("seqio", reason=real.NEEDS_DATA)

import seqio

from ilm_jax import errors
from ilm_jax.conversation import dialogs, redial, session
from ilm_jax.data import chat_files, chat_template, store
from launch import registered
from tasks import conversations, material, prepare, talk, templates
from tests import test_tasks
from tests.test_chat_template import shown, words

ITEMS = test_tasks.ITEMS           # Heat (1995), Alien (1979), Heat (1995), <slot> (2001), Big, Up
USER, US = session.ROLES
TALK = dialogs.Dialog("1", (
    session.Turn(USER, "I liked Alien, and big!", ("b", "e")),
    session.Turn(US, "Why?", (), session.ASK),
    session.Turn(USER, "No reason.", ("f",)),
    session.Turn(US, "Try Heat (1995).", ("a",), session.RECOMMEND),
    session.Turn(USER, "Less crime.", (), None),
    session.Turn(US, "Up (2009) or Heat (1995).", ("f", "a", "c"), session.REFINE)),
    history=("d", "b"), profile="Likes Alien.")
FAMILY = templates.Family(fields=("history",), separator="", seen=("Films:{history}",), unseen=(),
                          fingerprint="1")


def of(name="none", family=FAMILY, **changes) -> material.Material:
  """The tasks' material with the control tokens of all templates."""
  from tasks import vocabulary
  lm, log = words(), test_tasks.log()
  given = dict(interactions=log, items=ITEMS, fingerprint="", text=None, history=2, draws=1,
               lm=vocabulary.SlotVocabulary(lm), max_train_examples=0, prompt_targets=0,
               eval_targets=0, heldout_fraction=0.3, seed=0,
               chats=lambda: chat_template.Chat(chat_files.BUILT_IN[name], lm))
  return material.Material(**given | changes)


def made(m, definition, split="train"):
  """(the example with names for its entities, as a text, for each example)."""
  dataset = definition.source.get_dataset(split, shuffle=False)
  return [dict(e) for e in dataset.as_numpy_iterator()]


def text(m, ids):
  return shown(m.lm.tokenizer, ids)


def test_all_replies_of_a_dialog_are_one_example():
  m = of()
  task = talk.definition(m, "mine", {"train": [TALK], "test": []}, FAMILY)
  (e,) = made(m, task)
  assert text(m, e["inputs"]) == (
      "Films:<slot><slot>\nUser: I liked Alien<slot>, and big<slot>!\nRecommender: Why?</s>\n"
      "User: No reason.<slot>\nRecommender: Try Heat (1995).</s><slot>\n"
      "User: Less crime.\nRecommender:")
  assert text(m, e["targets"]) == " Up (2009) or Heat (1995).</s>"
  np.testing.assert_array_equal(e["entities"], [4, 2, 2, 5, 6, 1])
  assert text(m, e["inputs"][e["reply_at"]]) == " Why?</s> Try Heat (1995).</s>"
  assert len(e["ask_at"]) == 0 and e["target_entity"].tolist() == [0]


@pytest.mark.parametrize("acts, asked", [
    ((None,), [1, 3]), ((session.REJECT,), [3]), ((session.CRITIQUE,), [3]),
    ((session.WHY, session.REJECT), [3]), ((session.WHY, session.ACCEPT), [1, 3])])
def test_what_the_user_turned_down_is_no_target(acts, asked):
  """Of Heat, which is item 1, the user says so, also after asking why."""
  said = [turn for act in acts for turn in (
      session.Turn(USER, "So.", (), act), session.Turn(US, "Since.", (), session.EXPLAIN))]
  dialog = dialogs.Dialog("1", (*TALK.turns[:4], *said, *TALK.turns[4:]))
  task = talk.definition(of(), "mine", {"train": [dialog], "test": []}, FAMILY, recommends=True)
  (e,) = made(of(), task)
  assert e["ask_item"].tolist() == asked


def test_the_head_is_asked_for_what_was_not_named_before():
  """Where the reply begins; "f" and "a" were named, of the last turn "c" is left."""
  m = of()
  task = talk.definition(m, "mine", {"train": [TALK], "test": [TALK]}, FAMILY, recommends=True)
  (e,) = made(m, task)
  assert e["ask_item"].tolist() == [1, 3] and e["target_entity"].tolist() == [3]
  for at, before in zip(e["ask_at"], ("User: No reason.<slot>\nRecommender:",
                                      "User: Less crime.\nRecommender:")):
    assert text(m, e["inputs"][:at + 1]).endswith(before)
  assert text(m, e["inputs"][e["reply_at"]]) == " Try Heat (1995).</s>"
  one, two = made(m, task, "test")           # an example a reply: no other is learned with it
  assert [len(x["reply_at"]) for x in (one, two)] == [0, 0]
  assert text(m, one["targets"]) == " Try Heat (1995).</s>" and one["ask_item"].tolist() == [1]
  np.testing.assert_array_equal(two["inputs"], e["inputs"])


def test_a_slot_stands_where_the_prompts_say():
  for mention, said, rows in (("{item}", "I liked<slot>, and<slot>!", [4, 2, 2, 5]),
                              ("{title}", "I liked Alien, and big!", [4, 2])):
    family = templates.Family(("history",), "", ("Films:{history}",), (), "1", mention=mention)
    m = of()
    e, *_ = made(m, talk.definition(m, "mine", {"train": [TALK], "test": [TALK]}, family), "test")
    assert f"User: {said}\n" in text(m, e["inputs"]).replace("liked <", "liked<").replace(
        "and <", "and<")
    np.testing.assert_array_equal(e["entities"], rows)
  with pytest.raises(errors.UserError, match="mention='.x.' has the places .'x',., expected title"):
    templates.Family((), "", ("Films",), (), "1", mention="{x}")


def test_a_long_dialog_is_cut_between_turns_and_every_reply_is_learned_once():
  """A reply needs the turn before it; one that is longer than the limit with it is one line."""
  turns = [session.Turn((USER, US)[n % 2], f"turn {n} " + "x" * 10) for n in range(20)]
  long = dialogs.Dialog("long", tuple(turns))
  m = of(dialog_tokens=150)
  some = made(m, talk.definition(m, "mine", {"train": [long], "test": [long]}, FAMILY))
  assert len(some) > 1 and all(len(e["inputs"]) + len(e["targets"]) <= 150 for e in some)
  learned = "".join(text(m, e["inputs"][e["reply_at"]]) + text(m, e["targets"]) for e in some)
  assert learned == "".join(f" turn {n} {'x' * 10}</s>" for n in range(1, 20, 2))
  m = of(dialog_tokens=40)
  with pytest.raises(errors.UserError, match="dialog 'long': turn 20 with the turn before it needs "
                                             ".* more than tasks.dialog_tokens=40: raise"):
    talk.definition(m, "mine", {"train": [long], "test": []}, FAMILY)


def test_what_tells_of_the_whole_dialog_is_asked_of_whole_ones(capsys):
  m, other = of(dialog_tokens=100), dialogs.Dialog("2", TALK.turns[:2])
  task = talk.definition(m, "mine", {"train": [TALK, other], "test": []}, FAMILY, whole=True)
  (e,) = made(m, task)
  assert text(m, e["targets"]) == " Why?</s>"
  assert "mine: 1 of 2 dialogs for train are longer than tasks.dialog_tokens=100: left out" in (
      capsys.readouterr().out)


def test_a_model_whose_prompts_are_closed_learns_a_reply_an_example():
  m = of(one_reply=True)
  some = made(m, talk.definition(m, "mine", {"train": [TALK], "test": []}, FAMILY))
  assert [len(e["reply_at"]) for e in some] == [0, 0, 0]


def test_what_nothing_is_learned_of_is_one_line():
  m = of()
  silent = dialogs.Dialog("1", TALK.turns[:1])
  with pytest.raises(errors.UserError, match="no turn that task mine learns: give it others"):
    talk.definition(m, "mine", {"train": [silent], "test": []}, FAMILY)


@pytest.fixture
def workdir(tmp_path):
  """A workdir with its data, and a file of dialogs beside it."""
  from ilm_jax.data import interactions
  interactions.save(tmp_path / "data", test_tasks.log(), ITEMS, {"dataset": "toy-5"})
  line = {"turns": [vars(turn) for turn in TALK.turns], "history": ["d", "item:b"],
          "profile": TALK.profile, "target": "c"}
  explained = {"turns": [*line["turns"][:2], {"role": USER, "text": "Why?"},
                         {"role": US, "text": "It is tense.", "act": "explain"}]}
  (tmp_path / "talks.jsonl").write_text("\n".join(map(json.dumps, [line, explained])))
  return tmp_path


RATES = dict.fromkeys(("elm_title", "conv_next", "conv_critique", "conv_explain", "conv_elicit",
                       "conv_profile"), 1.0)


def test_each_act_is_a_task(workdir, monkeypatch):
  """Registered and prepared as any other; a file is divided into train and test."""
  c = test_tasks.config(dialogs=str(workdir / "talks.jsonl"))
  c.tasks.mixture = RATES
  test_tasks.only(monkeypatch, *RATES)
  lm = words()
  chats = lambda: chat_template.Chat(chat_files.BUILT_IN["chatml"], lm)  # noqa: E731
  (workdir / "talks.jsonl").write_text((workdir / "talks.jsonl").read_text() + "\n" + "\n".join(
      [(workdir / "talks.jsonl").read_text()] * 2))
  names = prepare.prepare(workdir, lm, words(), c, chats=chats)
  learned = {}
  for task in RATES:
    if task.startswith("conv_"):
      e = store.Prepared(workdir / "prepared" / names[task] / "train")[0]
      learned[task] = shown(lm, e["targets"])
  assert learned == {
      "conv_next": "Try Heat (1995).<|im_end|>", "conv_critique": "Up (2009) or Heat (1995)."
      "<|im_end|>", "conv_explain": "It is tense.<|im_end|>", "conv_elicit": "Why?<|im_end|>",
      "conv_profile": "Likes Alien.<|im_end|>"}
  mixed = seqio.get_mixture_or_task(names["ilm"]).get_dataset(
      {"inputs": 64, "targets": 16}, "train", shuffle=False)
  assert set(next(iter(mixed))) >= {"inputs", "targets", "entities"}
  stamp = {path: path.stat().st_mtime_ns for path in workdir.glob("prepared/*/*/manifest.json")}
  prepare.prepare(workdir, lm, words(), c, chats=chats)          # nothing is done again
  assert stamp == {path: path.stat().st_mtime_ns for path in stamp}


def test_a_workdir_with_conversations_is_registered_for_seqios_tools(workdir, monkeypatch):
  c, lm = test_tasks.config(dialogs=str(workdir / "talks.jsonl")), words()
  c.tasks.mixture = {"conv_next": 1.0}
  test_tasks.only(monkeypatch, "conv_next")
  run = types.SimpleNamespace(
      config=c, lm_tokenizer=lm, text_tokenizer=words(), sentence_vectors=None,
      chat=chat_template.Chat(chat_files.BUILT_IN["chatml"], lm))
  (workdir / "config.prepare.json").write_text("{}")
  monkeypatch.setattr(registered.context, "Run", lambda *args, **more: run)
  task = seqio.get_mixture_or_task(registered.register(workdir)["conv_next"])
  example = next(iter(task.get_dataset({"inputs": 64, "targets": 16}, "train", shuffle=False)))
  assert shown(lm, example["targets"].numpy()).startswith("Try Heat (1995).")


@pytest.mark.parametrize("content, line", [
    ("", "talks.jsonl is empty, expected one dialog per line"),
    ('{"turns": [{"text": "x"}]}', r"line 1: turns\[0\] lacks 'role'"),
    ('{"turns": [{"role": "user", "text": "x"}], "history": ["zz"]}',
     r"line 1: history\[0\] is 'zz', expected the id"),
    ('{"turns": [{"role": "user", "text": "x"}], "profile": 7}', "line 1: profile is 7, expected")])
def test_mistakes_in_dialogs_are_one_line(workdir, content, line):
  (workdir / "talks.jsonl").write_text(content)
  m = of(dialogs=str(workdir / "talks.jsonl"), conversations=("conv_next",))
  with pytest.raises(errors.UserError, match=line):
    conversations.definitions(m)


def test_synthetic_dialogs_are_read_where_stage_targets_leaves_them(tmp_path):
  m = of(dialogs="synthetic", dialogs_folder=str(tmp_path), conversations=("conv_next",))
  with pytest.raises(errors.UserError, match="train.jsonl is not there: tasks.dialogs has 'synthe"):
    conversations.definitions(m)
  for name in ("train", "validation"):
    (tmp_path / f"{name}.jsonl").write_text(json.dumps(
        {"turns": [vars(turn) for turn in TALK.turns], "history": ["d"]}))
  task = conversations.definitions(m)
  assert list(task) == ["conv_next"] and len(made(m, task["conv_next"], "test")) == 1


def redial_line(number, *messages):
  return json.dumps({
      "conversationId": str(number), "initiatorWorkerId": 0, "respondentWorkerId": 1,
      "movieMentions": {"11": "alien  (1979)", "12": "Unknown (2000)", "13": "Up (2009)"},
      "messages": [{"senderWorkerId": side, "text": words} for side, words in messages]})


def test_redial_says_titles_as_its_people_do(tmp_path):
  """Films that the catalogue has are slots; each recommends what was not named before."""
  for name in ("valid", "test"):
    (tmp_path / f"{name}.jsonl").write_text(redial_line(
        1, (1, "Hi"), (0, "I like @11 and @12"), (1, "@11 again, or @13 ?"), (1, ""), (1, "ok")))
  m = of(dialogs=f"redial:{tmp_path}", conversations=("redial_recommend", "redial_respond"))
  tasks = conversations.definitions(m)
  (e,) = made(m, tasks["redial_recommend"])
  assert text(m, e["inputs"]).endswith(
      "\nRecommender: Hi</s>\nUser: I like alien (1979)<slot> and Unknown (2000)\nRecommender:")
  assert text(m, e["targets"]) == " alien (1979) again, or Up (2009) ? ok</s>"
  assert e["ask_item"].tolist() == [6] and e["entities"].tolist() == [2]
  assert len(made(m, tasks["redial_respond"])) == 1
  (tmp_path / "test.jsonl").unlink()
  with pytest.raises(errors.UserError, match="these parts of ReDial: valid; expected test, and"):
    conversations.definitions(m)
  assert redial.parts(tmp_path) == ["valid"]
