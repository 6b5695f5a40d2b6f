"""Which opinion a user's words give about the titles among them, clause by clause.

Titles are blanked (`_`) before the words are read, so their own words do not count. Clauses end at
the end of a sentence, at ";", at "but", before "except", at "and" or a comma before an opinion's
verb, and at a comma, "and" or "so" before words that begin a wish ("no", "something", "more", ..).
"""
import bisect
import re

from ilm_jax.conversation import session as session_lib

_VERB = r"(?:i\s+)?(?:also\s+)?(?:hate|dislike|like|love|enjoy|did|do|have|saw|never)\w*\b"
_WISH = r"(?:no|not|nothing|only|just|without|less|more|something|anything|please)\b"
CLAUSE = re.compile(rf"(?<=[.;!?])\s+|\s+but\s+|;\s*|\s+(?=except\b)|,?\s+and\s+(?={_VERB})|"
                    rf",\s+(?={_VERB})|,\s+(?:(?:and|so)\s+)?(?={_WISH})|\s+(?:and|so)\s+(?={_WISH})",
                    re.IGNORECASE)
_FINE = re.compile(
    r"(?:\bnot|n['’]t|\bnever) (?:\w+ ){0,2}bad\b|\b(?:do not|don['’]t) mind\b|"
    r"\bcan(?:not|['’]t) (?:get enough|stop)\b|\bnever (?:\w+ )?(?:tired|bored) of\b|"
    r"\bwho (?:does not|doesn['’]t) (?:like|love)\b|(?:\bnot|n['’]t) get (?:any |much )?better\b",
    re.IGNORECASE)
_UNSEEN = re.compile(r"(?:\b(?:not|never)|n['’]t)\s+(?:seen|see|watched|saw|know)\b|^never seen\b",
                     re.IGNORECASE)
_BAD = re.compile(
    r"\b(?:hate[sd]?|dislike[sd]?|not|never|neither|nor|except|remove|boring|bored|dull|awful|"
    r"terrible|horrible|worst|worse|bad|overrated|sucks?|sucked|asleep|disaster|waste|trash|"
    r"garbage|crap|lame|disappoint(?:ed|ing)|less like)\b|n['’]t\b", re.IGNORECASE)
_GOOD = re.compile(r"\b(?:like[sd]?|love[sd]?|enjoy(?:ed)?|great|good|favou?rites?|best)\b",
                   re.IGNORECASE)
_KNOWN = re.compile(r"\b(?:seen|saw|watched|know)\b", re.IGNORECASE)
# "something funny like X", "a thriller like X": what is wanted, and the title.
_WANTED = re.compile(r"\b(?P<wish>(?:more|something|anything|some|any|one|an?|films?|movies?)\b"
                     r"[^_]{0,60}?)\blike\s+_", re.IGNORECASE)
_ASKED = re.compile(r"^\W*(?:(?:is|are|was|were|what|how|which|who|why|where|when)\b|"
                    r"(?:do|does|did|can|could|should|would|have)\b.*\?\s*$)", re.IGNORECASE)
_NAME = re.compile(r"(?<=[\w,] )[A-Z][a-z][\w’'\-]*(?: (?:(?:of|the|and) )?[A-Z0-9][\w’'\-]*)*")
_MOST_NAMES = 5
_WHY_NOT = re.compile(r"^\W*why not\b", re.IGNORECASE)


def kinds(text: str):
  """A function: place in the text -> the opinion that its clause gives (`session.KINDS`; "": none).

  Args:
    text: with its titles blanked.
  """
  starts, ends = [0], []
  for match in CLAUSE.finditer(text):
    ends.append(match.start())
    starts.append(match.end())
  found = [_kind(text[start:end]) for start, end in zip(starts, [*ends, len(text)])]
  return lambda place: found[bisect.bisect_right(starts, place) - 1]


def wishes(text: str) -> list[str]:
  """The clauses that may ask for something: those without a title, and of "a thriller like ____
  from the nineties" the words around the title.

  Args:
    text: with its titles blanked.
  """
  clauses = []
  for clause in CLAUSE.split(text):
    if "_" not in clause:
      clauses.append(clause)
    elif match := _WANTED.search(clause):
      clauses += [match["wish"].strip(), clause[match.end():].strip("_ ")]
  return [clause for clause in clauses if clause.strip(" .,;!?")]


def names(text: str) -> tuple[str, ...]:
  """Words with a capital beside a title, which may be names of other items: ("Jurasic Park",).

  Args:
    text: with its titles blanked.
  """
  found = [name for clause in CLAUSE.split(text) if "_" in clause for name in _NAME.findall(clause)]
  return tuple(dict.fromkeys(found))[:_MOST_NAMES]


def _kind(clause: str) -> str:
  clause = _FINE.sub("good", clause)
  if _UNSEEN.search(clause) or _WHY_NOT.search(clause):
    return ""
  if _BAD.search(clause):
    return session_lib.DISLIKED
  if _ASKED.search(clause) and not _WANTED.search(clause):
    return ""
  if _KNOWN.search(clause) and not _GOOD.search(clause):
    return session_lib.SEEN
  return session_lib.LIKED
