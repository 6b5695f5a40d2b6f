"""conversation/synthetic.py: dialogs of a log whose users like one half of the films or other."""
import itertools
import json
import os
import types

import numpy as np
import pytest
from etils import epath

from configs import tiny
from ilm_jax import errors
from ilm_jax.cf import fold_in
from ilm_jax.conversation import dialogs, session, synthetic, titles, wording
from ilm_jax.data import interactions
from ilm_jax.evaluation import audit
from ilm_jax.stages import dialogs as stage
from ilm_jax.stages import vectors

COUNT = 24
ITEMS = interactions.Items(
    [f"i{n}" for n in range(1, COUNT + 1)], [f"Story {n}" for n in range(1, COUNT + 1)],
    [1970 + n for n in range(1, COUNT + 1)],
    [["Comedy", "War"] if n % 3 else ["Horror"] for n in range(1, COUNT + 1)])
ITEM_I1C = np.random.default_rng(1).normal(size=(COUNT + 1, 4)).astype(np.float32)
ITEM_I1C[1:, 0] = [2.0 if n <= COUNT // 2 else -2.0 for n in range(1, COUNT + 1)]
ITEM_I1C[0] = ITEM_I1C[COUNT] = 0                         # nobody met the last one in training
ROW_OF = ITEMS.row_of


def log_of(users=12, met=9):
  rng = np.random.default_rng(0)
  item_N = np.concatenate([
      1 + COUNT // 2 * (user % 2) + rng.permutation(COUNT // 2)[:met] for user in range(users)])
  user_N, time_N = np.repeat(np.arange(users), met), np.tile(np.arange(met), users)
  return interactions.Interactions(
      [f"u{n}" for n in range(users)], COUNT, user_N.astype(np.int32), item_N.astype(np.int32),
      time_N, np.where(np.arange(users * met) % 4, 4.0, 1.0).astype(np.float32))


def maker(log=None, **more):
  return synthetic.Maker(log or log_of(), ITEMS, fold_in.Form(ITEM_I1C, 1.0, 2.0),
                         synthetic.Setting(thing="film"), **more)


def made(count=60, seed=0, of=None, **more):
  return list((of or maker(**more)).lines(np.arange(12), seed, count))


@pytest.fixture(scope="module")
def every():
  return made()


def test_targets_and_histories_are_of_the_training_part_and_in_its_order(every):
  log = log_of()
  assert len(every) == 60 and len({line["id"] for line in every}) == 60
  for line in every:
    span = log.of_user(log.user_ids.index(line["user"]))
    trained = [f"i{row}" for row in log.item_N[span][log.split.train[span]]]
    at = trained.index(line["target"])
    assert line["history"] == trained[:at]
    assert log.value_N[span][at] == 4.0                     # a film that the user likes
    liked = [each["item"] for each in line["opinions"] if each["kind"] == session.LIKED]
    assert liked and set(liked) <= set(line["history"])


def test_the_last_recommendation_is_the_target_and_nothing_of_the_history_is_shown(every):
  for line in every:
    named = [item for turn in line["turns"] if turn["act"] in (session.RECOMMEND, session.REFINE)
             for item in turn["items"]]
    assert named[-1] == line["target"] and len(set(named)) == len(named)
    assert not set(named) & set(line["history"]) and "i24" not in named
    assert line["turns"][-1]["act"] == session.ACCEPT
    said = [turn["text"] for turn in line["turns"]]
    shown = next(n for n, turn in enumerate(line["turns"]) if line["target"] in turn["items"])
    title = interactions.full_title(ITEMS, ROW_OF[line["target"]])
    assert title in said[shown] and not any(title in text for text in said[:shown])


def test_a_seed_gives_the_same_dialogs_and_another_one_others(every):
  assert made(5) == every[:5]
  assert [line["turns"] for line in every[:5]] != [line["turns"] for line in made(5, seed=1)]


def test_every_act_occurs_and_answers_follow_questions(every):
  turns = [line["turns"] for line in every]
  acts = {turn["act"] for of in turns for turn in of}
  assert acts == {*session.USER_ACTS, *session.ACTS} - {session.CHAT}
  for of in turns:
    for before, after in itertools.pairwise(of):
      assert before["role"] != after["role"]
      assert (before["act"] == session.ASK) == (after["act"] == session.ANSWER)
      assert (before["act"] == session.WHY) == (after["act"] == session.EXPLAIN)
      if after["act"] == session.REFINE:
        assert before["act"] in (session.CRITIQUE, session.ANSWER)


def test_what_is_asked_for_is_true_of_the_target(every):
  asked = [(each, line["target"]) for line in every for each in line["critiques"]
           if each["attribute"] == "horror"]
  assert asked
  for each, target in asked:
    assert ("Horror" in ITEMS.genres[ROW_OF[target] - 1]) == (each["steps"] > 0)


def test_the_file_reads_back(tmp_path, every):
  (tmp_path / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in every))
  read = dialogs.read(tmp_path / "train.jsonl", ITEMS)
  assert [each.id for each in read] == [line["id"] for line in every]
  assert read[0].turns[0].act == session.TELL
  parts = {name: every[0][name] for name in ("opinions", "critiques", "turns")}
  assert session.from_json(json.dumps(parts)).liked


def test_a_teacher_that_names_the_target_early_is_caught():
  turns = [session.Turn(session.USER, "I liked Story 1 (1971).", ("i1",), session.TELL),
           session.Turn(session.RECOMMENDER, "Then Story 2 (1972)?", ("i2",), session.RECOMMEND)]
  check = (ITEMS, ROW_OF, titles.Titles(ITEMS))
  assert wording.flaw(turns, 2, *check) == ""
  early = [session.Turn(session.USER, "I liked Story 1 (1971), not Story 2 (1972).", ("i1",),
                        session.TELL), turns[1]]
  assert wording.flaw(early, 2, *check) == "target named early"


def test_a_user_without_a_later_like_has_no_dialog():
  log = log_of(met=3)                                       # one training interaction each
  of = maker(log)
  assert made(of=of) == [] and set(of.dropped) == {"no later like"}


@pytest.fixture
def run(tmp_path, monkeypatch):
  config = tiny.get_config()
  config.dialogs.count = 20
  monkeypatch.setattr(vectors, "factorise", lambda config, log, mesh: (None, ITEM_I1C))
  return types.SimpleNamespace(config=config, workdir=epath.Path(tmp_path), mesh=None,
                               data=interactions.Data(log_of(30), ITEMS, "data-1"))


def test_the_stage_writes_two_parts_that_share_no_user_and_keeps_them(run, capsys):
  stage.run(run)
  assert "20 to train, 2 to validate" in capsys.readouterr().out
  folder = run.workdir / "dialogs"
  parts = [[json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
           for name in ("train", "validation")]
  assert [len(part) for part in parts] == [20, 2]
  assert not {line["user"] for line in parts[0]} & {line["user"] for line in parts[1]}
  for part in parts:
    assert audit.dialogs_of_training("", part, run.data.log, ITEMS.ids) == []
  before = (folder / "train.jsonl").read_bytes()
  written = os.stat(folder / "train.jsonl").st_mtime_ns
  stage.run(run)
  assert os.stat(folder / "train.jsonl").st_mtime_ns == written      # of these data and settings
  (folder / "train.jsonl").write_text("damaged")
  stage.run(run)
  assert (folder / "train.jsonl").read_bytes() == before
  os.utime(folder / "train.jsonl", ns=(0, 0))
  run.config.cf.width = 7
  stage.run(run)
  assert os.stat(folder / "train.jsonl").st_mtime_ns > 0     # of other settings: made anew
  assert (folder / "train.jsonl").read_bytes() == before     # the same factors: the same bytes


def test_a_log_that_gives_no_dialog_is_said_before_a_manifest_is_written(run):
  run.data = run.data._replace(log=log_of(met=3))
  with pytest.raises(errors.UserError, match=r"no dialog \(.* no later like\): it needs users"):
    stage.run(run)
  assert not (run.workdir / "dialogs" / "manifest.json").exists()
