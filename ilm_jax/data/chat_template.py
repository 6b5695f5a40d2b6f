"""Chat templates: a conversation as the token ids that a language model was tuned on.

    chat = chat_template.load("auto", folder, tokenizer)
    encoded = chat.encode("You recommend films.", [Said("user", "Hello"), Said("assistant", "Hi")])

The template comes from the model's tokenizer files or is one of `chat_files.BUILT_IN`. It is
rendered with marks in place of the texts, once for each prefix of the conversation. Each rendering
must begin with the one before, so that the tokens of every reply are known. Only the template
writes control tokens: a control token spelled in a message is encoded as plain letters.
"""
import dataclasses
import functools
import hashlib
import itertools
import re
from typing import NamedTuple

from etils import epath

from ilm_jax import errors, files
from ilm_jax.data import chat_files
from ilm_jax.data.tokenizer import Tokenizer

NAMES = ("auto", *chat_files.BUILT_IN)
USER, ASSISTANT, SYSTEM = "user", "assistant", "system"
_MARK = "\ue000{}\ue001"         # private use characters: they mean nothing to templates
_MARKED = re.compile("\ue000(\\d+)\ue001")


class Said(NamedTuple):
  """A turn of one side. `behind` follows the token that ends a reply, e.g. slots."""
  role: str
  text: str
  behind: str = ""


class Encoded(NamedTuple):
  """Token ids, and for each reply (start, stop): its ids are ids[start:stop]."""
  ids: list[int]
  replies: list[tuple[int, int]]


def load(name: str, path, tokenizer: Tokenizer) -> "Chat":
  """The chat template that `lm.chat_template` names.

  Args:
    name: "auto": the tokenizer's own template, or plain text if it has none; one of
      `chat_files.BUILT_IN`; or the path of a file with a Jinja template.
    path: the path of the tokenizer, as for `tokenizer_files.load`.
    tokenizer: encodes the texts.

  Raises:
    UserError: the file does not exist, the tokenizer lacks a control token, or the template cannot
      be compiled.
  """
  own, names = chat_files.of_tokenizer(path, tokenizer)
  if name == "auto":
    plain = chat_files.BUILT_IN["none"], "none"
    source, label = (own, f"the chat template of {path}") if own else plain
  elif name in chat_files.BUILT_IN:
    source, label = chat_files.BUILT_IN[name], name
    lacking = [token for token in chat_files.NEEDS[name] if tokenizer.control(token) is None]
    if lacking:
      raise errors.UserError(
          f"lm.chat_template={name!r}: the tokenizer of {path} lacks {', '.join(lacking)}; give "
          "'none', or the template that the model was tuned with")
  else:
    file = epath.Path(name)
    if not file.is_file():
      raise errors.UserError(f"lm.chat_template={name!r} is neither a file nor one of "
                             f"{', '.join(NAMES)}")
    source, label = files.text(file), name
  return Chat(source, tokenizer, label=label, names=names)


class Chat:
  """A template with a tokenizer.

  Attributes:
    fingerprint: sha256 of the template.
    label: its name in messages.
  """

  def __init__(self, source: str, tokenizer: Tokenizer, *, label: str = "the chat template",
               names: dict[str, str | None] | None = None):
    """Compiles `source`; `names` has the values of bos_token and eos_token, if files give them."""
    self.fingerprint = hashlib.sha256(source.encode()).hexdigest()
    self.label, self._tokenizer = label, tokenizer
    bos = tokenizer.spelled(tokenizer.before[0]) if tokenizer.before else ""
    self._names = {"bos_token": bos, "eos_token": tokenizer.spelled(tokenizer.eos_id)} | {
        key: value for key, value in (names or {}).items() if value}
    self._template = chat_files.compiled(source, label)
    self._layouts: dict[tuple[str, ...], _Layout] = {}

  def encode(self, opening: str, turns: list[Said]) -> Encoded:
    """The ids of a conversation; after a last turn of the user, also the ids that begin a reply.

    Ids that the tokenizer puts before every prompt are left out; the code that makes prompts adds
    them.

    Args:
      opening: the system message; if the template has none, it goes in front of the user's first
        turn. "": no opening.
      turns: at least one, of `USER` or `ASSISTANT`. Consecutive turns of one side become one.

    Raises:
      UserError: the template fails, or its text does not grow turn by turn.
    """
    turns = _joined(turns)
    messages = [Said(SYSTEM, opening), *turns] if opening else turns
    try:
      layout = self._layout(tuple(m.role for m in messages))
    except errors.UserError:
      messages = _without_system(opening, turns)
      layout = self._layout(tuple(m.role for m in messages))
    return self._filled(layout, messages)

  def _filled(self, layout: "_Layout", messages: list[Said]) -> Encoded:
    ids, replies = [], []
    for piece in layout.pieces:
      if isinstance(piece, str):
        ids += self._template_ids(piece)
        continue
      said, start = messages[piece.number], len(ids)
      ids += [*self._template_ids(piece.before), *self._tokenizer.encode(said.text)]
      if piece.reply:
        tail = self._template_ids(piece.after)
        end = next((n for n, i in enumerate(tail, 1) if i in self._closing), 0)
        if not end:
          raise errors.UserError(f"{self.label} ends a reply with {piece.after!r}, expected a "
                                 "control token of the tokenizer, such as <|im_end|>")
        replies.append((start, len(ids) + end))
        ids += [*tail[:end], *self._tokenizer.encode(said.behind), *tail[end:]]
    before = list(self._tokenizer.before)
    if before and ids[:len(before)] == before:
      ids = ids[len(before):]
      replies = [(start - len(before), stop - len(before)) for start, stop in replies]
    return Encoded(ids, replies)

  @functools.cached_property
  def _closing(self) -> set[int]:
    return set(self._tokenizer.controls.values()) | set(self._tokenizer.ends)

  def _template_ids(self, text: str) -> list[int]:
    """Ids of text that the template wrote: names of control tokens become those tokens."""
    ids = []
    for piece in filter(None, self._split.split(text)):
      control = self._tokenizer.controls.get(piece)
      ids += self._tokenizer.encode(piece) if control is None else [control]
    return ids

  @functools.cached_property
  def _split(self) -> re.Pattern:
    longest_first = sorted(self._tokenizer.controls, key=len, reverse=True)
    return re.compile("(" + "|".join(map(re.escape, longest_first)) + ")" if longest_first
                      else r"(\Z)")

  # The layout: places of the messages in the text of the template.

  def _layout(self, roles: tuple[str, ...]) -> "_Layout":
    """The layout of messages of these roles."""
    if roles not in self._layouts:
      self._layouts[roles] = self._laid_out(roles)
    return self._layouts[roles]

  def _laid_out(self, roles: tuple[str, ...]) -> "_Layout":
    ends, grown = [], ""               # ends of the prompt before each reply, and of the reply
    for n, role in enumerate(roles):
      if role == ASSISTANT:
        for count, ask in ((n, True), (n + 1, False)):
          grown = self._grown(grown, roles[:count], ask)
          ends.append(len(grown))
    if roles[-1] != ASSISTANT:
      grown = self._grown(grown, roles, True)
    cuts = [0, *ends, len(grown)]
    parts = [_MARKED.findall(grown[a:b]) for a, b in itertools.pairwise(cuts)]
    marks = list(itertools.chain(*parts))
    spoken = [str(n) for n, role in enumerate(roles) if role != SYSTEM]
    if len(marks) != len(roles) or set(marks) != set(map(str, range(len(roles)))) or (
        [n for n in marks if n in spoken] != spoken):
      raise errors.UserError(f"{self.label} does not write each message once, in order: found the "
                             f"messages {errors.shown(marks)} of {len(roles)}; give another by "
                             "--config.lm.chat_template")
    if parts[1::2] != [[str(n)] for n, role in enumerate(roles) if role == ASSISTANT]:
      raise errors.UserError(f"{self.label} writes a reply elsewhere than behind its prompt; give "
                             "another by --config.lm.chat_template")
    return _Layout.of(grown, roles, list(zip(ends[::2], ends[1::2])))

  def _grown(self, before: str, roles: tuple[str, ...], ask: bool) -> str:
    text = self._render(roles, ask) if roles or ask else ""
    if not text.startswith(before):
      raise errors.UserError(
          f"{self.label} writes earlier turns differently when a turn is added, so the tokens of a "
          "reply are not known; give another by --config.lm.chat_template")
    return text

  def _render(self, roles: tuple[str, ...], ask: bool) -> str:
    messages = [{"role": role, "content": _MARK.format(n)} for n, role in enumerate(roles)]
    try:
      return self._template.render(messages=messages, add_generation_prompt=ask, **self._names)
    except ValueError as e:
      raise errors.UserError(
          f"{self.label} fails on the roles {', '.join(roles) or 'of no message'} ({e}); give "
          "another by --config.lm.chat_template") from e


class _Message(NamedTuple):
  """The place of a message; for a reply, also the template's text around it."""
  number: int
  reply: bool = False
  before: str = ""
  after: str = ""


@dataclasses.dataclass(frozen=True)
class _Layout:
  """Pieces in order: texts of the template, and messages."""
  pieces: list

  @classmethod
  def of(cls, text: str, roles: tuple[str, ...], replies: list[tuple[int, int]]) -> "_Layout":
    pieces, at = [], 0
    for start, stop in replies:
      pieces += _cut(text[at:start])
      before, mark, after = _MARKED.split(text[start:stop])
      pieces.append(_Message(int(mark), True, before, after))
      at = stop
    return cls(pieces + _cut(text[at:]))


def _cut(text: str) -> list:
  """The pieces of a text without replies: texts of the template, and other messages."""
  return [_Message(int(part)) if number % 2 else part
          for number, part in enumerate(_MARKED.split(text)) if part]


def _joined(turns: list[Said]) -> list[Said]:
  joined: list[Said] = []
  for turn in turns:
    if joined and joined[-1].role == turn.role:
      last = joined.pop()
      turn = Said(turn.role, f"{last.text}\n{turn.text}", last.behind + turn.behind)
    joined.append(turn)
  return joined


def _without_system(opening: str, turns: list[Said]) -> list[Said]:
  """Messages with the opening in the user's first turn, for templates without a system message."""
  if turns[0].role == USER:
    text = f"{opening}\n\n{turns[0].text}" if opening else turns[0].text
    return [turns[0]._replace(text=text), *turns[1:]]
  return [Said(USER, opening), *turns]
