"""Measures the throughput of a served run, compared with a plain loop over transformers.

    python -m benchmarks.serving --config=configs/quickstart.py --workdir=runs/quickstart \\
        --seconds=60 --clients=16

Two servers run in their own processes, one after the other, on the same machine and weights:

  - ours, `--stage=serve`: --clients clients send POST /v1/recommend and /v1/chat/completions at
    once. Every request names other films of the log's users, so that no answer is cached;
  - the usual way: FastAPI and SmolLM2 with `transformers`. The prompt has the titles of the same
    films; each request gets one greedy answer of --tokens tokens, one request at a time.

Prints requests per second, median and 99th percentile, answers other than 200 (429 counted apart),
and the server's memory (RSS) before and after. The plain loop needs requirements-parity.lock.
"""
import argparse
import concurrent.futures
import http.client
import importlib
import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

import numpy as np

from ilm_jax.data import interactions as interactions_lib
from ilm_jax.stages import context

_LIKED = 10              # films per request
_WAIT = 600.0            # seconds within which a server must be ready


class Load(NamedTuple):
  """The results of a load: seconds of each answer, counts by status, RSS in MiB."""
  seconds_N: np.ndarray
  statuses: dict[int, int]
  wall: float
  before: float
  after: float

  def figures(self, name: str) -> dict:
    ok = self.statuses.get(200, 0)
    p50, p99 = np.quantile(self.seconds_N, (0.5, 0.99)) * 1e3 if ok else (np.nan, np.nan)
    return {"route": name, "requests_per_second": ok / self.wall, "p50_ms": p50, "p99_ms": p99,
            "errors": sum(n for status, n in self.statuses.items() if status not in (200, 429)),
            "turned_away": self.statuses.get(429, 0), "rss_before": self.before,
            "rss_after": self.after}


def line(of: dict) -> str:
  """A line of the table, from `Load.figures`."""
  return (f"| {of['route']} | {of['requests_per_second']:.1f} | {of['p50_ms']:,.0f} | "
          f"{of['p99_ms']:,.0f} | {of['errors']} | {of['turned_away']} | "
          f"{of['rss_before']:,.0f} | {of['rss_after']:,.0f} |")


HEAD = ("| route | requests/s | p50, ms | p99, ms | errors | 429 | RSS before, MiB | after |\n"
        "|---|---|---|---|---|---|---|---|")


def load(port: int, pid: int, path: str, bodies, clients: int, seconds: float) -> Load:
  """Sends `bodies` (an endless iterator) to a route from `clients` threads at once."""
  before, taken, statuses = rss(pid), [], {}
  bodies, began = iter(bodies), time.perf_counter()

  def client():
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    while time.perf_counter() - began < seconds:
      start = time.perf_counter()
      connection.request("POST", path, next(bodies), {"Content-Type": "application/json"})
      answer = connection.getresponse()
      answer.read()
      statuses[answer.status] = statuses.get(answer.status, 0) + 1
      if answer.status == 200:
        taken.append(time.perf_counter() - start)
    connection.close()

  with concurrent.futures.ThreadPoolExecutor(clients) as pool:
    for done in [pool.submit(client) for _ in range(clients)]:
      done.result()
  return Load(np.array(taken), statuses, time.perf_counter() - began, before, rss(pid))


def rss(pid: int) -> float:
  """Resident memory of a process in MiB."""
  pages = int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1])
  return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


class Locked:
  """An iterator that threads share."""

  def __init__(self, makes):
    import threading
    self._makes, self._lock = makes, threading.Lock()

  def __iter__(self):
    return self

  def __next__(self):
    with self._lock:
      return next(self._makes)


def histories(log: interactions_lib.Interactions):
  """Endless slices of ten consecutive item rows from the histories, one user after the other."""
  for start in itertools.count(0, _LIKED):
    for user in range(log.num_users):
      rows = log.item_N[log.of_user(user)]
      first = start % max(len(rows) - _LIKED, 1)
      yield rows[first:first + _LIKED]


def started(argv: list[str], port: int) -> subprocess.Popen:
  """A server that is ready. Raises RuntimeError if it ends or takes too long."""
  child, began = subprocess.Popen(argv), time.monotonic()
  while time.monotonic() - began < _WAIT:
    if child.poll() is not None:
      raise RuntimeError(f"the server ended with {child.returncode}")
    try:
      connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
      connection.request("GET", "/readyz")
      if connection.getresponse().status == 200:
        print(f"ready after {time.monotonic() - began:.0f} s", file=sys.stderr)
        return child
    except OSError:
      pass
    time.sleep(0.2)
  child.kill()
  raise RuntimeError(f"the server was not ready after {_WAIT:g} seconds")


def stopped(child: subprocess.Popen) -> None:
  """Stops a server and prints its exit code."""
  child.send_signal(signal.SIGTERM)
  print(f"SIGTERM: exit code {child.wait(60)}", file=sys.stderr)


# The usual way.

def plain(port: int, asset: str, tokens: int) -> None:
  """A FastAPI server in which SmolLM2 answers a prompt of titles; runs until SIGTERM."""
  import threading

  import fastapi
  import torch
  import transformers
  import uvicorn

  from ilm_jax.assets import pinned
  path, = pinned.fetch(asset).values()
  with tempfile.TemporaryDirectory() as folder:      # transformers writes into the file's folder
    os.symlink(path, f"{folder}/{path.name}")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=path.name)
  model = llama(path)
  app, lock = fastapi.FastAPI(), threading.Lock()

  @app.get("/readyz")
  def readyz():
    return {}

  @app.post("/recommend")
  def recommend(body: dict) -> dict:
    prompt = (f"A viewer liked these films: {'; '.join(body['titles'])}.\n"
              "Five more films that the viewer will like:\n1.")
    with lock, torch.no_grad():
      given = tokenizer(prompt, return_tensors="pt")
      made = model.generate(**given, max_new_tokens=tokens, do_sample=False,
                            pad_token_id=tokenizer.eos_token_id)
    return {"text": tokenizer.decode(made[0, given["input_ids"].shape[1]:])}

  uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


def llama(path):
  """A Llama of transformers with the weights of a GGUF file, in float32; transformers' own reader
  needs another package."""
  import gguf
  import torch
  import transformers

  from ilm_jax.weights import gguf as our_reader
  c = our_reader.read_config(path)
  model = transformers.LlamaForCausalLM(transformers.LlamaConfig(
      num_hidden_layers=c.num_layers, hidden_size=c.width, num_attention_heads=c.num_heads,
      num_key_value_heads=c.num_kv_heads, head_dim=c.head_dim, intermediate_size=c.mlp_width,
      vocab_size=c.vocab_size, rope_theta=c.rope_base, rms_norm_eps=c.norm_eps,
      tie_word_embeddings=True, max_position_embeddings=8192)).eval()
  places = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
            "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
            "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
            "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
  state = {}
  for tensor in gguf.GGUFReader(path).tensors:
    value = torch.tensor(gguf.quants.dequantize(tensor.data, tensor.tensor_type))
    block, _, kind = tensor.name.removesuffix(".weight").rpartition(".")
    if kind in ("attn_q", "attn_k"):       # llama.cpp permutes their rows
      value = value.reshape(-1, c.head_dim // 2, 2, c.width).swapaxes(1, 2).reshape(-1, c.width)
    name = (f"model.layers.{block.removeprefix('blk.')}.{places[kind]}" if block else
            {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}[kind])
    state[f"{name}.weight"] = value
  lacking, unknown = model.load_state_dict(state, strict=False)
  assert lacking == ["lm_head.weight"] and not unknown, (lacking, unknown)
  return model


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--config", default="configs/quickstart.py")
  parser.add_argument("--workdir")
  parser.add_argument("--seed", type=int, default=0, help="of the run")
  parser.add_argument("--seconds", type=float, default=60.0)
  parser.add_argument("--clients", type=int, default=16)
  parser.add_argument("--port", type=int, default=8765)
  parser.add_argument("--asset", default="smollm2-135m-instruct")
  parser.add_argument("--tokens", type=int, default=40, help="tokens of the plain loop's answer")
  parser.add_argument("--out", type=pathlib.Path, help="write the figures here as JSON")
  parser.add_argument("--plain", action="store_true", help="run the plain server")
  args = parser.parse_args()
  if args.plain:
    plain(args.port, args.asset, args.tokens)
    return
  module = importlib.import_module(args.config.removesuffix(".py").replace("/", "."))
  config = module.get_config()
  config.seed = args.seed
  data = context.Run(config, args.workdir).data
  items, each = data.items, Locked(histories(data.log))
  names = Locked([interactions_lib.full_title(items, row) for row in rows] for rows in each)
  routes = {
      "/v1/recommend": ({"liked": [items.ids[row - 1] for row in rows], "k": 10} for rows in each),
      "/v1/chat/completions": ({"model": "ilm", "messages": [
          {"role": "user", "content": f"I loved {'; '.join(titles)}"}]} for titles in names)}
  ours = [sys.executable, "-m", "ilm_jax.main", f"--config={args.config}", "--stage=serve",
          f"--workdir={args.workdir}", f"--port={args.port}", f"--config.seed={args.seed}"]
  theirs = [sys.executable, "-m", "benchmarks.serving", "--plain", f"--port={args.port}",
            f"--asset={args.asset}", f"--tokens={args.tokens}"]
  print(HEAD)
  told = []
  for argv, paths in ((ours, routes), (theirs, {"/recommend": ({"titles": t} for t in names)})):
    child = started(argv, args.port)
    try:
      for path, bodies in paths.items():
        made = Locked(json.dumps(body) for body in bodies)
        load(args.port, child.pid, path, made, args.clients, min(args.seconds, 5))      # warm-up
        done = load(args.port, child.pid, path, made, args.clients, args.seconds)
        told.append(done.figures(path if argv is ours else "plain loop"))
        print(line(told[-1]), flush=True)
    finally:
      stopped(child)
  if args.out:
    args.out.write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
  main()
