"""What a recommender says beside a list: how it read the user's words, and what it did not read."""
import re
from collections.abc import Callable, Sequence

from ilm_jax.conversation import limits, wording
from ilm_jax.conversation import session as s

_THANKS = re.compile(
    r"\W*(?:(?:ok(?:ay)?|great|perfect|cool|nice|wow)\W+)*(?:many )?(?:thanks|thank you|thx)"
    r"(?: a lot| so much| very much)?"
    r"(?:\W+(?:that(?:['’]s| is) )?(?:perfect|great|good|all|it))?\W*", re.IGNORECASE)
_WORDS = {s.LIKED: "you like", s.DISLIKED: "you do not like", s.SEEN: "you know"}


def thanks(text: str) -> bool:
  """Whether a text says nothing but thanks."""
  return bool(_THANKS.fullmatch(text))


def notes(unread: Sequence[str], near: Sequence[str], guessed: Sequence[str],
          unmet: Sequence[str], things: str) -> str:
  """The sentences about unread and guessed words, and unmet wishes; "" if there are none.

  Args:
    unread, guessed: of a `talker.Reply`.
    near: titles that are spelt almost like unread words.
    unmet: wishes that no listed item fits, as `wording.asked`.
    things: what items are called, e.g. "films".
  """
  said = [f"I do not know what {', '.join(map(repr, unread))} means here."] * bool(unread)
  said += [f"Spelt almost like it: {wording.listed(list(near))}."] * bool(near)
  said += [f"{', '.join(map(repr, guessed))}: guessed from the {things}' texts; no label says it."
           ] * bool(guessed)
  said += [f"None of these fits {', '.join(map(repr, unmet))}."] * bool(unmet)
  return "\n".join(said)


def introduction(session: s.Session) -> str:
  """The sentence above a list that follows a wish. It says how this turn's critiques were read."""
  now = ", ".join(_critiques(session, len(session.turns)))
  return f"With what you asked for{now and f' ({now})'}, these come first:"


def noted(session: s.Session, title: Callable[[str], str]) -> str:
  """What was understood of the user's turn: "Noted: you like Heat (1995); without horror."; "" if
  nothing was.

  Args:
    session: its last turns are the user's and the reply.
    title: raw id -> title.
  """
  at, said = len(session.turns) - 1, []
  if at < 1 or session.turns[at - 1].role != s.USER:
    return ""
  for kind, words in _WORDS.items():
    named = [title(each.item) for each in session.opinions if (each.turn, each.kind) == (at, kind)]
    said += [f"{words} {wording.listed(named)}"] * bool(named)
  if session.constraint.turn == at:
    said += limits.words(session.constraint) or ["no limits"]
  said += _critiques(session, at)
  return f"Noted: {'; '.join(said)}." if said else ""


def nothing_left(session: s.Session) -> str:
  """The sentence in place of an empty list."""
  stated = limits.words(session.constraint)
  return ("Nothing is left that fits all that you asked for"
          f"{f' ({wording.listed(stated)})' if stated else ''}: take something back.")


def _critiques(session: s.Session, turn: int) -> list[str]:
  return [wording.asked(each) for each in session.active_critiques if each.turn == turn]
