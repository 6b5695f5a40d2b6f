"""launch/local_pod.py: processes that meet, one that is lost, and a wish to stop; and who joins."""
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from ilm_jax import errors
from ilm_jax.runtime import distributed

ROOT = pathlib.Path(__file__).parents[1]
POD = [sys.executable, str(ROOT / "launch" / "local_pod.py")]
ENV = {**os.environ, "PYTHONPATH": str(ROOT)}

LOSES_ONE = """
import os, signal, sys, time
if os.environ["ILM_PROCESS_ID"] == "1":
  sys.exit(7)
if {deaf}:
  signal.signal(signal.SIGTERM, signal.SIG_IGN)
time.sleep(60)
"""
AGREES = """
from ilm_jax.runtime import distributed
me = distributed.start().process
import jax
from ilm_jax.runtime import axes
stop = distributed.Agreement(axes.make_mesh({"data": jax.device_count()}))
heard = [stop.any(me == 1 and call == 1) for call in range(4)]
last = [stop.any(me == 0, last=True)]
print("heard", heard + last, flush=True)
distributed.wait("end")
"""
STOPS_ON_SIGTERM = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (print("saved"), sys.exit(143)))
print("ready")
time.sleep(60)
"""

SAYS_ITS_PID = "import os, time; print(os.getpid()); time.sleep(60)"


def pod(*args, **environment):
  return subprocess.run([*POD, *args], env={**ENV, **environment}, capture_output=True,
                        text=True, check=False, timeout=120)


def test_two_processes_of_two_devices_sum_over_gloo():
  """Also behind a proxy, which gRPC would ask for the way to this machine."""
  done = pod("-n", "2", "--devices=2", "--", sys.executable, "-m", "launch.pod_check",
             http_proxy="http://127.0.0.1:9", no_proxy="elsewhere")
  assert done.returncode == 0, done.stdout + done.stderr
  said = {line for line in done.stdout.splitlines() if "sum" in line}
  assert said == {f"[{i}] process {i} of 2: 4 devices (cpu), sum 6, expected 6" for i in (0, 1)}


def test_what_one_process_says_all_hear_at_the_same_call():
  """Process 1 says so at call 1: both hear it at call 2. At the last call it is heard at once."""
  done = pod("-n", "2", "--", sys.executable, "-c", AGREES)
  assert done.returncode == 0, done.stdout + done.stderr
  said = {line for line in done.stdout.splitlines() if "heard" in line}
  assert said == {f"[{i}] heard [False, False, True, False, True]" for i in (0, 1)}


@pytest.mark.parametrize(("devices", "says"), [
    (1, "None None"), (2, "false 16")])
def test_programs_of_several_devices_run_in_turn_on_more_threads(devices, says):
  done = pod("-n", "1", f"--devices={devices}", "--", sys.executable, "-c",
             "import os; print(*map(os.environ.get, ('JAX_CPU_ENABLE_ASYNC_DISPATCH', "
             "'PJRT_NPROC')))")
  assert done.stdout.splitlines() == [f"[0] {says}"]


@pytest.mark.parametrize("deaf", [False, True])
def test_a_lost_process_ends_the_pod_within_the_grace(deaf):
  """Also when the others do not hear SIGTERM."""
  start = time.monotonic()
  done = pod("-n", "3", "--grace=1", "--", sys.executable, "-c", LOSES_ONE.format(deaf=deaf))
  assert time.monotonic() - start < 6
  assert done.returncode == 7
  assert done.stderr.splitlines() == [
      "local_pod: process 1 of 3 was lost (exit code 7); the others were stopped within 1 s"]


def test_a_killed_process_is_named_by_its_signal():
  done = pod("-n", "2", "--", sys.executable, "-c",
             "import os, signal, time\n"
             "if os.environ['ILM_PROCESS_ID'] == '0': os.kill(os.getpid(), signal.SIGKILL)\n"
             "time.sleep(60)")
  assert done.returncode == 137
  assert "process 0 of 2 was lost (killed by SIGKILL)" in done.stderr


def test_sigterm_reaches_every_process():
  child = subprocess.Popen([*POD, "-n", "2", "--", sys.executable, "-c", STOPS_ON_SIGTERM],
                           env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
  assert {child.stdout.readline(), child.stdout.readline()} == {"[0] ready\n", "[1] ready\n"}
  child.send_signal(signal.SIGTERM)
  out, err = child.communicate(timeout=20)
  assert child.returncode == 143
  assert set(out.splitlines()) == {"[0] saved", "[1] saved"}
  assert err == "local_pod: stopped by SIGTERM\n"


def test_a_signal_that_comes_while_the_pod_starts_is_passed_on():
  done = pod("-n", "6", "--", "sh", "-c", "kill -TERM $PPID; sleep 60")
  assert done.returncode == 143
  assert done.stderr == "local_pod: stopped by SIGTERM\n"


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help is Linux's")
def test_the_processes_end_with_a_launcher_that_is_killed():
  child = subprocess.Popen([*POD, "-n", "2", "--", sys.executable, "-c", SAYS_ITS_PID], env=ENV,
                           stdout=subprocess.PIPE, text=True)
  pids = [int(child.stdout.readline().split()[1]) for _ in range(2)]
  child.kill()
  child.communicate(timeout=20)
  end = time.monotonic() + 10
  while any(pathlib.Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < end:
    time.sleep(0.05)
  left = [pid for pid in pids if pathlib.Path(f"/proc/{pid}").exists()]
  for pid in left:
    os.kill(pid, signal.SIGKILL)
  assert not left


@pytest.mark.parametrize("args, says", [
    ((), "no command"), (("-n", "0", "--", "true"), "at least 1"),
    (("-n", "2", "--", "no-such-program"), "no-such-program cannot be started")])
def test_a_pod_that_cannot_start_says_why(args, says):
  done = pod(*args)
  assert done.returncode and says in done.stderr and "Traceback" not in done.stderr


# Who joins: ilm_jax/runtime/distributed.py.


@pytest.fixture
def no_environment(monkeypatch):
  for name in (distributed.COORDINATOR, distributed.NUM_PROCESSES, distributed.PROCESS_ID):
    monkeypatch.delenv(name, raising=False)
  return monkeypatch


def test_a_single_process_joins_nothing(no_environment):
  assert distributed.start() == distributed.Place(0, 1)
  assert distributed.start("", "localhost:1234", 1, 0) == distributed.Place(0, 1)
  assert distributed.is_main()
  distributed.wait("nobody")


@pytest.mark.parametrize("given, says", [
    (("always",), "--distributed=always: expected auto"),
    (("", "localhost:1", 2), "--process_id is not set"),
    (("", "", 2, 0), "--coordinator is not set"),
    (("", "localhost", 2, 0), "--coordinator=localhost: expected host:port"),
    (("", "localhost:1", 2, 2), "--process_id=2: expected 0 to 1"),
    (("", "localhost:1", 0, 0), "--num_processes=0: expected at least 1")])
def test_half_a_place_is_refused(no_environment, given, says):
  with pytest.raises(errors.UserError, match=says):
    distributed.start(*given)


@pytest.mark.parametrize(("variables", "says", "no_proxy"), [
    ({}, "", ""), ({"http_proxy": "p", "no_proxy": "x,.b"}, "", "x,.b"),
    ({"http_proxy": "p", "no_proxy": "x"}, "http_proxy is set: process 0 on host.b is reached "
     "without it\n", "x,host.b")])
def test_a_proxy_is_not_asked_for_process_0(no_environment, capsys, variables, says, no_proxy):
  import jax
  for name in ("grpc_proxy", "https_proxy", "http_proxy", "no_grpc_proxy"):
    no_environment.delenv(name, raising=False)
  no_environment.setenv("no_proxy", "")
  for name, value in variables.items():
    no_environment.setenv(name, value)

  def initialize(*_, **__):
    assert os.environ["no_proxy"] == no_proxy
    raise RuntimeError("far enough")
  no_environment.setattr(jax.distributed, "initialize", initialize)
  with pytest.raises(errors.UserError, match="far enough"):
    distributed.start("", "host.b:1", 2, 0)
  assert capsys.readouterr().err == says


def test_a_place_in_the_environment_must_be_whole_numbers(no_environment):
  no_environment.setenv(distributed.NUM_PROCESSES, "two")
  with pytest.raises(errors.UserError, match="ILM_NUM_PROCESSES=two: expected a whole number"):
    distributed.start()
