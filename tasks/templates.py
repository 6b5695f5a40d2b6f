"""Prompt templates: data files in tasks/prompts, read, checked and filled.

A template is a sentence with places for entities, "User{user} watched{history}. Next:". No space
stands before a place: a soft token is a word that brings its own. Targets begin with the space.
"""
import dataclasses
import hashlib
import json
import pathlib
import re

import seqio
import tensorflow as tf

from ilm_jax import errors
from ilm_jax.data.tokenizer import SLOT

FOLDER = pathlib.Path(__file__).parent / "prompts"


@dataclasses.dataclass(frozen=True)
class Family:
  """The templates of one kind of task. Template i is `(seen + unseen)[i]`."""
  fields: tuple[str, ...]      # names of the places, in the order in which all templates have them
  separator: str               # between the slots of one place
  seen: tuple[str, ...]        # asked in training; validation and test ask the first
  unseen: tuple[str, ...]      # asked in the test of generalisation to new wordings only
  fingerprint: str

  @property
  def all(self) -> tuple[str, ...]:
    return self.seen + self.unseen


def load(name: str, folder=FOLDER) -> Family:
  """The family in `<name>.json`; UserError if a template does not have the declared places."""
  path = pathlib.Path(folder) / f"{name}.json"
  text = path.read_text()
  data = json.loads(text)
  family = Family(tuple(data["fields"]), data["separator"], tuple(data["seen"]),
                  tuple(data["unseen"]), hashlib.sha256(text.encode()).hexdigest())
  if not family.seen:
    raise errors.UserError(f"{path}: \"seen\" is empty; give at least one template")
  for template in family.all:
    places = tuple(re.findall(r"\{(\w+)\}", template))
    if places != family.fields or SLOT in template:
      raise errors.UserError(f"{path}: template {template!r} has the places {places}, expected "
                             f"{family.fields}, each once and in this order, and no {SLOT}")
  return family


@seqio.map_over_dataset
def ask(example, family: Family, answers):
  """Puts slots into the template numbered `prompt`, and the answer about `target_entity` behind.

  {"user": [7], "history": [0, 3, 4], "target_entity": [5], "prompt": [0]} ->
  {"inputs": "User<slot> watched<slot><slot>. Next:", "entities": [7, 3, 4],
   "targets": " Heat (1995)", "target_entity": [5], "user": [7], "prompt": [0]}

  Args:
    example: rows of entities by place (0: nothing), target_entity, user (0: none), prompt.
    family: the templates.
    answers: string tensor [I + 1], by item row.
  """
  inputs = tf.gather(tf.constant(family.all), example["prompt"][0])
  rows = [tf.boolean_mask(example[field], example[field] > 0) for field in family.fields]
  for field, row in zip(family.fields, rows):
    slots = tf.strings.reduce_join(tf.fill(tf.shape(row), SLOT), separator=family.separator)
    inputs = tf.strings.regex_replace(inputs, rf"\{{{field}\}}", slots)
  return {"inputs": inputs, "entities": tf.concat(rows, axis=0),
          "targets": tf.gather(answers, example["target_entity"][0]),
          **{key: example[key] for key in ("target_entity", "user", "prompt")}}
