"""OpenP5's recommendation tasks: name the user's next item, with or without a history to read.

Every training interaction but a user's first is a target; the split says which are the validation
and the test target (leave-one-out: the second last and the last interaction). The history of a
target is everything before it, so the history of the test target contains the validation item.
The history of a training target is the training interactions before it.

`next_item` is our own: the history without the user. In training every interaction is in only one
window. It is made for phase 2's item head, which predicts the next item at every item of a window.
A user's vector would give these items away, because it was made from all training interactions.
"""
import functools
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf
from etils import epath

from ilm_jax import errors
from ilm_jax.config import mixture
from ilm_jax.tasks import features, templates
from ilm_jax.tasks import material as material_lib
from ilm_jax.tasks.datasets import openp5_files

TASKS = mixture.HISTORY_TASKS
_BLOCK = 1 << 20      # histories that are looked up at a time


def definitions(material: material_lib.Material) -> dict[str, features.Definition]:
  """The three tasks, and `<task>_prompts` of each: test targets with every one of its templates."""
  tasks = {}
  for name in TASKS:
    family = _family(material, name)
    tasks[name] = _definition(material, family, _splits(material, name, family))
    tasks[f"{name}_prompts"] = _definition(
        material, family, {"test": _in_all_words(material, name, family)})
  return tasks


def targets(material: material_lib.Material) -> dict[str, np.ndarray]:
  """Split -> places in the interaction arrays whose item is a target."""
  log, split = material.interactions, material.split
  train = np.flatnonzero(split.train)
  follows = log.user_N[train[1:]] == log.user_N[train[:-1]]
  return {"train": train[1:][follows],
          "validation": np.flatnonzero(split.valid), "test": np.flatnonzero(split.test)}


def check(material: material_lib.Material, rates) -> None:
  """Raises a UserError if tasks of the mixture have no target for training or for test.

  Args:
    material: of the run.
    rates: config.tasks.mixture.
  """
  ranking = [name for name in TASKS if rates.get(name, 0) > 0]
  lacking = [split for split, at in targets(material).items() if not len(at)]
  lacking = [split for split in ("train", "test") if split in lacking]
  if ranking and lacking:
    longest = np.bincount(material.interactions.user_N).max()
    raise errors.UserError(
        f"the log gives {', '.join(ranking)} no target for {' and '.join(lacking)}: the longest "
        f"history has {longest} interactions, and data.split leaves one out for test, one for "
        "validation, and asks in training from the second on. Bring users with four or more, or "
        f"set {' and '.join(f'tasks.mixture.{name}=0' for name in ranking)}")


def histories(material: material_lib.Material, at: np.ndarray) -> np.ndarray:
  """int32 [len(at), history]: the item rows before each place, of the same user, oldest first.

  The history of a training interaction has training interactions only, because the item head learns
  every item of a history: interactions that a cold split holds back are left out.
  Short histories begin with zeros, the padding row. They are looked up in blocks: the places of all
  their items at once would take several times the memory of the result.
  """
  log, train_N = material.interactions, material.split.train
  kept = np.flatnonzero(train_N)
  user_K, item_K = log.user_N[kept], log.item_N[kept]
  out = np.zeros((len(at), material.history), np.int32)
  for start in range(0, len(at), _BLOCK):
    at_B, out_BH = at[start:start + _BLOCK], out[start:start + _BLOCK]
    learnt_B = train_N[at_B]
    out_BH[~learnt_B] = _before(log.user_N, log.item_N, at_B[~learnt_B], material.history)
    out_BH[learnt_B] = _before(user_K, item_K, np.searchsorted(kept, at_B[learnt_B]),
                               material.history)
  return out


def _before(user_N, item_N, at, history: int) -> np.ndarray:
  """[len(at), history]: the items before each place of a log sorted by user; 0: none."""
  place = at[:, None] + np.arange(-history, 0)
  of_user = place >= np.searchsorted(user_N, user_N[at])[:, None]
  return np.where(of_user, item_N[np.maximum(place, 0)], 0)


def windows(material: material_lib.Material) -> np.ndarray:
  """Places whose `histories` cut every user's training part into windows, from its end backwards.

  Each further draw cuts at other places, which the seed decides.
  """
  log, H = material.interactions, material.history
  rng, places = material.rng("next_item/windows"), []
  for user in range(log.num_users):
    span = log.of_user(user)
    at = span.start + np.flatnonzero(material.split.train[span])
    shifts = np.r_[0, 1 + rng.permutation(max(min(H, len(at) - 1) - 1, 0))][:material.draws]
    places += [np.sort(at[len(at) - 1 - shift:0:-H]) for shift in shifts]
  return np.concatenate([np.zeros(0, int), *places])


def _splits(material, name: str, family: templates.Family) -> dict:
  at = targets(material)
  if name == "next_item":
    places = windows(material)
    places = places[material.subsample(name, len(places))]
    drawn = material.rng(f"{name}/prompt").integers(len(family.seen), size=len(places))
  else:
    kept = at["train"][material.subsample(name, len(at["train"]))]
    places = np.repeat(kept, material.draws)
    drawn = _draw(material, name, family, len(kept))
  asked = {split: _some(material, split, at[split], material.eval_targets)
           for split in ("validation", "test")}
  return {"train": _examples(material, family, places, drawn),
          **{split: _examples(material, family, some, 0) for split, some in asked.items()}}


def _some(material, name: str, at: np.ndarray, most: int) -> np.ndarray:
  """`most` of the places `at`, in order, drawn by the seed and `name`; 0: all."""
  if not 0 < most < len(at):
    return at
  return at[np.sort(material.rng(name).permutation(len(at))[:most])]


def _in_all_words(material, name: str, family: templates.Family) -> dict:
  """For each drawn target one example per template, in their order."""
  at = _some(material, f"{name}/prompts", targets(material)["test"], material.prompt_targets)
  count = len(family.all)
  return _examples(material, family, np.repeat(at, count), np.tile(np.arange(count), len(at)))


def _definition(material, family: templates.Family, splits: dict) -> features.Definition:
  mentions = tf.constant(material.mentions) if material.as_text else None
  ask = functools.partial(templates.ask, family=family, answers=tf.constant(material.names),
                          mentions=mentions)
  return features.Definition(
      by_example=True,
      source=features.in_memory(splits),
      preprocessors=[ask, features.tokenize],
      output_features=features.language(material.lm, material.rows), prompts=family)


def _family(material, name: str) -> templates.Family:
  """Our own templates, or those of the user's prompt.txt, which has none for `next_item`."""
  if not material.prompts or name == "next_item":
    return templates.load(name, words=material.words)
  lines = openp5_files.read_prompts(epath.Path(material.prompts))
  return templates.from_lines(material.prompts, lines, name, material.dataset)


class _Examples(Mapping):
  """Features whose arrays are made each time they are read.

  Nothing reads the training examples of a task of rate 0, and histories fill the memory.
  """

  def __init__(self, makers: dict[str, Callable[[], np.ndarray]]):
    self._makers = makers

  def __getitem__(self, name: str) -> np.ndarray:
    return self._makers[name]()

  def __iter__(self):
    return iter(self._makers)

  def __len__(self) -> int:
    return len(self._makers)


def _examples(material, family, at: np.ndarray, prompts) -> _Examples:
  """Examples of the targets `at`; `prompts` is one template number, or one per target."""
  log = material.interactions
  makers = {"user": lambda: features.column(material.rows.user(log.user_N[at])),
            "target_entity": lambda: features.column(log.item_N[at]),
            "prompt": lambda: features.column(np.broadcast_to(prompts, at.shape))}
  if "history" in family.fields:
    makers["history"] = lambda: histories(material, at)
  return _Examples(makers)


def _draw(material, name: str, family, count: int) -> np.ndarray:
  """int [count * draws]: for each target `draws` templates, different while there are enough."""
  first = material.rng(f"{name}/prompt").integers(len(family.seen), size=count)
  return ((first[:, None] + np.arange(material.draws)) % len(family.seen)).ravel()
