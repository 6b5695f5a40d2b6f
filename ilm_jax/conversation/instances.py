"""Test instances of recommenders in dialogs: the turns that name items, and these items.

The rule is that of Kostric and Balog (SIGIR 2026): every turn of the recommender that names an item
and has a turn before it is an instance, its distinct items are the targets. "Fresh" removes items
that were named before in the dialog, and instances that then have no target.
"""
from typing import NamedTuple

from ilm_jax.conversation import dialogs as dialogs_lib
from ilm_jax.conversation import session


class Instance(NamedTuple):
  """A turn to predict."""
  dialog: int                      # place of the dialog in the list
  at: int                          # place of the turn; those before it are the context
  targets: tuple[str, ...]         # distinct items of the turn
  named: tuple[str, ...]           # distinct items of the context, the last mention first


def instances(dialogs: list[dialogs_lib.Dialog], *, fresh: bool) -> list[Instance]:
  """All instances, in the order of dialogs and turns.

  Args:
    dialogs: as they are; use `dialogs.joined` to make one turn of all that a side says in a row.
    fresh: whether to leave out targets that were named before.
  """
  made = []
  for number, dialog in enumerate(dialogs):
    named: dict[str, None] = {}                  # in the order of the last mention
    for at, turn in enumerate(dialog.turns):
      targets = tuple(item for item in dict.fromkeys(turn.items) if not (fresh and item in named))
      if at and targets and turn.role == session.RECOMMENDER:
        made.append(Instance(number, at, targets, tuple(reversed(named))))
      for item in turn.items:
        named.pop(item, None)
        named[item] = None
  return made


def copied(every: list[Instance]) -> list[list[float]]:
  """Ranks of the targets if the context is copied naively: the item named last comes first.

  A target that was not named before has rank infinity.
  """
  return [[1.0 + each.named.index(item) if item in each.named else float("inf")
           for item in each.targets] for each in every]
