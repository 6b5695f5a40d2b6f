"""Words of a conversation's acts (templates: wordings.json), and checks of such words."""
import pathlib
import re

from ilm_jax.conversation import attributes, heard
from ilm_jax.conversation import session as s
from ilm_jax.conversation import titles as titles_lib
from ilm_jax.data import interactions as interactions_lib

TEMPLATES = pathlib.Path(__file__).with_name("wordings.json")
LOST = "title lost"
_NAMED = re.compile(r"([^.?!:,;\"]+\(\d{4}\))")


def flaw(turns, target: int, items: interactions_lib.Items, row_of: dict[str, int],
         titles: titles_lib.Titles) -> str:
  """What is wrong with a dialog that ends with the recommendation of `target`; "": nothing.

  Args:
    turns: of the dialog.
    target: item row.
    items, row_of, titles: the catalogue, the row of each raw id.

  Returns:
    "target named early": before the turn that recommends it; "title not in the catalogue": words
    with a year in brackets that are no title; "another title": a text names an item that is not
    among the turn's items, lacks one of them, or has them in another order.
  """
  shown = shown_at(turns, items.ids[target - 1])
  for n, turn in enumerate(turns):
    rows = [row_of[each] for each in turn.items]
    if n < shown and (target in rows or target in {
        each.row for each in heard.mentions(turn.text, titles)}):
      return "target named early"
    if why := title_flaw(turn.text, rows, items, titles):
      return "another title" if why == LOST else why
  return ""


def shown_at(turns, raw: str) -> int:
  """The number of the last turn that recommends an item; 0: none does."""
  return max((n for n, turn in enumerate(turns)
              if turn.act in (s.RECOMMEND, s.REFINE) and raw in turn.items), default=0)


def title_flaw(text: str, rows, items: interactions_lib.Items, titles: titles_lib.Titles) -> str:
  """What is wrong with the titles in a turn's text; "": nothing.

  Args:
    text: the turn's words.
    rows: the items that the turn names, in their order.
    items, titles: the catalogue.

  Returns:
    "title lost": the text lacks one of these items, or has them in another order; "another title":
    it names an item that is not among them; "title not in the catalogue": it has other words with a
    year in brackets.
  """
  rest, places = text, []
  for row in rows:
    title = interactions_lib.full_title(items, row)
    places.append(rest.find(title))
    rest = rest.replace(title, "_" * len(title), 1)
  if -1 in places or places != sorted(places):
    return LOST
  if {each.row for each in heard.mentions(text, titles)} - set(rows):
    return "another title"
  return "title not in the catalogue" if _NAMED.search(rest) else ""


def profile(session: s.Session, items: interactions_lib.Items, row_of: dict[str, int]) -> str:
  """What the session knows of the user, in words: "Likes Heat (1995). Wants more drama." """
  def names(raw_ids):
    return listed([interactions_lib.full_title(items, row_of[raw]) for raw in raw_ids])

  parts = [f"Likes {names(session.liked)}." if session.liked else "",
           f"Dislikes {names(session.disliked)}." if session.disliked else "",
           "Wants " + listed([asked(each) for each in session.critiques]) + "."
           if session.critiques else ""]
  return " ".join(filter(None, parts))


def asked(critique: s.Critique) -> str:
  """ "less romance", "newer"."""
  how = side(critique.attribute, critique.steps)
  return how if critique.attribute.casefold() == attributes.NEW else f"{how} {critique.attribute}"


def side(name: str, sign: float) -> str:
  """ "more" or "less" of an attribute; of the year "newer" or "older"."""
  if name.casefold() == attributes.NEW:
    return "newer" if sign > 0 else "older"
  return "more" if sign > 0 else "less"


def listed(names: list[str]) -> str:
  """ "A, B and C"."""
  *some, last = names or [""]
  return f"{', '.join(some)} and {last}" if some else last
