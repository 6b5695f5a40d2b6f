"""What a user's words say of items, years and genres, read by a rule, not by a language model.

    session, unread = heard.told(session, "I loved Heat, but no horror, and something newer", ...)

  - **Titles.** The longest run of words that is the title of one item, with or without its year. A
    title of one word counts when it has four letters or more and begins with a capital.
  - **Opinions.** Of the titles in a clause: disliked where the clause has "hate", "not", "boring"
    or the like; seen, where it has "seen" or "watched" and no praise; nothing where it is a
    question; else liked. ".", ";", "!", "?", "but", and "and" before another such verb part
    clauses.
  - **Constraints.** "from the nineties", "after 1990", "before 1980", "between 1970 and 1979";
    "only comedies", "no horror", "without war", by the catalogue's genres.
  - The rest is read by `wishes`: critiques, and "more like X".
"""
import dataclasses
import re

from ilm_jax.conversation import session as session_lib
from ilm_jax.conversation import titles as titles_lib
from ilm_jax.conversation import wishes
from ilm_jax.data import interactions as interactions_lib

_MOST_WORDS, _LETTERS = 12, 4       # of a title; of one of a single word
_WORD = re.compile(r"[\w&][\w'’.:\-]*[\w]|\w")
_YEAR = re.compile(r"\s*(\(\d{4}\))")
_CLAUSE = re.compile(r"(?<=[.;!?])\s+|\s+but\s+|;\s*|,?\s+and\s+(?=(?:i\s+)?(?:also\s+)?"
                     r"(?:hate|dislike|like|love|enjoy|did|do|have|saw|never)\w*\b)", re.IGNORECASE)
_BAD = re.compile(r"\b(hate[sd]?|dislike[sd]?|not|never|boring|bored|awful|terrible|worst|bad|"
                  r"less like)\b|n['’]t\b", re.IGNORECASE)
_GOOD = re.compile(r"\b(like[sd]?|love[sd]?|enjoy(ed)?|great|good|favou?rites?|best)\b",
                   re.IGNORECASE)
_KNOWN = re.compile(r"\b(seen|saw|watched|know)\b", re.IGNORECASE)
_DECADES = {word: 1920 + 10 * n for n, word in enumerate((
    "twenties", "thirties", "forties", "fifties", "sixties", "seventies", "eighties", "nineties"))}
_SPANS = (     # pattern, and (first, last) year of its numbers
    (re.compile(r"\bbetween\s+(\d{4})\s+and\s+(\d{4})"), lambda a, b: (int(a), int(b))),
    (re.compile(r"\b(?:after|newer than)\s+(\d{4})"), lambda a: (int(a) + 1, None)),
    (re.compile(r"\bsince\s+(\d{4})"), lambda a: (int(a), None)),
    (re.compile(r"\b(?:before|older than)\s+(\d{4})"), lambda a: (None, int(a) - 1)),
    (re.compile(r"\b(?:from|of|in)\s+the\s+(?:19)?([2-9]0)['’]?s\b"),
     lambda a: (1900 + int(a), 1909 + int(a))),
    (re.compile(rf"\b(?:from|of|in)\s+the\s+({'|'.join(_DECADES)})"),
     lambda a: (_DECADES[a], _DECADES[a] + 9)),
    (re.compile(r"\b(?:from|in)\s+(\d{4})"), lambda a: (int(a), int(a))))
_ONLY = re.compile(r"\b(only|just|no|without|not any)\s+([\w\-’']+)", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Mention:
  """An item in a text: where its title stands, and what is said of it (`session.KINDS`); "": it is
  asked about."""
  row: int
  start: int
  end: int
  kind: str


def mentions(text: str, titles: titles_lib.Titles) -> list[Mention]:
  """The items that a text names, in its order."""
  found, words = [], list(_WORD.finditer(text))
  at = 0
  while at < len(words):
    for count in range(min(_MOST_WORDS, len(words) - at), 0, -1):
      start, end = words[at].start(), words[at + count - 1].end()
      if year := _YEAR.match(text, end):
        end = year.end(1)
      if (row := titles.row(text[start:end])) and (year or _is_title(text[start:end])):
        found.append(Mention(row, start, end, _kind(text, start)))
        at += count
        break
    else:
      at += 1
  return found


def _is_title(words: str) -> bool:
  """Whether words without a year are more than a word that anybody says."""
  named = re.sub(r"^(the|an?)\s+", "", words, flags=re.IGNORECASE)
  return " " in named or (len(named) >= _LETTERS and named[0].isupper())


def _kind(text: str, start: int) -> str:
  clause = next(part for part, (first, last) in _clauses(text) if first <= start < last)
  if clause.rstrip().endswith("?"):
    return ""
  if _BAD.search(clause):
    return session_lib.DISLIKED
  if _KNOWN.search(clause) and not _GOOD.search(clause):
    return session_lib.SEEN
  return session_lib.LIKED


def _clauses(text: str):
  first = 0
  for match in [*_CLAUSE.finditer(text), None]:
    last = match.start() if match else len(text) + 1
    yield text[first:last], (first, match.end() if match else last)
    first = match.end() if match else last


def constraints(text: str, genres: set[str]) -> tuple[dict, str]:
  """(parts for `session.constrain`, the text without the words that gave them).

  Args:
    text: what was said.
    genres: those of the catalogue, in lower case.
  """
  parts, rest = {}, text
  for pattern, years in _SPANS:
    if "years" not in parts and (match := pattern.search(rest.casefold())):
      first, last = years(*match.groups())
      if first is None or last is None or first <= last:
        parts["years"] = (first, last)
        rest = rest[:match.start()] + rest[match.end():]
  for match in reversed(list(_ONLY.finditer(rest))):
    if genre := _genre(match[2].casefold(), genres):
      name = "genres" if match[1].casefold() in ("only", "just") else "without"
      parts[name] = (genre, *parts.get(name, ()))
      rest = rest[:match.start()] + rest[match.end():]
  return parts, rest


def _genre(word: str, genres: set[str]) -> str:
  forms = (word, word.removesuffix("s"), word.removesuffix("ies") + "y")
  return next((form for form in forms if form in genres), "")


def told(session: session_lib.Session, text: str, *, items: interactions_lib.Items,
         titles: titles_lib.Titles, names) -> tuple[session_lib.Session, tuple[str, ...]]:
  """(the session with the user's turn and all that it says, the words that mean nothing here).

  Args:
    session: before the turn.
    text: the turn, not empty.
    items: the catalogue, and
    titles: its titles.
    names: attributes that can be asked for, in lower case.

  Raises:
    UserError: "more like X" names no item.
  """
  found, rest = mentions(text, titles), text
  for mention in reversed(found):
    rest = rest[:mention.start] + rest[mention.end:]
  genres = {genre.casefold() for of in items.genres for genre in of}
  parts, rest = constraints(rest, genres)
  session = session_lib.add_turn(session, session_lib.Turn(
      session_lib.USER, text, tuple(items.ids[mention.row - 1] for mention in found)))
  edits = {session_lib.LIKED: session_lib.like, session_lib.DISLIKED: session_lib.dislike,
           session_lib.SEEN: session_lib.mark_seen}
  for mention in found:
    if mention.kind:
      session = edits[mention.kind](session, items.ids[mention.row - 1])
  if parts:
    session = session_lib.constrain(session, **parts)
  wish = wishes.read(rest, names)
  if found:        # what is left of a sentence about items is no wish, unless it names an attribute
    wish = wish._replace(like=(), dislike=(), unread=())
  return wishes.applied(session, wish, items), wish.unread
