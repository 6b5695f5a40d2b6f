"""ELM's tasks: from an item's soft tokens alone to its title, genres and year, and to texts.

A teacher (stage `targets`) wrote the answers of the paper's 24 tasks and of the user profiles.
Training asks every template about every item that is not held out; validation and test ask the
first template about held-out items. Items without an answer are left out.
"""
import functools
import hashlib
import json

import numpy as np
import tensorflow as tf

from ilm_jax import errors
from ilm_jax.data import tokenizer as tokenizer_lib
from ilm_jax.tasks import elm_requests, features, indexing, templates
from ilm_jax.tasks import material as material_lib


def definitions(material: material_lib.Material) -> dict[str, features.Definition]:
  items = material.items
  genres = ["", *(tokenizer_lib.escape(", ".join(names)) for names in items.genres)]
  years = ["", *(str(year) if year else "" for year in items.years)]
  known = {"elm_title": indexing.titles(items), "elm_genres": genres, "elm_year": years}
  by_item = {split: {"item": rows} for split, rows in material.item_splits.items()}
  return {**{name: _definition(material, name, answers, by_item)
             for name, answers in known.items()},
          **{name: _written(material, name) for name in material.written}}


def _written(material, name: str) -> features.Definition:
  """The task `name` with a teacher's answers.

  Raises:
    UserError: stage `targets` has not run, or all its answers for training were rejected.
  """
  requests = elm_requests.requests(material, name)
  said = [material.answer(request) if material.answer else None for request in requests]
  if missing := sum(answer is None for answer in said):
    raise errors.UserError(f"{missing} of {len(requests)} targets of {name} are not written by "
                           "this config's teacher: run --stage=targets before --stage=prepare")
  good = [(r, a.text) for r, a in zip(requests, said) if not a.rejected]
  if not any(request.split == "train" for request, _ in good):
    raise errors.UserError(f"of {len(requests)} targets of {name} none for training will do: see "
                           "targets/*/report.json, and choose another teacher or leave the task "
                           "out of targets.tasks")
  fields = templates.load(name, words=material.words).fields
  answers = [""] * material.rows.total
  for request, text in good:
    answers[request.rows[0]] = tokenizer_lib.escape(text)
  splits = {}
  for split in ("train", "test"):
    rows = np.array([r.rows for r, _ in good if r.split == split], np.int32)
    splits[split] = dict(zip(fields, rows.reshape(-1, len(fields)).T))
  identity = json.dumps([(r.split, r.rows, text) for r, text in good])
  return _definition(material, name, answers, splits,
                     targets=hashlib.sha256(identity.encode()).hexdigest())


def _definition(material, name: str, answers: list[str], by_split: dict,
                targets: str = "") -> features.Definition:
  """The task `name`.

  Args:
    material: of all tasks.
    name: of its prompts, too.
    answers: by entity row; "": no example.
    by_split: split -> place -> int [N] entity rows. The answer belongs to the first place's row.
    targets: fingerprint of a teacher's answers.
  """
  family = templates.load(name, words=material.words)
  known = np.array([bool(answer) for answer in answers])
  splits = {}
  for split, places in by_split.items():
    wordings = np.arange(len(family.seen)) if split == "train" else np.arange(1)
    first = places[family.fields[0]]
    at, prompt = [x.ravel() for x in np.meshgrid(
        np.flatnonzero(known[first]), wordings, indexing="ij")]
    if split == "train":
      kept = material.subsample(name, len(at))
      at, prompt = at[kept], prompt[kept]
    splits[split] = {"user": features.column(np.zeros_like(at)),
                     **{place: features.column(rows[at]) for place, rows in places.items()},
                     "target_entity": features.column(first[at]),
                     "prompt": features.column(prompt)}
  spoken = tf.constant([" " + answer for answer in answers])
  mentions = tf.constant(material.mentions) if material.as_text and targets else None
  return features.Definition(
      by_example=True,
      source=features.in_memory(splits),
      preprocessors=[functools.partial(templates.ask, family=family, answers=spoken,
                                       mentions=mentions), features.tokenize],
      output_features=features.language(material.lm, material.rows), prompts=family,
      targets=targets)
