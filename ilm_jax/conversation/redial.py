"""ReDial (Li et al., NeurIPS 2018; CC BY 4.0): people who recommend films to each other.

Reads the official `redial_dataset.zip`, a folder with its files, or one file of JSON lines. A
message's text has "@12345" for each film: a turn's items are these ids, each once, and `worded`
replaces them by titles.
"""
import contextlib
import dataclasses
import io
import itertools
import re
import zipfile

from etils import epath

from ilm_jax import errors, files
from ilm_jax.conversation import dialogs, records, session, titles
from ilm_jax.data import interactions as interactions_lib

PARTS = ("train", "valid", "test")
ID = titles.ADDED                   # before a film's id, of an item that only ReDial has
_FILES = ("{}_data.jsonl", "{}.jsonl", "rd-{}-data.jsonl")      # official, and of known copies
_LONGEST = 4 << 20                  # bytes of a line; ReDial has up to 12 kB
_MENTION = re.compile(r"@(\d+)")


@dataclasses.dataclass(frozen=True)
class Answer:
  """One side's answers about a film in the form after the dialog; None: did not say."""
  suggested: bool | None      # by the recommender; False: by the seeker
  known: bool | None          # the seeker has seen it
  liked: bool | None


@dataclasses.dataclass(frozen=True)
class Talk(dialogs.Dialog):
  """A dialog of ReDial; the seeker's role is "user".

  Attributes:
    films: id -> "Title (year)" as ReDial has it, of all films mentioned.
    answers: id -> the seeker's answer, given after the dialog, so the recommender did not know it.
  """
  films: dict[str, str]
  answers: dict[str, Answer]


def read(path, part: str = "test") -> list[Talk]:
  """The dialogs of a part.

  Args:
    path: the zip, a folder, or a file with any name.
    part: one of `PARTS`; the official release has no "valid".

  Raises:
    UserError: there is no such part; a line is no dialog of ReDial, with file and line.
  """
  if part not in PARTS:
    raise records.wrong("part", part, " or ".join(map(repr, PARTS)))
  path, names = epath.Path(path), [name.format(part) for name in _FILES]
  if path.is_dir():
    found = [path / name for name in names if (path / name).is_file()]
    if not found:
      raise errors.UserError(f"{path} has none of {', '.join(names)}, expected a folder of ReDial")
    path = found[0]
  if path.suffix == ".zip":
    return [_talk(value, where) for where, value in _zipped(path, names)]
  return [_talk(value, where) for where, value in dialogs.lines(path)]


def parts(path) -> list[str]:
  """Which of `PARTS` the zip or the folder at `path` has.

  Raises:
    UserError: it cannot be read.
  """
  path = epath.Path(path)
  if path.is_dir():
    inside = {each.name for each in path.iterdir()}
  else:
    with _opened(path) as archive:
      inside = {name.rpartition("/")[2] for name in archive.namelist()}
  return [part for part in PARTS if any(name.format(part) in inside for name in _FILES)]


def worded(text: str, films: dict[str, str]) -> str:
  """The text with "Title (year)" in place of each film's id."""
  return _MENTION.sub(
      lambda match: " ".join(films.get(match[1], match[0]).split()), text)


def catalogue(talks: list[Talk], items: interactions_lib.Items
              ) -> tuple[interactions_lib.Items, dict[str, int]]:
  """(all items, film id -> item row): `items`, then the films that are not among them.

  Films are found by the id "redial:ID", if `items` has items that this function added, then by
  title and year (`titles.Titles`) among its other items. Other films with the same title and year
  become one item, "redial:ID" with the first id: none of them makes a name ambiguous that `items`
  knows. A name without a year joins the only other film of that title, unless `items` has several.
  A film without a title is an item of its own.
  """
  by_id = {raw: row for row, raw in enumerate(items.ids, 1) if raw.startswith(ID)}
  known, row_of, added = titles.Titles(items, added=False), {}, []
  others: dict[str, dict[int | None, int]] = {}            # title -> year -> row
  for row in by_id.values():
    others.setdefault(titles.plain(items.titles[row - 1]), {})[items.years[row - 1]] = row
  films = {raw: (name, *titles.split(name)) for talk in talks for raw, name in talk.films.items()}
  for raw, (name, title, year) in sorted(
      films.items(), key=lambda film: (film[1][2] is None, len(film[0]), film[0])):
    years = others.setdefault(titles.plain(title) or raw, {})
    only = next(iter(years.values())) if (
        year is None and len(years) == 1 and not known.knows(name)) else 0
    row_of[raw] = by_id.get(ID + raw) or known.row(name) or only or years.setdefault(
        year, len(items) + len(added) + 1)
    if row_of[raw] > len(items) + len(added):
      added.append((ID + raw, title.strip() or f"@{raw}", year, []))
  return interactions_lib.Items(
      [*items.ids, *(film[0] for film in added)], [*items.titles, *(film[1] for film in added)],
      [*items.years, *(film[2] for film in added)],
      [*items.genres, *(film[3] for film in added)]), row_of


def with_films(talks: list[Talk], items: interactions_lib.Items
               ) -> tuple[interactions_lib.Items, list[str]]:
  """(`items` and the films of the dialogs, the ids of the items that the dialogs name).

  Films without a title are left out, and those without a year where `items` has several films of
  that title: each would be a second item of one of these.
  """
  known = titles.Titles(items, added=False)

  def clear(name: str) -> bool:
    title, year = titles.split(name)
    return bool(titles.plain(title)) and (
        year is not None or bool(known.row(name)) or not known.knows(name))

  every, row_of = catalogue([dataclasses.replace(talk, films={
      raw: name for raw, name in talk.films.items() if clear(name)}) for talk in talks], items)
  return every, list(dict.fromkeys(every.ids[row - 1] for row in row_of.values()))


@contextlib.contextmanager
def _opened(path):
  try:
    with files.reading(path) as file, zipfile.ZipFile(io.BytesIO(file.read())) as archive:
      yield archive
  except errors.UserError:
    raise
  except files.DAMAGED_ZIP as e:
    raise errors.UserError(f"{path} cannot be read as a zip ({e}): download ReDial again") from None


def _zipped(path, names):
  with _opened(path) as archive:
    inside = {name.rpartition("/")[2]: name for name in archive.namelist()}
    member = next((inside[name] for name in names if name in inside), None)
    if member is None:
      raise errors.UserError(f"{path} has none of {', '.join(names)}, expected ReDial's zip")
    most = files.SMALL + files.UNPACKED * path.stat().length
    with io.BufferedReader(archive.open(member)) as file:
      for number in itertools.count(1):
        line, where = file.readline(_LONGEST + 1), f"{path}/{member}, line {number}"
        most -= len(line)
        if most < 0 or len(line) > _LONGEST:
          much = (f"{where} has more than {_LONGEST:,} bytes" if most >= 0 else
                  f"{path}/{member} has more than {files.UNPACKED} times the bytes of the zip")
          raise errors.UserError(f"{much}, expected ReDial's dialogs: download it again")
        if not line:
          return
        if line.strip():
          yield where, dialogs.parsed(line, where)


def _talk(value, where: str) -> Talk:
  needed = ("messages", "movieMentions", "initiatorWorkerId", "respondentWorkerId")
  if not isinstance(value, dict) or (lacking := [name for name in needed if name not in value]):
    names = ", ".join(needed if not isinstance(value, dict) else lacking)
    raise errors.UserError(f"{where} lacks {names}, expected a dialog of ReDial")
  sides = {records.identity(value[f"{side}WorkerId"], f"{where}: {side}WorkerId"): role
           for side, role in (("respondent", session.RECOMMENDER), ("initiator", session.USER))}
  text, mentions = records.any_text, f"{where}: movieMentions"
  films = {text(raw, mentions): records.optional(text)(title, f"{mentions}[{raw!r}]") or ""
           for raw, title in _mapping(value["movieMentions"]).items()}
  turns = []
  for n, (sender, text) in enumerate(
      records.several(_message)(value["messages"], f"{where}: messages")):
    if sender not in sides:
      raise records.wrong(f"{where}: messages[{n}].senderWorkerId", sender,
                          "the initiator's or the respondent's")
    mentioned = dict.fromkeys(raw for raw in _MENTION.findall(text) if raw in films)
    turns.append(session.Turn(sides[sender], text, tuple(mentioned)))
  answers = {raw: Answer(*(_SAID.get(str(_mapping(form).get(name)))
                           for name in ("suggested", "seen", "liked")))
             for raw, form in _mapping(value.get("initiatorQuestions")).items()}
  name = records.identity(value.get("conversationId", where), f"{where}: conversationId")
  return Talk(name, tuple(turns), films, answers)


_SAID = {"0": False, "1": True}      # 2: did not say


def _message(value, where: str) -> tuple[str, str]:
  """(sender, text); the text may be empty, as it sometimes is in ReDial."""
  if not isinstance(value, dict) or not {"senderWorkerId", "text"} <= value.keys():
    raise records.wrong(where, value, 'an object with "text" and "senderWorkerId"')
  return (records.identity(value["senderWorkerId"], f"{where}.senderWorkerId"),
          records.any_text(value["text"], f"{where}.text"))


def _mapping(value) -> dict:
  """The mapping, or {} for anything else: ReDial writes a list for an empty mapping."""
  return value if isinstance(value, dict) else {}
