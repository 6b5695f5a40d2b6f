"""A dialog as examples of a multi-turn task: only the recommender's replies are learned.

An example is a dialog up to one reply, its target; earlier replies are learned, too (`reply_at`).
It begins with the opening, a template with its places filled. `conversation.speech` names items by
words and slots.
"""
import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np

from ilm_jax import errors
from ilm_jax.conversation import corpora, session, speech
from ilm_jax.conversation import dialogs as dialogs_lib
from ilm_jax.data import tokenizer as tokenizer_lib
from ilm_jax.tasks import features, templates
from ilm_jax.tasks import material as material_lib

_OVERHEAD = 12           # tokens that a template writes around a turn, roughly
Learn = Callable[[session.Turn], bool]


class Reply(NamedTuple):
  """A turn that is learned: its place among the turns, and the item rows that it recommends."""
  at: int
  items: tuple[int, ...]


def definition(material: material_lib.Material, name: str,
               by_split: Mapping[str, Iterable[dialogs_lib.Dialog]], family: templates.Family,
               learn: Learn = lambda turn: True, *, recommends: bool = False, whole: bool = False,
               names: Mapping[str, tuple[str, ...]] | None = None) -> features.Definition:
  """The task `name`.

  Args:
    material: of all tasks.
    name: of the task.
    by_split: split -> dialogs, whose items are raw ids of the catalogue; "train" and "test" at
      least. In training an example learns all its replies, in other splits only the last.
    family: the opening's templates, and `mention`; a place can be "history", the dialog's. A dialog
      with nothing for a place has no opening.
    learn: which turns of the recommender; consecutive turns of one side are one turn.
    recommends: only turns with items that were not named before, and that the user did not turn
      down (`session.REJECT`, `CRITIQUE`); the item head is to find these.
    whole: a dialog that `tasks.dialog_tokens` would cut is left out, and counted.
    names: raw id -> how dialogs spell its title, beside the catalogue's.

  Raises:
    UserError: the chat template cannot be used; a turn with the turn before it is longer than
      `tasks.dialog_tokens`; there is nothing to learn.
  """
  writer = _Writer(material, family, names or {})
  splits = {}
  for split, dialogs in by_split.items():
    alone = split != "train" or material.one_reply
    each = [(dialog, replies) for dialog in map(dialogs_lib.joined, dialogs)
            if (replies := _replies(material, dialog, learn, recommends))]
    kept = [pair for pair in each if not whole or writer.fits(*pair)]
    if len(kept) < len(each):
      print(f"{name}: {len(each) - len(kept)} of {len(each)} dialogs for {split} are longer than "
            f"tasks.dialog_tokens={material.dialog_tokens}: left out", flush=True)
    made = [example for pair in kept for example in writer.examples(*pair, alone)]
    if split == "train":
      if not made:
        raise errors.UserError(f"the dialogs have no turn that task {name} learns: give it others "
                               f"by --config.tasks.dialogs, or set tasks.mixture.{name} to 0")
      made = [made[i] for i in material.subsample(name, len(made))]
      drawn = material.rng(f"{name}/prompt").integers(len(family.seen), size=len(made))
    else:
      drawn = np.zeros(len(made), int)
    splits[split] = [writer.written(each, int(prompt)) for each, prompt in zip(made, drawn)]
  output = features.conversation(material.lm, material.rows)
  return features.Definition(
      by_example=True, preprocessors=[], output_features=output, prompts=family,
      targets=_fingerprint(splits),
      source=features.in_memory({
          split: {key: features.ragged([e[key] for e in made]) for key in output}
          for split, made in splits.items()}))


def _replies(material, dialog: dialogs_lib.Dialog, learn: Learn, recommends: bool) -> list[Reply]:
  rows, named, replies = material.items.row_of, set(), []
  for at, turn in enumerate(dialog.turns):
    fresh = tuple(rows[item] for item in dict.fromkeys(turn.items)
                  if item in rows and item not in named)
    named.update(turn.items)
    if at and turn.role == session.RECOMMENDER and learn(turn) and (
        not recommends or (fresh and not corpora.turned_down(dialog.turns[at + 1:]))):
      replies.append(Reply(at, fresh if recommends else ()))
  return replies


class _Stretch(NamedTuple):
  """Turns `first` .. of a dialog up to its last reply."""
  dialog: dialogs_lib.Dialog
  first: int
  replies: list[Reply]


class _Writer:
  """Writes dialogs of one task."""

  def __init__(self, material: material_lib.Material, family: templates.Family, names):
    self._material, self._family, self._names = material, family, names
    self._encode = material.lm.tokenizer.encode
    self._speech = speech.Speech(material.chat, material.items.row_of, self._spellings,
                                 family.mention, slots=not material.as_text)

  def examples(self, dialog, replies: list[Reply], alone: bool) -> list[_Stretch]:
    """The stretches of a dialog that learn its replies, each reply in one of them."""
    if alone:
      return [self._cut(dialog, [reply]) for reply in replies]
    made, left = [], replies
    while left:
      made.append(self._cut(dialog, left))
      left = left[:len(left) - len(made[-1].replies)]
    return made[::-1]

  def fits(self, dialog, replies: list[Reply]) -> bool:
    """Whether a dialog need not be cut."""
    most = self._material.dialog_tokens
    return not most or self._need(_Stretch(dialog, 0, replies)) <= most

  def _need(self, stretch: "_Stretch") -> int:
    """Tokens of the example of a stretch with the longest opening, a slot counting one."""
    return max(sum(len(self.written(stretch, prompt)[key]) for key in ("inputs", "targets"))
               for prompt in range(len(self._family.seen)))

  def _cut(self, dialog, replies: list[Reply]) -> _Stretch:
    """The longest stretch that ends with the last of `replies` and is no longer than allowed."""
    most, last = self._material.dialog_tokens, replies[-1].at
    if not most:
      return _Stretch(dialog, 0, replies)
    first, room = last, most
    while first and room > 0:          # a first guess, so that a long dialog is written few times
      room -= len(self._encode(dialog.turns[first].text)) + _OVERHEAD
      first -= 1
    first = max(first - 2, 0)
    while True:
      stretch = _Stretch(dialog, first, [r for r in replies if r.at > first or first == 0])
      if (need := self._need(stretch)) <= most:
        return stretch
      if first == last - 1:
        raise errors.UserError(
            f"dialog {dialog.id!r}: turn {last + 1} with the turn before it needs {need} tokens, "
            f"more than tasks.dialog_tokens={most}: raise that and phase2.length, or shorten the "
            "turns")
      first += 1

  def written(self, stretch: _Stretch, prompt: int) -> dict[str, np.ndarray]:
    """The example of a stretch, with the opening numbered `prompt`."""
    dialog, last = stretch.dialog, stretch.replies[-1].at
    opening, rows = self._opening(dialog, prompt)
    (ids, spans), rows = self._speech.encoded(
        opening, rows, dialog.turns[stretch.first:last + 1])
    start, stop = spans[-1]
    spoken = [n for n, turn in enumerate(dialog.turns[:last + 1])
              if n >= stretch.first and turn.role == session.RECOMMENDER]
    at = dict(zip(spoken, spans))
    asks = [(at[reply.at][0] - 1, row) for reply in stretch.replies for row in reply.items]
    earlier = [place for reply in stretch.replies[:-1] for place in range(*at[reply.at])]
    about = stretch.replies[-1].items
    return {key: np.asarray(values, np.int32) for key, values in {
        "inputs": ids[:start], "targets": ids[start:stop], "entities": rows, "reply_at": earlier,
        "ask_at": [place for place, _ in asks], "ask_item": [row for _, row in asks],
        "target_entity": about[:1] or [0], "user": [0], "prompt": [prompt]}.items()}

  def _opening(self, dialog, prompt: int) -> tuple[str, list[int]]:
    """(the opening, the entity rows of its slots)."""
    material, rows = self._material, {}
    for field in self._family.fields:
      items = getattr(dialog, field, ())[-material.history:]
      rows[field] = [material.items.row_of[item] for item in items if item in material.items.row_of]
      if not rows[field]:
        return "", []
    template = self._family.all[prompt]
    filled = speech.opening(template, self._family.separator or "," * material.as_text, {
        field: [material.mentions[row] if material.as_text else tokenizer_lib.SLOT for row in of]
        for field, of in rows.items()})
    order = self._family.order(template)
    return filled, [] if material.as_text else [row for field in order for row in rows[field]]

  def _spellings(self, row: int) -> tuple[str, ...]:
    items, full = self._material.items, self._material.full_titles[row]
    return (*self._names.get(items.ids[row - 1], ()), full, items.titles[row - 1])


def _fingerprint(splits: dict) -> str:
  digest = hashlib.sha256()
  for split, made in splits.items():
    digest.update(f"{split} {len(made)}".encode())
    for example in made:
      for key, values in example.items():
        digest.update(f"{key} {len(values)}".encode() + values.tobytes())
  return digest.hexdigest()
