"""Stage serve: a trained run behind HTTP, until it is told to stop.

    python -m ilm_jax.main --config=.. --workdir=W --stage=serve [--host=127.0.0.1] [--port=8000] \\
        [--token=SECRET] [--model=mlp] [--k=5]

It listens at once, and /readyz says when the models can be asked. SIGTERM or Ctrl-C: what runs is
finished, what comes is refused. Nothing is written.
"""
import contextlib
import os
import sys
import time
from typing import NamedTuple

from ilm_jax import errors
from ilm_jax.serving import app as app_lib
from ilm_jax.serving import engine as engine_lib
from ilm_jax.serving import limits as limits_lib
from ilm_jax.serving import listener
from ilm_jax.serving import metrics as metrics_lib
from ilm_jax.stages import context

_LOCAL = ("127.0.0.1", "localhost", "[::1]")


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
    UserError: the run cannot hold a conversation; the address cannot be had.
    KeyboardInterrupt: SIGINT came, and all is finished.
  """
  limits, metrics = limits_lib.Limits(), metrics_lib.Metrics()
  if not 1 <= wish.k <= limits.k:
    raise errors.UserError(f"--k={wish.k}: expected 1 to {limits.k}")
  token = wish.token or os.environ.get("ILM_TOKEN", "")
  models = engine_lib.served(run, wish.model)
  with contextlib.closing(listener.listening(wish.host, wish.port)) as sock:
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
      listener.serve(app, sock, limits, lambda: _warm(engine))
    finally:
      engine.thread.stop()


def _warm(engine: engine_lib.Engine) -> None:
  began = time.monotonic()
  engine.warm()
  print(f"ready after {time.monotonic() - began:.0f} s", flush=True)


def _is_local(host: str) -> bool:
  return host in (*_LOCAL, "::1")


def _in_url(host: str) -> str:
  return f"[{host}]" if ":" in host else host
