"""Conversations about items with a trained run, as functions of a `Session`, without a terminal.

    talker = Talker(context.Run(config, workdir), variants.ILM, k=5)
    reply = talker.reply(session.Session(), "I loved Heat, but no horror, and something newer")
    reply.session, reply.text, reply.cards

Rules read the user's words (`conversation.heard`), the trained model ranks, and templates word the
replies. The language model itself speaks only about an item (`about`) or about a vector between two
(`between`). No text of a user reaches the language model.
"""
import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ilm_jax import elm, errors
from ilm_jax.config import variants
from ilm_jax.conversation import attributes, heard, listed, policy, remarks, wording
from ilm_jax.conversation import session as s
from ilm_jax.stages import context, describe, ranker

_WHY = re.compile(r"why(?: (?:number |no\.? ?)?(\d{1,6}))?\W*$", re.IGNORECASE)
_NOT_THAT = re.compile(r"(no,?\s+)?not (that|this)( one)?\W*$", re.IGNORECASE)
_MOST_NEAR = 3           # unread words for which a title that is spelt alike is looked for
_MOST_NAME = 300         # letters of a listed name that is no item's
_EDITS = {"like": (s.like, "I like {}."), "dislike": (s.dislike, "I do not like {}."),
          "seen": (s.mark_seen, "I have seen {}.")}


class Reply(NamedTuple):
  """What the recommender says, and the session with both turns.

  Attributes:
    act: one of `session.ACTS`.
    text: the words alone, without the cards.
    cards: the recommended items, best first.
    unread: words of the user that were not understood; `text` says so.
    guessed: attributes that were guessed from the user's words; `text` says so.
    notes: the sentences of `text` about unread words, titles spelt almost like them, guesses, and
      critiques of this turn that the labels of no card fit.
  """
  session: s.Session
  act: str
  text: str
  cards: tuple[ranker.Card, ...] = ()
  unread: tuple[str, ...] = ()
  guessed: tuple[str, ...] = ()
  notes: str = ""


def known(session: s.Session) -> s.Session:
  """The session without its turns: sessions that are equal here get the same recommendations."""
  return dataclasses.replace(session, turns=())


class Talker(ranker.Ranker):
  """Answers for one model of a run. It has no state apart from what it has loaded.

  Args:
    run, variant, scores, encode: as in `ranker.Ranker`; the variant also speaks.
    k: items of a list.
    asks: when to ask about an attribute before a list.

  Raises:
    UserError: the run ranks by beams alone, or not at all.
  """

  def __init__(self, run: context.Run, variant: variants.Variant, k: int,
               scores: Callable | None = None, asks: policy.Policy = policy.NEVER,
               encode: Callable | None = None):
    super().__init__(run, variant, scores, encode)
    self.k, self._asks, self.things = k, asks, elm.words(run.config.data).things

  # Turns.

  def reply(self, session: s.Session, text: str, k: int = 0) -> Reply:
    """The answer to what a user says; `k`: items of a list, if it gives one; 0: as the talker's.

    Raises:
      UserError: the text is empty, too long or names an item that is not there.
    """
    if self.shown(session):
      if why := _WHY.match(text.strip()):
        item = self.nth(session, int(why[1] or 1))
        return self._answer(session, text, s.EXPLAIN, self.why(session, item), (item,))
      if _NOT_THAT.match(text.strip()):
        return self._answer(session, text, s.CHAT,
                            "Which of the list? E.g. \"not 1\", or \"I have seen 2\".")
    if remarks.thanks(text):
      return self._answer(session, text, s.CHAT, "You are welcome.")
    after, unread = self._heard(session, text)
    named = after.turns[-1].items
    if len(named) == 1 and session.liked and not unread and known(after) == known(session):
      # A question about an item, or its name alone: there is nothing else to say of it.
      return self._answer(session, text, s.EXPLAIN, self.why(session, named[0]), named)
    asked_for = [each.attribute for each in after.critiques[len(session.critiques):]]
    guessed = tuple(name for name in dict.fromkeys(asked_for) if name not in self.ways)
    return self.proposed(after, unread, guessed, k)

  def proposed(self, session: s.Session, unread: tuple[str, ...] = (),
               guessed: tuple[str, ...] = (), k: int = 0) -> Reply:
    """What the recommender says next by itself: a list (`k`: as in `reply`) or a question, after a
    note about words that were not understood or guessed."""
    self.check(session)
    score_I1 = self.scored(session) if session.liked else None
    may_I1 = s.allowed(session, self.items)
    step = policy.next_step(session, score_I1, may_I1, self.known, self._asks)
    if step.act != s.ASK and score_I1 is not None:      # without scores the act is ASK
      words = remarks.introduction(session) if step.act == s.REFINE else "Try these:"
      return self._turn(session, step.act, words, self.best(score_I1, may_I1, k or self.k), unread,
                        guessed)
    if step.question:
      words = step.question.text
    elif session.liked:
      words = remarks.nothing_left(session)
    else:
      words = "Which do you like? Name a few by title."
    return self._turn(session, s.ASK, words, (), unread, guessed)

  def edited(self, session: s.Session, kind: str, item: str) -> s.Session:
    """The session with a turn of the user that likes, dislikes or has seen an item.

    Args:
      session: before that turn.
      kind: "like", "dislike" or "seen".
      item: a name, as in `row`.
    """
    edit, words = _EDITS[kind]
    row = self.row(item)
    raw = self.items.ids[row - 1]
    said = s.Turn(s.USER, words.format(self.title(row))[:heard.MOST], (raw,))
    return edit(s.add_turn(session, said), raw)

  def replayed(self, turns: Sequence[tuple[str, str]],
               check: Callable[[s.Session], s.Session] = lambda session: session) -> s.Session:
    """The session of a dialog of which only the words are known.

    Args:
      turns: (role, text); a text that `reply` would refuse is skipped.
      check: is given the session after each turn; other errors than a UserError end the reading.
    """
    session = s.Session()
    for role, text in turns:
      try:
        session = check(self._retold(session, role, text))
      except errors.UserError:
        continue
    return session

  def _retold(self, session: s.Session, role: str, text: str) -> s.Session:
    if role == s.USER:
      silent = _WHY.match(text.strip()) or _NOT_THAT.match(text.strip()) or remarks.thanks(text)
      return session if silent else self._heard(session, text)[0]
    items = tuple(map(self._place, listed.places(text)))
    return s.add_turn(session, s.Turn(
        s.RECOMMENDER, text, items, s.RECOMMEND if items else s.CHAT))

  def _place(self, names: list[str]) -> str:
    """The id of the item that one of the names means; if there is none or several, a name that is
    no id, so that the items below it in a list keep their places."""
    if row := next(filter(None, map(self.titles.row, names)), 0):
      return self.items.ids[row - 1]
    name = names[-1][:_MOST_NAME].strip()
    return name if name and name not in self.row_of else f'"{name}"'

  def shown(self, session: s.Session) -> tuple[str, ...]:
    """Ids of the last list that the recommender showed; (): none."""
    return next((turn.items for turn in reversed(session.turns) if turn.role == s.RECOMMENDER
                 and turn.items and turn.act in (s.RECOMMEND, s.REFINE)), ())

  def nth(self, session: s.Session, number: int) -> str:
    """The id of item `number`, from 1, of the last list.

    Raises:
      UserError: the list is not that long.
    """
    shown = self.shown(session)
    if not 1 <= number <= len(shown):
      raise errors.UserError(f"{number}: the last list has {len(shown)} items; to name an item by "
                             "its id, write item:ID")
    return shown[number - 1]

  def _heard(self, session, text):
    shown = self.shown(session)
    if shown and listed.wants_others(text):
      after = s.add_turn(session, s.Turn(s.USER, text.strip()))
      told = {each.item for each in session.opinions}
      for item in shown:
        if item in self.row_of and item not in told:
          after = s.mark_seen(after, item)
      return after, ()
    meant = listed.resolved(policy.meant(session, text), [
        self.title(self.row_of[item]) if item in self.row_of else item[:_MOST_NAME]
        for item in shown])
    after, unread = heard.told(session, meant, items=self.items, titles=self.titles,
                               names=set(self.ways), guess=self.guessed)
    if meant != text:
      said = dataclasses.replace(after.turns[-1], text=text.strip())
      after = dataclasses.replace(after, turns=(*after.turns[:-1], said))
    return after, unread

  def _answer(self, session, text, act, said, items=()) -> Reply:
    """A reply that changes nothing but the turns."""
    session = s.add_turn(session, s.Turn(s.USER, text.strip(), items))
    return Reply(s.add_turn(session, s.Turn(s.RECOMMENDER, said, items, act)), act, said)

  def _turn(self, session, act, words, cards, unread, guessed) -> Reply:
    unmet = self._unmet(session, cards) if cards else ()
    near = [self.title(row) for row in dict.fromkeys(map(self.titles.near, unread[:_MOST_NEAR]))
            if row]
    notes = remarks.notes(unread, near, guessed, unmet, self.things)
    text = "\n".join(filter(None, (notes, words)))
    said = s.Turn(s.RECOMMENDER, "\n".join(filter(None, (text, ranker.listed(cards)))),
                  tuple(card.id for card in cards), act)
    return Reply(s.add_turn(session, said), act, text, tuple(cards), unread, guessed, notes)

  def _unmet(self, session: s.Session, cards) -> tuple[str, ...]:
    rows = [self.row_of[card.id] for card in cards]
    return tuple(wording.asked(each) for each in session.active_critiques
                 if each.turn == len(session.turns) and self.labelled(each.attribute)
                 and not self._fit(session, each)[rows].any())

  def _fit(self, session: s.Session, critique: s.Critique) -> np.ndarray:
    """[I + 1]: above 0 where an item's labels fit one critique of the session."""
    return attributes.fitting(dataclasses.replace(session, critiques=(critique,)), self.known,
                              self.row_of)

  # Explanations.

  def why(self, session: s.Session, item: str) -> str:
    """The reasons for an item, by the numbers that rank it.

    Raises:
      UserError: nothing is liked yet, or the item is not in the catalogue.
    """
    row = self.row(item)
    self.check(session)
    liked = [self.row_of[each] for each in session.liked]
    if not liked:
      raise errors.UserError("nothing is liked yet, so there is no reason for an item: like one "
                             "first")
    alike_L = self.unit_I1C[liked] @ self.unit_I1C[row]
    near = liked[int(np.argmax(alike_L))]
    both = [genre for genre in self.items.genres[row - 1] if genre in self.items.genres[near - 1]]
    said = [f"{self.recommender.method} ranks it. Of what you like, {self.title(near)} is "
            f"nearest to it in the space of iALS (cosine {alike_L.max():.2f})"
            + (f"; both: {', '.join(both)}." if both else ".")]
    ways = self.ways_of(session)
    for each in session.active_critiques:
      name = each.attribute.casefold()
      if self.labelled(name):
        fits = "fit" if self._fit(session, each)[row] else "do not fit"
        said.append(f"You asked for {wording.asked(each)}; its labels {fits}.")
      else:
        apart_C = self.factors[row] - self.mean_C
        said.append(f"You asked for {wording.asked(each)}; it lies {apart_C @ ways[name]:+.1f} "
                    "standard deviations from the mean, by a guess from texts.")
    return "\n".join(said)

  def about(self, item: str) -> str:
    """What the language model says of the item's vector; takes seconds."""
    row = self.row(item)
    said, = self.describer.say([self.describer.vectors(row)])
    return f"From the vector of {self.title(row)} alone: {' '.join(said.split())}"

  def between(self, first: str, second: str, share: float) -> str:
    """What the language model says of the vector at `share` (0..1) of the way from one item to
    another; takes seconds.

    Raises:
      UserError: an item is not in the catalogue, or the two have no kind of vector in common.
    """
    start, end = (self.describer.vectors(self.row(item)) for item in (first, second))
    first_vector, last = describe.between(start, end, 2)
    said, = self.describer.say([{name: (1 - share) * x + share * last[name]
                                 for name, x in first_vector.items()}])
    return " ".join(said.split())
