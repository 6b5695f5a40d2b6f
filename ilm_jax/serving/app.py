"""The application: routes, page, health and metrics behind the gate. Starts no server.

    app = create(engine, limits)            # then starlette's TestClient, or `server.run`
"""
import contextlib
import importlib.resources

import anyio.to_thread
import fastapi
from fastapi import exceptions, responses
from starlette import exceptions as starlette_exceptions

from ilm_jax import errors
from ilm_jax.serving import engine as engine_lib
from ilm_jax.serving import gate, routes, store
from ilm_jax.serving import limits as limits_lib
from ilm_jax.serving import metrics as metrics_lib

_KINDS = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8",
          ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}


def create(engine: engine_lib.Engine, limits: limits_lib.Limits, *, token: str = "",
           hosts: tuple[str, ...] = (), metrics: metrics_lib.Metrics | None = None):
  """The ASGI application.

  Args:
    engine: answers the requests.
    limits: of the server.
    token: needed to use the API; "": no token is needed.
    hosts: as in `gate.Gate`.
    metrics: counts the requests; None: a new one.
  """
  kept, metrics = store.Store(limits), metrics or metrics_lib.Metrics()
  metrics.watch("ilm_sessions", "Sessions kept.", lambda: len(kept))
  metrics.watch("ilm_waiting", "Requests that wait for the model.", lambda: engine.thread.waiting)
  app = fastapi.FastAPI(title="ILM-JAX", version="1", docs_url=None, redoc_url=None,
                        lifespan=_threads(limits))
  app.include_router(routes.router(engine, kept))
  _health(app, engine, metrics)
  _page(app)
  _mistakes(app)
  app.add_middleware(gate.Gate, limits=limits, token=token, hosts=hosts,
                     ready=lambda: engine.ready, metrics=metrics)
  return app


def _threads(limits):
  @contextlib.asynccontextmanager
  async def lifespan(_):
    # As many threads as the gate admits requests, so that no request waits for a thread.
    anyio.to_thread.current_default_thread_limiter().total_tokens = limits.requests
    yield
  return lifespan


def _health(app, engine, metrics) -> None:

  @app.get("/healthz", include_in_schema=False)
  async def healthz() -> dict:
    return {"status": "ok"}

  @app.get("/readyz", include_in_schema=False)
  async def readyz():
    return responses.JSONResponse({"ready": engine.ready}, 200 if engine.ready else 503)

  @app.get("/metrics", include_in_schema=False)
  async def counted():
    return responses.Response(metrics.text(), media_type="text/plain; version=0.0.4")


def _page(app) -> None:
  """The files of the page, read once: names in requests are looked up here, never on disk."""
  folder = importlib.resources.files("ilm_jax.serving") / "page"
  files = {}
  for file in folder.iterdir() if folder.is_dir() else ():
    kind = _KINDS.get("." + file.name.rpartition(".")[2])
    if kind:
      files[file.name] = file.read_bytes(), kind

  @app.get("/page/{name}", include_in_schema=False)
  async def answer(name: str):
    if name not in files:
      raise limits_lib.Refused(404, f"the page has no file {name[:100]!r}" if files else
                               "this installation has no page: /openapi.json describes the API",
                               "not_found")
    return responses.Response(files[name][0], media_type=files[name][1])

  @app.get("/", include_in_schema=False)
  async def index():
    return await answer("index.html")


def _mistakes(app) -> None:
  """All errors are answered in the same format."""

  def answer(status, message, code=None, wait=0):
    refused = limits_lib.Refused(status, message, code, wait)
    return responses.JSONResponse(refused.body(), status, refused.headers())

  @app.exception_handler(limits_lib.Refused)
  async def refused(_, e):
    return answer(e.status, e.message, e.code, e.wait)

  @app.exception_handler(errors.UserError)
  async def mistaken(_, e):
    return answer(400, str(e), "invalid_value")

  @app.exception_handler(exceptions.RequestValidationError)
  async def formless(_, e):
    first = e.errors()[0]
    where = ".".join(map(str, first["loc"][1:]))
    return answer(422, f"{where}: {first['msg']}" if where else first["msg"], "invalid_form")

  @app.exception_handler(starlette_exceptions.HTTPException)
  async def other(_, e):
    return answer(e.status_code, str(e.detail), "not_found" if e.status_code == 404 else None)

  @app.exception_handler(Exception)
  async def fault(_, e):
    return answer(500, "the server failed: see its log", "server_error")
