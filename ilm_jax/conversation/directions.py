"""Directions of attributes in the space of item factors, and steps along them.

    labels = {**attributes.of_tags(items, tags), **attributes.of_genres(items)}
    ways = learn(form.item_I1C, labels, least=5, ridge=1.0)
    talk = session.critique(talk, "dark", 1)
    user_C = user_vector(talk, form, items, ways, step=1.0)

A critique only moves the vector; constraints stay hard. Where items are labelled, their labels are
better than a direction (`attributes.raised`).
"""
import difflib

import numpy as np

from ilm_jax import errors
from ilm_jax.cf import activation, fold_in
from ilm_jax.conversation import attributes
from ilm_jax.conversation import session as session_lib
from ilm_jax.data import interactions as interactions_lib


def learn(item_I1C, labels: dict[str, attributes.Labels], *, least: int, ridge: float,
          unit: bool = False) -> dict[str, np.ndarray]:
  """Attribute -> float32 [C], the direction in which there is more of it.

  By ridge regression (`activation.along`); for labels with two values both sides have the same
  weight. The item's vector times the direction is in standard deviations of the items. Items whose
  vector is zeros (without training interactions) are left out.

  Args:
    item_I1C: [I + 1, C] items as the factorisation returned them; row 0 is zeros.
    labels: attribute -> its labels.
    least: items that an attribute needs, for two values on each side; others get no direction.
    ridge: see `activation.along`.
    unit: learn from vectors of length 1, because the length mostly says how popular an item is.
  """
  item_I1C = np.asarray(item_I1C, np.float64)
  length_I1 = np.linalg.norm(item_I1C, axis=1)
  met_I1 = length_I1 > 0
  from_I1C = item_I1C / np.where(met_I1, length_I1, 1)[:, None] if unit else item_I1C
  ways = {}
  for name, (row_N, value_N) in labels.items():
    met_N = met_I1[row_N]
    row_N, value_N = row_N[met_N], value_N[met_N]
    sides, side_N, count_S = np.unique(value_N, return_inverse=True, return_counts=True)
    if len(sides) < 2 or (count_S.min() if len(sides) == 2 else len(row_N)) < least:
      continue
    weight_N = 1 / count_S[side_N] if len(sides) == 2 else None
    way_C = activation.along(from_I1C[row_N], value_N, ridge, weight_N)
    ways[name] = in_deviations(item_I1C, way_C)
  return ways


def in_deviations(item_I1C, way_C) -> np.ndarray:
  """float32 [C]: the direction, scaled so that an item's vector times it is in standard deviations
  of the items that have a vector."""
  item_IC = np.asarray(item_I1C, np.float64)[np.any(np.asarray(item_I1C) != 0, axis=1)]
  return (way_C / max((item_IC @ way_C).std(), 1e-12)).astype(np.float32)


def user_vector(session: session_lib.Session, form: fold_in.Form, items: interactions_lib.Items,
                ways: dict[str, np.ndarray], step: float) -> np.ndarray:
  """float32 [C]: the user's vector, folded in from the liked items, then moved by the critiques.

  Args:
    session: its opinions and critiques are read.
    form, items: of the catalogue.
    ways: from `learn`, on the items of `form`.
    step: by how much one step moves the score of an item that lies one standard deviation along the
      direction, in units of `spread`, so that a step has the same weight for few and many likes.

  Raises:
    UserError: a liked item is not in the catalogue; a critique's attribute has no direction.
  """
  user_C = session_lib.user_vector(session, form, items)
  return user_C + np.float32(step) * spread(form.item_I1C, user_C) * _move(
      session, ways, len(user_C))


def moved(score_I1, session: session_lib.Session, item_I1C, ways: dict[str, np.ndarray],
          step: float) -> np.ndarray:
  """float32 [I + 1]: any model's scores, moved by the session's critiques in the same way as
  `user_vector` moves scores of factors.

  Args:
    score_I1: scores of all item rows.
    session: its critiques are read.
    item_I1C: as in `learn`; scores of items without a vector do not move.
    ways, step: as in `user_vector`.

  Raises:
    UserError: a critique's attribute has no direction.
  """
  item_I1C, score_I1 = (np.asarray(x, np.float32) for x in (item_I1C, score_I1))
  deviation = _deviation(score_I1[np.any(item_I1C != 0, axis=1)])
  return score_I1 + np.float32(step) * deviation * (
      item_I1C @ _move(session, ways, item_I1C.shape[1]))


def checked(session: session_lib.Session, ways: dict[str, np.ndarray]) -> None:
  """Raises a UserError if a critique's attribute has no direction."""
  for each in session.critiques:
    _way(each.attribute, ways)


def spread(item_I1C, user_NC) -> np.ndarray:
  """float32 [..]: the standard deviation of a user's scores over the items with a vector; 1 for a
  user of zeros.

  Args:
    item_I1C: as in `learn`.
    user_NC: vectors of users, or of one.
  """
  item_I1C = np.asarray(item_I1C, np.float32)
  met_IC = item_I1C[np.any(item_I1C != 0, axis=1)]
  return _deviation(np.asarray(user_NC, np.float32) @ met_IC.T)


def _deviation(score_NI) -> np.ndarray:
  """float32 [..]: the standard deviation of scores; 1 where they are all the same."""
  deviation_N = score_NI.std(axis=-1)
  return np.where(deviation_N > 0, deviation_N, 1).astype(np.float32)


def _move(session: session_lib.Session, ways: dict[str, np.ndarray], width: int) -> np.ndarray:
  """float32 [C], C = `width`: the sum of steps times direction over all critiques that hold."""
  moves = [np.float32(each.steps) * _way(each.attribute, ways)
           for each in session.active_critiques]
  return sum(moves, start=np.zeros(width, np.float32))


def _way(attribute: str, ways: dict[str, np.ndarray]) -> np.ndarray:
  if (name := attribute.casefold()) in ways:
    return ways[name]
  near = difflib.get_close_matches(name, ways, 3)
  hint = f"; near it: {', '.join(map(repr, near))}" if near else ""
  raise errors.UserError(f"critique {attribute!r} has no direction, expected one of the "
                         f"{len(ways)} attributes with enough labelled items{hint}")
