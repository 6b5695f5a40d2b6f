"""Phase 1: pairs of an item and its text, of consecutive items, and of a user and an item."""
import functools

import numpy as np
import seqio
import tensorflow as tf

from ilm_jax.data import interactions as interactions_lib
from ilm_jax.data import tokenizer as tokenizer_lib
from ilm_jax.tasks import features
from ilm_jax.tasks import material as material_lib


def definitions(material: material_lib.Material) -> dict[str, features.Definition]:
  return {"item_text": _item_text(material),
          "item_item": _pairs(material, "item_item", watched_in_turn(material)),
          "user_item": _pairs(material, "user_item", trained_on(material))}


@seqio.map_over_dataset
def show_text(example, texts):
  """{"entities": [5]} -> {"entities": [5], "text": "Heat (1995). Action, Crime"}"""
  return {"entities": example["entities"], "text": tf.gather(texts, example["entities"][0])}


def watched_in_turn(material: material_lib.Material) -> np.ndarray:
  """int32 [pairs, 2]: rows of two items that a user watched one after the other, in training."""
  train_N, log = material.split.train, material.interactions
  follows_N = train_N[1:] & train_N[:-1] & (log.user_N[1:] == log.user_N[:-1])
  return np.stack([log.item_N[:-1][follows_N], log.item_N[1:][follows_N]], axis=1)


def trained_on(material: material_lib.Material) -> np.ndarray:
  """int32 [pairs, 2]: entity rows of a user and of an item in the user's training part."""
  train_N, log = material.split.train, material.interactions
  users = material.rows.user(log.user_N[train_N]).astype(np.int32)
  return np.stack([users, log.item_N[train_N]], axis=1)


def _item_text(material: material_lib.Material) -> features.Definition:
  items = material.items
  texts = [""] + [tokenizer_lib.escape(interactions_lib.item_text(items, row + 1))
                  for row in range(len(items))]
  splits = {split: {"entities": features.column(rows)}
            for split, rows in material.item_splits.items()}
  return features.Definition(
      by_example=True,
      source=features.in_memory(splits),
      preprocessors=[functools.partial(show_text, texts=tf.constant(texts)), features.tokenize],
      output_features={"entities": features.entities(material.rows),
                       "text": seqio.Feature(material.text, add_eos=False)})


def _pairs(material: material_lib.Material, name: str, pairs: np.ndarray) -> features.Definition:
  pairs = pairs[material.subsample(name, len(pairs))]
  return features.Definition(
      by_example=True,
      source=features.in_memory({"train": {"entities": pairs}}), preprocessors=[],
      output_features={"entities": features.entities(material.rows)})
