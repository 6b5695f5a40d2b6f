"""A listening socket, and uvicorn until a signal comes; slow clients are disconnected.

Independent of the models.
"""
import asyncio
import contextlib
import signal
import socket
import threading

import h11
import uvicorn
from uvicorn.protocols.http import h11_impl

from ilm_jax import errors
from ilm_jax.serving import limits as limits_lib

_CONNECTIONS = 512       # open at a time


def listening(host: str, port: int) -> socket.socket:
  """A socket that listens. Raises UserError if the address is not available."""
  family = socket.AF_INET6 if ":" in host else socket.AF_INET
  sock = socket.socket(family, socket.SOCK_STREAM)
  try:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host, port))
    sock.listen(128)         # clients that connect before the server runs wait
  except (OSError, OverflowError) as e:
    sock.close()
    raise errors.UserError(f"--host={host} --port={port}: {e}; choose another port, or 0 for any "
                           "free one") from None
  return sock


def serve(app, sock: socket.socket, limits: limits_lib.Limits, prepare=lambda: None) -> None:
  """Answers on a socket until SIGTERM or SIGINT comes; `prepare` runs in a thread meanwhile.

  Raises:
    KeyboardInterrupt: SIGINT came.
    BaseException: what `prepare` raised; it stops the server.
  """
  server, failed = Server.of(app, limits), []

  def prepared():
    try:
      prepare()
    except BaseException as e:       # raised again below, in the main thread
      failed.append(e)
      server.should_exit = True

  threading.Thread(target=prepared, name="prepare", daemon=True).start()
  server.run([sock])
  if failed:
    raise failed[0]
  if server.came == signal.SIGINT:
    raise KeyboardInterrupt


class Server(uvicorn.Server):
  """A uvicorn server that returns after a signal; uvicorn's own raises the signal again.

  Attributes:
    came: the first signal; None: none yet.
  """
  came: int | None = None

  @classmethod
  def of(cls, app, limits: limits_lib.Limits) -> "Server":
    """A server for an application; `run([socket])` starts it."""
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
  """A protocol class that disconnects clients that do not send the head of a request in time or do
  not take the answer; until then the request counts towards `limits.requests`."""

  class Patient(h11_impl.H11Protocol):
    _timer: asyncio.TimerHandle | None = None
    _untaken: asyncio.TimerHandle | None = None

    def connection_made(self, transport):
      super().connection_made(transport)
      transport.set_write_buffer_limits(0)     # pauses as soon as the system's buffer is full
      self._watch()

    def pause_writing(self):
      super().pause_writing()
      self._untaken = self.loop.call_later(limits.patience, self.transport.abort)

    def resume_writing(self):
      super().resume_writing()
      self._taken()

    def data_received(self, data):
      super().data_received(data)
      self._watch()

    def on_response_complete(self):
      super().on_response_complete()
      self._watch()

    def connection_lost(self, exc):
      super().connection_lost(exc)
      self._taken()
      if self._timer:
        self._timer.cancel()

    def _taken(self):
      if self._untaken:
        self._untaken.cancel()
        self._untaken = None

    def _watch(self):
      """The timer runs while a head is incomplete, from the connection or its first byte on."""
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
