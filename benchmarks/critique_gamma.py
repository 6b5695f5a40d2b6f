"""SoftAttributes: do directions of attributes order films as raters do? Rows for `critiques`.

A row gives scores of the lower and the higher film of every pair of an attribute. Rows that learn
from raters do not train on a pair's two films or its rater: films and raters are in five folds
each, and a direction is learnt for every two folds of films and one of raters that are left out.
"""
import functools
import itertools
from collections.abc import Callable

import numpy as np

from ilm_jax.cf import activation
from ilm_jax.conversation import attributes, directions, open_words, soft_attributes, titles, wishes
from ilm_jax.data import interactions
from ilm_jax.evaluation import gamma

FOLDS = 5
CHOOSING = 20            # raters who choose the settings and are left out of the results
TEXT = "text, the attribute's words"
FACTORS_TAUGHT, TEXT_TAUGHT = "factors, other raters", "text, other raters"
GUESSED = "factors, guessed by both"
MANY = 5                 # users who like a film, for guesses to use its text
GENRES = 0.1             # ridge of their directions, as in a conversation
RIDGES = (0.1, 1.0, 10.0, 100.0)


class Sortings:
  """All pairs by attribute: lower and higher item rows, and the rater's number."""

  def __init__(self, path, films, met_I1):
    rows, self.absent = soft_attributes.read(path, titles.Titles(films))
    self.raters = sorted({row.rater for row in rows}, key=int)
    number = {rater: n for n, rater in enumerate(self.raters)}
    self.attributes = sorted({row.attribute for row in rows})
    parts: dict[str, list] = {name: [] for name in self.attributes}
    for row in rows:
      pairs_P2 = gamma.pairs([[r for r in group if met_I1[r]] for group in row.groups])
      parts[row.attribute].append(np.c_[pairs_P2, np.full(len(pairs_P2), number[row.rater])])
    self.of = {name: np.concatenate(some) for name, some in parts.items()}
    self.films = np.unique(np.concatenate([pairs_P3[:, :2].ravel() for pairs_P3 in
                                           self.of.values()]))
    rng = np.random.default_rng(0)
    mixed = rng.permutation(len(self.raters))
    self.choosing = set(mixed[:CHOOSING].tolist())
    self.fold_of_rater = rng.permutation(len(self.raters)) % FOLDS
    self.fold_of_film = np.zeros(len(met_I1), np.int64)
    self.fold_of_film[self.films] = rng.permutation(len(self.films)) % FOLDS

  def pairs(self, attribute: str, choosing: bool) -> np.ndarray:
    """int [P, 3]: low row, high row, rater."""
    pairs_P3 = self.of[attribute]
    return pairs_P3[np.isin(pairs_P3[:, 2], list(self.choosing)) == choosing]


def held_out(sortings: Sortings, pairs_P3, vector_I1C, ridge: float):
  """(low, high): scores by directions that were learnt from other films and other raters."""
  film_P2, rater_P = sortings.fold_of_film[pairs_P3[:, :2]], sortings.fold_of_rater[pairs_P3[:, 2]]
  apart_PC = vector_I1C[pairs_P3[:, 1]] - vector_I1C[pairs_P3[:, 0]]
  high_P = np.zeros(len(pairs_P3))
  for f, g in itertools.combinations_with_replacement(range(FOLDS), 2):
    of_P = (film_P2.min(axis=1) == f) & (film_P2.max(axis=1) == g)
    others_P = ~np.isin(film_P2, (f, g)).any(axis=1)
    for h in np.unique(rater_P[of_P]):
      from_PC, at_P = apart_PC[others_P & (rater_P != h)], of_P & (rater_P == h)
      if len(from_PC):
        high_P[at_P] = apart_PC[at_P] @ activation.between(from_PC, -from_PC, ridge)
  return np.zeros(len(pairs_P3)), high_P


# Rows: (material, sortings, setting) -> attribute -> a function from pairs [P, 3] to (low, high);
# attributes for which a row has no data are left out.

def _by_scores(score_of: dict[str, np.ndarray]):
  return {name: lambda pairs_P3, score_I1=score_I1: score_I1[pairs_P3[:, :2]].T
          for name, score_I1 in score_of.items()}


def chance(material, sortings, setting):
  rng = np.random.default_rng(1)
  return _by_scores({name: rng.random(len(material.films) + 1) for name in sortings.attributes})


def popularity(material, sortings, setting):
  return _by_scores(dict.fromkeys(sortings.attributes, material.popular_I1))


def text(material, sortings, setting):
  score_AI1 = material.encoded(sortings.attributes) @ text_I1W(material, sortings).T
  return _by_scores(dict(zip(sortings.attributes, score_AI1)))


def text_I1W(material, sortings) -> np.ndarray:
  """[I + 1, W]: sentence vectors of the sorted films, zeros for others."""
  def make():
    text_NW = material.encoded([interactions.item_text(material.films, row)
                                for row in sortings.films])
    out_I1W = np.zeros((len(material.films) + 1, text_NW.shape[1]), np.float32)
    out_I1W[sortings.films] = text_NW
    return out_I1W
  return material.once("text_I1W", make)


def main_directions(vector_I1W, rows, width: int = 64) -> np.ndarray:
  """[I + 1, width] the principal components of `rows`, zeros for others: as wide as factors."""
  centred_NW = vector_I1W[rows] - vector_I1W[rows].mean(axis=0)
  out_I1C = np.zeros((len(vector_I1W), width))
  out_I1C[rows] = centred_NW @ np.linalg.svd(centred_NW, full_matrices=False)[2][:width].T
  return out_I1C


def _read_along(material, ways: dict[str, np.ndarray], unit: bool):
  return _by_scores({name: material.vectors(unit) @ way_C for name, way_C in ways.items()})


def meant(sortings, names) -> dict[str, tuple[str, float]]:
  """Attribute -> the result of `wishes.named` for its words, if there is one."""
  read = {name: wishes.named(name, names) for name in sortings.attributes}
  return {name: of for name, of in read.items() if of[0]}


def exact(material, sortings, setting):
  ways = material.ways(setting["ridge"], setting["unit"])
  return _read_along(material, {name: sign * ways[of] for name, (of, sign) in
                                meant(sortings, ways).items()}, setting["unit"])


def near(material, sortings, setting):
  """For each tagged film the similarity of its nearest tag or genre to the attribute's words."""
  labels = material.once("near labels", functools.partial(_near_labels, material, sortings))
  return _read_along(material, directions.learn(
      material.form.item_I1C, labels, least=material.least, ridge=setting["ridge"],
      unit=setting["unit"]), setting["unit"])


def _near_labels(material, sortings):
  words_of = {row: [tag.strip().casefold() for tag in tags] + [
      genre.casefold() for genre in material.films.genres[row - 1]]
      for row, tags in material.tags_of_row().items()}
  row_N, labels, words = np.array(list(words_of)), {}, sorted(set().union(*words_of.values()))
  word_NW = material.encoded(words)
  for name, name_W in zip(sortings.attributes, material.encoded(sortings.attributes)):
    like = dict(zip(words, (word_NW @ name_W).tolist()))
    labels[name] = attributes.Labels(row_N, np.array([max(like[word] for word in of)
                                                      for of in words_of.values()]))
  return labels


def known_texts(material, sortings) -> np.ndarray:
  """[I + 1, W] sentence vectors of the films that `MANY` users like in training, or that are
  sorted; zeros for others."""
  def make():
    rows = np.union1d(np.flatnonzero(material.popular_I1 >= MANY), sortings.films)
    out_I1W = np.zeros((len(material.films) + 1, text_I1W(material, sortings).shape[1]), np.float32)
    out_I1W[rows] = material.encoded([interactions.item_text(material.films, row) for row in rows])
    return out_I1W
  return material.once("known texts", make)


def guesser(material, sortings) -> Callable[[str], tuple]:
  """Word -> (its direction by texts, by names of genres), of `conversation.open_words`."""
  item_I1C, text_IW = material.form.item_I1C, known_texts(material, sortings)
  ways = directions.learn(item_I1C, material.genres, least=material.least, ridge=GENRES)
  name_AW, way_AC = material.encoded(list(ways)), np.stack(list(ways.values()))

  def make(word):
    word_W, of_film_W = material.encoded([word, f"{word} film"])
    return (open_words.Texts(item_I1C, text_IW).of(of_film_W),
            open_words.of_names(word_W, name_AW, way_AC))
  return lambda word: material.once(("guess", word), lambda: make(word))


def guess(material, sortings, setting, of: str):
  """Guessed attributes: by texts, by names, or by both if they agree."""
  ways, guessed = {}, guesser(material, sortings)
  for name in sortings.attributes:
    texts_C, names_C = guessed(name)
    both_C = open_words.agreed(material.form.item_I1C, texts_C, names_C, setting.get("agree", -1.0))
    way_C = {"texts": texts_C, "names": names_C, "both": both_C}[of]
    if way_C is not None:
      ways[name] = way_C
  return _read_along(material, ways, True)


def from_raters(material, sortings, setting, of: str):
  vector_I1C = material.vectors(True) if of == "factors" else material.once(
      "main text", lambda: main_directions(text_I1W(material, sortings), sortings.films))
  return {name: lambda pairs_P3: held_out(sortings, pairs_P3, vector_I1C, setting["ridge"])
          for name in sortings.attributes}


EACH = {"ridge": RIDGES, "unit": (False, True)}
ROWS = {
    "chance": (chance, {}), "popularity": (popularity, {}), TEXT: (text, {}),
    "factors, tags and genres of the same words": (exact, EACH),
    "factors, tags and genres near in meaning": (near, EACH),
    "factors, guessed by texts": (functools.partial(guess, of="texts"), {}),
    "factors, guessed by names of genres": (functools.partial(guess, of="names"), {}),
    GUESSED: (functools.partial(guess, of="both"), {}),
    TEXT_TAUGHT: (functools.partial(from_raters, of="text"), {"ridge": RIDGES}),
    FACTORS_TAUGHT: (functools.partial(from_raters, of="factors"), {"ridge": RIDGES}),
}


def counted(sortings: Sortings, row, choosing: bool) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """Attribute -> (sum_R, count_R) of `gamma.counts`, by rater."""
  out = {}
  for name, score in row.items():
    pairs_P3 = sortings.pairs(name, choosing)
    low_P, high_P = score(pairs_P3)
    out[name] = np.zeros((2, len(sortings.raters)))
    for rater in np.unique(pairs_P3[:, 2]):
      of_P = pairs_P3[:, 2] == rater
      out[name][:, rater] = gamma.counts(low_P[of_P], high_P[of_P])
  return out


def table_of(counts: dict, names) -> tuple[np.ndarray, np.ndarray]:
  """(sum_AR, count_AR) of the attributes `names`, without raters that have no pair."""
  return tables_of(names, counts)[0]


def tables_of(names, *systems: dict) -> list[tuple[np.ndarray, np.ndarray]]:
  """Likewise for the counts of several systems, with the same raters in all."""
  tables = [np.stack([counts[name] for name in names], axis=1) for counts in systems]
  some_R = np.any([count_AR.any(axis=0) for _, count_AR in tables], axis=0)
  return [(sum_AR[:, some_R], count_AR[:, some_R]) for sum_AR, count_AR in tables]


def chosen(material, sortings, name: str) -> dict:
  """The setting with the best gamma on the raters that are reserved for choosing."""
  make, space = ROWS[name]
  tried = []
  for values in itertools.product(*space.values()):
    setting = dict(zip(space, values))
    if len(space) and any(len(of) > 1 for of in space.values()):
      counts = counted(sortings, make(material, sortings, setting), True)
      sum_AR, count_AR = table_of(counts, counts)
      tried.append((float(np.mean(sum_AR.sum(axis=1) / count_AR.sum(axis=1))), setting))
      print(f"  {name}: {tried[-1][0]:.3f} {setting}", flush=True)
  return max(tried, key=lambda each: each[0])[1] if tried else {}


def measure(material, sortings) -> tuple[dict, dict]:
  """(row -> setting, row -> `counted` on the other raters)."""
  settings = {name: chosen(material, sortings, name) for name in ROWS}
  counts = {name: counted(sortings, make(material, sortings, settings[name]), False)
            for name, (make, _) in ROWS.items()}
  return settings, counts
