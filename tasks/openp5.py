"""OpenP5's recommendation tasks: name the user's next item, with or without the history in sight.

Every training interaction but a user's first is a target; the split says which are the validation
and the test target (leave-one-out: the second last and the last interaction). The history of a
target is all that stands before it, so the test target's holds the validation item.
"""
import functools

import numpy as np
import tensorflow as tf
from etils import epath

from tasks import features, templates
from tasks import material as material_lib
from tasks.datasets import openp5_files


def definitions(material: material_lib.Material) -> dict[str, features.Definition]:
  """sequential, straightforward, and `_unseen` of both: the test split asked in a new wording."""
  found = {f"{name}{suffix}": _definition(material, name, unseen=bool(suffix))
           for name in ("sequential", "straightforward") for suffix in ("", "_unseen")}
  return {name: definition for name, definition in found.items() if definition}


def targets(material: material_lib.Material) -> dict[str, np.ndarray]:
  """Split -> places in the interaction arrays whose item is a target."""
  log, split = material.interactions, material.split
  first_N = np.r_[True, log.user_N[1:] != log.user_N[:-1]]
  return {"train": np.flatnonzero(split.train & ~first_N),
          "validation": np.flatnonzero(split.valid), "test": np.flatnonzero(split.test)}


def histories(material: material_lib.Material, at: np.ndarray) -> np.ndarray:
  """int32 [len(at), history]: the item rows before each place, of the same user, oldest first.

  Short histories have zeros, the padding row, in front.
  """
  log = material.interactions
  place = at[:, None] + np.arange(-material.history, 0)
  of_user = place >= log.offsets_U1[log.user_N[at]][:, None]
  return np.where(of_user, log.item_N[np.maximum(place, 0)], 0)


def _definition(material, name: str, unseen: bool) -> features.Definition:
  family = _family(material, name)
  if unseen and not family.unseen:
    return None
  at = targets(material)
  if unseen:
    splits = {"test": _examples(material, family, at["test"], len(family.seen))}
  else:
    kept = at["train"][material.subsample(name, len(at["train"]))]
    asked = np.repeat(kept, material.draws)
    splits = {"train": _examples(material, family, asked, _draw(material, name, family, len(kept)))}
    for split in ("validation", "test"):
      splits[split] = _examples(material, family, at[split], 0)
  mentions = tf.constant(material.mentions) if material.as_text else None
  ask = functools.partial(templates.ask, family=family, answers=tf.constant(material.names),
                          mentions=mentions)
  return features.Definition(
      by_example=True,
      source=features.in_memory(splits),
      preprocessors=[ask, features.tokenize],
      output_features=features.language(material.lm, material.rows), prompts=family)


def _family(material, name: str) -> templates.Family:
  """Our own templates, or those of the user's prompt.txt."""
  if not material.prompts:
    return templates.load(name)
  lines = openp5_files.read_prompts(epath.Path(material.prompts))
  return templates.from_lines(material.prompts, lines, name, material.dataset)


def _examples(material, family, at: np.ndarray, prompts) -> dict:
  """Examples of the targets `at`; `prompts` is the number of a template, or one for each."""
  log = material.interactions
  examples = {"user": features.column(material.user_row(log.user_N[at])),
              "target_entity": features.column(log.item_N[at]),
              "prompt": features.column(np.broadcast_to(prompts, at.shape))}
  if "history" in family.fields:
    examples["history"] = histories(material, at)
  return examples


def _draw(material, name: str, family, count: int) -> np.ndarray:
  """int [count * draws]: for each target `draws` templates, different while there are enough."""
  first = material.rng(f"{name}/prompt").integers(len(family.seen), size=count)
  return ((first[:, None] + np.arange(material.draws)) % len(family.seen)).ravel()
