"""Multi-turn tasks from the dialogs of `config.tasks.dialogs`; a turn's act decides its task.

conv_* read dialogs of a file, or synthetic ones; redial_* read ReDial. Replies of each task:

    conv_elicit       ask: a question
    conv_next         recommend, or a turn without an act: an item that was not named before
    conv_critique     refine: the item after a critique
    conv_explain      explain: the reason for an item
    conv_profile      a description of the user at the end, if the dialog has a "profile"
    redial_recommend  every turn with a film that was not named before
    redial_respond    every turn
"""
import dataclasses
from typing import NamedTuple

from etils import epath

from ilm_jax import errors
from ilm_jax.config import dialog_sources
from ilm_jax.conversation import corpora, session
from ilm_jax.conversation import dialogs as dialogs_lib
from ilm_jax.tasks import features, talk, templates
from ilm_jax.tasks import material as material_lib

_PROFILE = "profile"     # act of the added answer; no turn of a dialog has it


class _Task(NamedTuple):
  acts: tuple | None           # acts of the recommender's turns that are learned; None: all
  recommends: bool = False     # whether the item head learns their items, too


_TASKS = {
    "conv_next": _Task((session.RECOMMEND, None), True),
    "conv_critique": _Task((session.REFINE,), True),
    "conv_explain": _Task((session.EXPLAIN,)), "conv_elicit": _Task((session.ASK,)),
    "conv_profile": _Task((_PROFILE,)),
    "redial_recommend": _Task(None, True), "redial_respond": _Task(None)}


def definitions(material: material_lib.Material) -> dict[str, features.Definition]:
  """The tasks that are trained.

  Raises:
    UserError: a source is not there or has a mistake; see also `talk.definition`.
  """
  sources = dialog_sources.parse(material.dialogs)
  made = {}
  if own := [name for name in material.conversations if name.startswith("conv_")]:
    splits = _read(material, [s for s in sources if s.kind != dialog_sources.REDIAL])
    made |= {name: _definition(material, name, splits) for name in own}
  if theirs := [name for name in material.conversations if name.startswith("redial_")]:
    splits, names = corpora.of_redial(
        next(s for s in sources if s.kind == dialog_sources.REDIAL).path, material.items)
    made |= {name: _definition(material, name, splits, names) for name in theirs}
  return made


def _definition(material, name: str, splits: corpora.Splits, names=None) -> features.Definition:
  task, family = _TASKS[name], templates.load(name, words=material.words)
  if name == "conv_profile":
    splits = {split: [_asked(dialog, family.question) for dialog in dialogs if dialog.profile]
              for split, dialogs in splits.items()}
  return talk.definition(
      material, name, splits, family, recommends=task.recommends, names=names,
      whole=name == "conv_profile",        # a profile depends on the whole dialog
      learn=lambda turn: task.acts is None or turn.act in task.acts)


def _asked(dialog: dialogs_lib.Dialog, question: str) -> dialogs_lib.Dialog:
  """The dialog, then a question of the user, then the dialog's profile as the answer."""
  return dataclasses.replace(dialog, turns=(
      *dialog.turns, session.Turn(session.USER, question),
      session.Turn(session.RECOMMENDER, dialog.profile, (), _PROFILE)))


def _read(material, sources) -> corpora.Splits:
  """The dialogs of all sources, by split."""
  splits: corpora.Splits = {"train": [], "test": []}
  for source in sources:
    if source.kind == dialog_sources.SYNTHETIC:
      for split, file in (("train", "train.jsonl"), ("test", "validation.jsonl")):
        path = epath.Path(material.dialogs_folder) / file
        if not path.is_file():
          raise errors.UserError(f"{path} is not there: tasks.dialogs has 'synthetic', which stage "
                                 "targets writes where dialogs.count is above 0")
        splits[split] += dialogs_lib.read(path, material.items)
    else:
      for split, dialogs in corpora.divided(
          dialogs_lib.read(source.path, material.items)).items():
        splits[split] += dialogs
  return splits
