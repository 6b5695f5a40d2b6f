"""Stage chat: a conversation about items in the terminal, on a run that ranks.

    python -m ilm_jax.main --config=.. --workdir=W --stage=chat [--model=mlp] [--k=5]

Rules read the user's words (`conversation.heard`), the trained model ranks, and templates word the
replies; the language model itself speaks only for /about. What is known of the user is a `Session`:
/state shows it, /save stores it.
"""
import functools
import pathlib
import re
import sys
from collections.abc import Callable
from typing import NamedTuple

from ilm_jax import errors, files
from ilm_jax.config import variants
from ilm_jax.conversation import limits, policy, remarks, wording
from ilm_jax.conversation import session as s
from ilm_jax.stages import context, ranker, talker

HELP = """Say what you like or dislike: "I loved Heat and Fargo, but hated Casino". Ask: "something
newer", "less romance", "no horror", "only comedies", "from the nineties", "more like Alien".
  /like X, /dislike X, /seen X   an item, by its title or its number in the last list
  /why N, /about N               why it is in the list; what the language model says of its vector
  /state, /undo, /forget X       show what is known of you; undo the last change; forget an opinion
  /save FILE, /load FILE, /new   the conversation as JSON; begin another one
  /help, /quit
Of the last list: "I have seen 1 and 3", "more like 2", "none of these", "why 2?"."""
_FAREWELL = re.compile(r"(?:(?:ok(?:ay)?|thanks|thank you|see you)[,.! ]*)*"
                       r"(?:quit|exit|(?:good ?)?bye(?:[ -]bye)?)(?: then)?[.! ]*", re.IGNORECASE)


class Wish(NamedTuple):
  """What the command line asks for."""
  model: str = "ilm"       # key of the model that ranks, see `variants.named`
  k: int = 5               # items of a list
  questions: int = 0       # questions about genres and years before the first list


def run(run: context.Run, wish: Wish) -> None:
  """Reads lines from standard input until /quit or its end, and answers each.

  Raises:
    UserError: the run cannot rank for a new user.
  """
  if wish.questions < 0:
    raise errors.UserError(f"--questions={wish.questions}: expected 0 or more")
  chat = Chat(run, variants.named(run.config, wish.model), wish.k, wish.questions)
  print(chat.greeting(), flush=True)
  prompt = "> " if sys.stdin.isatty() else ""
  while not chat.over:
    try:
      line = input(prompt)
    except EOFError:
      return
    if line.strip():
      print(errors.plain(chat.answer(line.strip())), flush=True)


class Chat:
  """One conversation.

  Args:
    run: a trained run.
    variant: which model of phase 2 ranks and speaks.
    k: items of a list.
    questions: how many questions about attributes come before the first list.

  Attributes:
    session: what is known of the user.
    over: whether the user has said goodbye.

  Raises:
    UserError: the run ranks by beams alone, or not at all.
  """

  def __init__(self, run: context.Run, variant: variants.Variant, k: int,
               questions: int = 0):
    self.session, self.over = s.Session(), False
    self._talker = talker.Talker(
        run, variant, k, asks=policy.Policy(questions=questions))
    self._earlier: list[s.Session] = []       # the session before each line that changed it

  def greeting(self) -> str:
    """The first line of a conversation."""
    return (f"{len(self._talker.items):,} {self._talker.things}, ranked by "
            f"{self._talker.recommender.method}. Which do you like? Name a few; /help says what "
            "else.")

  def answer(self, line: str) -> str:
    """The reply to a line; a mistake in it gives one line and changes nothing."""
    before = self.session
    try:
      if _FAREWELL.fullmatch(line):
        return self._quit(line)
      if line.startswith("/"):
        return self._command(*line[1:].split(maxsplit=1))
      return self._said(self._talker.reply(self.session, line))
    except errors.UserError as e:
      return str(e)
    except (OSError, UnicodeError) as e:
      return f"{line}: {e}"
    finally:
      if talker.known(self.session) != talker.known(before) and not line.startswith("/undo"):
        self._earlier.append(before)

  def _said(self, reply: talker.Reply) -> str:
    """Keeps the session of a reply and returns its list with the notes, or else its words."""
    self.session = reply.session
    noted = remarks.noted(reply.session, lambda item: self._talker.title(
        self._talker.row_of[item]))
    if not reply.cards:
      return "\n".join(filter(None, (noted, reply.text)))
    return "\n".join(filter(None, (reply.notes, noted, ranker.listed(reply.cards))))

  # Commands.

  def _command(self, name: str = "", argument: str = "") -> str:
    commands: dict[str, Callable[[str], str]] = {
        **{kind: functools.partial(self._opinion, kind=kind)
           for kind in ("like", "dislike", "seen")},
        "forget": self._forget, "why": self._why, "about": self._about, "undo": self._undo,
        "state": self._state, "save": self._save, "load": self._load,
        "new": self._new, "help": lambda _: HELP, "quit": self._quit}
    if name in commands:
      return commands[name](argument)
    if name:                         # "/darker" is "darker"
      reply = self._talker.reply(self.session, f"{name} {argument}".strip())
      if not reply.unread and talker.known(reply.session) != talker.known(self.session):
        return self._said(reply)
    raise errors.UserError(f"/{name} is no command, expected one of "
                           f"{', '.join('/' + each for each in commands)}, or a wish: /newer")

  def _continued(self, session: s.Session) -> str:
    return self._said(self._talker.proposed(session))

  def _opinion(self, argument: str, kind: str) -> str:
    return self._continued(self._talker.edited(self.session, kind, self._item(argument)))

  def _forget(self, argument: str) -> str:
    return self._continued(s.forget(self.session, self._item(argument)))

  def _undo(self, _) -> str:
    return self._continued(self._earlier.pop() if self._earlier else s.Session())

  def _new(self, _) -> str:
    self.session = s.Session()
    return self.greeting()

  def _state(self, _) -> str:
    talk = self._talker
    parts = {**{kind: "; ".join(talk.title(talk.row_of[item]) for item in items)
                for kind, items in (("likes", self.session.liked), ("seen", self.session.seen),
                                    ("dislikes", self.session.disliked))},
             "limits": ", ".join(limits.words(self.session.constraint)),
             "asked for": ", ".join(map(wording.asked, self.session.active_critiques))}
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
    self._talker.check(session, f"{argument}: ")
    return self._continued(session)

  def _quit(self, _) -> str:
    self.over = True
    return "Goodbye."

  def _why(self, argument: str) -> str:
    return self._talker.why(self.session, self._item(argument or "1"))

  def _about(self, argument: str) -> str:
    return self._talker.about(self._item(argument or "1"))

  def _item(self, argument: str) -> str:
    """The raw id of an item named by its number in the last list, its title or item:ID."""
    if not argument:
      raise errors.UserError("which item? Name it by its title, or by its number in the last list")
    if not re.fullmatch("[0-9]{1,6}", argument):
      return self._talker.items.ids[self._talker.named(argument) - 1]
    return self._talker.nth(self.session, int(argument))
