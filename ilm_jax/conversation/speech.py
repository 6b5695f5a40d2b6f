"""A dialog as a language model reads it: token ids, with slots for soft tokens of named items.

In a user's turn an item's slot stands after its title or replaces it. The recommender writes titles
in words; the slots of the items that it named stand after its turn, because a model cannot generate
a slot. Tasks and prompts of a session are made in the same way.
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
    rows: raw id -> entity row; items without one get no slot.
    spellings: entity row -> possible spellings of its title in a text.
    mention: the form of an item in the user's turns: "{title}{item}", "{item}" or "{title}".
    slots: False: no item gets a slot.
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
      opening: a text before the dialog, with slots; "": none.
      opening_rows: the entity rows of its slots.
      turns: at least one. After a user's last turn the ids begin a reply; after the recommender's
        last turn there are no slots.
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
    """(the text with slots, their rows in the same order). Slots of items whose title is not in the
    text stand at its end."""
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
  """(start, stop, row) of the first place that names each row, in order, without overlaps."""
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
  """A template with its places {name} filled by the words for their entities."""
  parts = re.split(r"\{(\w+)\}", template)
  return "".join(separator.join(said[part]) if number % 2 else part
                 for number, part in enumerate(parts))
