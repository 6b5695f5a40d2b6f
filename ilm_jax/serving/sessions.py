"""Sessions in requests: which session a request means, and how it edits it."""
import contextlib
import dataclasses

from ilm_jax import errors
from ilm_jax.conversation import session as session_lib
from ilm_jax.data import tokenizer as tokenizer_lib
from ilm_jax.serving import engine as engine_lib
from ilm_jax.serving import limits as limits_lib
from ilm_jax.serving import schemas, store
from ilm_jax.stages import talker


def to_json(session: session_lib.Session) -> dict:
  """The session as plain data."""
  return dataclasses.asdict(session)


@contextlib.contextmanager
def of(request: schemas.OfSession, sessions: store.Store, engine: engine_lib.Engine):
  """The `store.Kept` of a request: a stored session, or a temporary one from the request itself.

  Raises:
    UserError: the request names none or two; the session in the request cannot be read.
    Refused: there is no such session.
  """
  if (request.session_id is None) == (request.session is None):
    raise errors.UserError("the request names no session, or two: expected one of session_id and "
                           "session")
  if request.session_id is not None:
    with sessions.opened(request.session_id) as kept:
      yield kept
  else:
    yield store.Kept(engine.checked(session_lib.from_value(request.session)), engine.limits)


def patch(kept: store.Kept, wanted: schemas.Patch, engine: engine_lib.Engine) -> None:
  """Replaces a session, or applies the edits: all of them or none.

  Raises:
    UserError: the request has neither or both; an edit names something that does not exist.
    Refused: the session would be too long.
  """
  if (wanted.session is None) == (wanted.edits is None):
    raise errors.UserError("the request has neither session nor edits, or both: expected one")
  if wanted.session is not None:
    kept.replace(engine.checked(session_lib.from_value(wanted.session)))
    return
  session, earlier = kept.session, kept.earlier()
  for edit in wanted.edits or ():
    if edit.do == "undo":
      session = earlier.pop() if earlier else session
      continue
    after = engine.checked(edited(session, edit, engine.talker()))
    if talker.known(after) != talker.known(session):
      earlier.append(session)
    session = after
  kept.become(session, earlier)


def edited(session: session_lib.Session, edit, talk: talker.Talker) -> session_lib.Session:
  """The session after one edit other than undo; UserError if the edit cannot be made."""
  if edit.do == "forget":
    return session_lib.forget(session, talk.items.ids[talk.row(edit.item) - 1])
  if isinstance(edit, schemas.OfItem):
    return talk.edited(session, edit.do, edit.item)
  if isinstance(edit, schemas.OfAttribute):
    return session_lib.critique(session, edit.attribute, edit.steps)
  if isinstance(edit, schemas.Remove):
    return session_lib.remove(session, edit.part, edit.number)
  parts = {name: tuple(value) for name, value in edit.model_dump(exclude={"do"}).items()
           if value is not None}
  for genre in (*parts.get("genres", ()), *parts.get("without", ())):
    if genre.casefold() not in {each.casefold() for each in talk.genres}:
      raise errors.UserError(f"genre {genre!r} is not in the catalogue, expected some of "
                             f"{', '.join(talk.genres)}")
  return session_lib.constrain(session, **parts)


def check_text(text: str, limits: limits_lib.Limits) -> None:
  """Raises Refused (400) if a text is empty, too long, or contains the marker of a vector."""
  if tokenizer_lib.SLOT in text:
    raise limits_lib.Refused(400, f"the text holds {tokenizer_lib.SLOT!r}, which marks the place "
                             "of a vector in prompts: leave it out", "reserved_word")
  if not text.strip():
    raise limits_lib.Refused(400, "the text is empty", "empty_text")
  if len(text) > limits.text:
    raise limits_lib.Refused(400, f"the text has {len(text):,} characters, expected "
                             f"{limits.text:,} at most", "too_long")
