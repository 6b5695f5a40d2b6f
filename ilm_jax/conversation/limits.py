"""Hard constraints in a user's words: years and the catalogue's genres.

"From the nineties", "after 1990", "before 1980", "between 1970 and 1979", "nothing before 1990";
"only comedies", "no horror or war". They add up. What is said last counts: "only horror" ends "no
horror", and "horror is fine again", "any year" take back. A negated span of two bounds ("not from
the nineties") is no span and is left unread.
"""
import re
from collections.abc import Collection

from ilm_jax.conversation import session as session_lib

_DECADES = {word: 1920 + 10 * n for n, word in enumerate((
    "twenties", "thirties", "forties", "fifties", "sixties", "seventies", "eighties", "nineties"))}
_SPANS = tuple((re.compile(pattern, re.IGNORECASE), years) for pattern, years in (
    (r"\b(?:between|from)\s+(\d{4})\s+(?:and|to|until)\s+(\d{4})\b", lambda a, b: (int(a), int(b))),
    (r"\b(\d{4})\s*[-–]\s*(\d{4})\b", lambda a, b: (int(a), int(b))),
    (r"\b(?:after|newer than)\s+(\d{4})\b", lambda a: (int(a) + 1, None)),
    (r"\b(?:since\s+(\d{4})\b|(?:from\s+)?(\d{4}) (?:(?:or|and) (?:later|newer)|on(?:wards?)?)\b)",
     lambda a, b: (int(a or b), None)),
    (r"\b(?:before|older than)\s+(\d{4})\b", lambda a: (None, int(a) - 1)),
    (r"\b(?:from|of|in)\s+(?:the\s+)?(?:19)?([2-9]0)['’]?s\b",
     lambda a: (1900 + int(a), 1909 + int(a))),
    (rf"\b(?:from|of|in)\s+the\s+({'|'.join(_DECADES)})\b",
     lambda a: (_DECADES[a.casefold()], _DECADES[a.casefold()] + 9)),
    (r"\bfrom\s+(\d{4})\b", lambda a: (int(a), int(a)))))
_ENDS = re.compile(r"[.;!?,]|\b(?:and|but|so)\b", re.IGNORECASE)      # of what a negation is about
_NEGATION = re.compile(r"(?:\b(?:not|nothing|none|never|avoid|hate)|n['’]t)\b", re.IGNORECASE)
_NO = re.compile(r"\bno\b(?: (?:films?|movies?|things?|ones?|made|from))* ?$", re.IGNORECASE)
_NEAR = 200              # characters before a span, among which a negation of it is looked for
_ONLY = re.compile(r"\b(only|just|not any|no|without)\s+(?=\w)", re.IGNORECASE)
_NEXT = re.compile(r"\s*(?:,\s*)?([\w\-’']+)")
_FREED = re.compile(r"(?:\b(?:actually|ok|okay|well),? )?(?<!\bno )\b([\w\-’']{1,100})"
                    r" (?:is|are) (?:fine|ok|okay)(?: again| too| after all| now)*(?=\W|$)",
                    re.IGNORECASE)
_ANY_YEAR = re.compile(r"\b(?:any|every) (?:year|decade|time)s?(?: (?:is|are) (?:fine|ok|okay))?"
                       r"(?: again)?\b", re.IGNORECASE)
_Span = tuple[int | None, int | None]
_ANY: _Span = (None, None)


def read(text: str, genres: Collection[str], now: session_lib.Constraint) -> tuple[dict, str]:
  """(parts for `session.constrain`, the text without the words that gave them).

  Args:
    text: the user's words.
    genres: those of the catalogue, in lower case.
    now: the constraint before these words.
  """
  only, without, rest = list(now.genres), list(now.without), text
  years, rest = _span(rest)
  if years is None and _ANY_YEAR.search(rest):
    years, rest = _ANY, _ANY_YEAR.sub("", rest)
  elif years is not None:
    years = _met(now.years, years)
  back = []
  for match in reversed(list(_FREED.finditer(rest))):
    if genre := _genre(match[1].casefold(), genres):
      back.append(genre)
      rest = rest[:match.start()] + rest[match.end():]
  only, without = _less(only, back), _less(without, back)
  wanted, unwanted, rest = _named(rest, genres)
  if wanted:
    only, without = wanted, _less(without, wanted)
  only, without = _less(only, unwanted), [*without, *_less(unwanted, without)]
  changed = {"genres": tuple(only), "without": tuple(without),
             "years": now.years if years is None else years}
  return {name: value for name, value in changed.items() if value != getattr(now, name)}, rest


def freed(now: session_lib.Constraint, wanted) -> dict:
  """Parts for `session.constrain` so that the genres `wanted`, in lower case, are not excluded."""
  without = tuple(_less(now.without, list(wanted)))
  return {"without": without} if without != now.without else {}


def words(now: session_lib.Constraint) -> list[str]:
  """ ["only comedy or war", "without horror", "from 1990", "until 1999"]."""
  return ([f"only {' or '.join(now.genres)}"] * bool(now.genres)
          + [f"without {' or '.join(now.without)}"] * bool(now.without)
          + [f"{word} {year}" for word, year in zip(("from", "until"), now.years) if year])


def _span(rest: str) -> tuple[_Span | None, str]:
  """(the years that all spans have in common; None: there is no span, the text without them)."""
  found: _Span | None = None
  for pattern, years in _SPANS:
    at = 0
    while match := pattern.search(rest, at):
      negation = _negation(rest, match.start())
      said: _Span = years(*match.groups())
      span = said if negation is None else _opposite(*said)
      if span is None or not _is_span(*span):
        at = match.end()
        continue
      start = match.start() if negation is None else negation
      found, rest, at = _met(found or _ANY, span), rest[:start] + rest[match.end():], start
  return found, rest


def _negation(text: str, end: int) -> int | None:
  """Where the words that negate what begins at `end` start; None: nothing negates it. Only the last
  words before it are read: for each of many spans a search of the whole text takes too long."""
  first = max(0, end - _NEAR)
  first = max((each.end() for each in _ENDS.finditer(text, first, end)), default=first)
  match = _NEGATION.search(text, first, end) or _NO.search(text, first, end)
  return match.start() if match else None


def _opposite(first: int | None, last: int | None) -> _Span | None:
  """All years outside a span; None: they are no span."""
  if first is None:
    return None if last is None else (last + 1, None)
  return (None, first - 1) if last is None else None


def _named(rest: str, genres: Collection[str]) -> tuple[list[str], list[str], str]:
  """(genres after "only", genres after "no", each once; the text without these words)."""
  wanted: list[str] = []
  unwanted: list[str] = []
  for match in reversed(list(_ONLY.finditer(rest))):
    named, at, end = [], match.end(), 0
    while word := _NEXT.match(rest, at):
      if genre := _genre(word[1].casefold(), genres):
        named, end = [*named, genre], word.end()
      elif word[1].casefold() not in ("or", "and"):
        break
      at = word.end()
    only = match[1].casefold() in ("only", "just")
    if named and not (only and _negation(rest, match.start()) is not None):
      (wanted if only else unwanted)[:0] = named
      rest = rest[:match.start()] + rest[end:]
  return list(dict.fromkeys(wanted)), list(dict.fromkeys(unwanted)), rest


def _less(names, taken: list[str]) -> list[str]:
  left_out = set(taken)
  return [name for name in names if name.casefold() not in left_out]


def _is_span(first: int | None, last: int | None) -> bool:
  return first is None or last is None or first <= last


def _met(one: _Span, other: _Span) -> _Span:
  """The years that two spans have in common; `other` if there are none."""
  first = max((year for year in (one[0], other[0]) if year is not None), default=None)
  last = min((year for year in (one[1], other[1]) if year is not None), default=None)
  return (first, last) if _is_span(first, last) else other


def _genre(word: str, genres: Collection[str]) -> str:
  forms = (word, word.removesuffix("s"), word.removesuffix("ies") + "y")
  return next((form for form in forms if form in genres), "")
