"""Stage chat: a conversation about items in the terminal, on a run that ranks.

    python -m ilm_jax.main --config=.. --workdir=W --stage=chat [--model=mlp] [--k=5]

What is said is read by stated rules (`conversation.heard`), the trained model ranks, and templates
word the replies; the language model itself speaks where it is asked about an item (/about). What is
known of the user is a `Session`, shown by /state and kept by /save.
"""
import functools
import pathlib
import re
import sys
from typing import NamedTuple

import numpy as np

from ilm_jax import elm, errors, files
from ilm_jax.config import variants
from ilm_jax.conversation import directions, heard
from ilm_jax.conversation import session as s
from ilm_jax.conversation import titles as titles_lib
from ilm_jax.data import interactions as interactions_lib
from ilm_jax.runtime import distributed
from ilm_jax.stages import context, describe, vectors
from ilm_jax.stages import recommender as recommender_lib

# Of attributes, as benchmarks.critiques chose them on validation targets of MovieLens.
_LEAST, _RIDGE, _STEP = 5, 0.1, 0.75
HELP = """Say what you like or dislike: "I loved Heat and Fargo, but hated Casino". Ask: "something
newer", "less romance", "no horror", "only comedies", "from the nineties", "more like Alien".
  /like X, /dislike X, /seen X   of an item, by its title or its number in the last list
  /why N, /about N               why it is there; what the language model makes of its vector
  /state, /undo, /forget X       what is known of you; take back what you said; or one opinion
  /save FILE, /load FILE         the conversation as JSON
  /help, /quit"""

_WHY = re.compile(r"why(?: (?:number |no\.? ?)?(\d{1,6}))?\W*$", re.IGNORECASE)
_NOT_THAT = re.compile(r"(no,?\s+)?not (that|this)( one)?\W*$", re.IGNORECASE)


class Wish(NamedTuple):
  """What the command line asks for."""
  model: str = "ilm"       # key of what ranks, see `variants.named`
  k: int = 5               # items of a list


def run(run: context.Run, wish: Wish) -> None:
  """Reads lines from standard input until /quit or its end, and answers each.

  Raises:
    UserError: the run cannot rank somebody new.
  """
  if (processes := distributed.here().count) > 1:
    raise errors.UserError(f"--stage=chat runs in one process, this job has {processes}")
  chat = Chat(run, variants.named(run.config, wish.model), wish.k)
  print(chat.greeting(), flush=True)
  prompt = "> " if sys.stdin.isatty() else ""
  while not chat.over:
    try:
      line = input(prompt)
    except EOFError:
      return
    if line.strip():
      print(chat.answer(line.strip()), flush=True)


def _asked(critique: s.Critique) -> str:
  """ "less romance", "newer"."""
  more = critique.steps > 0
  if critique.attribute == directions.NEW:
    return "newer" if more else "older"
  return f"{'more' if more else 'less'} {critique.attribute}"


class Chat:
  """One conversation.

  Args:
    run: a trained run.
    variant: which model of phase 2 ranks and speaks.
    k: items of a list.

  Attributes:
    session: what is known of the user.
    shown: item rows of the last list.
    over: whether the user has said goodbye.

  Raises:
    UserError: the run ranks by beams alone, or not at all.
  """

  def __init__(self, run: context.Run, variant: variants.Variant, k: int):
    self.run, self.k, self._variant = run, k, variant
    self.session, self.shown, self.over = s.Session(), [], False
    self._earlier: list[s.Session] = []       # as it was before each line that changed it
    self._recommender = recommender_lib.Recommender(run, variant)
    if self._recommender.by == recommender_lib.BEAMS:
      raise errors.UserError("--stage=chat ranks the catalogue anew after each turn: it needs an "
                             "item head (phase2.head.weight) or phase 1's loss of users "
                             "(phase1.losses.ui, .cf)")
    self._items = run.data.items
    self._titles = titles_lib.Titles(self._items)

  def greeting(self) -> str:
    """How a conversation begins."""
    things = elm.words(self.run.config.data).things
    return (f"{len(self._items):,} {things}, ranked by {self._recommender.method}. Which do you "
            "like? Name a few; /help says what else.")

  def answer(self, line: str) -> str:
    """The reply to a line; a mistake of the user's is one line, and changes nothing."""
    before = self.session
    try:
      if line.startswith("/"):
        return self._command(*line[1:].split(maxsplit=1))
      if self.shown and (why := _WHY.match(line)):
        return self._why(why[1] or "1")
      if self.shown and _NOT_THAT.match(line):
        return "Which of the list? E.g. /dislike 1, or /seen 2."
      self.session, unread = heard.told(
          self.session, line, items=self._items, titles=self._titles, names=set(self._ways))
      return self._recommended(unread)
    except errors.UserError as e:
      return str(e)
    except (OSError, UnicodeError) as e:
      return f"{line}: {e}"
    finally:
      if self.session != before and not line.startswith("/undo"):
        self._earlier.append(before)

  # Commands.

  def _command(self, name: str = "", argument: str = "") -> str:
    opinions = {"like": s.like, "dislike": s.dislike, "seen": s.mark_seen}
    commands = {
        **{kind: functools.partial(self._opinion, kind=kind, edit=edit)
           for kind, edit in opinions.items()},
        "forget": self._forget, "why": self._why, "about": self._about, "undo": self._undo,
        "state": self._state, "save": self._save, "load": self._load,
        "help": lambda _: HELP, "quit": self._quit}
    if name not in commands:
      raise errors.UserError(f"/{name} is no command, expected one of "
                             f"{', '.join('/' + each for each in commands)}")
    return commands[name](argument)

  def _opinion(self, argument: str, kind: str, edit) -> str:
    row = self._row(argument)
    said = s.Turn(s.USER, f"/{kind} {self._title(row)}", (self._items.ids[row - 1],))
    self.session = edit(s.add_turn(self.session, said), self._items.ids[row - 1])
    return self._recommended()

  def _forget(self, argument: str) -> str:
    self.session = s.forget(self.session, self._items.ids[self._row(argument) - 1])
    return self._recommended()

  def _undo(self, _) -> str:
    self.session = self._earlier.pop() if self._earlier else s.Session()
    return self._recommended()

  def _state(self, _) -> str:
    now = self.session.constraint
    years = " ".join(f"{word} {year}" for word, year in zip(("from", "to"), now.years) if year)
    parts = {**{kind: "; ".join(self._title(self._row_of[item]) for item in items)
                for kind, items in (("likes", self.session.liked), ("seen", self.session.seen),
                                    ("dislikes", self.session.disliked))},
             "only": ", ".join(now.genres), "without": ", ".join(now.without),
             "years": years,
             "asked for": ", ".join(map(_asked, self.session.critiques))}
    return "\n".join(f"{name}: {said}" for name, said in parts.items() if said) or (
        "Nothing is known of you yet.")

  def _save(self, argument: str) -> str:
    if not argument:
      raise errors.UserError("/save needs a file, e.g. /save talk.json")
    files.write_text(argument, s.to_json(self.session))
    return f"saved in {argument}"

  def _load(self, argument: str) -> str:
    path = pathlib.Path(argument)
    if not path.is_file():
      raise errors.UserError(f"/load {argument}: no such file")
    session = s.from_json(path.read_bytes(), argument)
    if unknown := [each.item for each in session.opinions if each.item not in self._row_of]:
      raise errors.UserError(f"{argument}: item {unknown[0]!r} is not in this catalogue")
    directions.checked(session, self._ways)
    self.session, self.shown = session, []
    return self._recommended()

  def _quit(self, _) -> str:
    self.over = True
    return "Goodbye."

  def _why(self, argument: str) -> str:
    row = self._row(argument)
    liked = [self._row_of[item] for item in self.session.liked]
    if not liked:
      raise errors.UserError("nothing is liked yet, so nothing speaks for it")
    unit_IC = self._factors / np.maximum(
        np.linalg.norm(self._factors, axis=1, keepdims=True), 1e-9)
    alike_L = unit_IC[liked] @ unit_IC[row]
    near = liked[int(np.argmax(alike_L))]
    both = [genre for genre in self._items.genres[row - 1] if genre in self._items.genres[near - 1]]
    said = [f"{self._recommender.method} ranks it. Of what you like, {self._title(near)} is "
            f"nearest to it in the space of iALS (cosine {alike_L.max():.2f})"
            + (f"; both: {', '.join(both)}." if both else ".")]
    apart_C = self._factors[row] - self._factors[np.any(self._factors != 0, axis=1)].mean(axis=0)
    said += [f"You asked for {_asked(c)}; it lies "
             f"{apart_C @ self._ways[c.attribute.casefold()]:+.1f} standard deviations from the "
             "mean."
             for c in self.session.critiques]
    return "\n".join(said)

  def _about(self, argument: str) -> str:
    row = self._row(argument)
    said, = self._describer.say([self._describer.vectors(row)])
    return f"From the vector of {self._title(row)} alone: {' '.join(said.split())}"

  # What is recommended.

  def _recommended(self, unread: tuple[str, ...] = ()) -> str:
    if not self.session.liked:
      return self._told(s.ASK, "Which do you like? Name a few by title.", unread)
    rows = self.ranked()[:self.k]
    if not len(rows):
      return self._told(s.ASK, "Nothing is left that fits: /state shows what you asked for, /undo "
                        "takes the last back.", unread)
    self.shown = rows.tolist()
    cards = [f"{n}. {self._title(row)}  {', '.join(self._items.genres[row - 1])}".rstrip()
             for n, row in enumerate(self.shown, 1)]
    act = s.REFINE if self.session.critiques or self.session.constraints else s.RECOMMEND
    return self._told(act, "\n".join(cards), unread, self.shown)

  def _told(self, act: str, text: str, unread, rows=()) -> str:
    if unread:
      text = f"I do not know what {', '.join(map(repr, unread))} means here.\n{text}"
    self.session = s.add_turn(self.session, s.Turn(
        s.RECOMMENDER, text, tuple(self._items.ids[row - 1] for row in rows), act))
    return text

  def ranked(self) -> np.ndarray:
    """Item rows that may be recommended, best first: by the model's scores after the liked items,
    moved along what was asked for."""
    history = np.array([self._row_of[item] for item in self.session.liked], np.int32)
    score_I = directions.moved(self._recommender.scores([history])[0], self.session, self._factors,
                               self._ways, _STEP)
    rows = np.flatnonzero(s.allowed(self.session, self._items))
    return rows[np.argsort(-score_I[rows], kind="stable")]

  def _row(self, argument: str) -> int:
    if re.fullmatch("[0-9]{1,6}", argument):
      if not 1 <= int(argument) <= len(self.shown):
        raise errors.UserError(f"{argument}: the last list has {len(self.shown)} items; an item by "
                               "its id is item:ID")
      return self.shown[int(argument) - 1]
    row = self._titles.row(argument) or self._describer.row(argument)
    if self.run.data.log.rows.is_user(row):
      raise errors.UserError(f"{argument} is a user, expected an item")
    return row

  def _title(self, row: int) -> str:
    return interactions_lib.full_title(self._items, int(row))

  @functools.cached_property
  def _row_of(self) -> dict[str, int]:
    return {raw: row for row, raw in enumerate(self._items.ids, 1)}

  @functools.cached_property
  def _factors(self) -> np.ndarray:
    return vectors.factors(self.run)[1]

  @functools.cached_property
  def _ways(self) -> dict[str, np.ndarray]:
    labels = {**directions.of_genres(self._items), **directions.of_years(self._items)}
    return directions.learn(self._factors, labels, least=_LEAST, ridge=_RIDGE)

  @functools.cached_property
  def _describer(self) -> describe.Describer:
    return describe.Describer(self.run, self._variant)
