"""Lists of items for a `Session`: a trained run ranks, searches by title and looks up users.

    ranker = Ranker(context.Run(config, workdir), variants.ILM)
    cards = ranker.recommend(session.like(session.Session(), "50"), k=5)
"""
import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np

from ilm_jax import elm, errors
from ilm_jax.cf import fold_in
from ilm_jax.config import variants
from ilm_jax.conversation import attributes as attributes_lib
from ilm_jax.conversation import directions, open_words
from ilm_jax.conversation import session as s
from ilm_jax.conversation import titles as titles_lib
from ilm_jax.data import interactions as interactions_lib
from ilm_jax.stages import context, describe, vectors
from ilm_jax.stages import recommender as recommender_lib

# Numbers for attributes. benchmarks.critiques and, for the steps on an item head's scores,
# benchmarks.simulator chose them on validation targets of MovieLens.
_LEAST, _RIDGE, _STEP, _LABEL_STEP = 5, 0.1, 0.25, 4.0
_MOST_NAME = 300         # letters of a title that is looked up
_MOST_GUESSED = 50       # attributes of one session
_MOST_LIKES = 1000       # likes of a user of the log: a server's session has room for as many again


@dataclasses.dataclass(frozen=True)
class Card:
  """An item to show; `score` compares the items of one list, None: not ranked."""
  id: str
  title: str
  year: int | None
  genres: tuple[str, ...]
  score: float | None = None


def full_title(card: Card) -> str:
  """ "Heat (1995)"."""
  return card.title if card.year is None else f"{card.title} ({card.year})"


def listed(cards: Sequence[Card]) -> str:
  """A numbered list, one line per card: "1. Heat (1995)  Crime, Thriller"."""
  return "\n".join(f"{n}. {full_title(card)}  {', '.join(card.genres)}".rstrip()
                   for n, card in enumerate(cards, 1))


class Ranker:
  """Lists by one model of a run. It has no state apart from what it has loaded.

  Args:
    run: a trained run.
    variant: which model of phase 2 ranks and speaks.
    scores: scores the catalogue, as `Recommender.scores`; None: this model's recommender, in the
      calling thread.
    encode: texts -> sentence vectors; None: the run's encoder, loaded when the first word is
      guessed.

  Attributes:
    recommender: the model that ranks.
    items, titles: the catalogue.

  Raises:
    UserError: the run ranks by beams alone, or not at all.
  """

  def __init__(self, run: context.Run, variant: variants.Variant,
               scores: Callable | None = None, encode: Callable | None = None):
    self.run, self.variant, self.items = run, variant, run.data.items
    self.recommender = recommender_lib.Recommender(run, variant)
    if self.recommender.by == recommender_lib.BEAMS:
      raise errors.UserError("a conversation ranks the catalogue anew after each turn: it needs an "
                             "item head (phase2.head.weight) or phase 1's loss of users "
                             "(phase1.losses.ui, .cf)")
    self._scores = scores or self.recommender.scores
    self._encode = encode or functools.partial(run.sentence_vectors, tokens=open_words.TOKENS)
    self.titles = titles_lib.Titles(self.items)

  def prepare(self) -> None:
    """Makes the tables that are otherwise made on first use: names, labels, directions of
    attributes."""
    for name in ("genres", "row_of", "unit_I1C", "mean_C", "known", "_plain"):
      getattr(self, name)
    for name in ("rows_of_genre", "twins", "year_I1"):
      getattr(self.items, name)
    _ = self._form.gram_CC

  # Lists.

  def recommend(self, session: s.Session, k: int) -> tuple[Card, ...]:
    """The k best items that fit the session, best first: by the model's scores after the liked
    items, changed by the critiques: raised where labels fit, else moved along directions. () if
    nothing is liked or nothing is left.

    Raises:
      UserError: an item is not in the catalogue, or an attribute has no direction.
    """
    self.check(session)
    if not session.liked:
      return ()
    return self.best(self.scored(session), s.allowed(session, self.items), k)

  def best(self, score_I1: np.ndarray, may_I1: np.ndarray, k: int) -> tuple[Card, ...]:
    """The k items of the highest scores among those that may be recommended, best first, each title
    of a known year once."""
    rows, cards = np.flatnonzero(may_I1), {}
    for row in rows[np.argsort(-score_I1[rows], kind="stable")]:
      if len(cards) == k:
        break
      card = self.card(row, score_I1[row])
      cards.setdefault((card.title, card.year) if card.title and card.year else card.id, card)
    return tuple(cards.values())

  def scored(self, session: s.Session) -> np.ndarray:
    """float64 [I + 1]: the model's scores after the liked items, at least one, changed by
    the critiques."""
    history = np.array([self.row_of[item] for item in session.liked], np.int32)
    unlabelled = dataclasses.replace(session, critiques=tuple(
        each for each in session.critiques if not self.labelled(each.attribute)))
    score_I1 = directions.moved(
        self._scores([history])[0], unlabelled, self.factors, self.ways_of(session), _STEP)
    return attributes_lib.raised(score_I1, session, self.known, self.row_of, _LABEL_STEP)

  def labelled(self, attribute: str) -> bool:
    """Whether items are labelled with an attribute, so that a critique goes by labels."""
    return attribute.casefold() in self.known.names

  def similar(self, item: str, k: int) -> tuple[Card, ...]:
    """The k items nearest to one in the space of iALS; the score is the cosine.

    Raises:
      UserError: it is not in the catalogue, or has no training interaction.
    """
    row = self.row(item)
    if not np.any(self.unit_I1C[row]):
      raise errors.UserError(f"{self.title(row)} has no training interaction, so no similar items "
                             "are known")
    cosine_I1 = self.unit_I1C @ self.unit_I1C[row]
    others = self.met[self.met != row]
    best = others[np.argsort(-cosine_I1[others], kind="stable")][:k]
    return tuple(self.card(near, cosine_I1[near]) for near in best)

  def search(self, text: str, k: int) -> tuple[Card, ...]:
    """k items whose title contains `text`: the item that it names (also with its year), then titles
    that begin with it, then the others, each by popularity. "": the most popular items."""
    text, count_R = text[:_MOST_NAME], self.run.data.log.train_counts
    part, named = titles_lib.plain(text), self.titles.row(text)
    rows = sorted((row for row, name in enumerate(self._plain, 1) if part in name or row == named),
                  key=lambda row: (row != named, not self._plain[row - 1].startswith(part),
                                   -count_R[row]))
    return tuple(self.card(row) for row in rows[:k])

  def user(self, raw: str) -> s.Session:
    """The session of a user of the log, who likes the newest items of the training history.

    Raises:
      UserError: the log has no such user, or the user has no training history.
    """
    log = self.run.data.log
    row = self.describer.row(f"user:{raw.removeprefix('user:')[:_MOST_NAME]}")
    span = log.of_user(log.rows.user_number(row))
    rows = log.item_N[span][log.split.train[span]][-_MOST_LIKES:]
    if not len(rows):
      raise errors.UserError(f"user {raw!r} has no interaction in the training data")
    return s.Session(tuple(s.Opinion(self.items.ids[item_row - 1], s.LIKED) for item_row in rows))

  def vector(self, session: s.Session) -> np.ndarray:
    """float32 [C]: the session's user, folded into the factorisation."""
    self.check(session)
    return s.user_vector(session, self._form, self.items)

  # Names.

  @property
  def attributes(self) -> tuple[str, ...]:
    """Names of the attributes that a critique can name."""
    return tuple(sorted(self.ways, key=lambda name: (name != attributes_lib.NEW, name)))

  def guessed(self, *forms: str) -> str:
    """A new attribute for lower-case words that are no attribute's name; "": no guess is possible.
    Args: forms as `wishes.read` passes them; the first that is a word counts."""
    word = next((form for form in forms[:-1] if self._is_word(form)), forms[-1])
    return "" if self._guesses.of(word) is None else word

  def ways_of(self, session: s.Session) -> dict[str, np.ndarray]:
    """The directions of all attributes, and of the guessed ones in the session's critiques."""
    asked_for = dict.fromkeys(each.attribute.casefold() for each in session.critiques)
    others = [name for name in asked_for if name not in self.ways][:_MOST_GUESSED]
    guesses = {name: self._guesses.of(name) for name in others}
    return {**self.ways, **{name: way_C for name, way_C in guesses.items() if way_C is not None}}

  @functools.cached_property
  def genres(self) -> tuple[str, ...]:
    """The catalogue's genres, sorted."""
    return tuple(sorted({genre for of in self.items.genres for genre in of}))

  def row(self, name: str) -> int:
    """The item row of a raw id, of "item:ID", or of a title with or without its year.

    Raises:
      UserError: there is none, or there are several.
    """
    return self.row_of.get(name) or self.named(name)

  def named(self, name: str) -> int:
    """As `row`, but digits are a title ("300"), not an id."""
    if row := self.titles.row(name[:_MOST_NAME]):
      return row
    row = self.describer.row(name[:_MOST_NAME])
    if self.run.data.log.rows.is_user(row):
      raise errors.UserError(f"{name} is a user, expected an item")
    return row

  def check(self, session: s.Session, where: str = "") -> None:
    """Raises a UserError if the session names an item that is not in the catalogue (the message
    begins with `where`) or an attribute without a direction."""
    for each in session.opinions:
      if each.item not in self.row_of:
        raise errors.UserError(f"{where}item {each.item!r} is not in this catalogue")
    directions.checked(session, self.ways_of(session))

  def title(self, row: int) -> str:
    """ "Heat (1995)" of an item row."""
    return interactions_lib.full_title(self.items, int(row))

  def card(self, row: int, score: float | None = None) -> Card:
    """The card of an item row."""
    items, at = self.items, int(row) - 1
    return Card(items.ids[at], items.titles[at], items.years[at], tuple(items.genres[at]),
                None if score is None else float(score))

  @property
  def row_of(self) -> dict[str, int]:
    """Raw id -> item row."""
    return self.items.row_of

  @functools.cached_property
  def factors(self) -> np.ndarray:
    """float32 [I + 1, C]: the items' factors."""
    return vectors.factors(self.run)[1]

  @functools.cached_property
  def unit_I1C(self) -> np.ndarray:
    """The factors at length 1; zeros stay zeros."""
    return self.factors / np.maximum(np.linalg.norm(self.factors, axis=1, keepdims=True), 1e-9)

  @functools.cached_property
  def _form(self) -> fold_in.Form:
    return fold_in.Form(self.factors, reg=self.run.config.cf.reg, alpha=self.run.config.cf.alpha)

  @functools.cached_property
  def _plain(self) -> list[str]:
    return [titles_lib.plain(title) for title in self.items.titles]

  @functools.cached_property
  def met(self) -> np.ndarray:
    """int64: the rows of items that have factors."""
    return np.flatnonzero(np.any(self.factors != 0, axis=1))

  @functools.cached_property
  def mean_C(self) -> np.ndarray:
    """float32 [C]: the mean of these factors."""
    return self.factors[self.met].mean(axis=0)

  @functools.cached_property
  def ways(self) -> dict[str, np.ndarray]:
    """Attribute -> its direction, see `directions.learn`."""
    return directions.learn(self.factors, self._labels, least=_LEAST, ridge=_RIDGE)

  @functools.cached_property
  def _guesses(self) -> open_words.Guesser:
    text_RW = self.run.entities.vectors["semantic"]
    return open_words.Guesser(self.factors, text_RW[:len(self.factors)], self.ways, self._encode,
                              elm.words(self.run.config.data).thing)

  def _is_word(self, text: str) -> bool:
    """Whether the sentence encoder's vocabulary has it as one token."""
    tokenizer = self.run.text_tokenizer
    return len(tokenizer.encode(text)) == len(tokenizer.encode("a"))

  @functools.cached_property
  def known(self) -> attributes_lib.Leading:
    """The labels of the attributes that have a direction."""
    return attributes_lib.leading({name: self._labels[name] for name in self.ways}, len(self.items))

  @functools.cached_property
  def _labels(self) -> dict[str, attributes_lib.Labels]:
    return {**attributes_lib.of_genres(self.items), **attributes_lib.of_years(self.items)}

  @functools.cached_property
  def describer(self) -> describe.Describer:
    """Finds entities by name, and asks the model about their vectors."""
    return describe.Describer(self.run, self.variant, lambda: self.recommender.speaker)
