"""Dialogs made from a log: each leads to an item that a user liked later in the training part.

    maker = Maker(log, items, fold_in.Form(item_I1C, reg, alpha), Setting())
    for line in maker.lines(users, seed=0, count=1000): ...      # dicts, as `dialogs` reads them

The user names a few of the items liked before. The factorisation, with the critiques so far, picks
the items to show. The labels and directions of attributes decide whether the user takes an item,
says how it differs from the target, or rejects it; now and then one side asks a question. The last
item shown is the target. The words are templates (wordings.json); `rewording` replaces them.

Validation and test interactions are not read. Their items may be shown and rejected like all
others: to leave them out would reveal them.
"""
import collections
import dataclasses
import json
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ilm_jax.cf import fold_in
from ilm_jax.conversation import attributes, directions, policy, wording
from ilm_jax.conversation import session as s
from ilm_jax.conversation import titles as titles_lib
from ilm_jax.data import interactions as interactions_lib

_LEAST, _RIDGE, _STEP = 5, 0.1, 0.75      # for attributes, as benchmarks.critiques chose them
_MOST_TOLD = 4                            # items named at the beginning, at most
_FIRST = 5                                # the item to show is drawn from so many best ones
_TRIES = 4                                # dialogs begun for each wanted one, at most
_WHY = 0.15                               # how often the user asks why


class Setting(NamedTuple):
  """What dialogs look like.

  Attributes:
    turns: most turns of the recommender, without explanations.
    thing: the word for an item.
    asks: when the recommender asks a question.
  """
  turns: int = 5
  thing: str = "item"
  asks: policy.Policy = policy.Policy(questions=1, hard=False)


class Dropped(Exception):
  """The dialog cannot be used; the message says why."""


class _Wanted(NamedTuple):
  """The user's last wish: more of an attribute than `than`, or less (sign -1)."""
  name: str
  sign: int
  than: float


@dataclasses.dataclass
class _Talk:
  """A dialog that is being made."""
  session: s.Session
  history: np.ndarray
  target: int
  shown: list[int] = dataclasses.field(default_factory=list)
  wanted: _Wanted | None = None


class Maker:
  """Makes dialogs of one log.

  Args:
    log: only its training part is read.
    items: the catalogue.
    form: of the factorisation of the training part.
    setting: what dialogs look like.

  Attributes:
    dropped: why dialogs were left out -> how many.
  """

  def __init__(self, log: interactions_lib.Interactions, items: interactions_lib.Items,
               form: fold_in.Form, setting: Setting):
    self._log, self._items, self._form, self._setting = log, items, form, setting
    self._wordings = json.loads(wording.TEMPLATES.read_text())
    self._titles = titles_lib.Titles(items)
    self._item_I1C = np.asarray(form.item_I1C, np.float32)
    self._met_I1 = np.any(self._item_I1C != 0, axis=1)
    labels = _in_order({**attributes.of_genres(items), **attributes.of_years(items)})
    self._ways = directions.learn(form.item_I1C, labels, least=_LEAST, ridge=_RIDGE)
    self._known = attributes.leading({name: labels[name] for name in self._ways}, len(items))
    train_N = log.split.train
    self._like_from = float(np.median(log.value_N[train_N])) if train_N.any() else 0.0
    self.dropped: collections.Counter = collections.Counter()

  def lines(self, users, seed: int, count: int, name: str = "dialog") -> Iterator[dict]:
    """At most `count` dialogs of `users`, who take turns in a drawn order, repeatedly.

    Fewer if most are dropped. Each depends only on the seed, its place and its user.
    """
    made = 0
    for number in range(_TRIES * count if len(users) else 0):
      if made == count:
        return
      again, at = divmod(number, len(users))
      if not at:
        order = np.random.default_rng((seed, again)).permutation(np.asarray(users))
      try:
        line = self.dialog(int(order[at]), np.random.default_rng((seed, again, at)))
      except Dropped as why:
        self.dropped[str(why)] += 1
        continue
      made += 1
      yield {"id": f"{name} {made}", **line}

  def dialog(self, user: int, rng: np.random.Generator) -> dict:
    """A dialog of a user as a line of JSON: user, target, history, profile, opinions, critiques and
    turns.

    Raises:
      Dropped: the user has no later like, or the dialog has a flaw, see `wording.flaw`.
    """
    talk = self._opened(user, rng)
    for left in reversed(range(self._setting.turns)):
      if self._round(talk, rng, last=not left):
        break
    if why := wording.flaw(
        talk.session.turns, talk.target, self._items, self._items.row_of, self._titles):
      raise Dropped(why)
    said = dataclasses.asdict(talk.session)
    return {"user": self._log.user_ids[user], "target": self._items.ids[talk.target - 1],
            "history": [self._items.ids[row - 1] for row in talk.history],
            "profile": wording.profile(talk.session, self._items, self._items.row_of),
            "opinions": said["opinions"], "critiques": said["critiques"], "turns": said["turns"]}

  # The turns of a dialog.

  def _opened(self, user: int, rng) -> _Talk:
    """Draws a target; the user names items liked before it."""
    span = self._log.of_user(user)
    train_T = self._log.split.train[span]
    rows, like = self._log.item_N[span][train_T], (
        self._log.value_N[span][train_T] >= self._like_from)
    first = {int(row): at for at, row in reversed(list(enumerate(rows)))}
    later = [at for at in np.flatnonzero(like)
             if first[int(rows[at])] == at and like[:at].any()]
    if not later:
      raise Dropped("no later like")
    at = int(rng.choice(later))
    before = list(dict.fromkeys(rows[:at][like[:at]].tolist()))
    told = before[-int(rng.integers(1, _MOST_TOLD + 1)):]
    talk = _Talk(s.Session(), rows[:at], int(rows[at]))
    self._says(talk, rng, s.USER, s.TELL, "tell", told)
    for row in told:
      talk.session = s.like(talk.session, self._items.ids[row - 1])
    return talk

  def _round(self, talk: _Talk, rng, last: bool) -> bool:
    """A turn of the recommender and one of the user; whether the user takes the item."""
    score_I1, may_I1 = self._scores(talk)
    if not (last or may_I1.any()):
      last = True
    if not last:
      step = policy.next_step(talk.session, score_I1, may_I1, self._known, self._setting.asks)
      if step.question and rng.random() < 0.5:
        self._questioned(talk, step.question, rng)
        return False
    shown = talk.target if last else self._drawn(score_I1, may_I1, rng)
    self._shows(talk, shown, rng)
    if rng.random() < _WHY:
      self._explained(talk, shown, rng)
    return self._reacts(talk, shown, rng)

  def _scores(self, talk: _Talk) -> tuple[np.ndarray, np.ndarray]:
    user_C = self._form.users([[self._items.row_of[raw] for raw in talk.session.liked]])[0]
    score_I1 = self._item_I1C @ user_C
    score_I1 /= max(float(score_I1[self._met_I1].std()), 1e-9)
    may_I1 = self._met_I1.copy()
    may_I1[[*talk.history, *talk.shown]] = False
    return directions.moved(score_I1, talk.session, self._item_I1C, self._ways, _STEP), may_I1

  def _drawn(self, score_I1, may_I1, rng) -> int:
    rows = np.flatnonzero(may_I1)
    return int(rng.choice(rows[np.argsort(-score_I1[rows], kind="stable")[:_FIRST]]))

  def _questioned(self, talk: _Talk, question: policy.Question, rng) -> None:
    self._says(talk, rng, s.RECOMMENDER, s.ASK, "ask", question=question.text)
    than = 0.5 if question.year is None else question.year
    value = self._known.label(question.name, talk.target)
    if np.isnan(value):
      self._says(talk, rng, s.USER, s.ANSWER, "either")
    else:
      self._wants(talk, s.ANSWER, _Wanted(question.name, 1 if value >= than else -1, than), rng)

  def _shows(self, talk: _Talk, row: int, rng) -> None:
    act, way, facts = s.RECOMMEND, "recommend", {}
    if wanted := talk.wanted:
      act, facts = s.REFINE, {"attribute": wanted.name}
      if (self._known.label(wanted.name, row) - wanted.than) * wanted.sign > 0:  # it fulfils it
        way = f"refine_{wording.side(wanted.name, wanted.sign)}"
    self._says(talk, rng, s.RECOMMENDER, act, way, [row], **facts)
    talk.shown.append(row)
    talk.wanted = None

  def _explained(self, talk: _Talk, shown: int, rng) -> None:
    self._says(talk, rng, s.USER, s.WHY, "why")
    liked = [self._items.row_of[raw] for raw in talk.session.liked]
    near = max(liked, key=lambda row: self._alike(row, shown))
    both = [genre for genre in self._items.genres[shown - 1]
            if genre in self._items.genres[near - 1]]
    self._says(talk, rng, s.RECOMMENDER, s.EXPLAIN, "explain_both" if both else "explain",
               [near, shown], genres=" and ".join(both).casefold())

  def _reacts(self, talk: _Talk, shown: int, rng) -> bool:
    """Whether the user takes the item shown; if not, says how it differs, or rejects it."""
    if shown == talk.target:
      self._says(talk, rng, s.USER, s.ACCEPT, "accept")
      return True
    apart_C = self._item_I1C[talk.target] - self._item_I1C[shown]
    over = {each.attribute for each in talk.session.critiques}
    words = [(float(apart_C @ self._ways[name]) * sign, name, sign)
             for name, sign in self._known.critiques(shown, talk.target) if name not in over]
    gain, name, sign = max(words, default=(0.0, "", 0))
    if gain > 0 and self._alike(shown, talk.target) > 0:
      self._wants(talk, s.CRITIQUE, _Wanted(name, sign, self._known.label(name, shown)), rng)
    else:
      self._says(talk, rng, s.USER, s.REJECT, "reject")
      talk.session = s.dislike(talk.session, self._items.ids[shown - 1])
    return False

  def _alike(self, one: int, other: int) -> float:
    """Cosine of two items."""
    pair_2C = self._item_I1C[[one, other]]
    length_2 = np.maximum(np.linalg.norm(pair_2C, axis=1), 1e-9)
    return float(pair_2C[0] @ pair_2C[1] / (length_2[0] * length_2[1]))

  def _wants(self, talk: _Talk, act: str, wanted: _Wanted, rng) -> None:
    self._says(talk, rng, s.USER, act, wording.side(wanted.name, wanted.sign),
               attribute=wanted.name)
    talk.session = s.critique(talk.session, wanted.name, wanted.sign)
    talk.wanted = wanted

  def _says(self, talk: _Talk, rng, role: str, act: str, way: str, rows=(), **facts) -> None:
    names = [interactions_lib.full_title(self._items, row) for row in rows]
    facts |= {"items": wording.listed(names), "thing": self._setting.thing}
    if act == s.EXPLAIN:
      facts |= dict(zip(("liked", "shown"), names))
    templates = self._wordings[way]
    text = templates[int(rng.integers(len(templates)))].format(**facts)
    talk.session = s.add_turn(talk.session, s.Turn(
        role, text, tuple(self._items.ids[row - 1] for row in rows), act))


def _in_order(labels: dict[str, attributes.Labels]) -> dict[str, attributes.Labels]:
  """The year, then genres, the most common first: the draws of a dialog depend on the order."""
  return dict(sorted(labels.items(), key=lambda each: (
      each[0] != attributes.NEW, -(each[1].value_N > 0).sum(), each[0])))
