"""The eval job that watches: what it evaluates when, and when it ends."""
import json
import pathlib
import types

import pytest

from ilm_jax import errors
from ilm_jax.config import reading as config_lib
from ilm_jax.monitoring import heartbeat
from ilm_jax.stages import context, phases, watching
from ilm_jax.stages import run as stages
from ilm_jax.stages.evals import tables

TINY = pathlib.Path(__file__).parents[1] / "configs" / "tiny.py"


@pytest.fixture
def run(tmp_path, monkeypatch):
  """A run whose evaluations note (phase, newest step, with ILM-rand) in `run.noted`."""
  run = context.Run(config_lib.load(str(TINY)), tmp_path, devices=False)
  run.config.update_from_flattened_dict({"phase2.compare": ("rand",)})
  noted = []
  monkeypatch.setattr(context.Run, "lm", None)
  for name in ("phase1", "phase2"):
    monkeypatch.setattr(
        {"phase1": watching.retrieval, "phase2": watching.tables}[name], "run",
        lambda run, name=name: noted.append(
            (name, watching.newest(run)[name], "rand" in run.config.phase2.compare)))
  monkeypatch.setattr(watching.report, "write", lambda workdir, **shown: noted.append("report"))
  run.noted = noted
  return run


def save(run, phase, step):
  (run.workdir / phase / "checkpoints" / str(step)).mkdir(parents=True)


def test_each_checkpoint_once_and_the_last_with_ilm_rand(run, monkeypatch):
  """Tiny has 4 steps of phase 1, 2 of phase 2. One save between two looks; the fifth look rests."""
  saves = [("phase1", 2), ("phase1", 4), ("phase2", 1), None, ("phase2", 2), ("phase2_rand", 1),
           ("phase2_rand", 2)]

  def sleep(seconds):
    assert seconds == 9
    if (one := saves.pop(0)) is not None:
      save(run, *one)

  monkeypatch.setattr(watching.time, "sleep", sleep)
  watching.run(run, 9, with_report=True)
  assert not saves
  again = ("phase1", 4, True)        # finds its tables there and does nothing
  assert run.noted == [
      ("phase1", 2, True), "report", again, "report",
      again, ("phase2", 1, False), "report",
      again, "report",               # the last step of phase 2 waits for ILM-rand
      again, "report",
      again, ("phase2", 2, True), "report"]
  assert run.config.phase2.compare == ("rand",)


def test_it_says_how_far_training_is_and_that_it_seems_dead(run, monkeypatch, capsys):
  """The newest heartbeat is told, once; when it is old, that."""
  now = [1000.0]
  beat = dict(phase="phase1", state="running", why="", step=3, steps=4, loss=None, rate=None,
              eta=None, goodput=0.5, stepped=999.0, pid=7, host="w0", began=0.0, kept={})
  heartbeat.path(run.workdir, "phase1").write_text(json.dumps({**beat, "time": 999.0}))
  heartbeat.path(run.workdir, "phase2").write_text(json.dumps(
      {**beat, "phase": "phase2", "step": 1, "time": 998.0}))
  assert watching.training(run) is not None

  def sleep(_):
    now[0] += 30
    if now[0] > 1080:
      for phase, last in (("phase1", 4), ("phase2", 2), ("phase2_rand", 2)):
        save(run, phase, last)

  monkeypatch.setattr(watching.time, "sleep", sleep)
  monkeypatch.setattr(watching.time, "time", lambda: now[0])
  watching.run(run, 30, with_report=False)
  told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("training: ")]
  assert told[0] == "training: phase1 step 3 of 4"
  assert "phase1 step 3 of 4: seems dead, process 7 on w0 wrote nothing for 1:01" in told[1]
  assert len(told) == 3          # at 1000, not at 1030, at 1060 and 1090


def test_a_phase1_of_another_workdir_is_not_waited_for(run):
  run.config.update_from_flattened_dict({"phase2.init_from": "gs://bucket/other",
                                         "phase2.compare": ()})
  save(run, "phase2", 2)
  watching.run(run, 1, with_report=False)
  assert run.noted == [("phase2", 2, False)]


def test_where_prompts_name_entities_there_is_no_phase1(run):
  run.config.update_from_flattened_dict({"tasks.entities": "names", "phase2.compare": (),
                                         "phase2.head.weight": 0.0})
  save(run, "phase2", 2)
  watching.run(run, 1, with_report=False)
  assert run.noted == [("phase2", 2, False)]
  phases.phase1(run)                   # needs nothing and leaves nothing
  assert not (run.workdir / "phase1").exists()


def test_a_checkpoint_deleted_while_it_is_read_is_passed_over(run, monkeypatch):
  def overtaken(run):
    save(run, "phase1", 4)
    raise errors.UserError("checkpoint 2 cannot be read")

  save(run, "phase1", 2)
  monkeypatch.setattr(watching.retrieval, "run", overtaken)
  assert not watching.evaluate(run, watching.newest(run))


def test_tables_belong_to_the_checkpoint_that_was_read(tmp_path, monkeypatch):
  """Training saves step 120 while the language model is loaded for the tables of step 100."""
  run = context.Run(config_lib.load(str(TINY)), tmp_path, devices=False)
  asked = []

  def of_phase2(run, read=None):
    asked.append(read)
    if read:
      raise KeyboardInterrupt
    return {"checkpoints": {"phase2": {"step": 100}}}

  monkeypatch.setattr(tables.made_from, "of_phase2", of_phase2)
  monkeypatch.setattr(tables.speaker, "Speaker", lambda run, variant: types.SimpleNamespace(
      variant=variant, step=120))
  alone = types.SimpleNamespace(model=types.SimpleNamespace(variant=None))
  monkeypatch.setattr(tables.methods, "methods", lambda run, ilm: [
      types.SimpleNamespace(model=ilm), alone])
  with pytest.raises(KeyboardInterrupt):
    tables.run(run)
  assert asked == [None, {"phase2": 120}]


def test_a_mistake_is_told(run, monkeypatch):
  def wrong(run):
    raise errors.UserError("made from other inputs")

  save(run, "phase1", 2)
  monkeypatch.setattr(watching.retrieval, "run", wrong)
  with pytest.raises(errors.UserError, match="made from other inputs"):
    watching.evaluate(run, watching.newest(run))


@pytest.mark.parametrize("names", [("report",), ("phase2", "eval")])
def test_watching_is_evaluating(tmp_path, names):
  with pytest.raises(errors.UserError, match="--stage is eval or eval,report, found"):
    stages.watch(config_lib.load(str(TINY)), tmp_path, names, 1.0)
