"""Requests to the teacher for ELM's tasks: the items, pairs and users, and the text it reads.

Pure functions of the material: stage `targets` sends the requests, stage `prepare` looks the
answers up. Held-out items stay out of training: they are in no training pair, and in no history
that a teacher reads for a user of the training split.
"""
import numpy as np

from ilm_jax import errors
from ilm_jax.data import interactions as interactions_lib
from ilm_jax.data import targets
from ilm_jax.tasks import material as material_lib
from ilm_jax.tasks import templates

# Places of a task's templates -> how the entities for them are chosen.
PARTNERS = {("item",): "none", ("item", "other"): "any", ("item", "neighbour"): "nearest",
            ("user",): "user"}
_LIKED = 10                          # titles of a user's history that a teacher reads


def requests(material: material_lib.Material, task: str) -> list[targets.Request]:
  """The requests of a task, training split first; at most one per first entity."""
  family = templates.load(task, words=material.words)
  if not family.teacher or family.fields not in PARTNERS:
    raise errors.UserError(f"prompts of {task}: expected a teacher's instruction and places among "
                           f"{list(PARTNERS)}, found {family.fields}")
  return [targets.Request(task, split, tuple(int(row) for row in rows), family.teacher,
                          _known_text(material, family.fields, rows))
          for split in ("train", "test") for rows in groups(material, family.fields, split)]


def groups(material: material_lib.Material, fields: tuple[str, ...], split: str) -> list[tuple]:
  """Entity rows for each request of a split, in the order of the places `fields`.

  Every task has the same items, so that means over tasks are over the same items.
  """
  kind = PARTNERS[fields]
  if kind == "user":
    return [(row,) for row in _chosen(material, _users(material, split), split)]
  items = material.item_splits[split]
  chosen = _chosen(material, items, split)
  if kind == "none":
    return [(row,) for row in chosen]
  partner = (_any_other(material, items, split) if kind == "any"
             else _nearest(material, chosen, split))
  return [(row, partner[row]) for row in chosen if row in partner]


def _chosen(material, rows, split: str) -> list[int]:
  """A seeded choice of rows; a larger limit keeps the rows of a smaller one."""
  most = material.max_items if split == "train" else material.max_heldout
  order = material.rng(f"targets/{split}").permutation(len(rows))
  return [int(rows[i]) for i in (order[:most] if most else order)]


def _users(material, split: str) -> np.ndarray:
  """Rows of the users of a split who have training items; a share of all users is held out."""
  count = material.interactions.num_users
  held_U = np.zeros(count, bool)
  held = material.rng("targets/users").permutation(count)
  held_U[held[:round(material.heldout_fraction * count)]] = True
  return np.array([material.rows.user(u) for u in np.flatnonzero(held_U == (split == "test"))
                   if len(_liked(material, u))], np.int64)


def _liked(material, user: int) -> np.ndarray:
  """The last training items of a user that are not held out, oldest first."""
  history = material.train_histories[user]
  return history[np.isin(history, material.item_splits["train"])][-_LIKED:]


def _any_other(material, items, split: str) -> dict[int, int]:
  """item -> another item of its split: the next in a seeded circle that is not its twin."""
  order = items[material.rng(f"targets/pairs/{split}").permutation(len(items))]
  titles = material.full_titles
  partner = {}
  for place, row in enumerate(order):
    following = (int(order[(place + k) % len(order)]) for k in range(1, len(order)))
    other = next((other for other in following if titles[other] != titles[row]), None)
    if other is not None:
      partner[int(row)] = other
  return partner


def _nearest(material, rows, split: str) -> dict[int, int]:
  """item -> the item with the closest audience in training (cosine), the lower row on a tie.

  The neighbour of a training item is a training item, that of a held-out item any item. An item
  that shares no user with another has none.
  """
  both_II, seen_I = material.co_occurrence
  allowed_I = np.isin(np.arange(1, len(seen_I) + 1), material.item_splits["train"])
  allowed_I |= split == "test"
  titles = np.array(material.full_titles[1:])
  partner = {}
  for row in rows:
    cosine_I = both_II[[row - 1]].toarray()[0] / np.sqrt(np.maximum(seen_I, 1))
    cosine_I = np.where(allowed_I & (titles != titles[row - 1]), cosine_I, 0)
    if cosine_I.max(initial=0) > 0:
      partner[row] = 1 + int(cosine_I.argmax())
  return partner


def _known_text(material, fields: tuple[str, ...], rows) -> str:
  """The data set's facts about the entities, as text for the teacher."""
  thing = material.words.fill("{Thing}")
  if fields == ("user",):
    user = material.rows.user_number(int(rows[0]))
    rows, numbered = _liked(material, user), [f"{thing}"] * _LIKED
  else:
    numbered = [thing] if len(rows) == 1 else [f"First {material.words.thing}",
                                               f"Second {material.words.thing}"]
  texts = [interactions_lib.item_text(material.items, int(row)) for row in rows]
  return "\n".join(f"{name}: {text}" for name, text in zip(numbered, texts))
