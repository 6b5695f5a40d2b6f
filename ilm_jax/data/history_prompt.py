"""The prompt of a prepared ranking task, for histories other than the prepared ones.

A template is text around places for entities, and every entity is one slot. So a prepared example
contains all the tokens that the prompt of another history needs.
"""
from typing import NamedTuple

import numpy as np


class HistoryPrompt(NamedTuple):
  """Token ids around the items of a history; a slot among these ids is the user's."""
  before: list[int]      # before the first item
  between: list[int]     # between two items
  behind: list[int]      # after the last item
  slot_id: int

  @property
  def has_user(self) -> bool:
    """Whether the prompt has a slot for the user."""
    return self.slot_id in (*self.before, *self.behind)

  def example(self, history, user: int, end: int) -> dict[str, np.ndarray]:
    """An example like prepared ones, all int32: inputs, entities, and `end` as the only target.

    Args:
      history: item rows, oldest first, at least one.
      user: entity row of the user, used by prompts with a slot for the user.
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
    examples: prepared examples: inputs, entities, user. The first with two items of history shows
      the tokens between items; if there is none, `between` is empty.
    slot_id: the tokenizer's slot id.

  Returns:
    The prompt; None if no example has an item in a slot.
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
