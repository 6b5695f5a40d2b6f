"""What is known of a conversation, as plain data: the user's opinions about items, hard
constraints, critiques, and the turns.

A `Session` is frozen; an edit is a function that returns another one:

    session = like(Session(), "50", rating=4.5)
    session = add_turn(session, Turn("user", "Something darker, from the nineties"))
    session = constrain(critique(session, "dark", 1), years=(1990, 1999))
    session = undo(session)              # as it was before the user's last turn

Every statement has the number of turns before it, so `undo` knows which statements to remove. The
last of several opinions about an item counts. Items are named by the raw ids of the data.
"""
import dataclasses
import json

import numpy as np

from ilm_jax import errors, files
from ilm_jax.cf import fold_in
from ilm_jax.conversation import records
from ilm_jax.data import interactions as interactions_lib

USER, RECOMMENDER = ROLES = ("user", "recommender")
ASK, RECOMMEND, EXPLAIN, REFINE, CHAT = ACTS = ("ask", "recommend", "explain", "refine", "chat")
TELL, ANSWER, CRITIQUE, REJECT, ACCEPT, WHY = USER_ACTS = (
    "tell", "answer", "critique", "reject", "accept", "why")
NEW = "new"              # the attribute of a critique about the year
LIKED, DISLIKED, SEEN = KINDS = ("liked", "disliked", "seen")
_YEARS = "two years, the first not after the last; null where there is no bound"


def _years(value, where: str) -> tuple[int | None, int | None]:
  if isinstance(value, list | tuple) and len(value) == 2:
    first, last = (records.optional(records.count)(year, where) for year in value)
    if first is None or last is None or first <= last:
      return first, last
  raise records.wrong(where, value, _YEARS)


@dataclasses.dataclass(frozen=True)
class Turn:
  """One side's words, the items that it named, and the act, if known (`ACTS`; for a user
  `USER_ACTS`)."""
  role: str = records.field(records.one_of(ROLES))
  text: str = records.field(records.text)
  items: tuple[str, ...] = records.field(records.several(records.identity), ())
  act: str | None = records.field(records.optional(records.one_of(ACTS + USER_ACTS)), None)


@dataclasses.dataclass(frozen=True)
class Opinion:
  """The user's opinion about an item; "seen" means neither liked nor disliked."""
  item: str = records.field(records.identity)
  kind: str = records.field(records.one_of(KINDS))
  rating: float | None = records.field(records.optional(records.number), None)
  turn: int = records.field(records.count, 0)


@dataclasses.dataclass(frozen=True)
class Constraint:
  """What an item must be: of one of `genres` (if any), of none of `without`, from `years`."""
  genres: tuple[str, ...] = records.field(records.several(records.text), ())
  without: tuple[str, ...] = records.field(records.several(records.text), ())
  years: tuple[int | None, int | None] = records.field(_years, (None, None))
  turn: int = records.field(records.count, 0)


@dataclasses.dataclass(frozen=True)
class Critique:
  """A number of steps along an attribute, e.g. "dark"; below 0: less of it."""
  attribute: str = records.field(records.text)
  steps: float = records.field(records.number)
  turn: int = records.field(records.count, 0)


@dataclasses.dataclass(frozen=True)
class Session:
  """A conversation so far. Each part is in order, oldest first."""
  opinions: tuple[Opinion, ...] = records.field(records.several(records.of(Opinion)), ())
  constraints: tuple[Constraint, ...] = records.field(records.several(records.of(Constraint)), ())
  critiques: tuple[Critique, ...] = records.field(records.several(records.of(Critique)), ())
  turns: tuple[Turn, ...] = records.field(records.several(records.of(Turn)), ())

  @property
  def liked(self) -> tuple[str, ...]:
    """Items that the user likes, oldest first."""
    return self._of_kind(LIKED)

  @property
  def disliked(self) -> tuple[str, ...]:
    """Items that the user dislikes, oldest first."""
    return self._of_kind(DISLIKED)

  @property
  def seen(self) -> tuple[str, ...]:
    """Items that the user knows but neither likes nor dislikes, oldest first."""
    return self._of_kind(SEEN)

  @property
  def constraint(self) -> Constraint:
    """The constraint that holds now."""
    return self.constraints[-1] if self.constraints else Constraint()

  @property
  def statements(self) -> int:
    """How many opinions, constraints and critiques there are."""
    return len(self.opinions) + len(self.constraints) + len(self.critiques)

  @property
  def active_critiques(self) -> tuple[Critique, ...]:
    """The critiques that hold: without those for more of an excluded genre; of those about the
    year only the last, because "older" after "newer" takes it back."""
    without = set(map(str.casefold, self.constraint.without))
    years = [each for each in self.critiques if each.attribute.casefold() == NEW]
    return tuple(each for each in self.critiques
                 if (each.steps <= 0 or each.attribute.casefold() not in without)
                 and (each.attribute.casefold() != NEW or each is years[-1]))

  def _of_kind(self, kind: str) -> tuple[str, ...]:
    last = {opinion.item: opinion.kind for opinion in self.opinions}
    order = dict.fromkeys(opinion.item for opinion in self.opinions if opinion.kind == kind)
    return tuple(item for item in order if last[item] == kind)


# Edits.

def add_turn(session: Session, turn: Turn) -> Session:
  """The session with one more turn.

  Raises:
    UserError: the role or the act is unknown, or the text is empty.
  """
  return _with(session, "turns", turn)


def like(session: Session, item: str, rating: float | None = None) -> Session:
  """The user likes `item`; `rating` is in the units of the data."""
  return _opinion(session, item, LIKED, rating)


def dislike(session: Session, item: str, rating: float | None = None) -> Session:
  """The user dislikes `item`."""
  return _opinion(session, item, DISLIKED, rating)


def mark_seen(session: Session, item: str, rating: float | None = None) -> Session:
  """The user knows `item`."""
  return _opinion(session, item, SEEN, rating)


def constrain(session: Session, **parts) -> Session:
  """Sets `genres`, `without` or `years` of the constraint; parts not named stay as they are.

  Raises:
    UserError: a genre is empty, or the years are no span.
  """
  return _with(session, "constraints", dataclasses.replace(
      session.constraint, **parts, turn=len(session.turns)))


def critique(session: Session, attribute: str, steps: float) -> Session:
  """The user wants more of `attribute`, or less if `steps` is below 0.

  Raises:
    UserError: the attribute is empty, or `steps` is no number.
  """
  return _with(session, "critiques", Critique(attribute, steps, len(session.turns)))


def forget(session: Session, item: str) -> Session:
  """The session without any opinion about `item`."""
  return dataclasses.replace(
      session, opinions=tuple(each for each in session.opinions if each.item != item))


def remove(session: Session, part: str, number: int) -> Session:
  """The session without statement `number` (from 0) of "opinions", "constraints" or "critiques".

  Raises:
    UserError: there is none.
  """
  parts = ("opinions", "constraints", "critiques")
  if part not in parts:
    raise records.wrong("part", part, " or ".join(map(repr, parts)))
  every = getattr(session, part)
  if not 0 <= number < len(every):
    raise errors.UserError(f"{part}[{number}] does not exist: the session has {len(every)} {part}")
  return dataclasses.replace(session, **{part: every[:number] + every[number + 1:]})


def undo(session: Session) -> Session:
  """The session as it was before the user's last turn; unchanged if there is none.

  It does not restore statements that `forget` or `remove` removed: keep the earlier session to undo
  these.
  """
  last = max((n for n, turn in enumerate(session.turns) if turn.role == USER), default=None)
  if last is None:
    return session
  earlier = {part: tuple(each for each in getattr(session, part) if each.turn <= last)
             for part in ("opinions", "constraints", "critiques")}
  return Session(**earlier, turns=session.turns[:last])


def _opinion(session, item, kind, rating):
  return _with(session, "opinions", Opinion(item, kind, rating, len(session.turns)))


def _with(session: Session, part: str, new) -> Session:
  """Checks `new` as JSON's reader would, so that no edit makes a session that cannot be read."""
  checked = records.record(type(new), vars(new), type(new).__name__.lower())
  return dataclasses.replace(session, **{part: (*getattr(session, part), checked)})


# JSON.

def to_json(session: Session) -> str:
  """The session as indented JSON, which `from_json` reads back."""
  return json.dumps(dataclasses.asdict(session), indent=1, ensure_ascii=False)


def from_json(text: str | bytes, where: str = "session") -> Session:
  """The session in JSON.

  Args:
    text: from `to_json`, or written by hand; omitted parts are empty.
    where: its name in messages, e.g. the file's name.

  Raises:
    UserError: it is no JSON; a field is unknown or has a wrong value; a statement has the number of
      a turn that does not exist.
  """
  try:
    value = files.parse_json(text)
  except ValueError as e:
    raise errors.UserError(f"{where} is no JSON ({e}), expected the output of session.to_json"
                           ) from None
  return from_value(value, where)


def from_value(value, where: str = "session") -> Session:
  """The session in a value that JSON gave.

  Raises:
    UserError: as `from_json`; or it is nested too deep.
  """
  try:
    session = records.record(Session, value, where)
  except RecursionError:
    raise errors.UserError(f"{where} is nested too deeply, expected the output of session.to_json"
                           ) from None
  for part in ("opinions", "constraints", "critiques"):
    for n, each in enumerate(getattr(session, part)):
      if each.turn > len(session.turns):
        raise records.wrong(f"{where}: {part}[{n}].turn", each.turn,
                            f"at most {len(session.turns)}, the number of turns")
  return session


# Arrays from a session.

def allowed(session: Session, items: interactions_lib.Items) -> np.ndarray:
  """bool [I + 1] by item row: the items that may be recommended. Row 0 is False.

  False for items with an opinion, or with the title and known year of one (some logs list a film
  twice), and for those that do not meet the constraint: an item without a year meets no bound, one
  without genres none of `genres`. Genres are compared without case.
  """
  now, (first, last) = session.constraint, session.constraint.years
  wanted, unwanted = ([items.rows_of_genre.get(genre.casefold(), []) for genre in genres]
                      for genres in (now.genres, now.without))
  may_I1 = np.full(len(items) + 1, not wanted)
  for rows in wanted:
    may_I1[rows] = True
  may_I1[0] = False
  known = [items.row_of[each.item] for each in session.opinions if each.item in items.row_of]
  for rows in (*unwanted, *([row, *items.twins.get(row, ())] for row in known)):
    may_I1[rows] = False
  if first is not None:
    may_I1 &= items.year_I1 >= first
  if last is not None:
    may_I1 &= items.year_I1 <= last
  return may_I1


def user_vector(session: Session, form: fold_in.Form, items: interactions_lib.Items) -> np.ndarray:
  """float32 [C]: the user's vector, folded in from the liked items; zeros if nothing is liked.

  Raises:
    UserError: an item is not in the catalogue.
  """
  for item in session.liked:
    if item not in items.row_of:
      raise errors.UserError(f"the session likes item {item!r}, expected one of the "
                             f"{len(items)} items of the catalogue by its id")
  return form.users([[items.row_of[item] for item in session.liked]])[0]
