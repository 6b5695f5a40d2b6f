"""A server that listens: clients of others talk to it, and bad ones do it no harm."""
import concurrent.futures
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from ilm_jax import errors
from ilm_jax.config import variants
from ilm_jax.serving import app, engine, limits, listener
from tests import talks

ROOT = pathlib.Path(__file__).parents[1]
LIMITS = limits.Limits(requests=8, waiting=4, seconds=5, patience=0.4)
TOKEN = "s3cret"


@pytest.fixture(scope="module")
def port():
  """Of a server in a thread."""
  with pytest.MonkeyPatch.context() as patch:
    made = engine.Engine(talks.run(patch), [variants.ILM], 2, LIMITS)
    made.warm()
    with listener.listening("127.0.0.1", 0) as sock:
      serving = listener.Server.of(app.create(made, LIMITS, token=TOKEN), LIMITS)
      thread = threading.Thread(target=serving.run, args=([sock],))
      thread.start()
      yield sock.getsockname()[1]
      serving.handle_exit(signal.SIGTERM, None)
      thread.join(10)
      assert not thread.is_alive()
    made.thread.stop()


def ask(port, method, path, body=None, headers=None):
  """(status, JSON) of one request."""
  connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
  try:
    connection.request(method, path, body, {
        "Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json", **(headers or {})})
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read() or b"null")
  finally:
    connection.close()


def raw(port, *parts, wait=0.0) -> bytes:
  """What comes back for bytes, sent one part after the other; b"" where it hangs up."""
  with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
    for part in parts:
      sock.sendall(part)
      time.sleep(wait)
    made = b""
    try:
      while data := sock.recv(65536):
        made += data
    except ConnectionResetError:
      pass
    return made


# OpenAI's client.

@pytest.fixture
def client(port):
  openai = pytest.importorskip("openai", reason="pip install -r requirements-parity.lock")
  with openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=TOKEN, max_retries=0) as made:
    yield made


LIKES = [{"role": "user", "content": "I loved Psycho"}]


def test_openais_client_has_a_conversation(client):
  assert [model.id for model in client.models.list()] == ["ilm"]
  said = client.chat.completions.create(model="ilm", messages=LIKES, temperature=0.2)
  message = said.choices[0].message
  assert message.role == "assistant" and "1. Gandhi (1982)" in message.content
  assert said.recommendations[0]["title"] == "Gandhi" and said.usage.total_tokens > 3
  more = [*LIKES, message.model_dump(exclude_none=True), {"role": "user", "content": "no comedy"}]
  said = client.chat.completions.create(model="ilm", messages=more, extra_body={"k": 1})
  assert "1. Speed (1994)" in said.choices[0].message.content


def test_openais_client_reads_a_stream(client):
  chunks = list(client.chat.completions.create(
      model="ilm", messages=LIKES, stream=True, stream_options={"include_usage": True}))
  text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
  assert text.startswith("Try these:\n1. Gandhi (1982)") and len(chunks) > 5
  assert chunks[-1].usage.completion_tokens == len(text.split())
  assert chunks[-2].choices[0].finish_reason == "stop"
  assert [card["id"] for card in chunks[-2].recommendations] == ["i11", "i10"]


def test_openais_client_raises_its_own_errors(client):
  import openai
  with pytest.raises(openai.NotFoundError, match="model 'gpt-4' is not served"):
    client.chat.completions.create(model="gpt-4", messages=LIKES)
  with pytest.raises(openai.BadRequestError, match="marks the place of a vector") as e:
    client.chat.completions.create(model="ilm", messages=[{"role": "user", "content": "a <slot>"}])
  assert e.value.code == "reserved_word" and e.value.type == "invalid_request_error"
  with pytest.raises(openai.UnprocessableEntityError, match="n: "):
    client.chat.completions.create(model="ilm", messages=LIKES, n=3)
  with pytest.raises(openai.AuthenticationError, match="needs its token"):
    client.with_options(api_key="x").models.list()


def test_the_description_holds(port):
  """Requests that schemathesis makes of /openapi.json: every answer is one that is described."""
  schemathesis = pytest.importorskip(
      "schemathesis", reason="pip install -r requirements-parity.lock")
  import hypothesis
  from schemathesis import checks
  schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json")
  held = [checks.CHECKS.get_one(name) for name in (
      "not_a_server_error", "status_code_conformance", "content_type_conformance",
      "response_schema_conformance")]
  refused = checks.CHECKS.get_one("negative_data_rejection")      # does not know 431
  count = 0
  for result in schema.get_all_operations():
    operation = result.ok()
    strategy = operation.as_strategy() | operation.as_strategy(
        generation_mode=schemathesis.GenerationMode.NEGATIVE)

    @hypothesis.settings(max_examples=2, phases=[hypothesis.Phase.generate], deadline=None,
                         database=None, derandomize=True,
                         suppress_health_check=list(hypothesis.HealthCheck))
    @hypothesis.given(case=strategy)
    def holds(case):
      answer = case.call(headers={"Authorization": f"Bearer {TOKEN}"})
      case.validate_response(answer, checks=held + [refused] * (answer.status_code != 431))

    holds()
    count += 1
  assert count >= 14


@pytest.mark.skipif(not shutil.which("curl"), reason="the page calls curl")
def test_the_page_of_docs_as_written(port, tmp_path):
  pytest.importorskip("openai", reason="pip install -r requirements-parity.lock")
  page = (ROOT / "docs" / "serve.md").read_text().replace(":8000", f":{port}")
  blocks = re.findall(r"^```(bash|python)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
  shown = [subprocess.run(["bash", "-ec", code] if kind == "bash" else [sys.executable, "-c", code],
                          cwd=tmp_path, env={**os.environ, "ILM_TOKEN": TOKEN}, text=True,
                          capture_output=True, check=True).stdout for kind, code in blocks]
  assert '"title":"Psycho"' in shown[0] and '"title":"Aliens"' in shown[0]
  assert "1. Speed (1994)" in shown[1] and "Psycho (1960) is nearest" in shown[1]


# Abuse.

HEAD = (b"POST /v1/recommend HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer s3cret\r\n"
        b"Content-Type: application/json\r\n")


def test_half_open_and_slow_requests_are_ended(port):
  """Nothing, half a head, a head byte by byte, half a body."""
  began = time.monotonic()
  assert raw(port).startswith(b"HTTP/1.1 408")
  assert raw(port, b"GET /hea").startswith(b"HTTP/1.1 408")
  assert raw(port, *(bytes([byte]) for byte in b"GET /he"), wait=0.05).startswith(b"HTTP/1.1 408")
  slow = raw(port, HEAD + b"Content-Length: 20\r\n\r\n{", wait=0.1)
  assert slow.startswith(b"HTTP/1.1 408") and b'"code": "slow_request"' in slow
  assert time.monotonic() - began < 8
  assert ask(port, "GET", "/healthz")[0] == 200


def test_an_idle_connection_between_requests_may_wait(port):
  connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
  for _ in range(2):
    connection.request("GET", "/healthz")
    assert connection.getresponse().read() == b'{"status":"ok"}'
    time.sleep(LIMITS.patience + 0.2)
  connection.close()


def test_who_does_not_take_answers_loses_the_place(port):
  """As many clients as may be answered ask for megabytes, one request behind another, and read
  nothing: they are hung up on, and others are answered."""
  turns = [{"role": "user", "text": "x" * 1200}] * 180
  kept = ask(port, "POST", "/v1/sessions", json.dumps({"session": {"turns": turns}}))[1]["id"]
  wish = f"GET /v1/sessions/{kept} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"

  def ask_on():
    with socket.socket() as sock:
      sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
      sock.settimeout(30)
      sock.connect(("127.0.0.1", port))
      sock.sendall(wish.encode() * 60)
      for _ in range(100):
        time.sleep(0.2)
        sock.sendall(b"\r\n")

  with concurrent.futures.ThreadPoolExecutor(LIMITS.requests) as pool:
    ends = [pool.submit(ask_on) for _ in range(LIMITS.requests)]
    assert all(isinstance(end.exception(), ConnectionError) for end in ends)
  assert ask(port, "POST", "/v1/recommend", b'{"liked": ["i12"]}')[0] == 200


@pytest.mark.parametrize("sent", [
    b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n",
    b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 12_000 + b"\r\n",
    HEAD + b"Content-Length: -1\r\n\r\n", HEAD + b"Content-Length: 99999999999999999999\r\n\r\n",
    HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nx",
    HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"GET /page/../../../../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"])
def test_what_is_no_request_is_a_clean_4xx(port, sent):
  assert raw(port, sent)[:10] == b"HTTP/1.1 4"
  assert ask(port, "GET", "/healthz")[0] == 200


def test_a_thousand_bad_requests_at_a_time_harm_nobody(port):
  """Sixteen clients at once; a good one gets its answer meanwhile and the server stays as it is."""
  session = ask(port, "POST", "/v1/sessions", b"{}")[1]["id"]
  bad = [("POST", "/v1/recommend", b"{"), ("POST", "/v1/recommend", b" " * 300_000),
         ("POST", "/v1/chat/completions", json.dumps({"messages": [
             {"role": "user", "content": "the <slot>"}]})),
         ("GET", f"/v1/sessions/{session[:-1]}~", None), ("GET", "/page/..%2f..%2fapp.py", None),
         ("PATCH", f"/v1/sessions/{session}", b'{"edits": [{"do": "like", "item": "none"}]}'),
         ("POST", "/v1/none", b""), ("PUT", "/v1/recommend", b"[1]")]
  threads = threading.active_count()
  with concurrent.futures.ThreadPoolExecutor(16) as pool:
    answers = [pool.submit(ask, port, *bad[n % len(bad)]) for n in range(1000)]
    good = [ask(port, "POST", "/v1/recommend", b'{"liked": ["i12"]}') for _ in range(5)]
  codes = [answer.result()[0] for answer in answers]
  assert all(400 <= code < 500 for code in codes) and {400, 404, 405, 413, 422} <= set(codes)
  assert {code for code, _ in good} <= {200, 429} and (200 in {code for code, _ in good})
  for answer in answers:
    said = answer.result()[1]["error"]["message"]
    assert "\n" not in said and "/root" not in said and "Traceback" not in said
  assert ask(port, "GET", f"/v1/sessions/{session}")[1]["session"]["opinions"] == []
  assert threading.active_count() <= threads + LIMITS.requests


# How it starts and ends.

PROGRAM = """
import asyncio, sys
from ilm_jax import errors
from ilm_jax.serving import limits, listener

async def app(scope, receive, send):
  if scope["type"] == "lifespan":
    for kind in ("startup", "shutdown"):
      await receive()
      await send({"type": f"lifespan.{kind}.complete"})
    return
  print("asked", flush=True)
  await asyncio.sleep(1.5)
  await send({"type": "http.response.start", "status": 200, "headers": []})
  await send({"type": "http.response.body", "body": b"[3]"})

with listener.listening("127.0.0.1", 0) as sock:
  print(sock.getsockname()[1], flush=True)
  sys.exit(errors.exit_code(lambda: listener.serve(app, sock, limits.Limits())))
"""


@pytest.mark.parametrize(("number", "code", "says"), [
    (signal.SIGTERM, 0, ""), (signal.SIGINT, 130, "stopped by Ctrl-C\n")])
def test_a_signal_finishes_what_runs_and_refuses_what_comes(number, code, says):
  child = subprocess.Popen([sys.executable, "-c", PROGRAM], cwd=ROOT, stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, text=True,
                           env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)})
  try:
    port = int(child.stdout.readline())
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
      running = pool.submit(ask, port, "POST", "/v1/recommend", b'{"liked": ["i12"]}')
      assert child.stdout.readline() == "asked\n"
      child.send_signal(number)
      time.sleep(0.5)
      with pytest.raises(ConnectionRefusedError):
        ask(port, "GET", "/healthz")
      status, answer = running.result(10)
    assert (status, answer) == (200, [3])
    assert child.wait(60) == code and child.stderr.read() == says
  finally:
    child.kill()
    child.wait()


def test_an_address_that_cannot_be_had_is_one_line(port):
  with pytest.raises(errors.UserError, match=f"--port={port}: .*; choose another port"):
    listener.listening("127.0.0.1", port)
  with pytest.raises(errors.UserError, match=r"--host=192\.0\.2\.1"):
    listener.listening("192.0.2.1", 8000)


def test_what_fails_while_it_starts_ends_it():
  def fails():
    raise errors.UserError("no checkpoint")

  async def nothing(scope, receive, send):
    assert scope["type"] == "lifespan"
    for kind in ("startup", "shutdown"):
      await receive()
      await send({"type": f"lifespan.{kind}.complete"})

  with listener.listening("127.0.0.1", 0) as sock, pytest.raises(errors.UserError, match="no c"):
    listener.serve(nothing, sock, LIMITS, fails)
