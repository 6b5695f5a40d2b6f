"""Forks the processes that render chat templates, because starting Python for each takes .1 s.

    python -P benchmarks/garbage/zygote.py SOCKET TEMPLATE_CHILD

The zygote has imported jinja2 and `template_child`, and nothing else of the project. For each
message on the socket it forks a process on the two pipes that come with the message; that process
runs `template_child.main` under the same limits as one that was started anew.
"""
import importlib.util
import os
import signal
import socket
import sys
from subprocess import Popen  # the one that Forked stands in for


class Forked:
  """What `subprocess.Popen` is for the product: a process that renders, with two pipes."""

  _zygote: socket.socket | None = None

  def __init__(self, command, **_):
    if Forked._zygote is None:
      Forked._zygote = _start(command[-1])
    reads, stdin = os.pipe()
    stdout, writes = os.pipe()
    socket.send_fds(Forked._zygote, [b"f"], [reads, writes])
    os.close(reads)
    os.close(writes)
    self.stdin, self.stdout = os.fdopen(stdin, "wb"), os.fdopen(stdout, "rb")
    self._pid = int(Forked._zygote.recv(16))

  def kill(self) -> None:
    """Kills it and waits until it has ended; again, it does nothing."""
    if self._pid:
      Forked._zygote.send(f"k{self._pid}".encode())
      Forked._zygote.recv(16)
      self._pid = 0

  def wait(self) -> None:
    """Does nothing: `kill` has waited."""


def _start(template_child: str) -> socket.socket:
  ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
  Popen([sys.executable, "-P", __file__, str(its.fileno()), template_child],
        pass_fds=[its.fileno()])
  its.close()
  return ours


def main(number: str, path: str) -> None:
  """Forks and kills until the other end of the socket is closed."""
  spec = importlib.util.spec_from_file_location("template_child", path)
  template_child = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(template_child)
  template_child.compiled("")
  asks = socket.socket(fileno=int(number))
  while True:
    message, pipes, _, _ = socket.recv_fds(asks, 16, 2)
    if not message:
      return
    if message[:1] == b"k":
      os.kill(int(message[1:]), signal.SIGKILL)
      os.waitpid(int(message[1:]), 0)
      asks.send(b"ended")
    elif pid := os.fork():
      for pipe in pipes:
        os.close(pipe)
      asks.send(str(pid).encode())
    else:
      asks.close()
      for pipe, standard in zip(pipes, (0, 1), strict=True):
        os.dup2(pipe, standard)
        os.close(pipe)
      os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
      try:
        template_child.main()
        sys.stdout.flush()
      finally:
        os._exit(0)


if __name__ == "__main__":
  main(*sys.argv[1:])
