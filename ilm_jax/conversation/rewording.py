"""A teacher's words in place of a template's: the requests, and the checks of the answers.

A turn's act, items, attribute and years are fixed; only its words may change. An answer that
changes more is dropped, and the template stays.
"""
import collections
import dataclasses
import re

from ilm_jax.conversation import heard, wording
from ilm_jax.conversation import session as s
from ilm_jax.conversation import titles as titles_lib
from ilm_jax.data import interactions as interactions_lib
from ilm_jax.data import targets

TASK = "dialogs"            # of requests, and of lines in a user's own file of targets
INSTRUCTION = ("Say the last line in other words, as people talk. Keep every title with its year "
               "as it stands, and what is asked for. Add no other title and no opinion. Answer "
               "with the new words alone, in one line.")
EARLY, CHANGED, ACT = "target named early", "attribute changed", "act changed"
REWORDED, UNCHANGED = "reworded", "unchanged"

_NAMES = {s.USER: "User", s.RECOMMENDER: "Recommender"}
_YEARS = re.compile(r"\d{4}")
_WORD = r"(?<![\w-])(?:{})(?![\w-])"
_UP = re.compile(_WORD.format("more|newer|later|extra|recent"), re.IGNORECASE)
_DOWN = re.compile(_WORD.format("less|fewer|older|earlier|without"), re.IGNORECASE)
_NOT = re.compile(_WORD.format("not|no|never|nothing") + r"|n['’]t\b", re.IGNORECASE)
_OTHER = re.compile(_WORD.format("else|other|another|different|pass|skip"), re.IGNORECASE)
_SIDED = (s.CRITIQUE, s.ANSWER, s.REFINE)       # these say more or less of an attribute


def request(turns, number: int, split: str = "") -> targets.Request:
  """A request for other words of `turns[number]`; the teacher also reads the turn before.

  The request's row is `number`; the caller replaces it by the number of the request.
  """
  lines = [f"{_NAMES[turn.role]}: {turn.text}" for turn in turns[max(number - 1, 0):number + 1]]
  return targets.Request(TASK, split, (number,), INSTRUCTION, "\n".join(lines))


def sentence(asked: targets.Request) -> str:
  """The template's words in a request; texts of templates have no line ends."""
  return asked.text.rpartition("\n")[2].partition(": ")[2]


class Rewording:
  """Puts a teacher's words into dialogs.

  Args:
    items: the catalogue.
    lookup: request -> answer, or None if there is none.

  Attributes:
    counts: "reworded", "unchanged", or why the template stayed -> how many turns.
  """

  def __init__(self, items: interactions_lib.Items, lookup):
    self._items, self._lookup = items, lookup
    self._titles = titles_lib.Titles(items)
    self._genres = {name: _genre(name) for name in sorted(
        {genre.casefold() for genres in items.genres for genre in genres})}
    self.counts: collections.Counter = collections.Counter()

  def line(self, line: dict) -> dict:
    """The dialog in the teacher's words; turns whose answer is dropped stay as they are."""
    turns = [s.Turn(**{**turn, "items": tuple(turn["items"])}) for turn in line["turns"]]
    target = self._items.row_of[line["target"]]
    shown = wording.shown_at(turns, line["target"])
    said = []
    for number, turn in enumerate(turns):
      answer = self._lookup(request(turns, number)) or targets.Answer("", "absent")
      why = answer.rejected or self.flaw(turn, answer.text, target if number < shown else 0)
      self.counts[why or (REWORDED if answer.text != turn.text else UNCHANGED)] += 1
      said.append(turn if why else dataclasses.replace(turn, text=answer.text))
    return {**line, "turns": [dataclasses.asdict(turn) for turn in said]}

  def flaw(self, turn: s.Turn, text: str, secret: int = 0) -> str:
    """Why `text` cannot replace the turn's words; "": it can.

    Args:
      turn: with the template's words.
      text: the teacher's words.
      secret: row of an item that must not be named yet; 0: none.
    """
    if "\n" in text:
      return "several lines"
    if secret and self._names(text, secret):
      return EARLY
    rows = [self._items.row_of[raw] for raw in turn.items]
    if why := wording.title_flaw(text, rows, self._items, self._titles):
      return why
    was, now = (self._without_titles(each, rows) for each in (turn.text, text))
    if self._attributes(was) != self._attributes(now):
      return CHANGED
    if turn.act in _SIDED and _sides(was) != _sides(now):
      return CHANGED
    return ACT if _other_act(turn.act, was, now) else ""

  def _names(self, text: str, row: int) -> bool:
    """Whether a text names an item; short titles count too, case-sensitively."""
    title = titles_lib.split(self._items.titles[row - 1])[0]
    return bool(row in {each.row for each in heard.mentions(text, self._titles)}
                or re.search(rf"(?<!\w){re.escape(title)}(?!\w)", text))

  def _without_titles(self, text: str, rows) -> str:
    for row in rows:
      text = text.replace(interactions_lib.full_title(self._items, row), "_")
    return text

  def _attributes(self, text: str) -> set[str]:
    """Genres and years that a text names."""
    return {name for name, pattern in self._genres.items() if pattern.search(text)} | set(
        _YEARS.findall(text))


def _genre(name: str) -> re.Pattern:
  """A genre as people write it: "comedy", "comedies"."""
  forms = [name, f"{name}s", *([f"{name[:-1]}ies"] if name.endswith("y") else [])]
  return re.compile(_WORD.format("|".join(map(re.escape, forms))), re.IGNORECASE)


def _sides(text: str) -> tuple[bool, bool, bool]:
  """(the text says more, it says less, it negates that: "not more")."""
  up, down = bool(_UP.search(text)), bool(_DOWN.search(text))
  return up, down, (up or down) and bool(_NOT.search(text))


def _other_act(act: str | None, was: str, now: str) -> bool:
  """Whether a text's act differs from the turn's."""
  turned_down = bool(_NOT.search(now) or _OTHER.search(now))
  return ((act == s.REJECT and not turned_down) or (act == s.ACCEPT and turned_down)
          or (act in (s.ASK, s.WHY) and "?" in was and "?" not in now))
