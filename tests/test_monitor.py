"""What is seen of a run: clock and goodput by hand, the rest on the toy."""
import json
import socket
import subprocess
import threading
import time
import warnings

import jax
import pytest
import test_train
import toy

from ilm_jax import errors, files
from ilm_jax.monitoring import clock, goodput, heartbeat, monitor, scalars

# --- the clock ---


def test_busy_and_starved_by_hand():
  """Step 1 is done at 10. Step 2 was called before that. Step 3's batch came 3 s after step 2."""
  watch = clock.Clock()
  watch._note(wait_began=1, batch_ready=2, called=3, complete=10)
  watch._note(wait_began=8, batch_ready=9, called=9.5, complete=14)
  watch._note(wait_began=11, batch_ready=17, called=17.5, complete=20)
  spent = watch.read()
  watch.close()
  assert (spent.steps, spent.busy, spent.starved) == (2, 4 + 2.5, 3)
  assert watch.productive == 6.5


class Later:
  """A result that is there after some seconds, or never."""

  def __init__(self, seconds, error=None):
    self.seconds, self.error = seconds, error

  def block_until_ready(self):
    time.sleep(self.seconds)
    if self.error:
      raise self.error


def test_the_clock_waits_beside_the_loop():
  """Two results of 0.05 s after one that starts the clock, and one that fails."""
  watch = clock.Clock()
  for result in (Later(0), Later(0.05), Later(0.05), Later(0, RuntimeError("device lost"))):
    with watch.waiting():
      pass
    watch.called(time.perf_counter(), result)
  watch.settle()
  spent = watch.read()
  watch.close()
  assert spent.steps == 2 and 0.1 <= spent.busy <= spent.wall
  assert watch.read().steps == 0


# --- goodput ---

def test_goodput_counts_what_restarts_lost_by_hand():
  """Killed at 150 after step 7 of 30 s; the checkpoint of step 5 had 10 s. Back at 200."""
  first = goodput.Ledger(None, 0, began=100.0)
  first.saved(5, 10.0)
  assert first.goodput(30.0, now=150.0) == 30 / 50
  left = json.loads(json.dumps({**first.record(), "state": "running", "time": 150.0}))
  again = goodput.Ledger(left, 5, began=200.0)
  assert again.goodput(20.0, now=300.0) == (10 + 20) / 200
  again.saved(9, 20.0)
  assert again.record() == {"began": 100.0, "kept": {"5": 10.0, "9": 30.0}}
  # Killed again, and the checkpoint of 9 was not whole: step 5 it is.
  third = goodput.Ledger({**again.record(), "state": "running", "time": 310.0}, 5, began=400.0)
  assert third.goodput(0.0, now=500.0) == 10 / 400
  assert third.record()["kept"] == {"5": 10.0}


def test_a_pause_after_the_end_is_no_loss_and_a_run_from_nothing_is_new():
  left = {"began": 100.0, "kept": {"9": 30.0}, "state": "done", "time": 200.0}
  longer = goodput.Ledger(left, 9, began=1000.0)
  assert longer.goodput(10.0, now=1100.0) == (30 + 10) / 200
  assert goodput.Ledger(left, 0, began=1000.0).goodput(10.0, now=1100.0) == 10 / 100
  none_saved = {"began": 100.0, "kept": {}, "state": "running", "time": 200.0}
  assert goodput.Ledger(none_saved, 0, began=250.0).goodput(30.0, now=300.0) == 30 / 200


def test_the_ledger_does_not_grow():
  ledger = goodput.Ledger(None, 0, 0.0)
  for step in range(100):
    ledger.saved(step, float(step))
  assert list(ledger.record()["kept"]) == [str(n) for n in range(92, 100)]


# --- the heartbeat ---

BEAT = {"phase": "phase2", "state": "running", "why": "", "step": 40, "steps": 2000, "loss": 2.5,
        "rate": 0.5, "eta": 3920.0, "goodput": 0.9, "stepped": 999.0, "time": 1000.0, "pid": 7,
        "host": "w0"}


@pytest.mark.parametrize("changes, now, says", [
    ({}, 1001, "phase2 step 40 of 2,000, loss 2.5000, 2.0 s/step, 1:05:20 left, goodput 90%"),
    ({"rate": 4.0, "eta": 490.0, "state": "saving", "loss": None}, 1001,
     "phase2 step 40 of 2,000, saving, 4.00 steps/s, 8:10 left, goodput 90%"),
    ({"rate": None, "eta": None, "loss": None}, 1001, "phase2 step 40 of 2,000"),
    ({}, 1061, "seems dead, process 7 on w0 said nothing for 1:01 (clocks"),
    ({"time": 1100.0}, 1100, "seems stuck, process 7 on w0 is there but made no step for 1:41"),
    ({"time": 1100.0, "rate": 0.1, "eta": 19600.0}, 1100, "10.0 s/step"),   # slow, not stuck
    ({"state": "done"}, 9999, "phase2 step 40 of 2,000: done"),
    ({"state": "stopped", "why": "Preempted: x"}, 9999, ": stopped (Preempted: x); run it again"),
])
def test_a_heartbeat_in_words(changes, now, says):
  assert says in heartbeat.tell({**BEAT, **changes}, now)


@pytest.mark.parametrize("changes, now, says", [
    ({}, 900, "not to be believed, process 7 on w0 wrote this at a time that is 1:40 ahead"),
    ({"step": 2001}, 1001, "not to be believed, there is no such step"),
    ({"host": socket.gethostname(), "pid": None}, 1016, "is gone without a word; run it again")])
def test_a_heartbeat_that_lies_is_not_believed(changes, now, says):
  if "pid" in changes:
    ended = subprocess.Popen(["true"])
    ended.wait()
    changes = {**changes, "pid": ended.pid}
    assert "loss 2.5" in heartbeat.tell({**BEAT, **changes}, 1014)
  assert says in heartbeat.tell({**BEAT, **changes}, now)


def test_a_damaged_heartbeat_is_none(tmp_path):
  heartbeat.Heartbeat(heartbeat.path(tmp_path, "phase1"), lambda: BEAT, 60).close()
  assert heartbeat.read(tmp_path, "phase1")["step"] == 40
  path = heartbeat.path(tmp_path, "phase1")
  path.write_text(path.read_text().replace('"step": 40', '"step": 44'))
  assert heartbeat.read(tmp_path, "phase1") is None


def test_a_clock_that_is_set_back_makes_no_goodput_above_one():
  assert goodput.Ledger(None, 0, began=1000.0).goodput(10.0, now=400.0) == 1.0


def test_a_heartbeat_is_whole_whenever_it_is_read(tmp_path):
  path, beats = heartbeat.path(tmp_path, "phase1"), []
  beating = heartbeat.Heartbeat(path, lambda: {"state": "running", "long": "x" * 20_000}, 0.001)
  end = time.monotonic() + 60
  while len({b["time"] for b in beats}) < 4 and time.monotonic() < end:
    if path.exists():
      beats.append(json.loads(path.read_text()))
  beating.close()
  assert len({b["time"] for b in beats}) == 4 and {len(b["long"]) for b in beats} == {20_000}
  assert [p.name for p in tmp_path.iterdir()] == ["heartbeat.phase1.json"]
  assert heartbeat.read(tmp_path, "phase2") is None
  path.write_text("{")
  assert heartbeat.read(tmp_path, "phase1") is None


def test_a_full_disk_does_not_end_training_here(tmp_path, monkeypatch):
  def full(*_):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(files, "write_text", full)
  beating = heartbeat.Heartbeat(tmp_path / "beat.json", dict, 0.001)
  beating.close()
  assert "No space left" in str(beating.failure)


# --- all of it, on the toy ---

def train(folder, steps=12, **options):
  return toy.fit(
      folder / "phase1", steps, tensorboard=folder / "tensorboard",
      monitor=monitor.Monitor("phase1", steps, workdir=folder, amounts={"examples": 8}, **options))


def test_a_run_seen_is_the_run_unseen(tmp_path, capsys):
  """The same bits and the same log; beside them the clock's words, a heartbeat and a trace."""
  state, _ = train(tmp_path / "seen", profile=(6, 3))
  seen_out = capsys.readouterr().out
  unseen, _ = toy.fit(tmp_path / "unseen", 12)
  assert toy.digest(state) == toy.digest(unseen)
  assert ((tmp_path / "seen" / "phase1" / "metrics.jsonl").read_text()
          == (tmp_path / "unseen" / "metrics.jsonl").read_text())
  assert not capsys.readouterr().out

  tags = {v.tag for e in test_train.read_events(tmp_path / "seen" / "tensorboard")
          for v in e.summary.value}
  clocks = {"step_seconds", "steps_per_second", "input_wait_seconds", "examples_per_second",
            "tflops_per_second", "goodput", "host_peak_gib"}
  assert clocks <= tags and "utilization" not in tags        # no peak of a CPU is published
  assert not clocks & set(scalars.read(tmp_path / "seen" / "phase1" / "metrics.jsonl")[0])
  assert "phase1 4/12  loss " in seen_out and "examples/s" in seen_out.splitlines()[-1]

  beat = heartbeat.read(tmp_path / "seen", "phase1")
  assert (beat["state"], beat["step"], beat["loss_step"]) == ("done", 12, 12)
  assert list(beat["kept"]) == ["5", "10", "12"] and 0 < beat["goodput"] < 1
  trace, = (tmp_path / "seen" / "profile" / "phase1").rglob("*.xplane.pb")
  with warnings.catch_warnings():      # of a type in jaxlib; as an error it aborts Python 3.13
    warnings.simplefilter("ignore", DeprecationWarning)
    steps = [dict(e.stats)["step_num"]
             for plane in jax.profiler.ProfileData.from_file(str(trace)).planes
             for line in plane.lines for e in line.events if e.name == "train"]
  assert steps == [6, 7, 8]
  assert not [t for t in threading.enumerate() if t.name in ("clock", "heartbeat")
              and t.join(1) is None and t.is_alive()]


def test_the_monitor_times_what_is_called_within_it_and_calls_nothing(tmp_path):
  """Two steps of 0.05 s after the one that compiles, of which it knows one output; then the error
  of a step comes through, and is the reason in the heartbeat."""
  phase_monitor = monitor.Monitor("phase1", 9, workdir=tmp_path, quiet=True)
  with pytest.raises(ValueError, match="bad batch"), phase_monitor.start(3):
    for number in range(4, 7):
      with phase_monitor.waiting():
        pass
      with phase_monitor.step(number) as dispatched:
        dispatched.result = Later(0.05)
    rates = phase_monitor.log(6, {"loss": 1.0})
    with phase_monitor.step(7):
      raise ValueError("bad batch")
  assert 0.05 <= rates["step_seconds"] < 5 and "tflops_per_second" not in rates
  beat = heartbeat.read(tmp_path, "phase1")
  assert (beat["state"], beat["step"], beat["why"]) == ("stopped", 6, "ValueError: bad batch")


def test_flops_set_by_the_loop_are_reported_as_a_rate():
  phase_monitor = monitor.Monitor("phase1", 2, quiet=True)
  phase_monitor.flops_per_step = 3e12
  with phase_monitor.start(0):
    for number in (1, 2):
      with phase_monitor.waiting(), phase_monitor.step(number) as dispatched:
        dispatched.result = Later(0.01)
    rates = phase_monitor.log(2, {"loss": 1.0})
  assert rates["tflops_per_second"] == pytest.approx(3 * rates["steps_per_second"])


def test_goodput_goes_on_where_a_stopped_run_was(tmp_path):
  phase_monitor = monitor.Monitor("phase1", 12, workdir=tmp_path, quiet=True)
  with pytest.raises(errors.UserError):
    toy.fit(tmp_path / "phase1", 12, batches=toy.Batches(poison_at=7), monitor=phase_monitor)
  first = heartbeat.read(tmp_path, "phase1")
  assert first["state"] == "stopped" and "UserError: phase1: the loss or its" in first["why"]
  assert first["step"] == 7 and list(first["kept"]) == ["5"]
  train(tmp_path, quiet=True)
  second = heartbeat.read(tmp_path, "phase1")
  assert second["began"] == first["began"] and second["state"] == "done"
  assert second["kept"]["5"] == first["kept"]["5"] < second["kept"]["12"]
