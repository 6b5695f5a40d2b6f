"""The dialogs that `tasks.dialogs` names, by split, and which items the people in them like.

In a source without parts, every tenth dialog is for test. In ReDial the training part is "train",
or "valid" if there is no "train".
"""
from typing import NamedTuple

import numpy as np

from ilm_jax import errors
from ilm_jax.config import dialog_sources
from ilm_jax.conversation import dialogs as dialogs_lib
from ilm_jax.conversation import redial, session
from ilm_jax.data import interactions as interactions_lib

_EVERY = 10              # in a source without parts, every tenth dialog is for test

Splits = dict[str, list[dialogs_lib.Dialog]]


class Redial(NamedTuple):
  """ReDial's dialogs by split, and raw id -> the spellings of its title in them."""
  splits: Splits
  names: dict[str, tuple[str, ...]]


def divided(dialogs: list) -> Splits:
  """Every tenth dialog for test; if fewer than ten, the last one. A single dialog is in both."""
  test = dialogs[_EVERY - 1::_EVERY] or dialogs[-1:]
  kept = [each for each in dialogs if all(each is not other for other in test)]
  return {"train": kept or dialogs, "test": test}


def of_redial(path: str, items: interactions_lib.Items) -> Redial:
  """ReDial at `path`. Films that are not in the catalogue `items` remain as words only.

  Raises:
    UserError: it has no training part or no test part; see also `redial.read`.
  """
  talks = {"train": _training(path), "test": redial.read(path, "test")}
  _, row_of = redial.catalogue([each for part in talks.values() for each in part], items)
  splits = {split: [_of_talk(each, row_of, items) for each in part]
            for split, part in talks.items()}
  names: dict[str, dict[str, None]] = {}
  for each in (each for part in talks.values() for each in part):
    for film, name in each.films.items():
      if row_of[film] <= len(items):
        names.setdefault(items.ids[row_of[film] - 1], {})[" ".join(name.split())] = None
  return Redial(splits, {raw: tuple(spelled) for raw, spelled in names.items()})


def redial_training(text: str) -> list[redial.Talk]:
  """ReDial's training dialogs among the sources `tasks.dialogs`.

  Raises:
    UserError: as `of_redial`.
  """
  return [talk for source in dialog_sources.parse(text) if source.kind == dialog_sources.REDIAL
          for talk in _training(source.path)]


def _training(path: str) -> list[redial.Talk]:
  parts = redial.parts(path)
  learned = "train" if "train" in parts else "valid"
  if learned not in parts or "test" not in parts:
    raise errors.UserError(f"{path} has these parts of ReDial: {', '.join(parts) or 'none'}; "
                           "expected test, and train or valid")
  return redial.read(path, learned)


def liked(text: str, items: interactions_lib.Items) -> list[np.ndarray]:
  """int64, for each training dialog the rows of the items that its people like, in order.

  These are all items named in it, except those that the user rejects. Synthetic dialogs are left
  out, because they come from the log, and so are dialogs that name no item of the catalogue.

  Args:
    text: `tasks.dialogs`.
    items: the catalogue.

  Raises:
    UserError: as `dialogs.read` and `of_redial`.
  """
  said: list[dialogs_lib.Dialog] = []
  for source in dialog_sources.parse(text):
    if source.kind == dialog_sources.REDIAL:
      said += of_redial(source.path, items).splits["train"]
    elif source.kind == dialog_sources.FILE:
      said += divided(dialogs_lib.read(source.path, items))["train"]
  rows = [np.array([items.row_of[item] for item in _liked(dialog) if item in items.row_of],
                   np.int64) for dialog in said]
  return [each for each in rows if len(each)]


def turned_down(after: tuple[session.Turn, ...]) -> bool:
  """Whether the user's first act after a recommendation, apart from "why", rejects it."""
  acts = (turn.act for turn in after if turn.role == session.USER and turn.act != session.WHY)
  return next(acts, None) in (session.REJECT, session.CRITIQUE)


def _liked(dialog: dialogs_lib.Dialog) -> dict[str, None]:
  """The items of `liked`, each once."""
  named: dict[str, None] = dict.fromkeys(dialog.history)
  against = set()
  for at, turn in enumerate(dialog.turns):
    no = (turn.act == session.REJECT if turn.role == session.USER
          else turned_down(dialog.turns[at + 1:]))
    (against.update if no else named.update)(dict.fromkeys(turn.items))
  return {item: None for item in named if item not in against}


def _of_talk(dialog: redial.Talk, row_of: dict[str, int], items) -> dialogs_lib.Dialog:
  """A dialog in words; its items are raw ids of the catalogue, or "redial:ID" if it has none.

  Messages without a text are left out.
  """
  turns = []
  for turn in dialog.turns:
    named = tuple(items.ids[row_of[film] - 1] if row_of[film] <= len(items) else redial.ID + film
                  for film in turn.items)
    if turn.text.strip():
      turns.append(session.Turn(turn.role, redial.worded(turn.text, dialog.films), named))
  return dialogs_lib.Dialog(dialog.id, tuple(turns))
