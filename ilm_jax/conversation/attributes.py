"""Labels of attributes: which items have a genre or a tag, and from which year an item is.

    labels = {**of_tags(items, tags), **of_genres(items), **of_years(items)}
    known = leading(labels, len(items))
    known.critiques(shown, wanted)                 # how one item differs from another
    raised(score_I1, session, known, row_of, step)   # what the user asked for comes first
"""
import collections
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from ilm_jax.conversation import session as session_lib
from ilm_jax.data import interactions as interactions_lib

NEW = session_lib.NEW    # the attribute of the year
MOST_GENRES = 256        # each genre has a label for every item


class Labels(NamedTuple):
  """How much of an attribute some items have.

  Attributes:
    row_N: item rows, from 1, each once.
    value_N: float: 0 and 1 where an item has it or not, else a number such as the year.
  """
  row_N: np.ndarray
  value_N: np.ndarray


def of_genres(items: interactions_lib.Items) -> dict[str, Labels]:
  """Lower-case genre -> its labels, of the items that have genres.

  Of the `MOST_GENRES` most common genres: a shop's are brands and thousands of categories.
  """
  return _of_words({row: {genre.casefold() for genre in genres}
                    for row, genres in enumerate(items.genres, 1) if genres}, MOST_GENRES)


def of_tags(items: interactions_lib.Items, tags: Iterable[tuple[str, str]]) -> dict[str, Labels]:
  """Lower-case tag -> its labels, of the items that have tags; items without tags are unknown.

  Args:
    items: the catalogue.
    tags: (raw id of an item, tag); those of items that are not in the catalogue are left out.
  """
  words: dict[int, set[str]] = {}
  for raw, tag in tags:
    if raw in items.row_of and tag.strip():
      words.setdefault(items.row_of[raw], set()).add(tag.strip().casefold())
  return _of_words(words)


def of_years(items: interactions_lib.Items) -> dict[str, Labels]:
  """`NEW` -> the years, of the items whose year is known."""
  years = [(row, year) for row, year in enumerate(items.years, 1) if year is not None]
  return {NEW: Labels(*np.array(years, np.int64).reshape(-1, 2).T)}


def leading(labels: dict[str, Labels], num_items: int, years_apart: int = 5) -> "Leading":
  """`Leading` from labels of a catalogue with `num_items` items."""
  value_AI1 = np.full((len(labels), num_items + 1), np.nan, np.float32)
  for value_I1, (row_N, value_N) in zip(value_AI1, labels.values()):
    value_I1[row_N] = value_N
  return Leading(tuple(labels), value_AI1, years_apart)


class Leading(NamedTuple):
  """Labels by item row.

  Attributes:
    names: of A attributes.
    value_AI1: float32 [A, I + 1]; NaN: not known.
    years_apart: least difference in years for "newer" and "older".
  """
  names: tuple[str, ...]
  value_AI1: np.ndarray
  years_apart: int

  def label(self, name: str, row: int) -> float:
    """An item's label of an attribute; NaN: not known."""
    return float(self.value_AI1[self.names.index(name), row])

  def critiques(self, shown: int, wanted: int) -> list[tuple[str, int]]:
    """(attribute, 1 or -1) for every attribute of which `wanted` has more or less than `shown`.

    Only attributes that are labelled for both. Args: item rows.
    """
    more_A = self.value_AI1[:, wanted] - self.value_AI1[:, shown]
    least_A = np.where(np.array(self.names) == NEW, self.years_apart, 1e-6)
    return [(self.names[a], int(np.sign(more_A[a]))) for a in np.flatnonzero(
        np.abs(more_A) >= least_A)]


def fitting(session: session_lib.Session, known: Leading, row_of: Mapping[str, int]) -> np.ndarray:
  """float64 [I + 1]: the sum of |steps| of the session's critiques that an item's labels fit.

  An item has an attribute if its label is above the middle of the least and the greatest; above 0
  if all labels are the same. Labels that are not known fit no critique for more, and every critique
  for less. "Newer" and "older" are meant against the item that the recommender named first in its
  last turn with items, else against the mean year of the liked items. Nothing fits a critique of an
  attribute without labels.

  Args:
    session: its critiques, turns and liked items are read.
    known: labels of the catalogue.
    row_of: raw id -> item row.
  """
  fit_I1 = np.zeros(known.value_AI1.shape[1])
  for each in session.active_critiques:
    if (name := each.attribute.casefold()) not in known.names:
      continue
    value_I1 = known.value_AI1[known.names.index(name)]
    least = (_year_before(session, each.turn, value_I1, row_of) if name == NEW else
             _middle(value_I1))
    if each.steps > 0 or name == NEW:
      fits_I1 = (value_I1 - least) * np.sign(each.steps) > 0
    else:
      fits_I1 = ~(value_I1 > least)
    fit_I1 += abs(each.steps) * fits_I1
  fit_I1[0] = 0
  return fit_I1


def raised(score_I1, session: session_lib.Session, known: Leading, row_of: Mapping[str, int],
           step: float) -> np.ndarray:
  """float64 [I + 1]: any model's scores, raised where labels fit the session's critiques.

  In float64, so that a million steps leave the order of the items that fit as it is.

  Args:
    score_I1: scores of all item rows.
    session, known, row_of: as in `fitting`.
    step: by how many standard deviations of the scores one step raises an item.
  """
  score_I1 = np.asarray(score_I1, np.float64)
  deviation = score_I1[1:].std() or 1.0
  return score_I1 + step * deviation * fitting(session, known, row_of)


def _middle(value_I1) -> float:
  """The number above which a label says that an item has the attribute."""
  least, greatest = np.nanmin(value_I1), np.nanmax(value_I1)
  return float(least + greatest) / 2 if least < greatest else 0.0


def _year_before(session, turn: int, year_I1, row_of) -> float:
  """The year that "newer" at `turn` is compared with; NaN: none is known."""
  known = ([item for item in said.items if item in row_of]
           for said in reversed(session.turns[:turn]) if said.role == session_lib.RECOMMENDER)
  shown = next((items[:1] for items in known if items), session.liked)
  years = [year_I1[row_of[item]] for item in shown if item in row_of]
  years = [year for year in years if not np.isnan(year)]
  return float(np.mean(years)) if years else np.nan


def _of_words(words: dict[int, set[str]], most: int | None = None) -> dict[str, Labels]:
  """Word -> labels: which rows have it, for the `most` most common words, in their order.

  Args:
    words: the words of each row.
    most: of equally common words the first in the alphabet; None: all words.
  """
  row_N, places = np.array(list(words), np.int64), collections.defaultdict(list)
  for n, of in enumerate(words.values()):
    for word in of:
      places[word].append(n)
  labels = {}
  for word in sorted(sorted(places, key=lambda word: (-len(places[word]), word))[:most]):
    value_N = np.zeros(len(row_N), np.float32)
    value_N[places[word]] = 1
    labels[word] = Labels(row_N, value_N)
  return labels
