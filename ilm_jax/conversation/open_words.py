"""Directions of words that are no attribute's name, guessed from the similarity of texts.

    guesser = Guesser(item_I1C, text_I1W, ways, encode, "film")
    way_C = guesser.of("dark")          # a direction, as from `directions.learn`; None: no guess

It makes two guesses. If they agree, the word has a direction, and it is their sum.

  Texts      the similarity of the word ("dark film") to each item's text (cosine of sentence
             vectors), regressed on the items' factors
  of_names   the directions of the attributes whose names are most similar to the word, weighted by
             how far their similarity stands out

They fail in different ways: a similar name may mean the opposite ("realistic": fantasy), and a text
may be similar because of its title. Where they agree, people order films in the same way; where
they do not, titles and genres do not help. Figures: docs/results/critiques.md.
"""
import functools
from collections.abc import Callable

import numpy as np

from ilm_jax.cf import activation
from ilm_jax.conversation import attributes, directions

# benchmarks.critiques chose them on SoftAttributes and MovieLens.
RIDGE = 1.0              # of `Texts`, which learns from vectors of length 1
AGREE = 0.5              # least correlation of the two guesses over the items
TOKENS = 32              # the encoder pads or cuts texts to this length: one program for all
_REMEMBERED = 1024       # words that are cached
_MOST = 100              # most letters of a word or phrase
_NAMES = 3               # least attributes: of two, none is over one deviation above the mean


class Guesser:
  """Guesses for one catalogue; recent words are cached.

  Args:
    item_I1C, ways: as in `directions.learn`; the direction of the year is not used.
    text_I1W: the sentence vector of each item's text; row 0 is not read.
    encode: texts -> [N, W] unit sentence vectors.
    thing: the word for an item.
  """

  def __init__(self, item_I1C, text_I1W, ways: dict[str, np.ndarray],
               encode: Callable[[list[str]], np.ndarray], thing: str):
    self._item_I1C, self._text_I1W = item_I1C, text_I1W
    self._encode, self._thing = encode, thing
    self._ways = {name: way_C for name, way_C in ways.items() if name != attributes.NEW}
    self.of = functools.lru_cache(_REMEMBERED)(self._of)

  def _of(self, word: str) -> np.ndarray | None:
    """float32 [C]; None if the guesses do not agree, or the word is empty or too long."""
    if not 0 < len(word) <= _MOST or len(self._ways) < _NAMES:
      return None
    word_W, of_thing_W = self._encode([word, f"{word} {self._thing}"])
    return agreed(self._item_I1C, self._texts.of(of_thing_W),
                  of_names(word_W, self._names_AW, np.stack(list(self._ways.values()))))

  @functools.cached_property
  def _texts(self) -> "Texts":
    return Texts(self._item_I1C, self._text_I1W)

  @functools.cached_property
  def _names_AW(self) -> np.ndarray:
    return np.asarray(self._encode(list(self._ways)))


class Texts:
  """Directions in which texts are more similar to a word; what depends on no word is computed once.

  Args: as in `Guesser`.
  """

  def __init__(self, item_I1C, text_I1W):
    self._item_I1C, item_I1C = item_I1C, np.asarray(item_I1C, np.float64)
    self._text_I1W = np.asarray(text_I1W, np.float32)
    self._has_I1 = np.any(self._text_I1W != 0, axis=1) & np.any(item_I1C != 0, axis=1)
    self._has_I1[0] = False
    met_NC = item_I1C[self._has_I1]
    self._along = activation.regression(
        met_NC / np.linalg.norm(met_NC, axis=1, keepdims=True), RIDGE) if len(met_NC) else None

  def of(self, word_W) -> np.ndarray | None:
    """float32 [C]: the direction of a word's sentence vector; None: all texts are equally near."""
    near_N = (self._text_I1W @ word_W)[self._has_I1].astype(np.float64)
    if self._along is None or len(near_N) < 3 or np.ptp(near_N) == 0:
      return None
    return directions.in_deviations(self._item_I1C, self._along(near_N))


def of_names(word_W, name_AW, way_AC) -> np.ndarray | None:
  """float32 [C]: the sum of the names' directions, each weighted by how far its similarity to the
  word is over one deviation above the mean of all; None: no similarity is.

  Args:
    word_W, name_AW: sentence vectors.
    way_AC: the names' directions.
  """
  near_A = np.asarray(name_AW, np.float64) @ word_W
  weight_A = np.maximum(near_A - near_A.mean() - near_A.std(), 0)
  return (weight_A @ way_AC).astype(np.float32) if weight_A.any() else None


def agreed(item_I1C, one_C, other_C, least: float = AGREE) -> np.ndarray | None:
  """float32 [C]: the sum of two directions, in deviations of the items. None if one is None, or if
  the items' components along the two correlate less than `least` (over items with a vector, scaled
  to length 1)."""
  if one_C is None or other_C is None:
    return None
  item_IC = np.asarray(item_I1C, np.float64)[np.any(np.asarray(item_I1C) != 0, axis=1)]
  unit_IC = item_IC / np.linalg.norm(item_IC, axis=1, keepdims=True)
  along_2I = np.stack([unit_IC @ one_C, unit_IC @ other_C])
  if along_2I.std(axis=1).min() == 0 or np.corrcoef(along_2I)[0, 1] < least:
    return None
  one_C, other_C = (directions.in_deviations(item_I1C, way_C) for way_C in (one_C, other_C))
  return directions.in_deviations(item_I1C, one_C + other_C)
