#!/usr/bin/env python3
"""A pod on one machine: n processes on CPU, which find each other and communicate by gloo.

    python launch/local_pod.py -n 4 -- python -m ilm_jax.main --config=configs/tiny.py ...

Every line of output begins with the number of its process. SIGTERM and SIGINT go to all of them.
When one process ends with an error, the others get SIGTERM, and SIGKILL after --grace seconds; the
last line then names the process that was lost and its exit code, which becomes this program's. On
Linux the processes end with this program however it ends, SIGKILL included.
"""
import argparse
import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time


def main(argv: list[str] | None = None) -> int:
  """Runs the pod and returns the exit code: 0 if every process ended with 0."""
  options = parse(argv)
  return Pod(options.command, options.processes, options.devices, options.grace).wait()


def parse(argv: list[str] | None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
      description="Runs COMMAND as a pod of n processes on this machine.")
  parser.add_argument("-n", dest="processes", type=int, default=2, help="processes (2)")
  parser.add_argument("--devices", type=int, default=1, help="CPU devices of a process (1)")
  parser.add_argument("--grace", type=float, default=10.0,
                      help="seconds from the first loss to SIGKILL of the others (10)")
  parser.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND")
  options = parser.parse_args(argv)
  options.command = options.command[options.command[:1] == ["--"]:]
  if not options.command:
    parser.error("no command: write it after --, e.g. -n 2 -- python -m ilm_jax.main --config=...")
  if options.processes < 1 or options.devices < 1:
    parser.error(f"-n {options.processes} --devices={options.devices}: expected at least 1 of each")
  return options


def environment(process: int, processes: int, port: int, devices: int) -> dict[str, str]:
  """The variables that the environment of a process of the pod has in addition.

  The CPU devices of a process share a pool with one thread per device, and a device that waits in
  an all-reduce keeps its thread. A program can wait in several at once, and the next program in
  more. Then no thread is left to arrive, and XLA stops the process after 40 seconds. So programs
  run one after another, on eight threads per device.
  """
  several = {"JAX_CPU_ENABLE_ASYNC_DISPATCH": "false",
             "PJRT_NPROC": str(8 * devices)} if devices > 1 else {}
  return {**several, "ILM_COORDINATOR": f"localhost:{port}", "ILM_NUM_PROCESSES": str(processes),
          "ILM_PROCESS_ID": str(process), "JAX_PLATFORMS": "cpu",
          "JAX_NUM_CPU_DEVICES": str(devices), "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
          "PYTHONUNBUFFERED": "1", "no_proxy": _past_proxies()}


def _past_proxies() -> str:
  """`no_proxy` with the names of this machine: a proxy cannot reach its processes."""
  present = os.environ.get("no_proxy", os.environ.get("NO_PROXY", ""))
  return ",".join(dict.fromkeys([*filter(None, present.split(",")), "localhost", "127.0.0.1"]))


class Pod:
  """The processes, each with a thread that prints its output.

  Args:
    command: argv of every process.
    processes: how many.
    devices: CPU devices of each.
    grace: seconds in which the others must end after one is lost.
  """

  def __init__(self, command: list[str], processes: int, devices: int, grace: float):
    self._grace = grace
    self._printing = threading.Lock()
    port, end_with_launcher = free_port(), _end_with(os.getpid())
    self._children = []
    self._asked = None         # the signal that was forwarded
    # Before the first process starts, because its output may already make a user send a signal.
    for number in (signal.SIGTERM, signal.SIGINT):
      signal.signal(number, self.forward)
    for i in range(processes):
      try:
        self._children.append(subprocess.Popen(
            command, env={**os.environ, **environment(i, processes, port, devices)},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            # In its own group, ^C reaches it only through `forward`, and kill ends all of it.
            start_new_session=True, preexec_fn=end_with_launcher))
      except OSError as e:
        self._signal(signal.SIGKILL)
        raise SystemExit(f"local_pod: {command[0]} cannot be started: {e.strerror}") from e
    if self._asked is not None:  # a signal came between two starts: later processes missed it
      self._signal(self._asked)
    self._ended = []           # processes in the order in which they ended
    self._readers = [self._thread(self._read, i) for i in range(processes)]
    self._watchers = [self._thread(self._watch, i) for i in range(processes)]

  def forward(self, number: int, _frame=None) -> None:
    """Forwards a signal to every process that still runs."""
    self._asked = number
    self._signal(number)

  def wait(self) -> int:
    """Waits until all have ended; returns 0, or the exit code of the first that was lost."""
    deadline = None
    while any(watcher.is_alive() for watcher in self._watchers):
      if deadline is None and self._lost() is not None:
        deadline = time.monotonic() + self._grace
        if self._asked is None:
          self._signal(signal.SIGTERM)
      if deadline is not None and time.monotonic() > deadline:
        self._signal(signal.SIGKILL)
      time.sleep(0.05)
    for reader in self._readers:     # with a timeout: a grandchild may hold the pipe
      reader.join(timeout=1.0)
    return self._verdict()

  def _verdict(self) -> int:
    lost = self._lost()
    if lost is None:
      return 0
    code = self._children[lost].returncode
    if self._asked is not None:
      self._say(f"local_pod: stopped by {signal.Signals(self._asked).name}", sys.stderr)
    else:
      how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
      self._say(f"local_pod: process {lost} of {len(self._children)} was lost ({how}); the others "
                f"were stopped within {self._grace:g} s", sys.stderr)
    return 128 - code if code < 0 else code

  def _lost(self) -> int | None:
    """The first process that ended with an error; later ones may have failed because of it."""
    return next((i for i in list(self._ended) if self._children[i].returncode), None)

  def _watch(self, process: int) -> None:
    self._children[process].wait()
    self._ended.append(process)

  def _thread(self, job, process: int) -> threading.Thread:
    thread = threading.Thread(target=job, args=(process,), daemon=True)
    thread.start()
    return thread

  def _signal(self, number: int) -> None:
    for child in self._children:
      try:
        if child.poll() is None:
          os.killpg(child.pid, number)
      except ProcessLookupError:      # it has ended in the meantime
        pass

  def _read(self, process: int) -> None:
    for line in self._children[process].stdout:
      self._say(f"[{process}] {line.decode(errors='replace').rstrip()}", sys.stdout)

  def _say(self, text: str, where) -> None:
    with self._printing:
      print(text, file=where, flush=True)


def _end_with(launcher: int):
  """A function for a process to call before its program, so that it dies with the launcher.

  The kernel kills it. Otherwise the job of a killed launcher would run on and keep the lock of its
  workdir. None if the kernel cannot do it.
  """
  if sys.platform != "linux":
    return None
  prctl, set_death_signal = ctypes.CDLL(None).prctl, 1      # found before the fork

  def ask():
    prctl(set_death_signal, signal.SIGKILL)
    if os.getppid() != launcher:       # the launcher ended before the call
      os._exit(1)
  return ask


def free_port() -> int:
  """A port of this machine that nothing listens on."""
  with socket.socket() as s:
    s.bind(("localhost", 0))
    return s.getsockname()[1]


if __name__ == "__main__":
  sys.exit(main())
