"""Scores of answers to prompts about items: one value per answer, from sentence vectors.

Each consistency is also computed with another item's reference or factors: this is the value that
the style of the answers reaches alone.
"""
import collections
from collections.abc import Sequence

import numpy as np


def semantic(said_NP, wanted_NP, other_N) -> tuple[np.ndarray, np.ndarray]:
  """(cosine with the own reference, cosine with the reference of `other_N`), each float [N].

  Args:
    said_NP: unit sentence vectors of the answers.
    wanted_NP: unit sentence vectors of their references.
    other_N: int, for each answer the index of another answer whose reference it is compared with.
  """
  return (np.sum(said_NP * wanted_NP, axis=1), np.sum(said_NP * wanted_NP[other_N], axis=1))


def next_in_circle(count: int, step: int = 1) -> np.ndarray:
  """int [count]: for each n the index (n + step) % count."""
  return np.roll(np.arange(count), -step)


def about_items(behaviour, said: list[str], wanted: list[str], said_NP, wanted_NP,
                factor_NC=None) -> dict[str, np.ndarray]:
  """Metric -> float [N], for the answers of one task.

  Args:
    behaviour: a `consistency.Behaviour`; not used without factors.
    said: answers.
    wanted: references.
    said_NP: unit sentence vectors of the answers.
    wanted_NP: unit sentence vectors of the references.
    factor_NC: factors of each answer's item; None: no behavioural consistency.
  """
  other_N = next_in_circle(len(said))
  with_own_N, with_other_N = semantic(said_NP, wanted_NP, other_N)
  out = {"semantic consistency": with_own_N, "with another item's reference": with_other_N,
         "exact match": np.array([a == b for a, b in zip(said, wanted)], float)}
  if factor_NC is not None:
    out |= {"behavioural consistency": behaviour.consistency(said_NP, factor_NC),
            "with another item's users": behaviour.consistency(said_NP, factor_NC[other_N]),
            "of the reference": behaviour.consistency(wanted_NP, factor_NC)}
  return {**out, "words": words(said)}


def halfway(behaviour, said: list[str], said_NP, first_NP, second_NP, factor_NC
            ) -> dict[str, np.ndarray]:
  """Metric -> float [N], for answers about vectors halfway between two items.

  Pairs are neighbours in a circle, so the next pair shares an item with this one. The other pair is
  therefore the one two further on.

  Args:
    behaviour: a `consistency.Behaviour`.
    said: answers.
    said_NP: unit sentence vectors of the answers.
    first_NP: unit sentence vectors of the references of the first items.
    second_NP: unit sentence vectors of the references of the second items.
    factor_NC: mean factors of the two items.
  """
  wanted_NP = np.mean([first_NP, second_NP], axis=0)
  wanted_NP = wanted_NP / np.linalg.norm(wanted_NP, axis=1, keepdims=True)
  other_N = next_in_circle(len(said), 2)
  with_own_N, with_other_N = semantic(said_NP, wanted_NP, other_N)
  return {"semantic consistency": with_own_N, "with another pair's references": with_other_N,
          "behavioural consistency": behaviour.consistency(said_NP, factor_NC),
          "with another pair's users": behaviour.consistency(said_NP, factor_NC[other_N]),
          "words": words(said)}


def mean_vectors(vectors: dict, present: dict, rows_N2) -> list[dict]:
  """For each pair of entity rows, name -> float [C]: the mean of the vectors that both have.

  Args:
    vectors: name -> float [R, C] of all entities.
    present: name -> bool [R].
    rows_N2: pairs of rows.
  """
  return [{name: table_RC[rows].mean(axis=0) for name, table_RC in vectors.items()
           if present[name][rows].all()} for rows in rows_N2]


def mean_factors(item_I1C, rows: Sequence[Sequence[int]] | np.ndarray) -> np.ndarray:
  """float [N, C]: the mean of the factors of each tuple of item rows.

  Args:
    item_I1C: factors by item row.
    rows: one tuple per answer.
  """
  return np.array([item_I1C[list(r)].mean(axis=0) for r in rows]).reshape(-1, item_I1C.shape[1])


def first_named(said: list[str], wanted: list[str]) -> np.ndarray:
  """float [N]: 1 where the first name of an answer ("Drama, War") is among the reference's."""
  return np.array([_names(answer)[0] in _names(reference)
                   for answer, reference in zip(said, wanted)], float)


def commonest(names: list[list[str]]) -> str:
  """The name in most of the lists, on a tie the first in the alphabet; "" if there is none."""
  count = collections.Counter(name for some in names for name in set(some))
  return min(count, key=lambda name: (-count[name], name), default="")


def _names(text: str) -> list[str]:
  return [name.strip().casefold() for name in text.split(",")]


def words(texts: list[str]) -> np.ndarray:
  """float [N]: number of words of each text."""
  return np.array([len(text.split()) for text in texts], float)
