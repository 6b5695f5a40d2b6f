"""Two jobs in one workdir, and the process that stage prepare starts."""
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from ilm_jax import errors
from ilm_jax.runtime import locks
from ilm_jax.stages import child

ELSEWHERE = """
import sys, time
from ilm_jax.runtime import locks
with locks.held(sys.argv[1], sys.argv[2:]):
  print("locked", flush=True)
  time.sleep(60)
"""
LINGERING = """
import os, pathlib, time
def work(folder):
  while True:
    pathlib.Path(folder, "alive").write_text(str(os.getpid()))
    time.sleep(0.02)
def be_in_c(folder):
  import ctypes
  pathlib.Path(folder, "alive").write_text(str(os.getpid()))
  ctypes.PyDLL(None).sleep(15)         # keeps Python's other threads from running
def fail(folder):
  raise ValueError(f"cannot use {folder}")
def be_killed(folder):
  os.kill(os.getpid(), 9)
"""
PARENT = """
import sys
import lingering
from ilm_jax import errors
from ilm_jax.stages import child
if __name__ == "__main__":
  try:
    child.run("prepare", getattr(lingering, sys.argv[2]), sys.argv[1])
  except errors.Preempted as e:
    print(e)
    sys.exit(143)
  except errors.UserError as e:
    print(e)
    sys.exit(1)
"""


def python(program, *arguments, path="", **kwargs):
  env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(path), os.getcwd()])}
  return subprocess.Popen([sys.executable, program, *map(str, arguments)], env=env, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **kwargs)


@pytest.fixture
def elsewhere(tmp_path):
  (tmp_path / "elsewhere.py").write_text(ELSEWHERE)
  started = []

  def start(workdir, *kinds):
    process = python(tmp_path / "elsewhere.py", workdir, *kinds)
    started.append(process)
    assert process.stdout.readline() == "locked\n"
    return process

  yield start
  for process in started:
    process.kill()
    process.communicate()


def test_a_second_job_is_refused_in_one_line_that_names_the_first(tmp_path, elsewhere):
  workdir = tmp_path / "new" / "run"
  first = elsewhere(workdir, "train")
  with (pytest.raises(errors.UserError, match="another job writes in .*train.*--workdir") as e,
        locks.held(workdir, ["eval", "train"])):
    pass
  assert f"pid {first.pid} on {socket.gethostname()}" in str(e.value) and "\n" not in str(e.value)
  with locks.held(workdir, ["eval"]), locks.held(workdir, []):
    pass             # who evaluates beside training writes elsewhere, who reads needs no lock
  elsewhere(workdir, "eval")     # and what was refused as a whole holds no part of it


def test_who_waits_says_for_whom_and_gets_the_lock_when_it_is_free(
    tmp_path, elsewhere, monkeypatch, capsys):
  first = elsewhere(tmp_path, "eval")
  waited = []

  def sleep(seconds):
    waited.append(seconds)
    first.kill()
    first.wait()

  monkeypatch.setattr(locks.time, "sleep", sleep)
  with locks.held(tmp_path, ["eval"], wait=7), pytest.raises(errors.UserError, match="eval: pid"):
    with locks.held(tmp_path, ["eval"]):
      pass
  assert waited == [7]
  assert capsys.readouterr().err == (
      f"waiting: another job writes in {tmp_path} (eval: pid {first.pid} on "
      f"{socket.gethostname()})\n")


def test_the_lock_dies_with_its_owner(tmp_path, elsewhere):
  first = elsewhere(tmp_path, "train")
  first.kill()
  first.wait()
  with locks.held(tmp_path, ["train"]):
    assert str(os.getpid()) in (tmp_path / ".train.lock").read_text()
  with locks.held(tmp_path, ["train"]):     # and with the context
    pass


def test_a_bucket_is_not_locked(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with locks.held("gs://bucket/run", ["train"]), locks.held("gs://bucket/run", ["train"]):
    assert not list(tmp_path.iterdir())


# --- the process of stage prepare ---

@pytest.fixture
def parent(tmp_path):
  """Starts a process whose child does one of `LINGERING`."""
  (tmp_path / "lingering.py").write_text(LINGERING)
  (tmp_path / "parent.py").write_text(PARENT)
  return lambda what: python(tmp_path / "parent.py", tmp_path, what, path=tmp_path)


@pytest.mark.parametrize("number, code", [(signal.SIGKILL, -9), (signal.SIGTERM, 143)])
def test_the_child_dies_with_its_parent(tmp_path, parent, number, code):
  process = parent("work")
  wait_until((tmp_path / "alive").exists, process)
  process.send_signal(number)
  out, _ = process.communicate(timeout=20)      # the end of stdout, which the child holds too
  assert process.returncode == code
  assert out == "prepare: SIGTERM\n" or code == -9      # where Python's tracker has a word
  (tmp_path / "alive").unlink()
  time.sleep(0.2)
  assert not (tmp_path / "alive").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux's kernel ends it")
def test_a_child_inside_a_library_dies_with_its_parent_at_once(tmp_path, parent):
  process = parent("be_in_c")
  wait_until((tmp_path / "alive").exists, process)
  process.kill()
  process.communicate(timeout=10)      # the end of stdout, which the child holds too
  assert process.returncode == -9


def test_a_child_that_is_killed_is_one_line(parent):
  process = parent("be_killed")
  out, _ = process.communicate(timeout=60)
  assert process.returncode == 1
  assert out.startswith("the process of stage prepare was killed") and out.count("\n") == 1


def test_what_the_child_raises_is_raised(tmp_path, parent):
  out, _ = parent("fail").communicate(timeout=60)
  assert f"ValueError: cannot use {tmp_path}" in out


@pytest.mark.parametrize(("then", "heard"), [("", ""), ("raise ValueError", "CUDA is not there\n")])
def test_what_a_library_says_as_it_loads_is_shown_only_where_that_fails(
    tmp_path, monkeypatch, capfd, then, heard):
  (tmp_path / f"talks{len(then)}.py").write_text(
      f"import os\nos.write(2, b'CUDA is not there\\n')\n{then}")
  monkeypatch.syspath_prepend(str(tmp_path))
  with contextlib.suppress(ValueError):
    child.import_quietly(f"talks{len(then)}")
  os.write(2, b"later")
  assert capfd.readouterr().err == f"{heard}later"


def wait_until(there, process, seconds=60):
  end = time.monotonic() + seconds
  while not there():
    assert time.monotonic() < end and process.poll() is None
    time.sleep(0.01)
