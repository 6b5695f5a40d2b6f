"""Stage serve: a trained run behind HTTP, until it is told to stop.

    python -m ilm_jax.main --config=.. --workdir=W --stage=serve [--host=127.0.0.1] [--port=8000] \\
        [--token=SECRET] [--model=mlp] [--k=5]

It listens at once, and /readyz says when the models can be asked. SIGTERM or Ctrl-C: what runs is
finished, what comes is refused. Nothing is written.
"""
import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
import time
from typing import NamedTuple

import h11
import uvicorn
from uvicorn.protocols.http import h11_impl

from ilm_jax import errors
from ilm_jax.runtime import distributed
from ilm_jax.serving import app as app_lib
from ilm_jax.serving import engine as engine_lib
from ilm_jax.serving import limits as limits_lib
from ilm_jax.serving import metrics as metrics_lib
from ilm_jax.stages import context

_LOCAL = ("127.0.0.1", "localhost", "[::1]")
_CONNECTIONS = 512       # open at a time


class Wish(NamedTuple):
  """What the command line asks for."""
  host: str = "127.0.0.1"
  port: int = 8000
  token: str = ""          # "": $ILM_TOKEN, or none
  model: str = "ilm"       # key of what answers unless a request names another
  k: int = 5               # items of a list, unless a request says how many


def run(run: context.Run, wish: Wish) -> None:
  """Serves until SIGTERM or SIGINT comes.

  Raises:
    UserError: the run cannot hold a conversation; the address cannot be had; several processes.
    KeyboardInterrupt: SIGINT came, and all is finished.
  """
  if (processes := distributed.here().count) > 1:
    raise errors.UserError(f"--stage=serve runs in one process, this job has {processes}")
  limits, metrics = limits_lib.Limits(), metrics_lib.Metrics()
  if not 1 <= wish.k <= limits.k:
    raise errors.UserError(f"--k={wish.k}: expected 1 to {limits.k}")
  token = wish.token or os.environ.get("ILM_TOKEN", "")
  models = engine_lib.served(run, wish.model)
  with contextlib.closing(listening(wish.host, wish.port)) as sock:
    engine = engine_lib.Engine(run, models, wish.k, limits, metrics.batch)
    local = _is_local(wish.host)
    app = app_lib.create(engine, limits, token=token, hosts=_LOCAL if local else (),
                         metrics=metrics)
    url = f"http://{_in_url(wish.host)}:{sock.getsockname()[1]}"
    print(f"serving {', '.join(model.label for model in models)} at {url}", flush=True)
    if not local and not token:
      print("anybody who reaches this address can use it: --token=SECRET asks for a token",
            file=sys.stderr)
    try:
      serve(app, sock, limits, lambda: _warm(engine))
    finally:
      engine.thread.stop()


def listening(host: str, port: int) -> socket.socket:
  """A socket that listens. Raises: UserError, where the address cannot be had."""
  family = socket.AF_INET6 if ":" in host else socket.AF_INET
  sock = socket.socket(family, socket.SOCK_STREAM)
  try:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host, port))
    sock.listen(128)         # who comes before the server runs waits a moment
  except (OSError, OverflowError) as e:
    sock.close()
    raise errors.UserError(f"--host={host} --port={port}: {e}; choose another port, or 0 for any "
                           "that is free") from None
  return sock


def serve(app, sock: socket.socket, limits: limits_lib.Limits, prepare=lambda: None) -> None:
  """Answers on a socket until SIGTERM or SIGINT comes; `prepare` runs in a thread meanwhile.

  Raises: what `prepare` raises; KeyboardInterrupt after SIGINT.
  """
  server, failed = Server.of(app, limits), []

  def prepared():
    try:
      prepare()
    except BaseException as e:       # raised again below, where the program ends by it
      failed.append(e)
      server.should_exit = True

  threading.Thread(target=prepared, name="prepare", daemon=True).start()
  server.run([sock])
  if failed:
    raise failed[0]
  if server.came == signal.SIGINT:
    raise KeyboardInterrupt


class Server(uvicorn.Server):
  """One that ends by itself after a signal, where uvicorn's ends by the signal.

  Attributes:
    came: the first signal; None: none yet.
  """
  came: int | None = None

  @classmethod
  def of(cls, app, limits: limits_lib.Limits) -> "Server":
    """One for an application; `run([socket])` starts it."""
    return cls(uvicorn.Config(
        app, log_level="warning", access_log=False, lifespan="on", server_header=False,
        http=_patient(limits), ws="none", limit_concurrency=_CONNECTIONS, timeout_keep_alive=15,
        timeout_graceful_shutdown=int(limits.seconds)))

  @contextlib.contextmanager
  def capture_signals(self):
    if threading.current_thread() is not threading.main_thread():
      yield
      return
    before = {number: signal.signal(number, self.handle_exit)
              for number in (signal.SIGTERM, signal.SIGINT)}
    try:
      yield
    finally:
      for number, handler in before.items():
        signal.signal(number, handler)

  def handle_exit(self, sig, frame) -> None:
    self.came = self.came or sig
    super().handle_exit(sig, frame)


def _patient(limits: limits_lib.Limits) -> type:
  """A protocol that hangs up on who does not send the head of a request in time."""

  class Patient(h11_impl.H11Protocol):
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport):
      super().connection_made(transport)
      self._watch()

    def data_received(self, data):
      super().data_received(data)
      self._watch()

    def on_response_complete(self):
      super().on_response_complete()
      self._watch()

    def connection_lost(self, exc):
      super().connection_lost(exc)
      if self._timer:
        self._timer.cancel()

    def _watch(self):
      """The time runs while a head is incomplete, from its first byte or the connection on."""
      begun = self.cycle is None or bool(self.conn.trailing_data[0])
      waits = begun and self.conn.their_state is h11.IDLE and not self.transport.is_closing()
      if waits and self._timer is None:
        self._timer = self.loop.call_later(limits.patience, self._hang_up)
      elif not waits and self._timer is not None:
        self._timer.cancel()
        self._timer = None

    def _hang_up(self):
      if not self.transport.is_closing():
        self.transport.write(b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\n"
                             b"content-length: 0\r\n\r\n")
        self.transport.close()

  return Patient


def _warm(engine: engine_lib.Engine) -> None:
  began = time.monotonic()
  engine.warm()
  print(f"ready after {time.monotonic() - began:.0f} s", flush=True)


def _is_local(host: str) -> bool:
  return host in (*_LOCAL, "::1")


def _in_url(host: str) -> str:
  return f"[{host}]" if ":" in host else host
