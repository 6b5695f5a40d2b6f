"""The routes of the API: each reads a request, asks the engine and writes the answer."""
import dataclasses
from typing import Annotated

import fastapi
from fastapi import responses

from ilm_jax import errors
from ilm_jax.conversation import session as session_lib
from ilm_jax.serving import chat, schemas, sessions, store
from ilm_jax.serving import engine as engine_lib

_ERRORS = {code: {"model": schemas.Error, "description": about} for code, about in (
    (400, "the request is invalid, or names something that does not exist"),
    (401, "the token is missing or wrong"), (404, "no such model or session"),
    (408, "the request arrived too slowly"), (413, "the request's body is too large"),
    (431, "the request's path and headers are too large"),
    (422, "the request does not match the schema"),
    (429, "too many requests: try again after Retry-After seconds"),
    (503, "the models are not ready, or the server is stopping"),
    (504, "the answer took too long"))}


def router(engine: engine_lib.Engine, kept: store.Store) -> fastapi.APIRouter:
  """All routes below /v1."""
  api = fastapi.APIRouter(prefix="/v1", responses=_ERRORS)
  _lists(api, engine, kept)
  _texts(api, engine, kept)
  _sessions(api, engine, kept)
  return api


def _cards(cards) -> list[dict]:
  return [dataclasses.asdict(each) for each in cards]


def _lists(api, engine, kept) -> None:

  @api.get("/models")
  def models() -> dict:
    """The models that answer, and the size, genres and attributes of the catalogue."""
    return engine.about()

  @api.post("/recommend", response_model=schemas.Recommendations)
  def recommend(wish: schemas.Recommend) -> dict:
    """Recommends items to the user of a session, or to somebody who likes the given items."""
    talk = engine.talker(wish.model)
    if wish.liked is not None:
      if wish.session_id is not None or wish.session is not None:
        raise errors.UserError("the request has liked and a session: expected one of session_id, "
                               "session and liked")
      session = _liking(engine, talk, wish.liked)
    else:
      with sessions.of(wish, kept, engine) as one:
        session = one.session
    return {"recommendations": _cards(talk.recommend(session, wish.k or engine.k)),
            "model": talk.variant.key}

  @api.post("/critique", response_model=schemas.Critiqued)
  def critique(wish: schemas.Critique) -> dict:
    """Adds a critique to a session, and recommends items after it."""
    talk = engine.talker(wish.model)
    with sessions.of(wish, kept, engine) as one:
      one.replace(engine.checked(session_lib.critique(one.session, wish.attribute, wish.steps)))
      session = one.session
    return {"recommendations": _cards(talk.recommend(session, wish.k or engine.k)),
            "model": talk.variant.key, "session": sessions.to_json(session)}

  @api.post("/similar", response_model=schemas.Recommendations)
  def similar(wish: schemas.Similar) -> dict:
    """Items near another in the space of the factorisation."""
    return {"recommendations": _cards(engine.talker().similar(wish.item, wish.k or engine.k))}

  @api.get("/items", response_model=schemas.Items)
  def items(q: Annotated[str, fastapi.Query(max_length=300)] = "",
            ids: Annotated[str | None, fastapi.Query(max_length=20_000)] = None,
            k: Annotated[int, fastapi.Query(ge=1, le=engine.limits.k)] = 10) -> dict:
    """Items by a part `q` of their title; without `q`, the most popular ones. With `ids`, raw ids
    separated by commas: the items with these ids, without those that are not in the catalogue."""
    talk = engine.talker()
    if ids is None:
      return {"items": _cards(talk.search(q, k))}
    rows = (talk.row_of.get(raw) for raw in ids.split(","))
    return {"items": _cards(talk.card(row) for row in rows if row)}

  @api.post("/users", response_model=schemas.Vector)
  def users(wish: schemas.Users) -> dict:
    """The vector of a new user, folded into the factorisation."""
    talk = engine.talker()
    return {"vector": talk.vector(_liking(engine, talk, wish.liked)).tolist()}


def _texts(api, engine, kept) -> None:

  @api.post("/explain", response_model=schemas.Why)
  def explain(wish: schemas.Explain) -> dict:
    """Reasons for an item."""
    talk = engine.talker(wish.model)
    with sessions.of(wish, kept, engine) as one:
      session = one.session
    why = talk.why(session, wish.item)
    return {"why": why, "about": engine.say(lambda: talk.about(wish.item)) if wish.about else None}

  @api.post("/between", response_model=schemas.Text)
  def between(wish: schemas.Between) -> dict:
    """What the language model says of a vector between two items."""
    talk = engine.talker(wish.model)
    return {"text": engine.say(lambda: talk.between(wish.first, wish.second, wish.share))}

  @api.post("/chat/completions", response_model=None)
  def completions(wish: schemas.Chat) -> dict | responses.StreamingResponse:
    """A turn of a conversation, in OpenAI's format."""
    whole = chat.completion(wish, engine, kept)
    if not wish.stream:
      return whole
    with_usage = wish.stream_options is not None and wish.stream_options.include_usage
    return responses.StreamingResponse(chat.streamed(whole, with_usage),
                                       media_type="text/event-stream")

  plain = {"response_model": None, "responses": {200: {"content": {"text/plain": {}}}}}

  @api.get("/usersimcrs", **plain)
  def is_there():
    """Whether the simulator UserSimCRS may send turns here."""
    return responses.PlainTextResponse("ready")

  @api.post("/usersimcrs", **plain)
  def simulated(wish: schemas.UserSimCrs):
    """A turn of UserSimCRS."""
    return responses.PlainTextResponse(chat.simulated(wish, engine))


def _sessions(api, engine, kept) -> None:

  @api.post("/sessions", response_model=schemas.Kept)
  def add(wish: schemas.NewSession) -> dict:
    """Begins a session."""
    if wish.user is not None and wish.session is not None:
      raise errors.UserError("the request has user and session: expected at most one")
    session = session_lib.Session()
    if wish.user is not None:
      session = engine.talker().user(wish.user)
    elif wish.session is not None:
      session = session_lib.from_value(wish.session)
    return {"id": kept.add(engine.checked(session)), "session": sessions.to_json(session)}

  @api.get("/sessions/{raw}", response_model=schemas.Kept)
  def get(raw: schemas.SessionId) -> dict:
    """A session in its present state."""
    with kept.opened(raw) as one:
      return {"id": raw, "session": sessions.to_json(one.session)}

  @api.patch("/sessions/{raw}", response_model=schemas.Kept)
  def patch(raw: schemas.SessionId, wish: schemas.Patch) -> dict:
    """Edits a session."""
    with kept.opened(raw) as one:
      sessions.patch(one, wish, engine)
      return {"id": raw, "session": sessions.to_json(one.session)}

  @api.delete("/sessions/{raw}", status_code=204)
  def delete(raw: schemas.SessionId) -> None:
    """Deletes a session."""
    kept.delete(raw)


def _liking(engine, talk, names) -> session_lib.Session:
  """A session that likes items, each named by its id or title."""
  if len(names) > engine.limits.statements:
    raise errors.UserError(f"{len(names):,} items are liked, expected "
                           f"{engine.limits.statements:,} at most")
  session = session_lib.Session()
  for name in names:
    session = session_lib.like(session, talk.items.ids[talk.row(name) - 1])
  return session
