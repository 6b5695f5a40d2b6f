"""Checks before the routes: token, host, size and number of requests; and counts for /metrics.

The gate reads a request's whole body before the request takes a thread or waits for the model.
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
_READ_ON = 16            # a too large body is read up to this many times the limit, and dropped


class Gate:
  """ASGI middleware around the whole application.

  Args:
    app: the ASGI application that answers.
    limits: of the server.
    token: needed for the API and /metrics; "": no token is needed.
    hosts: accepted names in the Host header; (): any. This stops pages of other hosts whose name
      resolves to this machine.
    ready: -> whether the models can answer.
    metrics: counts the requests.
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
      raise limits_lib.Refused(431, "path and headers are too large, expected "
                               f"{self._limits.head:,} bytes at most", "too_large")
    if not scope["query_string"].isascii():
      raise limits_lib.Refused(400, "the query has other bytes than ASCII, expected %XX for "
                               "them", "invalid_query")
    host = headers.get(b"host", b"").decode("latin-1")
    if self._hosts and _name(host) not in self._hosts:
      raise limits_lib.Refused(400, f"Host {host[:100]!r} is not this server, expected one of "
                               f"{', '.join(self._hosts)}", "wrong_host")
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
      raise limits_lib.Refused(503, "the models are loading: /readyz says when they are ready",
                               "not_ready", wait=5)
    if self._running >= self._limits.requests:
      raise limits_lib.Refused(429, f"the server answers {self._running} requests already: try "
                               "again later", "too_many_requests", wait=1)

  async def _body(self, scope, receive) -> bytes:
    length = dict(scope["headers"]).get(b"content-length", b"0")
    parts, size, most = [], 0, self._limits.body
    if not length.isdigit() or len(length) > 18 or int(length) > _READ_ON * most:
      raise self._too_large()
    try:
      async with asyncio.timeout(self._limits.patience):
        while size <= _READ_ON * most:        # if slightly too large: read on, to answer why
          message = await receive()
          if message["type"] == "http.disconnect":
            raise limits_lib.Refused(400, "the client left before it had sent the whole request")
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
    return limits_lib.Refused(413, "the request's body is too large, expected "
                              f"{self._limits.body:,} bytes at most", "too_large")


def _name(host: str) -> str:
  """ "localhost:8000" -> "localhost", "[::1]:8000" -> "[::1]"."""
  return host[:host.find("]") + 1] if host.startswith("[") else host.partition(":")[0].lower()


def _replayed(body: bytes, receive):
  """A `receive` that returns the body once, and then the messages that follow (a disconnect)."""
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
             # The rest of a partly read request must not be read as the next request.
             "Connection": "close", **refused.headers()}
  await send({"type": "http.response.start", "status": refused.status,
              "headers": [(k.lower().encode(), v.encode()) for k, v in headers.items()]})
  await send({"type": "http.response.body", "body": body})
