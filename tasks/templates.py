"""Prompt templates: data files in tasks/prompts, read, checked and filled.

A template is a sentence with places for entities, "User{user} watched{history}. Next:". No space
stands before a place: a soft token is a word that brings its own. Targets begin with the space.
{thing}, {person} and so on are words of the data set's domain (`elm.Words`), filled on reading.
"""
import contextlib
import dataclasses
import hashlib
import json
import pathlib
import re

import seqio
import tensorflow as tf

from ilm_jax import elm, errors
from ilm_jax.data.tokenizer import SLOT

FOLDER = pathlib.Path(__file__).parent / "prompts"


@dataclasses.dataclass(frozen=True)
class Family:
  """The templates of one kind of task. Template i is `(seen + unseen)[i]`."""
  fields: tuple[str, ...]      # names of the places that every template has
  separator: str               # between the slots of one place
  seen: tuple[str, ...]        # asked in training; validation and test ask the first
  unseen: tuple[str, ...]      # asked only in the test with new wordings
  fingerprint: str
  teacher: str = ""            # instruction to a teacher; "": the answer is known
  mention: str = "{title}{item}"   # conversations: an item in what a user says, its title and slot
  question: str = ""           # of conv_profile, after the dialog

  def __post_init__(self):
    """Raises a UserError for a template without its places."""
    for name in ("fields", "seen", "unseen"):
      if isinstance(texts := getattr(self, name), str):
        raise errors.UserError(f"{name}={texts!r} is text, expected a tuple: ({texts!r},)")
      object.__setattr__(self, name, tuple(texts))
    if not self.seen:
      raise errors.UserError("no template that is seen in training; give at least one")
    for template in self.all:
      places = self.order(template)
      if sorted(places) != sorted(self.fields) or SLOT in template:
        raise errors.UserError(
            f"template {template!r} has the places {places}, expected {self.fields}, each once, "
            f"and no {SLOT}; a word in braces is always a place")

    places = self.order(self.mention)
    if not places or not {*places} <= {"title", "item"} or len({*places}) < len(places):
      raise errors.UserError(f"mention={self.mention!r} has the places {places}, expected title or "
                             "item, or both")

  @property
  def all(self) -> tuple[str, ...]:
    return self.seen + self.unseen

  def order(self, template: str) -> tuple[str, ...]:
    """The places of a template in its own order."""
    return tuple(re.findall(r"\{(\w+)\}", template))


def load(name: str, folder=FOLDER, words: elm.Words = elm.DOMAINS["movie"]) -> Family:
  """The family in `<name>.json` in the words of a domain.

  Raises:
    UserError: a template does not have the declared places.
  """
  path = pathlib.Path(folder) / f"{name}.json"
  text = words.fill(path.read_text())
  data = json.loads(text)
  with named(path):
    return Family(data["fields"], data["separator"], data["seen"], data["unseen"],
                  hashlib.sha256(text.encode()).hexdigest(),
                  **{name: data[name] for name in ("teacher", "mention", "question")
                     if name in data})


def from_lines(path, lines, task: str, dataset: str) -> Family:
  """The family of `task` in a prompt.txt of OpenP5's kind.

  {dataset} becomes the data set's name; {user_id}, with or without "user_" before it, and
  {history} become places. Text around {target} in the output is left out: an answer is the item's
  index alone.

  Args:
    path: of the file, for messages and the fingerprint.
    lines: its lines, as datasets.openp5_files.read_prompts gives them.
    task: "sequential" or "straightforward".
    dataset: name of the data set.

  Raises:
    UserError: the file has no seen template of the task, or one lacks a place.
  """
  fields = ("user", "history") if task == "sequential" else ("user",)
  texts: dict[bool, list[str]] = {True: [], False: []}
  for line in lines:
    if line.task == task:
      text = line.inputs.replace("{dataset}", dataset)
      text = re.sub(r"\s*(?:user_)?\{user_id\}", "{user}", text)
      texts[line.seen].append(re.sub(r"\s*\{history\}", "{history}", text))
  identity = f"{dataset}\n{pathlib.Path(path).read_text()}"
  with named(f"{path} ({task})"):
    return Family(fields, " ,", texts[True], texts[False],
                  hashlib.sha256(identity.encode()).hexdigest())


@contextlib.contextmanager
def named(source):
  """Adds the name of a file or flag to the message of a UserError."""
  try:
    yield
  except errors.UserError as e:
    raise errors.UserError(f"{source}: {e}") from e


@seqio.map_over_dataset
def ask(example, family: Family, answers, mentions=None):
  """Puts entities into the template numbered `prompt`; the target is `target_entity`'s answer.

  {"user": [7], "history": [0, 3, 4], "target_entity": [5], "prompt": [0]} ->
  {"inputs": "User<slot> watched<slot><slot>. Next:", "entities": [7, 3, 4],
   "targets": " Heat (1995)", "target_entity": [5], "user": [7], "prompt": [0]}

  Args:
    example: rows of entities by place (0: nothing), target_entity, user (0: none), prompt.
    family: the templates.
    answers: string tensor [I + 1], by item row.
    mentions: string tensor by entity row, written instead of slots ("entities" is then empty);
      None: slots.
  """
  inputs = tf.gather(tf.constant(family.all), example["prompt"][0])
  rows = {field: tf.boolean_mask(example[field], example[field] > 0) for field in family.fields}
  for field, row in rows.items():
    said = tf.fill(tf.shape(row), SLOT) if mentions is None else tf.gather(mentions, row)
    separator = family.separator if mentions is None else family.separator or ","
    said = tf.strings.reduce_join(said, separator=separator)
    # No regular expression: a backslash in a name stays a backslash.
    before, behind = tf.unstack(tf.strings.split(inputs, f"{{{field}}}", maxsplit=1), num=2)
    inputs = tf.strings.join([before, said, behind])
  return {"inputs": inputs, "entities": _in_order(example, family, rows, mentions is None),
          "targets": tf.gather(answers, example["target_entity"][0]),
          **{key: example[key] for key in ("target_entity", "user", "prompt")}}


def _in_order(example, family: Family, rows: dict, slots: bool):
  """The entities in the order in which the template has their places."""
  if not (slots and family.fields):
    # An empty tensor of unknown length: TensorFlow cannot batch the static shape [0].
    return tf.boolean_mask(example["user"], example["user"] < 0)
  orders = [family.order(template) for template in family.all]
  distinct = sorted(set(orders))
  which = tf.gather(tf.constant([distinct.index(o) for o in orders]), example["prompt"][0])
  return tf.switch_case(which, [
      lambda order=order: tf.concat([rows[field] for field in order], axis=0)
      for order in distinct])
