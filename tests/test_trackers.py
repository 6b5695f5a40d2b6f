"""Trackers: the same numbers by each of them, offline; none of them can end or delay a run."""
import importlib.util
import re
import threading
import time

import pytest

from ilm_jax.config import checks, settings
from ilm_jax.configs import base
from ilm_jax.monitoring import scalars, trackers

RECORDS = [(2, {"loss": 2.0}), (4, {"loss": 1.5})]


def follow(name, workdir, records=RECORDS, first=0):
  """Shows records by a tracker, as a phase does that begins at step `first`."""
  writer = scalars.Writer(workdir / "phase1" / "metrics.jsonl", trackers.make(
      name, workdir, "phase1", {"phase1.steps": 4, "vectors": ("behavioral",)}))
  writer.resume(first)
  for step, values in records:
    writer.write(step, values, {"steps_per_second": 3.0})
  writer.close()


def test_mlflow_keeps_one_run_over_a_restart(tmp_path, monkeypatch, capsys):
  mlflow = pytest.importorskip("mlflow", reason="MLflow: pip install 'ilm-jax[mlflow]'")
  monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
  monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
  follow("mlflow", tmp_path, RECORDS[:1])
  follow("mlflow", tmp_path, RECORDS[1:], first=2)
  assert capsys.readouterr().err.count("warning: tracker") == 0
  client = mlflow.MlflowClient((tmp_path / "mlflow").as_uri())
  experiment = client.get_experiment_by_name("ilm-jax")
  run, = client.search_runs([experiment.experiment_id])
  shown = client.get_metric_history(run.info.run_id, "loss")
  assert [(m.step, m.value) for m in shown] == [(2, 2.0), (4, 1.5)]
  assert run.data.metrics["steps_per_second"] == 3.0 and run.info.status == "FINISHED"
  assert run.data.params == {"phase1.steps": "4", "vectors": "('behavioral',)"}


def test_wandb_offline_leaves_its_files_in_the_workdir(tmp_path, monkeypatch, capsys):
  pytest.importorskip("wandb", reason="Weights & Biases: pip install 'ilm-jax[wandb]'")
  monkeypatch.setenv("WANDB_MODE", "offline")
  follow("wandb", tmp_path)
  assert "warning: tracker" not in capsys.readouterr().err
  written, = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
  data = written.read_bytes()
  assert all(word in data for word in (b"loss", b"steps_per_second", b"phase1.steps"))


def test_trackio_has_the_records_in_its_database(tmp_path, monkeypatch, capsys):
  if importlib.util.find_spec("trackio") is None:      # imported, it would settle on its folder
    pytest.skip("trackio: pip install 'ilm-jax[trackio]'")
  monkeypatch.delenv("TRACKIO_DIR", raising=False)
  follow("trackio", tmp_path)
  assert "warning: tracker" not in capsys.readouterr().err
  data = b"".join(path.read_bytes() for path in (tmp_path / "trackio").rglob("*")
                  if path.is_file())
  assert b"steps_per_second" in data and b"phase1" in data


class Fails:
  """A tracker whose server is gone at one of its calls."""

  def __init__(self, at):
    self.at, self.calls = at, []

  def __getattr__(self, name):
    def call(*arguments):
      self.calls.append((name, *arguments))
      if name == self.at:
        raise ConnectionError("the network\nis gone")
    return call


@pytest.mark.parametrize(("at", "calls"), [("start", 1), ("write", 2), ("close", 4)])
def test_a_tracker_that_fails_is_one_line_and_is_left_out(capsys, tmp_path, at, calls):
  fails, other = Fails(at), Fails("nothing")
  writer = scalars.Writer(tmp_path / "metrics.jsonl", (
      trackers.Background("wandb", fails), trackers.Background("mlflow", other)))
  writer.resume(0)
  for step, values in RECORDS:
    writer.write(step, values, {})
  writer.close()
  said, = capsys.readouterr().err.splitlines()
  assert said == ("warning: tracker 'wandb' failed (ConnectionError: the network is gone); "
                  "training continues without it, metrics.jsonl has all records")
  assert len(fails.calls) == calls
  assert other.calls == [("start", 0), *(("write", *r) for r in RECORDS), ("close",)]
  assert len(scalars.read(tmp_path / "metrics.jsonl")) == 2


def test_no_call_waits_for_a_server_that_is_silent(capsys):
  gone = threading.Event()

  class Silent(Fails):
    def start(self, step):
      gone.wait()

  tracker, began = trackers.Background("wandb", Silent(""), patience=0.05), time.monotonic()
  tracker.start(0)
  tracker.write(1, {"loss": 1.0})
  tracker.close()
  assert time.monotonic() - began < 20
  assert "not sent all records within 0.05 s" in capsys.readouterr().err
  gone.set()


def test_a_phase_that_never_began_closes_nothing(capsys):
  trackers.Background("wandb", Fails("close")).close()
  assert not capsys.readouterr().err       # a close that fails would be said


@pytest.mark.parametrize(("tracker", "says"), [
    ("tensorbord", "tracker='tensorbord' is unknown: .* did you mean 'tensorboard'"),
    ("tensorboard, wandb", "tracker='tensorboard, wandb': wandb is not installed: pip install "
                           r"'ilm-jax\[wandb\]', or leave it out"),
    ("", None), ("tensorboard", None)])
def test_a_tracker_that_is_not_there_is_known_before_any_work(monkeypatch, tracker, says):
  monkeypatch.setattr(checks.path_checks.importlib.util, "find_spec",
                      lambda name: None if name == "wandb" else object())
  c = base.get_config()
  c.tracker = tracker
  wrong = checks.mistakes(c, 1)
  if says is None:
    assert wrong == []
  else:
    assert len(wrong) == 1 and re.search(says, wrong[0])


def test_only_the_process_that_writes_has_trackers(tmp_path, monkeypatch):
  monkeypatch.setattr(trackers.distributed, "is_main", lambda: False)
  assert trackers.make("tensorboard,wandb", tmp_path, "phase1", {}) == ()


def test_a_tracker_is_no_setting_that_decides_numbers():
  c = base.get_config()
  before = settings.of_phase1(c)
  c.tracker = "tensorboard,mlflow"
  assert settings.of_phase1(c) == before
