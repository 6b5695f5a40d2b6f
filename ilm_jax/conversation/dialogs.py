"""Dialogs in files of your own: JSON lines, one dialog a line.

    {"id": "talk 1", "turns": [
        {"role": "user", "text": "I liked Heat. What next?", "items": ["item:7"]},
        {"role": "recommender", "act": "recommend", "text": "Fargo.", "items": ["Fargo (1996)"]}]}

`role` and `text` are required. An item is the data's raw id, with or without "item:" in front, or
title and year. `act` is one of `session.ACTS`, for a user one of `USER_ACTS`. A dialog may also
have "id", its name; "history", a list of items that the user had before; and "profile", a text
about the user at the end of the dialog. Other fields of a dialog are ignored.
"""
import dataclasses
import difflib
import itertools

from etils import epath

from ilm_jax import errors, files
from ilm_jax.conversation import records, session, titles
from ilm_jax.data import interactions as interactions_lib

MOST_TURNS = 1000        # of one dialog


@dataclasses.dataclass(frozen=True)
class Dialog:
  """Turns in order. Dialogs from `read` name items by raw ids of the catalogue."""
  id: str
  turns: tuple[session.Turn, ...]
  history: tuple[str, ...] = dataclasses.field(default=(), kw_only=True)   # oldest first
  profile: str = dataclasses.field(default="", kw_only=True)


def read(path, items: interactions_lib.Items) -> list[Dialog]:
  """The dialogs of a file, all checked.

  Args:
    path: JSON lines; empty lines are skipped.
    items: the catalogue.

  Raises:
    UserError: the first mistake, with file and line: no JSON, no turns, more than `MOST_TURNS`, a
      missing, unknown or wrong field, an item that is not in the catalogue, a repeated id.
  """
  catalogue, dialogs, stands = _Catalogue(items), [], {}
  for where, value in lines(path):
    turns = value.get("turns") if isinstance(value, dict) else None
    if not isinstance(turns, list) or not turns:
      raise records.wrong(where, value if turns is None else turns,
                          'an object {"turns": [{"role", "text", "items"}, ..]} with a turn')
    if len(turns) > MOST_TURNS:
      raise errors.UserError(f"{where} has {len(turns):,} turns, expected at most {MOST_TURNS:,}: "
                             "split the dialog, or leave its beginning out")
    name = records.identity(value.get("id", len(dialogs) + 1), records.inside(where, "id"))
    if (earlier := stands.setdefault(name, where)) != where:
      raise errors.UserError(f"{where} has the id {name!r}, which {earlier} has already: give each "
                             "dialog its own id, or leave ids out")
    turns = tuple(
        catalogue.named(records.record(session.Turn, turn, f"{where}: turns[{n}]"),
                        f"{where}: turns[{n}]") for n, turn in enumerate(turns))
    history = records.several(records.identity)(
        value.get("history") or [], records.inside(where, "history"))
    dialogs.append(Dialog(name, turns, history=tuple(
        catalogue.id(item, f"{where}: history[{n}]") for n, item in enumerate(history)),
                          profile=records.optional(records.text)(
                              value.get("profile"), records.inside(where, "profile")) or ""))
  return dialogs


def lines(path):
  """Yields ("FILE, line 3", value) of the lines of a file of JSON lines that are not empty.

  Raises:
    UserError: there is no such file, it is empty, or a line is not UTF-8 or no JSON.
  """
  path, count = epath.Path(path), 0
  if not path.is_file():
    raise errors.UserError(f"{path} is no file, expected dialogs as JSON lines")
  files.refuse_pointer(path)
  with files.reading(path) as file:
    for number, line in enumerate(file, 1):
      if line.strip():
        count += 1
        yield f"{path}, line {number}", parsed(line, f"{path}, line {number}")
  if not count:
    raise errors.UserError(f"{path} is empty, expected one dialog per line, as JSON")


def parsed(line: bytes, where: str):
  """The value in one line of JSON; UserError if it is no JSON."""
  try:
    return files.parse_json(line.decode("utf-8-sig"))
  except UnicodeDecodeError as e:
    raise errors.UserError(f"{where} is not UTF-8 ({e.reason} at byte {e.start}): save the file as "
                           "UTF-8") from None
  except ValueError as e:
    raise errors.UserError(f"{where} is no JSON ({e}), expected one dialog per line") from None


def joined(dialog: Dialog) -> Dialog:
  """The dialog with consecutive turns of one side joined into one, which keeps the first act."""
  groups = [list(turns) for _, turns in itertools.groupby(dialog.turns, lambda turn: turn.role)]
  return dataclasses.replace(dialog, turns=tuple(
      session.Turn(turns[0].role, " ".join(turn.text for turn in turns),
                   tuple(dict.fromkeys(item for turn in turns for item in turn.items)),
                   turns[0].act) for turns in groups))


class _Catalogue:
  """Finds items by id, "item:id" or title and year."""

  def __init__(self, items: interactions_lib.Items):
    self._items, self._ids = items, set(items.ids)
    self._titles = titles.Titles(items)

  def named(self, turn: session.Turn, where: str) -> session.Turn:
    return dataclasses.replace(turn, items=tuple(
        self.id(name, f"{where}.items[{n}]") for n, name in enumerate(turn.items)))

  def id(self, name: str, where: str) -> str:
    for raw in (name, name.removeprefix("item:")):
      if raw in self._ids:
        return raw
    if row := self._titles.row(name):
      return self._items.ids[row - 1]
    full = (interactions_lib.full_title(self._items, row + 1) for row in range(len(self._items)))
    near = difflib.get_close_matches(name, [*full, *self._items.ids], 1)
    hint = f"; near it: {near[0]!r}" if near else ""
    raise errors.UserError(f"{where} is {name!r}, expected the id, or title and year, of one of "
                           f"the {len(self._items):,} items of the catalogue{hint}")
