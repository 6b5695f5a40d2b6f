"""Directions of words that no attribute is called by, guessed from how near texts are in meaning.

    guesser = Guesser(item_I1C, text_I1W, ways, encode, "film")
    way_C = guesser.of("dark")          # a direction, as of `directions.learn`; None: no guess

Two guesses are made, and a word has a direction where they agree; the direction is their sum.

  of_texts   how near the word is ("dark film") to each item's text (cosine of sentence vectors),
             regressed on the items' factors
  of_names   the directions of the attributes whose names are nearest to the word, added up by how
             far they stand out

They go wrong in different ways: a name may be near that means the opposite ("realistic": fantasy),
and a text by its title. Where they agree, people order films alike; where they do not, there is
nothing to be had from titles and genres. Figures: docs/results/critiques.md.
"""
import functools
from collections.abc import Callable

import numpy as np

from ilm_jax.conversation import directions

# As benchmarks.critiques chose them on SoftAttributes and MovieLens.
RIDGE = 1.0              # of `of_texts`, which learns from vectors of length 1
AGREE = 0.5              # correlation of the two guesses over the items, at least
TOKENS = 32              # that the encoder pads or cuts texts to: one program for all of them
_REMEMBERED = 1024       # words
_MOST = 100              # letters of a word or phrase
_NAMES = 3               # at least: of two none is more than one deviation nearer than the mean


class Guesser:
  """Guesses for one catalogue; the last words are remembered.

  Args:
    item_I1C, ways: as of `directions.learn`; the year is no name that words are near to.
    text_I1W: the sentence vector of each item's text; row 0 is not read.
    encode: texts -> [N, W] unit sentence vectors.
    thing: what an item is called.
  """

  def __init__(self, item_I1C, text_I1W, ways: dict[str, np.ndarray],
               encode: Callable[[list[str]], np.ndarray], thing: str):
    self._item_I1C, self._text_I1W = item_I1C, text_I1W
    self._encode, self._thing = encode, thing
    self._ways = {name: way_C for name, way_C in ways.items() if name != directions.NEW}
    self.of = functools.lru_cache(_REMEMBERED)(self._of)

  def _of(self, word: str) -> np.ndarray | None:
    """float32 [C], or None: the word says too little, or is too long."""
    if not 0 < len(word) <= _MOST or len(self._ways) < _NAMES:
      return None
    word_W, of_thing_W = self._encode([word, f"{word} {self._thing}"])
    return agreed(self._item_I1C,
                  of_texts(self._item_I1C, self._text_I1W, of_thing_W),
                  of_names(word_W, self._names_AW, np.stack(list(self._ways.values()))))

  @functools.cached_property
  def _names_AW(self) -> np.ndarray:
    return np.asarray(self._encode(list(self._ways)))


def of_texts(item_I1C, text_I1W, word_W, ridge: float = RIDGE) -> np.ndarray | None:
  """float32 [C]: in which direction texts are nearer to a word; None: all are as near.

  Args: of `Guesser`; the word's sentence vector.
  """
  rows = 1 + np.flatnonzero(np.any(text_I1W[1:] != 0, axis=1))
  near_N = (np.asarray(text_I1W, np.float32)[rows] @ word_W).astype(np.float64)
  return directions.learn(item_I1C, {"": directions.Labels(rows, near_N)}, least=3, ridge=ridge,
                          unit=True).get("")


def of_names(word_W, name_AW, way_AC) -> np.ndarray | None:
  """float32 [C]: the directions of names, weighed by how far each is nearer to the word than one
  deviation above the mean of all; None: all are as near.

  Args:
    word_W, name_AW: sentence vectors.
    way_AC: the names' directions.
  """
  near_A = np.asarray(name_AW, np.float64) @ word_W
  weight_A = np.maximum(near_A - near_A.mean() - near_A.std(), 0)
  return (weight_A @ way_AC).astype(np.float32) if weight_A.any() else None


def agreed(item_I1C, one_C, other_C, least: float = AGREE) -> np.ndarray | None:
  """float32 [C]: the sum of two directions, in deviations of the items; None: one is None, or what
  lies along them correlates less than `least` over the items (of length 1, with a vector)."""
  if one_C is None or other_C is None:
    return None
  item_IC = np.asarray(item_I1C, np.float64)[np.any(np.asarray(item_I1C) != 0, axis=1)]
  unit_IC = item_IC / np.linalg.norm(item_IC, axis=1, keepdims=True)
  along_2I = np.stack([unit_IC @ one_C, unit_IC @ other_C])
  if along_2I.std(axis=1).min() == 0 or np.corrcoef(along_2I)[0, 1] < least:
    return None
  one_C, other_C = (directions.in_deviations(item_I1C, way_C) for way_C in (one_C, other_C))
  return directions.in_deviations(item_I1C, one_C + other_C)
