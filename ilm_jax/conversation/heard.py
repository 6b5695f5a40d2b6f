"""What a user's words say of items, years and genres, read by rules, without a language model.

    session, unread = heard.told(session, "I loved Heat, but no horror, and something newer", ...)

  - **Titles.** The longest run of words that is the title of one item, with or without its year. A
    title of one word counts if it has four letters or more and begins with a capital.
  - **Opinions.** The titles in a clause are disliked if the clause has "hate", "not", "boring" or a
    similar word; seen, if it has "seen" or "watched" and no praise; without an opinion, if it is a
    question or says that the item was not seen; else liked. Clauses end at the end of a sentence,
    at ";", at "but", and at "and" or a comma before an opinion's verb. Words of a title do not
    count.
  - **Constraints.** "from the nineties", "after 1990", "before 1980", "between 1970 and 1979";
    "only comedies", "no horror or war", by the catalogue's genres. They add up; a span of years
    after a negation is left unread.
  - `wishes` reads the rest: critiques, and "more like X".
"""
import bisect
import dataclasses
import itertools
import re

from ilm_jax import errors
from ilm_jax.conversation import session as session_lib
from ilm_jax.conversation import titles as titles_lib
from ilm_jax.conversation import wishes
from ilm_jax.data import interactions as interactions_lib

MOST = 2000                         # characters of a turn
_MOST_WORDS, _LETTERS = 16, 4       # most words of a title; least letters of a one-word title
_WORD = re.compile(r"[\w&][\w'’.:\-]*[\w]|\w")
_YEAR = re.compile(r"[.!?]*\s*(\(\d{4}\))")
_VERB = r"(?:i\s+)?(?:also\s+)?(?:hate|dislike|like|love|enjoy|did|do|have|saw|never)\w*\b"
_CLAUSE = re.compile(rf"(?<=[.;!?])\s+|\s+but\s+|;\s*|,?\s+and\s+(?={_VERB})|,\s+(?={_VERB})",
                     re.IGNORECASE)
_FINE = re.compile(r"\bnot (?:at all )?bad\b|\b(?:do not|don['’]t) mind\b|"
                   r"\bcan(?:not|['’]t) get enough\b", re.IGNORECASE)
_UNSEEN = re.compile(r"(?:\b(?:not|never)|n['’]t)\s+(?:seen|see|watched|saw|know)\b|^never seen\b",
                     re.IGNORECASE)
_BAD = re.compile(r"\b(?:hate[sd]?|dislike[sd]?|not|never|boring|bored|awful|terrible|worst|bad|"
                  r"less like)\b|n['’]t\b", re.IGNORECASE)
_GOOD = re.compile(r"\b(?:like[sd]?|love[sd]?|enjoy(?:ed)?|great|good|favou?rites?|best)\b",
                   re.IGNORECASE)
_KNOWN = re.compile(r"\b(?:seen|saw|watched|know)\b", re.IGNORECASE)
_WANTED = re.compile(r"\b(?:more|something|anything|some|one) like\b", re.IGNORECASE)
_ASKED = re.compile(r"^\W*(?:(?:is|are|was|were|what|how|which|who)\b|"
                    r"(?:do|does|did|can|could|should|would|have)\b.*\?\s*$)", re.IGNORECASE)
_DECADES = {word: 1920 + 10 * n for n, word in enumerate((
    "twenties", "thirties", "forties", "fifties", "sixties", "seventies", "eighties", "nineties"))}
_SPANS = tuple((re.compile(pattern, re.IGNORECASE), years) for pattern, years in (
    (r"\b(?:between|from)\s+(\d{4})\s+(?:and|to|until)\s+(\d{4})\b", lambda a, b: (int(a), int(b))),
    (r"\b(\d{4})\s*[-–]\s*(\d{4})\b", lambda a, b: (int(a), int(b))),
    (r"\b(?:after|newer than)\s+(\d{4})\b", lambda a: (int(a) + 1, None)),
    (r"\b(?:since\s+(\d{4})\b|(\d{4}) or later\b)", lambda a, b: (int(a or b), None)),
    (r"\b(?:before|older than)\s+(\d{4})\b", lambda a: (None, int(a) - 1)),
    (r"\b(?:from|of|in)\s+(?:the\s+)?(?:19)?([2-9]0)['’]?s\b",
     lambda a: (1900 + int(a), 1909 + int(a))),
    (rf"\b(?:from|of|in)\s+the\s+({'|'.join(_DECADES)})\b",
     lambda a: (_DECADES[a.casefold()], _DECADES[a.casefold()] + 9)),
    (r"\bfrom\s+(\d{4})\b", lambda a: (int(a), int(a)))))
_NEGATED = re.compile(r"(?:\b(?:not|no|nothing|none|never)|n['’]t)\s+(?:[\w’']+\s+){0,2}$",
                      re.IGNORECASE)
_ONLY = re.compile(r"\b(only|just|not any|no|without)\s+(?=\w)", re.IGNORECASE)
_NEXT = re.compile(r"\s*,?\s*([\w\-’']+)")


@dataclasses.dataclass(frozen=True)
class Mention:
  """An item in a text: the place of its title, and the opinion about it (`session.KINDS`); "": no
  opinion."""
  row: int
  start: int
  end: int
  kind: str


def mentions(text: str, titles: titles_lib.Titles) -> list[Mention]:
  """The items that a text names, in the order of the text."""
  found, words, at = [], list(_WORD.finditer(text)), 0
  while at < len(words):
    for count in range(min(_MOST_WORDS, len(words) - at), 0, -1):
      start, end = words[at].start(), words[at + count - 1].end()
      if year := _YEAR.match(text, end):
        end = year.end(1)
      if (row := titles.row(text[start:end])) and (year or _is_title(text[start:end])):
        found.append((row, start, end))
        at += count
        break
    else:
      at += 1
  kind = _kinds(blanked(text, [span for _, *span in found]))
  return [Mention(row, start, end, kind(start)) for row, start, end in found]


def blanked(text: str, spans) -> str:
  """The text with "_" for every character in the spans (start, end); its length stays."""
  for start, end in spans:
    text = f"{text[:start]}{'_' * (end - start)}{text[end:]}"
  return text


def _is_title(words: str) -> bool:
  """Whether words without a year are clearly a title, not a common word."""
  named = re.sub(r"^(the|an?)\s+", "", words, flags=re.IGNORECASE)
  return " " in named or (len(named) >= _LETTERS and named[0].isupper())


def _kinds(text: str):
  """A function: place in the text -> the opinion that its clause gives."""
  starts, ends = [0], []
  for match in _CLAUSE.finditer(text):
    ends.append(match.start())
    starts.append(match.end())
  kinds = [_kind(text[start:end]) for start, end in zip(starts, [*ends, len(text)])]
  return lambda place: kinds[bisect.bisect_right(starts, place) - 1]


def _kind(clause: str) -> str:
  clause = _FINE.sub("good", clause)
  if _UNSEEN.search(clause):
    return ""
  if _BAD.search(clause):
    return session_lib.DISLIKED
  if _ASKED.search(clause) and not _WANTED.search(clause):
    return ""
  if _KNOWN.search(clause) and not _GOOD.search(clause):
    return session_lib.SEEN
  return session_lib.LIKED


def constraints(text: str, genres: set[str]) -> tuple[dict, str]:
  """(parts for `session.constrain`, the text without the words that gave them).

  Args:
    text: the user's words.
    genres: those of the catalogue, in lower case.
  """
  parts, rest = {}, text
  for pattern, years in _SPANS:
    while match := next((m for m in pattern.finditer(rest) if _is_span(*years(*m.groups()))
                         and not _NEGATED.search(rest[:m.start()])), None):
      parts["years"] = _met(parts.get("years", (None, None)), years(*match.groups()))
      rest = rest[:match.start()] + rest[match.end():]
  for match in reversed(list(_ONLY.finditer(rest))):
    name = "genres" if match[1].casefold() in ("only", "just") else "without"
    named, at = [], match.end()
    while word := _NEXT.match(rest, at):
      if genre := _genre(word[1].casefold(), genres):
        named, end = [*named, genre], word.end()
      elif word[1].casefold() not in ("or", "and"):
        break
      at = word.end()
    if named and not (name == "genres" and _NEGATED.search(rest[:match.start()])):
      parts[name] = (*named, *parts.get(name, ()))
      rest = rest[:match.start()] + rest[end:]
  return parts, rest


def _is_span(first: int | None, last: int | None) -> bool:
  return first is None or last is None or first <= last


def _met(one: tuple, other: tuple) -> tuple:
  """The years that two spans have in common; `other` if there are none."""
  first = max((year for year in (one[0], other[0]) if year is not None), default=None)
  last = min((year for year in (one[1], other[1]) if year is not None), default=None)
  return (first, last) if _is_span(first, last) else other


def _genre(word: str, genres: set[str]) -> str:
  forms = (word, word.removesuffix("s"), word.removesuffix("ies") + "y")
  return next((form for form in forms if form in genres), "")


def told(session: session_lib.Session, text: str, *, items: interactions_lib.Items,
         titles: titles_lib.Titles, names, guess=lambda *forms: ""
         ) -> tuple[session_lib.Session, tuple[str, ...]]:
  """(the session with the user's turn and all that it says, the words that were not understood).

  Args:
    session: before the turn.
    text: the turn, not empty.
    items: the catalogue.
    titles: of `items`.
    names: the known attributes, in lower case.
    guess: as in `wishes.read`.

  Raises:
    UserError: the turn is too long; "more like X" names no item; years make no span.
  """
  text = " ".join(text.split())
  if len(text) > MOST:
    raise errors.UserError(f"the text has {len(text):,} characters, expected {MOST:,} at most")
  found = mentions(text, titles)
  genres = {genre.casefold() for genre in set(itertools.chain.from_iterable(items.genres))}
  rest, clauses = blanked(text, [(each.start, each.end) for each in found]), []
  for clause in _CLAUSE.split(rest):        # the rest of a clause with a title is no wish
    clauses += [clause] * ("_" not in clause)
  parts, rest = constraints("; ".join(clauses), genres)
  session = session_lib.add_turn(session, session_lib.Turn(
      session_lib.USER, text, tuple(items.ids[mention.row - 1] for mention in found)))
  edits = {session_lib.LIKED: session_lib.like, session_lib.DISLIKED: session_lib.dislike,
           session_lib.SEEN: session_lib.mark_seen}
  for mention in found:
    if mention.kind:
      session = edits[mention.kind](session, items.ids[mention.row - 1])
  if parts:
    session = session_lib.constrain(session, **_added(session.constraint, parts))
  wish = wishes.read(rest, names, guess)
  return wishes.applied(session, wish, items, titles), wish.unread


def _added(now: session_lib.Constraint, parts: dict) -> dict:
  """The parts combined with the present constraint: exclusions add up, spans of years intersect."""
  more = {"without": tuple(dict.fromkeys((*now.without, *parts.get("without", ())))),
          "years": _met(now.years, parts.get("years", (None, None)))}
  return parts | {name: value for name, value in more.items() if name in parts}
