"""What stands before the routes: who may ask, how much, how many at a time; and what is counted.

A request's body is read here, whole, before a thread or a place at the model is spent on it.
"""
import asyncio
import hmac
import json
import time
from collections.abc import Callable

from ilm_jax.serving import limits as limits_lib
from ilm_jax.serving import metrics as metrics_lib

CSP = ("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
       "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
_HEADERS = tuple((name.encode(), value.encode()) for name, value in (
    ("content-security-policy", CSP), ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"), ("cache-control", "no-store")))
_GUARDED = ("/v1/", "/metrics")
_READ_ON = 16            # times the limit that is read of a body, and thrown away


class Gate:
  """ASGI middleware around the whole application.

  Args:
    app: what answers.
    limits: what is refused.
    token: needed for all but the page and the health routes; "": for nothing.
    hosts: names by which this server may be called; (): any. A page of another host that resolves
      to this machine has a wrong one.
    ready: whether the models can be asked.
    metrics: counts.
  """

  def __init__(self, app, *, limits: limits_lib.Limits, token: str, hosts: tuple[str, ...],
               ready: Callable[[], bool], metrics: metrics_lib.Metrics):
    self._app, self._limits, self._ready, self._metrics = app, limits, ready, metrics
    self._token, self._hosts, self._running = token, hosts, 0

  async def __call__(self, scope, receive, send) -> None:
    if scope["type"] != "http":
      await self._app(scope, receive, send)
      return
    began, status = time.monotonic(), 499      # 499: the client left before an answer

    async def counted(message):
      nonlocal status
      if message["type"] == "http.response.start":
        status = message["status"]
        message = {**message, "headers": [*message.get("headers", ()), *_HEADERS]}
      await send(message)

    try:
      await self._guarded(scope, receive, counted)
    finally:
      route = getattr(scope.get("route"), "path", None) or "other"
      self._metrics.request(route, status, time.monotonic() - began)

  async def _guarded(self, scope, receive, send) -> None:
    counts = scope["path"].startswith(_GUARDED)
    try:
      self._check(scope, counts)
      self._running += counts
      try:
        body = await self._body(scope, receive)
        await self._app(scope, _replayed(body, receive), send)
      finally:
        self._running -= counts
    except limits_lib.Refused as refused:
      await _answer(refused, send)

  def _check(self, scope, guarded: bool) -> None:
    headers = dict(scope["headers"])
    size = len(scope["raw_path"]) + sum(len(k) + len(v) for k, v in scope["headers"])
    if size + len(scope["query_string"]) > self._limits.head:
      raise limits_lib.Refused(431, f"expected {self._limits.head:,} bytes of a head at most",
                               "too_large")
    host = headers.get(b"host", b"").decode("latin-1")
    if self._hosts and _name(host) not in self._hosts:
      raise limits_lib.Refused(400, f"Host {host[:100]!r} is not this server", "wrong_host")
    if not guarded:
      return
    if self._token:
      scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
      right = hmac.compare_digest(given.strip(), self._token.encode())
      if scheme.lower() != b"bearer" or not right:
        raise limits_lib.Refused(401, "this server needs its token: Authorization: Bearer TOKEN",
                                 "invalid_api_key")
    if not scope["path"].startswith("/v1/"):
      return
    if not self._ready():
      raise limits_lib.Refused(503, "the models are being loaded; /readyz says when they are ready",
                               "not_ready", wait=5)
    if self._running >= self._limits.requests:
      raise limits_lib.Refused(429, f"{self._running} requests are being answered already",
                               "too_many_requests", wait=1)

  async def _body(self, scope, receive) -> bytes:
    length = dict(scope["headers"]).get(b"content-length", b"0")
    parts, size, most = [], 0, self._limits.body
    if not length.isdigit() or len(length) > 18 or int(length) > _READ_ON * most:
      raise self._too_large()
    try:
      async with asyncio.timeout(self._limits.patience):
        while size <= _READ_ON * most:        # a little too large: who sends it hears why
          message = await receive()
          if message["type"] == "http.disconnect":
            raise limits_lib.Refused(400, "the client left before its request was whole")
          size += len(message.get("body", b""))
          parts = [*parts, message.get("body", b"")] if size <= most else []
          if not message.get("more_body"):
            break
    except TimeoutError:
      raise limits_lib.Refused(408, "the request did not arrive within "
                               f"{self._limits.patience:g} seconds", "slow_request") from None
    if size > most:
      raise self._too_large()
    return b"".join(parts)

  def _too_large(self) -> limits_lib.Refused:
    return limits_lib.Refused(413, f"expected {self._limits.body:,} bytes of a request at most",
                              "too_large")


def _name(host: str) -> str:
  """ "localhost:8000" -> "localhost", "[::1]:8000" -> "[::1]"."""
  return host[:host.find("]") + 1] if host.startswith("[") else host.partition(":")[0].lower()


def _replayed(body: bytes, receive):
  """The body once, then what comes: that the client leaves."""
  told = False

  async def again():
    nonlocal told
    if told:
      return await receive()
    told = True
    return {"type": "http.request", "body": body, "more_body": False}
  return again


async def _answer(refused: limits_lib.Refused, send) -> None:
  body = json.dumps(refused.body()).encode()
  headers = {"Content-Type": "application/json", "Content-Length": str(len(body)),
             # What is left of a request that was not read whole is no other request.
             "Connection": "close", **refused.headers()}
  await send({"type": "http.response.start", "status": refused.status,
              "headers": [(k.lower().encode(), v.encode()) for k, v in headers.items()]})
  await send({"type": "http.response.body", "body": body})
