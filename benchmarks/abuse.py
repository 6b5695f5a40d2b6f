"""Abuses a live server with malformed, oversized, half-open, slow and foreign requests at once.

    python -m benchmarks.abuse --config=configs/quickstart.py --workdir=runs/quickstart --minutes=30

Starts `--stage=serve` on a finished run and sends abusive requests from --clients threads, with
good requests in between. Expected: abuse gets a 4xx (or a closed connection if no request could be
read), never a 5xx; good requests are always answered; memory and open files do not grow; SIGTERM
ends the server. Prints a table by kind of abuse; exit code 1 if an expectation fails.
"""
import argparse
import collections
import contextlib
import http.client
import json
import os
import random
import socket
import sys
import threading
import time

from benchmarks import serving
from benchmarks.garbage import mutate, programs

_GROWTH = 96.0           # MiB by which memory may grow after a tenth of the time
_FILES = 16              # open files that may be added
_PATHS = ("/page/../../../etc/passwd", "/page/..%2f..%2fserver.py", "/page/%2e%2e/app.py",
          "/page/....//app.py", "/page//etc/passwd", "/page/%00", "/v1/sessions/../models",
          "/%2e%2e/%2e%2e/etc/passwd", "/page/\\..\\app.py", "/v1/items?q=%ff%fe", "//etc/passwd",
          "/v1/items?k=99999999999999999999", "/v1/items?ids=" + "9," * 9000)
_TEXTS = ("a" * 2000, "not " * 500, "( " * 1000, "more like " * 200, "I loved <slot>",
          "<slot>" * 50, "1. " * 600, "\u202e" * 500, "\ud83c" * 3, "\0" * 100, "\x1b[2J",
          "from the 19" * 180, "less more no only " * 110, "'" * 1999, '"' * 2000, "why " * 400,
          "I liked Heat, " * 140, "%" * 2000, "\n" * 1000 + "x", "between 1990 and " * 110)
_RAW = (b"", b"\0" * 100, b"GET", b"GET / HTTP/1.1\r\n", b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nA" + b"b" * 70_000, b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 3000 + b"\r\n",
        b"POST /v1/users HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/users HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999\r\n\r\n",
        b"POST /v1/users HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: "
        b"chunked\r\n\r\n0\r\n\r\nGET /metrics HTTP/1.1\r\n\r\n",
        b"POST /v1/users HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"ffffffffffffffff\r\nx", b"GET /healthz HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 50,
        b"GET /x\r\nInjected: y HTTP/1.1\r\n\r\n", b"\r\n" * 500)


class Counts:
  """The answers by kind of request, and the failed expectations."""

  def __init__(self):
    self.lock, self.broken = threading.Lock(), []
    self.statuses = collections.defaultdict(collections.Counter)
    self.slowest = collections.defaultdict(float)

  def add(self, kind: str, status, seconds: float, wrong: str = "") -> None:
    """Records one request; status None: the connection was closed."""
    with self.lock:
      self.statuses[kind][status or "closed"] += 1
      self.slowest[kind] = max(self.slowest[kind], seconds)
      if wrong or (status or 0) >= 500:
        self.broken.append(f"{kind}: {wrong or f'status {status}'}")


def ask(port: int, method: str, path: str, body: bytes = b"", headers=None):
  """(status or None, body) of one request."""
  connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
  try:
    # A raw socket: http.client refuses to send malformed requests.
    connection.putrequest(method, "/", skip_accept_encoding=True)
    connection._buffer[0] = f"{method} ".encode() + path.encode("utf-8", "replace") + b" HTTP/1.1"
    for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)),
                        **(headers or {})}.items():
      connection.putheader(name, value)
    connection.endheaders(body)
    answer = connection.getresponse()
    return answer.status, answer.read()
  except (OSError, http.client.HTTPException):
    return None, b""
  finally:
    connection.close()


def raw(port: int, parts, wait: float = 0.0, read: bool = True):
  """The status of the answer to bytes sent in parts; None: no answer."""
  with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 30) as sock:
    for part in parts:
      sock.sendall(part)
      time.sleep(wait)
    if not read:
      return None
    sock.shutdown(socket.SHUT_WR)
    head = sock.recv(65536).split(b" ", 2)
    return int(head[1]) if len(head) > 1 and head[1][:3].isdigit() else None
  return None


def _good(port, rng):
  status, body = ask(port, "POST", "/v1/recommend", json.dumps(
      {"liked": [rng.choice(("50", "100", "181", "7"))], "k": 3}).encode())
  fine = status == 429 or (status == 200 and len(json.loads(body)["recommendations"]) == 3)
  return status, "" if fine else f"a good request was answered by {status}"


def _malformed(port, rng):
  files = mutate.folder(rng, programs._bodies())
  method, _, path = files.get("line", b"GET /").decode("latin-1").partition(" ")
  method = "".join(c for c in method if c.isascii() and c.isalpha())[:20] or "GET"
  path = "".join(c for c in path if " " < c < "\x7f") or "/"
  status, body = ask(port, method, path, files.get("body", b""))
  error = json.loads(body)["error"]["message"] if (status or 0) >= 400 and body else ""
  return status, "a message of several lines" if "\n" in error else ""


def _oversized(port, rng):
  body = b'{"liked": ["' + b"x" * rng.choice((2 ** 18, 2 ** 21, 2 ** 23)) + b'"]}'
  status, _ = ask(port, "POST", "/v1/users", body)
  return status, "it was accepted" if status == 200 else ""


def _path(port, rng):
  status, body = ask(port, "GET", rng.choice(_PATHS))
  return status, "a file came back" if b"root:" in body or b"import " in body else ""


def _foreign(port, rng):
  method = rng.choice(("GET", "PATCH", "DELETE"))
  name = rng.choice(("", "0", "../x", "x" * 99, "%00", f"{rng.getrandbits(128):x}"))
  status, _ = ask(port, method, f"/v1/sessions/{name}", b'{"edits": [{"do": "undo"}]}')
  return status, "a session that is not there" if status in (200, 204) else ""


def _texts(port, rng):
  text = rng.choice(_TEXTS)
  status, _ = ask(port, "POST", "/v1/chat/completions", json.dumps(
      {"messages": [{"role": "user", "content": text}], "stream": rng.random() < .5}).encode())
  return status, "a slot was taken" if "<slot>" in text and status == 200 else ""


def _sessions(port, rng):
  status, body = ask(port, "POST", "/v1/sessions", b"{}")
  if status == 200:
    raw_id = json.loads(body)["id"]
    status, _ = ask(port, "PATCH", f"/v1/sessions/{raw_id}", json.dumps({"edits": [
        {"do": rng.choice(("like", "seen")), "item": "50"}] * 50}).encode())
  return status, ""


def _half_open(port, rng):
  head = b"POST /v1/users HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\n{"
  return raw(port, [head[:rng.randrange(len(head))]], read=False), ""


def _slow(port, rng):
  part = b"POST /v1/users HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90\r\n\r\n{"
  return raw(port, [part[:9], part[9:40], part[40:], *([b" "] * 9)], 1.2), ""


KINDS = {
    "good": (_good, 4), "malformed": (_malformed, 8), "raw bytes": (
        lambda port, rng: (raw(port, [rng.choice(_RAW)]), ""), 6),
    "oversized": (_oversized, 1), "paths": (_path, 3), "foreign sessions": (_foreign, 3),
    "texts": (_texts, 4), "new sessions": (_sessions, 3), "half-open": (_half_open, 4),
    "slow": (_slow, 1)}


def client(port: int, seed: int, until: float, counts: Counts) -> None:
  """Sends requests of all kinds until a given time."""
  rng = random.Random(seed)
  names, weights = list(KINDS), [weight for _, weight in KINDS.values()]
  while time.monotonic() < until:
    kind = rng.choices(names, weights)[0]
    began = time.monotonic()
    status, wrong = KINDS[kind][0](port, rng)
    counts.add(kind, status, time.monotonic() - began, wrong)


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--config", default="configs/quickstart.py")
  parser.add_argument("--workdir", required=True)
  parser.add_argument("--minutes", type=float, default=30.0)
  parser.add_argument("--clients", type=int, default=12)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--port", type=int, default=8799)
  args, more = parser.parse_known_args()
  child = serving.started(
      [sys.executable, "-m", "ilm_jax.main", f"--config={args.config}", "--stage=serve",
       f"--workdir={args.workdir}", f"--port={args.port}", *more], args.port)
  for number in range(50):           # late imports must not count as answer time
    mutate.odd(random.Random(number))
  counts, seen, began = Counts(), [], time.monotonic()
  until = began + 60 * args.minutes
  threads = [threading.Thread(target=client, args=(args.port, args.seed + n, until, counts))
             for n in range(args.clients)]
  files = len(os.listdir(f"/proc/{child.pid}/fd"))
  for thread in threads:
    thread.start()
  while any(thread.is_alive() for thread in threads) and child.poll() is None:
    seen.append((time.monotonic() - began, serving.rss(child.pid)))
    time.sleep(1)
  if child.poll() is not None:
    counts.broken.append(f"the server ended with {child.returncode}")
  else:
    time.sleep(20)                     # the server closes half-open connections
    after = len(os.listdir(f"/proc/{child.pid}/fd"))
    early = [size for at, size in seen if at >= 6 * args.minutes][:1] or [seen[0][1]]
    last = serving.rss(child.pid)
    print(f"open files: {files} before, {after} after; RSS: {early[0]:.0f} MiB after a tenth of "
          f"the time, {max(size for _, size in seen):.0f} at most, {last:.0f} at the end")
    if after > files + _FILES:
      counts.broken.append(f"{after} files are open, {files} were open before")
    if last > early[0] + _GROWTH:
      counts.broken.append(f"memory grew from {early[0]:.0f} to {last:.0f} MiB")
    status, wrong = _good(args.port, random.Random(0))
    counts.add("good", status, 0.0, wrong)
    serving.stopped(child)
    if child.returncode:
      counts.broken.append(f"SIGTERM: exit code {child.returncode}")
  print("| kind | requests | answered by | slowest, s |\n|---|---|---|---|")
  for kind, of in counts.statuses.items():
    shown = ", ".join(f"{status}: {n:,}" for status, n in sorted(of.items(), key=str))
    print(f"| {kind} | {of.total():,} | {shown} | {counts.slowest[kind]:.1f} |")
  for wrong, n in collections.Counter(counts.broken).most_common(20):
    print(f"broken {n} x {wrong}")
  return int(bool(counts.broken))


if __name__ == "__main__":
  sys.exit(main())
