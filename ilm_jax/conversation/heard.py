"""What a user's words say of items, years and genres, read by rules, without a language model.

    session, unread = heard.told(session, "I loved Heat, but no horror, and something newer", ...)

  - **Titles.** The longest run of words that is the title of one item, with or without its year. A
    title of one word counts if it has four letters or more and begins with a capital. Without its
    year it does not count before words that make another title of it: "Heat 2", "The Godfather
    Part III", "Game of Thrones".
  - **Opinions** (`opinions`). The titles in a clause are disliked if the clause has "hate", "not",
    "boring" or a similar word; seen, if it has "seen" or "watched" and no praise; without an
    opinion, if it is a question or says that the item was not seen; else liked.
  - **Constraints** (`limits`). "from the nineties", "no horror or war", "only comedies".
  - `wishes` reads the rest: critiques, and "more like X".
"""
import dataclasses
import itertools
import re

from ilm_jax import errors
from ilm_jax.conversation import limits, opinions, wishes
from ilm_jax.conversation import session as session_lib
from ilm_jax.conversation import titles as titles_lib
from ilm_jax.data import interactions as interactions_lib

MOST = 2000                         # characters of a turn
_MOST_WORDS, _LETTERS = 16, 4       # most words of a title; least letters of a one-word title
_WORD = re.compile(r"[\w&][\w'’.:\-]*[\w]|\w")
_YEAR = re.compile(r"[.!?]*\s*(\(\d{4}\))")
# Words right after a title that make another title of it.
_GOES_ON = re.compile(r"\s+(?:\d{1,4}\b(?!\s*(?:/|%|stars|times|out|years))|"
                      r"(?:II|III|IV|VI|VII|VIII|IX)\b|(?:part|episode|chapter|vol\.?|volume)\b|"
                      r"(?-i:of [A-Z]))", re.IGNORECASE)
# Not a word in capitals only: "I LOVED HEAT AND FARGO".
_CAPITAL = re.compile(r"\s+([A-Z][a-z]\S*)")


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
    start, ends = words[at].start(), _ends(text, words[at:at + _MOST_WORDS], titles)
    for count, end in reversed(list(enumerate(ends, 1))):
      if year := _YEAR.match(text, end):
        end = year.end(1)
      if (row := titles.row(text[start:end])) and (year or (
          _is_title(text[start:end]) and not _goes_on(text, end, titles))):
        found.append((row, start, end))
        at += count
        break
    else:
      at += 1
  kind = opinions.kinds(_read(text, [span for _, *span in found]))
  return [Mention(row, start, end, kind(start)) for row, start, end in found]


def _ends(text: str, words: list[re.Match], titles: titles_lib.Titles) -> list[int]:
  """Where the runs of these words end that may be a title: few, even of a text of short words."""
  ends: list[int] = []
  for word in words:
    if not titles.begin(text[words[0].start():word.end()]):
      break
    ends.append(word.end())
  return ends


def blanked(text: str, spans) -> str:
  """The text with "_" for every character in the spans (start, end); its length stays."""
  for start, end in spans:
    text = f"{text[:start]}{'_' * (end - start)}{text[end:]}"
  return text


def _read(text: str, spans) -> str:
  """The text with blanked titles, and "not any" in place of "anything but", at the same length."""
  return wishes.BUT.sub(lambda match: "not any".ljust(len(match[0])), blanked(text, spans))


def _goes_on(text: str, end: int, titles: titles_lib.Titles) -> bool:
  """Whether the words behind a title, which has no year, make another title of it: "Heat 2", or a
  word with a capital that begins no title."""
  if _GOES_ON.match(text, end):
    return True
  if not (word := _CAPITAL.match(text, end)):
    return False
  names = list(itertools.accumulate(
      (each[0] for each in itertools.islice(_WORD.finditer(text, word.start(1)), _MOST_WORDS)),
      lambda before, each: f"{before} {each}"))
  return not any(map(titles.row, itertools.takewhile(titles.begin, names)))


def _is_title(words: str) -> bool:
  """Whether words without a year are clearly a title, not a common word."""
  named = re.sub(r"^(the|an?)\s+", "", words, flags=re.IGNORECASE)
  return " " in named or (len(named) >= _LETTERS and named[0].isupper())


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
  blank = _read(text, [(each.start, each.end) for each in found])
  parts, rest = limits.read("; ".join(opinions.wishes(blank)), items.rows_of_genre,
                            session.constraint)
  session = session_lib.add_turn(session, session_lib.Turn(
      session_lib.USER, text, tuple(items.ids[mention.row - 1] for mention in found)))
  edits = {session_lib.LIKED: session_lib.like, session_lib.DISLIKED: session_lib.dislike,
           session_lib.SEEN: session_lib.mark_seen}
  for mention in found:
    if mention.kind:
      session = edits[mention.kind](session, items.ids[mention.row - 1])
  if parts:
    session = session_lib.constrain(session, **parts)
  wish = wishes.read(rest, names, guess)
  if freed := limits.freed(session.constraint, {name for name, n in wish.critiques if n > 0}):
    session = session_lib.constrain(session, **freed)
  return wishes.applied(session, wish, items, titles), (*opinions.names(blank), *wish.unread)
