"""The conversation in other APIs' formats: OpenAI's chat completions, plain or streamed, and the
simulator UserSimCRS."""
import json
import re
import secrets
import time

from ilm_jax import errors
from ilm_jax.conversation import session as session_lib
from ilm_jax.serving import engine as engine_lib
from ilm_jax.serving import limits as limits_lib
from ilm_jax.serving import schemas, sessions, store
from ilm_jax.stages import ranker, talker

_PIECE = re.compile(r"\s*\S+(?:\s+$)?")       # a word with the space before it counts as a token
_TOGETHER = 64           # events of a stream that are sent at once
_SIDES = {"user": session_lib.USER, "assistant": session_lib.RECOMMENDER}


def card(shown: ranker.Card, why: str | None = None) -> dict:
  """A card as JSON."""
  return {"id": shown.id, "title": shown.title, "year": shown.year, "genres": list(shown.genres),
          "score": shown.score, "why": why}


def said(talk: talker.Talker, session: session_lib.Session, text: str, k: int | None = None
         ) -> talker.Reply:
  """The reply to a text; a UserError becomes a reply in words and leaves the session unchanged."""
  try:
    return talk.reply(session, text, k or 0)
  except errors.UserError as e:
    return talker.Reply(session, session_lib.CHAT, str(e))


def completion(request: schemas.Chat, engine: engine_lib.Engine, kept: store.Store) -> dict:
  """The answer to a chat completion, as one object.

  Raises:
    UserError: the request names two sessions, or one that cannot be read.
    Refused: no such model or session; the last message is not the user's, or is not valid.
  """
  talk, messages = engine.talker(request.model), request.messages
  if messages[-1].role != "user":
    raise limits_lib.Refused(400, f"the last message is of role {messages[-1].role!r}, expected "
                             "'user'", "wrong_role")
  text = messages[-1].text
  sessions.check_text(text, engine.limits)
  if request.session_id is None and request.session is None:
    for message in messages[:-1]:
      if message.role == "user" and message.text.strip():
        sessions.check_text(message.text, engine.limits)
    turns = [(_SIDES[m.role], m.text) for m in messages if m.role in _SIDES][:-1]
    reply = said(talk, _replayed(talk, turns, engine), text, request.k)
  else:
    with sessions.of(request, kept, engine) as one:
      reply = said(talk, one.session, text, request.k)
      one.replace(engine.checked(reply.session))
  return _completed(request, talk, reply, engine.limits)


def _replayed(talk: talker.Talker, turns, engine: engine_lib.Engine) -> session_lib.Session:
  """The session of a request's earlier messages, see `Talker.replayed`; refused as soon as it is
  too long (400) or took too long to read (504)."""
  last = time.monotonic() + engine.limits.replay

  def checked(session: session_lib.Session) -> session_lib.Session:
    if time.monotonic() > last:
      raise limits_lib.Refused(504, "reading the earlier messages takes more than "
                               f"{engine.limits.replay:g} s: send fewer, or use a session_id",
                               "timeout")
    return engine.checked(session)

  return talk.replayed(turns, checked)


def _completed(request, talk, reply: talker.Reply, limits: limits_lib.Limits) -> dict:
  content = "\n".join(filter(None, (reply.text, ranker.listed(reply.cards))))
  pieces = _PIECE.findall(content)
  most = min(request.max_completion_tokens or request.max_tokens or limits.tokens, limits.tokens)
  read = len(request.messages[-1].text.split())
  return {
      "id": f"chatcmpl-{secrets.token_urlsafe(12)}", "object": "chat.completion",
      "created": int(time.time()), "model": talk.variant.key,
      "choices": [{"index": 0, "logprobs": None,
                   "message": {"role": "assistant", "content": "".join(pieces[:most])},
                   "finish_reason": "length" if len(pieces) > most else "stop"}],
      # Counted in words, because templates have no tokens.
      "usage": {"prompt_tokens": read, "completion_tokens": len(pieces[:most]),
                "total_tokens": read + len(pieces[:most])},
      "recommendations": [card(each, talk.why(reply.session, each.id)) for each in reply.cards],
      "act": reply.act, "unread": list(reply.unread),
      "guessed": list(reply.guessed),
      "session": sessions.to_json(reply.session), "session_id": request.session_id}


async def streamed(whole: dict, with_usage: bool):
  """The `events` of a completion, `_TOGETHER` at a time. They are all known, and a plain generator
  would take a thread for each: seconds for a long text while other requests keep them busy."""
  parts = list(events(whole, with_usage))
  for first in range(0, len(parts), _TOGETHER):
    yield "".join(parts[first:first + _TOGETHER])


def events(whole: dict, with_usage: bool):
  """A completion as server-sent events: one per word, one with all other fields, then [DONE]."""
  choice, usage = whole["choices"][0], whole["usage"]
  head = {name: whole[name] for name in ("id", "created", "model")} | {
      "object": "chat.completion.chunk"}
  more = {name: value for name, value in whole.items()
          if name not in ("choices", "usage", *head)}

  def event(delta, finish=None, **others):
    choices = [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}]
    return f"data: {json.dumps({**head, 'choices': choices, **others})}\n\n"

  yield event({"role": "assistant", "content": ""})
  for piece in _PIECE.findall(choice["message"]["content"]):
    yield event({"content": piece})
  yield event({}, choice["finish_reason"], **more)
  if with_usage:
    yield f"data: {json.dumps({**head, 'choices': [], 'usage': usage})}\n\n"
  yield "data: [DONE]\n\n"


def simulated(request: schemas.UserSimCrs, engine: engine_lib.Engine) -> str:
  """The reply to UserSimCRS. Its context ends with the message itself, because DialogueKit adds a
  turn to the history before it asks the agent; other clients send only the earlier turns. The last
  text before the message is ours, the one before that the user's, and so on.

  Raises:
    Refused: the message is empty, too long or holds a reserved word.
  """
  sessions.check_text(request.message, engine.limits)
  talk, said_before = engine.talker(), list(request.context)
  if said_before and said_before[-1] == request.message:
    said_before.pop()
  roles = (session_lib.RECOMMENDER, session_lib.USER)
  turns = [(roles[n % 2], text) for n, text in enumerate(reversed(said_before))][::-1]
  reply = said(talk, _replayed(talk, turns, engine), request.message)
  return "\n".join(filter(None, (reply.text, ranker.listed(reply.cards))))
