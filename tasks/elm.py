"""Three of ELM's tasks: from an item's soft tokens alone to its title, its genres, its year.

Training asks every template about every item that is not held out; validation and test ask the
first template about held-out items. Items without the metadata asked for are left out.
"""
import functools

import numpy as np
import tensorflow as tf

from ilm_jax.data import tokenizer as tokenizer_lib
from tasks import features, indexing, templates
from tasks import material as material_lib


def definitions(material: material_lib.Material) -> dict[str, features.Definition]:
  items = material.items
  genres = ["", *(tokenizer_lib.escape(", ".join(names)) for names in items.genres)]
  years = ["", *(str(year) if year else "" for year in items.years)]
  return {"elm_title": _definition(material, "elm_title", indexing.titles(items)),
          "elm_genres": _definition(material, "elm_genres", genres),
          "elm_year": _definition(material, "elm_year", years)}


def _definition(material, name: str, answers: list[str]) -> features.Definition:
  """The task `name`, whose answer about the item in row r is answers[r]."""
  family = templates.load(name)
  known = np.array([bool(answer) for answer in answers])
  splits = {}
  for split, rows in material.item_splits.items():
    asked = np.arange(len(family.seen)) if split == "train" else np.arange(1)
    item, prompt = [x.ravel() for x in np.meshgrid(rows[known[rows]], asked, indexing="ij")]
    if split == "train":
      kept = material.subsample(name, len(item))
      item, prompt = item[kept], prompt[kept]
    splits[split] = {"item": features.column(item), "target_entity": features.column(item),
                     "user": features.column(np.zeros_like(item)),
                     "prompt": features.column(prompt)}
  spoken = tf.constant([" " + answer for answer in answers])
  return features.Definition(
      source=features.in_memory(splits),
      preprocessors=[functools.partial(templates.ask, family=family, answers=spoken),
                     features.tokenize],
      output_features=features.language(material.lm, material.rows), prompts=family)
