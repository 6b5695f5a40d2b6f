"""A simulated user who wants one target item and knows only the labels of items, not their titles.

The user answers questions about attributes by the target's labels, says how the first of the items
shown differs from the target, and accepts the target when it is shown. It speaks in words that
`heard` reads, so a benchmark also measures how well the recommender understands them.

    user = Simulator(known, items, row, critiques=True)
    said = user.reply(shown_rows, question, rng)       # said.act, said.text
"""
import dataclasses

import numpy as np

from ilm_jax.conversation import attributes, heard, policy, wording
from ilm_jax.conversation import session as session_lib
from ilm_jax.conversation import titles as titles_lib
from ilm_jax.data import interactions as interactions_lib

EITHER = "It does not matter."


@dataclasses.dataclass
class Simulator:
  """One user.

  Attributes:
    known: labels, the only thing that it knows of items.
    target: item row.
    critiques: whether it says how the items shown differ from the target.
    lies: whether its answers and critiques are reversed, to measure what they are worth.
    said: attributes that it has used in answers and critiques; it uses none in a second critique.
  """
  known: attributes.Leading
  target: int
  critiques: bool = True
  lies: bool = False
  said: set[str] = dataclasses.field(default_factory=set)

  def answer(self, question: policy.Question) -> str:
    """Its answer to a question about an attribute."""
    value = self.known.label(question.name, self.target)
    if np.isnan(value):
      return EITHER
    self.said.add(question.name)
    more = bool(value >= (0.5 if question.year is None else question.year)) != self.lies
    return question.answered(more)

  def critique(self, shown: int, rng: np.random.Generator) -> str:
    """How the target differs from a shown item, by an attribute drawn at random; "": no attribute
    is left."""
    words = [(name, sign) for name, sign in self.known.critiques(shown, self.target)
             if name not in self.said] if self.critiques else []
    if not words:
      return ""
    name, sign = words[int(rng.integers(len(words)))]
    self.said.add(name)
    asked = wording.asked(session_lib.Critique(name, -sign if self.lies else sign))
    return f"{asked[0].upper()}{asked[1:]}."


def opening(items: interactions_lib.Items, rows) -> str:
  """Its first words: the items that it likes, by title."""
  return f"I liked {_titles(items, rows)}."


def refusal(items: interactions_lib.Items, rows, critique: str) -> str:
  """Its words when the target is not among the items shown."""
  return f"I have seen {_titles(items, rows)}. {critique}".strip()


def leaks(session: session_lib.Session, target: int, items: interactions_lib.Items,
          titles: titles_lib.Titles) -> int:
  """How many of the user's turns name the target before it was recommended."""
  raw, count = items.ids[target - 1], 0
  for turn in session.turns:
    if turn.role == session_lib.RECOMMENDER and raw in turn.items:
      break
    count += turn.role == session_lib.USER and (raw in turn.items or any(
        mention.row == target for mention in heard.mentions(turn.text, titles)))
  return count


def _titles(items: interactions_lib.Items, rows) -> str:
  return wording.listed([interactions_lib.full_title(items, int(row)) for row in rows])
