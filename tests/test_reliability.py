"""What benchmarks.kills, faults and long_run judge by; stage audit's look at every file."""
import hashlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import types

import jax
import numpy as np
import pytest
import toy

from benchmarks import fault_bucket, flips, jobs, kills, long_run, workdirs
from configs import tiny
from ilm_jax import files
from ilm_jax.config import gin_overlay
from ilm_jax.config import reading as config_lib
from ilm_jax.data import arrays, store, targets
from ilm_jax.evaluation import measured
from ilm_jax.monitoring import heartbeat, scalars
from ilm_jax.stages import damage
from ilm_jax.training import checkpoint, loop

SLEEPER = "import subprocess; subprocess.run(['sleep', '60'])"


@pytest.fixture
def workdir(tmp_path):
  """One file of each kind that needs no stage to be made."""
  trainable, _ = toy.parameters()
  with checkpoint.Checkpointer(tmp_path / "phase1" / "checkpoints", toy.FINGERPRINTS) as saved:
    saved.save(loop.init_state(trainable, toy.TX, toy.one_device())._replace(
        step=jax.numpy.int32(4)), {"loss": [1.0, 2]})
  writer = scalars.Writer(tmp_path / "phase1" / "metrics.jsonl")
  writer.write(4, {"loss": 0.25}, {})
  arrays.save_file(tmp_path / "factors.npz", {"items": np.arange(9, dtype=np.float32)})
  store.write(tmp_path / "prepared" / "task" / "train", [{"inputs": [1, 2]}], {"made_from": {}})
  files.write_text(tmp_path / "prepared" / "index.json",
                   json.dumps(files.stamped({"names": {"1": "Heat"}})))
  targets.Store(tmp_path / "targets", "a" * 64).add({"k": targets.Answer("Steal it.", "")})
  tables = tmp_path / "eval" / "phase1" / "4"
  files.write_text(tables / "loss.json", '{"rows": [0.5]}')
  measured.mark(tables, {"checkpoints": {}})
  line = '{"id": "train 1"}\n'
  manifest = {"files": {"train.jsonl": hashlib.sha256(line.encode()).hexdigest()}}
  files.write_text(tmp_path / "dialogs" / "train.jsonl", line)
  files.write_text(tmp_path / "dialogs" / "manifest.json", json.dumps(
      {**manifest, "fingerprint": arrays.of_manifest(manifest, "fingerprint")}))
  files.write_text(tmp_path / "config.phase1.json", config_lib.to_json(tiny.get_config()))
  files.write_text(tmp_path / "config.phase1.gin", gin_overlay.to_gin(tiny.get_config()))
  heartbeat.Heartbeat(heartbeat.path(tmp_path, "phase1"), lambda: {"step": 4}, 60).close()
  return tmp_path


def test_no_flipped_bit_of_any_file_stays_unnoticed(workdir):
  clean = dict(damage.checks(workdir))
  assert len(clean) == 9 and not any(clean.values())
  before = workdirs.content(workdir)
  rows = flips.run(workdir, 60, seed=1)
  assert [row["unnoticed"] for row in rows] == [[]] * len(rows)
  assert sum(row["named"] for row in rows) > 45 and len(rows) == 14
  assert workdirs.content(workdir) == before         # each was put back


def test_reports_may_differ_by_the_folder_in_which_they_were_made_alone(tmp_path):
  for name, made, metric in (("one", "one", 1), ("two", "two", 1), ("copied", "one", 1),
                             ("other", "other", 2)):
    (tmp_path / name).mkdir()
    (tmp_path / name / "report.json").write_text(json.dumps(
        {"summary": {"report": f"{tmp_path}/{made}/report.html", "command": f"--workdir="
                     f"{tmp_path}/{made} --stage=eval"}, "metric": metric}))
  one, *equal, other = (workdirs.content(tmp_path / name)
                        for name in ("one", "two", "copied", "other"))
  assert equal == [one, one] and workdirs.differences(one, other) == ["report.json"]


def test_audit_names_the_damage_of_each_file(workdir):
  (workdir / "eval" / "phase1" / "4" / "loss.json").unlink()
  (workdir / "config.phase1.gin").write_text("config.seed = 7\n")
  (workdir / "prepared" / "index.json").write_text("[")
  (workdir / "dialogs" / "train.jsonl").unlink()
  wrong = {name: text for name, texts in damage.checks(workdir) for text in texts}
  assert wrong.keys() == {"dialogs", "eval/phase1/4", "config.phase1.json",
                          "prepared/index.json"}
  assert "loss.json is missing: run --stage=eval" in wrong["eval/phase1/4"]
  assert "train.jsonl is damaged" in wrong["dialogs"]
  assert "do not agree" in wrong["config.phase1.json"]


def test_equal_runs_are_equal_whatever_their_times_and_one_array_is_a_difference(workdir):
  one = workdirs.content(workdir)
  assert "phase1/checkpoints/4" in one and "heartbeat.phase1.json" not in one
  answers, = (workdir / "targets").iterdir()
  targets.Store.of_folder(answers).add({"l": targets.Answer("Steal more.", "")})
  (workdir / "heartbeat.phase1.json").write_text("{}")
  arrays.save_file(workdir / "factors.npz", {"items": np.ones(9, np.float32)})
  assert workdirs.differences(one, workdirs.content(workdir)) == [
      "factors.npz", f"targets/{answers.name}"]


def test_half_written_files_are_seen(tmp_path):
  for name in (".loss.json.12.0123456789ab", ".train.0123456789ab.writing/shard",
               "checkpoints/4.orbax-checkpoint-tmp/meta", ".train.lock", "items.json"):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("")
  found = workdirs.temporaries(tmp_path)
  assert {pathlib.Path(name).parts[0] for name in found} == {
      ".loss.json.12.0123456789ab", ".train.0123456789ab.writing", "checkpoints"}


def look(step, rss=100.0, opened=10, newest=0, beat=None):
  return {"time": 0.0, "step": step, "rss": rss, "files": opened, "newest": newest,
          "beat": float(step) if beat is None else beat}


@pytest.mark.parametrize("samples, broken", [
    ([look(s, newest=s - s % 10) for s in range(0, 100, 5)], []),
    ([look(s, rss=100 + s) for s in range(0, 100, 5)], ["memory"]),
    ([look(s, opened=10 + s) for s in range(0, 100, 5)], ["open files"]),
    ([look(0), look(50), look(120)], ["heartbeat"]),                 # there are 100 steps
    ([look(40, newest=80), look(41, newest=80)], ["heartbeat"]),     # 80 was saved long ago
    ([look(40, newest=40, beat=1), look(40, newest=80, beat=1)], []),     # not yet renewed
])
def test_what_a_long_run_shows(samples, broken):
  assert long_run.verdict(samples, steps=100, most=5.0)["broken"] == broken


def test_a_second_job_that_ends_by_itself_is_found():
  killed = []
  jobs_like = [types.SimpleNamespace(wait=lambda seconds, code=code: code, said=lambda: "Traceback",
                                     kill=lambda: killed.append(1)) for code in (None, 1, 0)]
  assert [len(long_run.stopped(job)) for job in (None, *jobs_like)] == [0, 0, 1, 1]
  assert len(killed) == 1 and "exit code 1: Traceback" in long_run.stopped(jobs_like[1])[0]


def test_a_job_is_killed_with_its_children_or_alone():
  job = jobs.Job.__new__(jobs.Job)
  child = subprocess.Popen([sys.executable, "-c", SLEEPER], start_new_session=True)
  job.pid, job._code = child.pid, None
  while not jobs.children(child.pid):
    assert job.wait(0.05) is None
  sleeper, = jobs.descendants(child.pid)
  job.kill("main")
  assert job.wait(10) == -9 and jobs.alive(sleeper)
  assert jobs.lingering([sleeper], 0.0) == [sleeper]
  os.kill(sleeper, 9)
  assert jobs.lingering([sleeper], 10.0) == []


def test_a_campaign_of_kills_goes_on_from_its_outcomes(tmp_path, monkeypatch):
  """Each call runs two rounds of one kill; no draw comes twice; a wrong bit stays on the record."""
  monkeypatch.setattr(jobs, "call", lambda function, *arguments: function(*arguments))
  drawn = []

  def campaign(seed=0):
    made = kills.Campaign(types.SimpleNamespace(workdir=tmp_path, seed=seed, processes=1), ())
    monkeypatch.setattr(made, "_to_its_end", lambda name: (made.run / "a").write_text("a") and 2.0)
    made.undisturbed("cf", None)
    return made

  def killed(name, number, one):
    drawn.append(number)
    one["draws"].append({"number": number, "ended": "killed" if len(drawn) % 2 else "exit code 0"})
    return len(drawn) % 2 == 1

  copy = kills._copy
  for bits in ("a", "b"):
    made = campaign()
    monkeypatch.setattr(made, "_killed", killed)
    for _ in range(2):
      monkeypatch.setattr(kills, "_copy", lambda source, target, bits=bits: (
          copy(source, target), (target / "a").write_text(bits)))
      made.round("cf")
      monkeypatch.setattr(kills, "_copy", copy)
  row, = campaign().rows()
  assert drawn == list(range(8)) and (row["kills"], row["rounds"]) == (4, 4)
  assert row["wrong"] == ["a", "a"] and row["refused"] == row["outlived"] == []
  with pytest.raises(SystemExit, match="name another --workdir"):
    campaign(seed=1)


def test_the_proxy_of_a_bucket_refuses_stalls_and_answers_half():
  for answer in fault_bucket.ANSWERS.values():
    with fault_bucket.proxy(answer) as (address, calls):
      host, port = address.removeprefix("http://").split(":")
      with socket.create_connection((host, int(port)), timeout=0.3) as client:
        client.sendall(b"CONNECT x:443")
        if answer is None:
          with pytest.raises(TimeoutError):
            client.recv(1)
        else:
          assert client.recv(1 << 10) == answer
      assert len(calls) == 1
