"""A dialog as a language model reads it: token ids, with soft tokens where items are named.

In what the user says an item's title has its slot beside it, or the slot stands in its place. The
recommender says titles in words; the slots of what it named stand behind its turn, as a slot cannot
be said. Tasks are made of this, and prompts of a session the same way.
"""
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from ilm_jax.conversation import session
from ilm_jax.data import chat_template
from ilm_jax.data import tokenizer as tokenizer_lib


class Speech(NamedTuple):
  """How dialogs are written.

  Attributes:
    chat: the language model's chat template.
    rows: raw id -> entity row; items without one are words alone.
    spellings: entity row -> how its title may be spelled in a text.
    mention: what stands for an item in the user's turns: "{title}{item}", "{item}" or "{title}".
    slots: False: nothing has a slot.
  """
  chat: chat_template.Chat
  rows: Mapping[str, int]
  spellings: Callable[[int], Sequence[str]]
  mention: str = "{title}{item}"
  slots: bool = True

  def encoded(self, opening: str, opening_rows: Sequence[int], turns: Sequence[session.Turn]
              ) -> tuple[chat_template.Encoded, list[int]]:
    """(ids, with the place of each reply; the entity rows of the slots among them).

    Args:
      opening: what stands before the dialog, with slots; "": nothing.
      opening_rows: their entity rows.
      turns: at least one. Behind a user's last turn the ids begin a reply; behind the recommender's
        last turn stand no slots.
    """
    said, rows = [], list(opening_rows)
    for n, turn in enumerate(turns, 1):
      of_turn, turn_rows = self._said(turn, n == len(turns))
      said.append(of_turn)
      rows += turn_rows
    return self.chat.encode(opening, said), rows

  def _said(self, turn: session.Turn, last: bool) -> tuple[chat_template.Said, list[int]]:
    text = tokenizer_lib.escape(turn.text)
    rows = [self.rows[item] for item in dict.fromkeys(turn.items) if item in self.rows]
    if not (self.slots and "{item}" in self.mention):
      rows = []
    if turn.role == session.RECOMMENDER:
      rows = [] if last else rows
      behind = tokenizer_lib.SLOT * len(rows)
      return chat_template.Said(chat_template.ASSISTANT, text, behind), rows
    text, rows = self._mentioned(text, rows)
    return chat_template.Said(chat_template.USER, text), rows

  def _mentioned(self, text: str, rows: list[int]) -> tuple[str, list[int]]:
    """(the text with slots, their rows in its order): behind it those named in other words."""
    named = places(text, {row: self.spellings(row) for row in rows})
    parts, at = [], 0
    for start, stop, _ in named:
      parts += [text[at:start], self.mention.replace("{title}", text[start:stop]).replace(
          "{item}", tokenizer_lib.SLOT)]
      at = stop
    in_order = [row for *_, row in named]
    rest = [row for row in rows if row not in in_order]
    return "".join([*parts, text[at:], tokenizer_lib.SLOT * len(rest)]), in_order + rest


def places(text: str, spellings: Mapping[int, Sequence[str]]) -> list[tuple[int, int, int]]:
  """(start, stop, row) of the first place where each row is named, in order, none in another's."""
  taken = []
  candidates = [(tokenizer_lib.escape(name), row) for row, names in spellings.items()
                for name in names if name]
  for name, row in sorted(candidates, key=lambda pair: -len(pair[0])):     # stable
    if row in (other for *_, other in taken):
      continue
    for match in re.finditer(rf"(?<!\w){re.escape(name)}(?!\w)", text, re.IGNORECASE):
      if all(match.end() <= start or stop <= match.start() for start, stop, _ in taken):
        taken.append((match.start(), match.end(), row))
        break
  return sorted(taken)


def opening(template: str, separator: str, said: Mapping[str, Sequence[str]]) -> str:
  """A template whose places {name} are filled, each with what is said of its entities."""
  parts = re.split(r"\{(\w+)\}", template)
  return "".join(separator.join(said[part]) if number % 2 else part
                 for number, part in enumerate(parts))
