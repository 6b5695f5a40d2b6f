"""The prompt of a prepared ranking task, asked about other histories than it was prepared for.

Templates are words around places for entities, and every entity is one slot, so a prepared example
holds all that a prompt of another history needs.
"""
from typing import NamedTuple

import numpy as np


class HistoryPrompt(NamedTuple):
  """Token ids around the items of a history; a slot among them is the user's."""
  before: list[int]      # the first item
  between: list[int]     # two items
  behind: list[int]      # the last item
  slot_id: int

  @property
  def has_user(self) -> bool:
    return self.slot_id in (*self.before, *self.behind)

  def example(self, history, user: int, end: int) -> dict[str, np.ndarray]:
    """An example as prepared ones are, all int32: inputs, entities, and `end` as its only target.

    Args:
      history: item rows, oldest first, at least one.
      user: entity row of the user, for prompts that name one.
      end: the token id that ends an answer.
    """
    items = [self.slot_id, *(len(history) - 1) * (*self.between, self.slot_id)]
    users_before, users_behind = (part.count(self.slot_id) for part in (self.before, self.behind))
    entities = [*users_before * [user], *history, *users_behind * [user]]
    return {"inputs": np.array([*self.before, *items, *self.behind], np.int32),
            "entities": np.array(entities, np.int32), "targets": np.array([end], np.int32)}


def of(examples, slot_id: int) -> HistoryPrompt | None:
  """The prompt of a task's split whose examples all have the same template.

  Args:
    examples: prepared examples: inputs, entities, user. The first with two items of history tells
      what stands between items; without any, nothing does.
    slot_id: of the tokenizer.

  Returns:
    The prompt; None where no example has an item in a slot.
  """
  prompt = None
  for n in range(len(examples)):
    example = examples[n]
    inputs = np.asarray(example["inputs"]).tolist()
    slots = [at for at, token in enumerate(inputs) if token == slot_id]
    items = [at for at, row in zip(slots, example["entities"]) if row != example["user"][0]]
    if items and (prompt is None or len(items) > 1):
      between = inputs[items[0] + 1:items[1]] if len(items) > 1 else []
      prompt = HistoryPrompt(inputs[:items[0]], between, inputs[items[-1] + 1:], slot_id)
      if len(items) > 1:
        break
  return prompt
