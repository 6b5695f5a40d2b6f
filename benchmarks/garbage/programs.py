"""Readers of command lines, of HTTP requests, and of exported folders."""
import asyncio
import contextlib
import functools
import io
import json
import pathlib
import sys
import tempfile

import numpy as np

from benchmarks.garbage import reader
from ilm_jax import errors

# Overrides of a config.


def _flags() -> list[dict[str, bytes]]:
  return [{"argv": b"--config.phase2.steps=10\n--config.vectors=('behavioral',)\n"
                   b"--config.phase2.learning_rate=1e-3\n--config.data.path=~/x\n"
                   b"--config.mesh.data=1\n--config.data.columns.user=u\n"
                   b"--config.phase1.losses.ui=0.5\n"}]


def _read_flags(folder) -> None:
  from absl import flags
  from ml_collections import config_flags

  from ilm_jax.config import reading
  argv = ["main", "--config=tiny", *(folder / "argv").read_bytes().decode(
      "utf-8", "surrogateescape").split("\n")]
  argv = [word for word in argv if word]
  values = flags.FlagValues()
  kept, sys.argv = sys.argv, argv
  try:
    holder = config_flags.DEFINE_config_file("config", flag_values=values)
    config = reading.from_flags(values, argv, holder)
  except SystemExit as e:               # --help
    raise errors.UserError("it asks for help") from e
  finally:
    sys.argv = kept
  reading.validate(reading.at_home(config), 1, paths=False)
  reading.from_json(reading.to_json(config))


# Bodies of requests.

_BODIES = {
    "POST /v1/recommend": {"liked": ["i1", "Fargo"], "k": 3, "model": "ilm"},
    "POST /v1/critique": {"session": {"opinions": [{"item": "i1", "kind": "liked"}]},
                          "attribute": "new", "steps": 1.0},
    "POST /v1/similar": {"item": "Heat (1995)", "k": 2},
    "POST /v1/users": {"liked": ["i1", "i3"]},
    "POST /v1/explain": {"session": {"opinions": [{"item": "i1", "kind": "liked", "turn": 0}],
                                     "turns": [{"role": "user", "text": "Hi"}]}, "item": "i2"},
    "POST /v1/sessions": {"session": {"constraints": [{"genres": ["Crime"], "years": [1990, None]}],
                                      "critiques": [{"attribute": "new", "steps": 1}]}},
    "PATCH /v1/sessions/kept": {"edits": [
        {"do": "like", "item": "i2"}, {"do": "critique", "attribute": "new", "steps": -1.0},
        {"do": "constrain", "genres": ["Crime"], "years": [None, 2000]},
        {"do": "remove", "part": "opinions", "number": 0}, {"do": "undo"}]},
    "POST /v1/chat/completions": {"model": "ilm", "stream": True, "k": 2, "max_tokens": 20,
                                  "stream_options": {"include_usage": True}, "messages": [
                                      {"role": "user", "content": "I loved Heat, but no horror"},
                                      {"role": "assistant", "content": "1. Fargo (1996)  Crime"},
                                      {"role": "user", "content": [
                                          {"type": "text", "text": "more like Alien"}]}]},
    "POST /v1/usersimcrs": {"context": ["Hi", "I liked Heat"], "message": "something newer"},
    "GET /v1/items?q=heat&k=2&ids=i1,i2": {},
    "GET /page/index.html": {}}


def _bodies() -> list[dict[str, bytes]]:
  return [{"line": line.encode(), "body": json.dumps(body).encode()}
          for line, body in _BODIES.items()]


@functools.cache
def _application():
  """(an event loop, the application over twelve films)."""
  import pytest

  from ilm_jax.config import variants
  from ilm_jax.serving import app, engine, limits
  from tests import talks
  made = engine.Engine(talks.run(pytest.MonkeyPatch()), [variants.ILM], 2, limits.Limits())
  made.warm()
  return asyncio.new_event_loop(), app.create(made, limits.Limits())


def request(method: str, path: str, body: bytes) -> tuple[int, bytes]:
  """(status, body) of the application's answer, called without a network."""
  loop, app = _application()
  path, _, query = path.partition("?")
  scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method,
           "path": path, "raw_path": path.encode("latin-1"), "root_path": "", "scheme": "http",
           "query_string": query.encode("latin-1"), "client": ("127.0.0.1", 1), "server": None,
           "headers": [(b"host", b"localhost"), (b"content-type", b"application/json"),
                       (b"content-length", str(len(body)).encode())]}
  sent, given = [], []

  async def receive():
    if given:
      await asyncio.Event().wait()         # the client stays
    given.append(body)
    return {"type": "http.request", "body": body, "more_body": False}

  async def send(message):
    sent.append(message)

  loop.run_until_complete(app(scope, receive, send))
  return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


def _read_body(folder) -> None:
  kept = json.loads(request("POST", "/v1/sessions", b"{}")[1])["id"]
  method, _, path = (folder / "line").read_bytes().decode("latin-1").partition(" ")
  status, answer = request(method, path.replace("kept", kept), (folder / "body").read_bytes())
  if status >= 500 and status not in (503, 504):
    raise RuntimeError(f"{method[:10]} {path[:40]}: status {status}")
  if status >= 400:
    raise errors.UserError(json.loads(answer)["error"]["message"])


# Exports.

@functools.cache
def _export() -> list[dict[str, bytes]]:
  from benchmarks.garbage import texts
  from ilm_jax.export import items, proof
  from ilm_jax.export.shipped import top_k
  rng = np.random.default_rng(0)
  key_IP, query_DP = rng.normal(size=(3, 4)), rng.normal(size=(5, 4))
  states, histories = rng.normal(size=(2, 4)).astype(np.float32), [[1], [2, 3]]
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    items.write(folder, key_IP, np.zeros(3), query_DP, texts.ITEMS)
    items.write_users(folder, iter(states[:, None]), 4, [0, 1, 3], [1, 2, 3], ["u1", "u2"])
    tensors = top_k.read(folder / "items.safetensors")
    seen = [np.array(h) - 1 for h in histories]
    lists, scores = top_k.top_k(states, tensors["keys"], tensors["bias"], 2, seen)
    proof.write(folder, {
        "states": states, "lists": lists.astype(np.int32), "list_scores": scores,
        "seen": np.concatenate(seen).astype(np.int32),
        "seen_offsets": np.cumsum([0, 1, 2]).astype(np.int64)}, None)
    (folder / "export.json").write_text(json.dumps({"format": 1, "model": "ILM"}))
    return [{path.name: path.read_bytes() for path in sorted(folder.iterdir())
             if path.suffix != ".py"}]


def _read_export(folder) -> None:
  from ilm_jax.export.shipped import check, top_k
  out = io.StringIO()
  with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
    code = check.main([str(folder), "--skip=hf", "--skip=jax"])
    for wish in ("--user=u1", "--like=7"):
      code = max(code, top_k.main([f"--folder={folder}", wish, "--k=2"]))
  if code not in (0, 1):
    raise RuntimeError(f"exit code {code}")
  if code:
    raise errors.UserError(" ".join(out.getvalue().split())[:3000])


ALL = [
    reader.Reader("config-overrides", _flags, _read_flags),
    reader.Reader("server-bodies", _bodies, _read_body),
    reader.Reader("export", _export, _read_export),
]
