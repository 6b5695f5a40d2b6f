"""What a teacher is asked to write, and what it wrote.

    targets/requests.jsonl               one request a line: task, split, entity rows, words
    targets/<teacher>/<sha256>.jsonl     answers, in small files that appear whole or not at all
    targets/<teacher>/report.json        counts

The key of an answer is the sha256 of (teacher, instruction, text of the items). So the same request
is written only once, and answers of different teachers are never mixed up.
"""
import hashlib
import json
import re
from collections.abc import Callable
from typing import NamedTuple

from etils import epath

from ilm_jax import errors, files

REQUESTS = "requests.jsonl"
_ECHO = 8           # so many words in a row of the instruction are no answer
_LOOP_WORDS = 12    # a shorter text is no loop, and a list may begin its lines alike
_LOOP_SHARE = 0.5   # of its runs of four words, those that must be distinct


class Request(NamedTuple):
  """One target to be written."""
  task: str                # "elm_summary"
  split: str               # "train" or "test"
  rows: tuple[int, ...]    # entities in the order of the task's places
  instruction: str         # "Summarise the film below ..."
  text: str                # what is known: "Film: Heat (1995). Action, Crime"

  @property
  def prompt(self) -> str:
    return f"{self.instruction}\n\n{self.text}"

  def key(self, teacher: str) -> str:
    """The address of the answer by the teacher with that fingerprint."""
    words = json.dumps([teacher, self.instruction, self.text], ensure_ascii=False)
    return hashlib.sha256(words.encode()).hexdigest()


class Answer(NamedTuple):
  """What a teacher said to a request; `rejected` says why it is no target, "" if it is one."""
  text: str
  rejected: str


def write_requests(folder, requests: list[Request]) -> None:
  lines = (json.dumps(r._asdict(), ensure_ascii=False) + "\n" for r in requests)
  files.write_text(epath.Path(folder) / REQUESTS, "".join(lines))


def read_requests(folder) -> list[Request]:
  lines = _objects(epath.Path(folder) / REQUESTS)
  return [Request(**{**line, "rows": tuple(line["rows"])}) for line in lines]


def _objects(path) -> list[dict]:
  """The objects of JSON lines. Texts may hold what Unicode calls the end of a line, too."""
  return [json.loads(line) for line in path.read_text().split("\n") if line]


class Store:
  """The answers of one teacher in targets/.

  Args:
    folder: the workdir's targets/.
    teacher: its fingerprint.
  """

  def __init__(self, folder, teacher: str):
    self.teacher = teacher
    self.folder = epath.Path(folder) / teacher[:16]

  @classmethod
  def of_folder(cls, folder) -> "Store":
    """The store in a folder targets/<teacher>, whose fingerprint is cut in its name."""
    folder = epath.Path(folder)
    return cls(folder.parent, folder.name)

  def read(self) -> dict[str, Answer]:
    """Key -> answer. Files whose writer was killed before the rename are not seen.

    A file is called by the sha256 of what it holds, so damage shows.

    Raises:
      UserError: a file is damaged.
    """
    answers = {}
    for path in sorted(self.folder.glob("*.jsonl")) if self.folder.exists() else ():
      try:
        if (digest := hashlib.sha256(path.read_bytes()).hexdigest()) != path.stem:
          raise ValueError(f"its content has sha256 {digest}")
        lines = _objects(path)
        answers.update((line["key"], Answer(line["text"], line["rejected"])) for line in lines)
      except (ValueError, KeyError, TypeError) as e:
        raise errors.UserError(f"{path} is damaged ({e}): delete it and run --stage=targets again"
                               ) from e
    return answers

  def lookup(self) -> Callable[[Request], Answer | None]:
    """A function from a request to its answer; None where it has not been asked."""
    answers = self.read()
    return lambda request: answers.get(request.key(self.teacher))

  def add(self, answers: dict[str, Answer]) -> None:
    """Keeps answers; when this returns they are on disk."""
    if answers:
      text = "".join(json.dumps({"key": key, **answer._asdict()}, ensure_ascii=False) + "\n"
                     for key, answer in sorted(answers.items()))
      name = hashlib.sha256(text.encode()).hexdigest()
      files.write_text(self.folder / f"{name}.jsonl", text)

  def write_report(self, report: dict) -> None:
    files.write_text(self.folder / "report.json", json.dumps(report, indent=1))


def judged(request: Request, text: str, finished: bool = True) -> Answer:
  """The text as a target, or why it is none: "empty", "looping", "echo".

  Args:
    request: what was asked.
    text: what came.
    finished: False where the teacher was cut off: what follows the last whole sentence goes.
  """
  text = text.replace("\r\n", "\n").strip()
  if not finished:
    text = whole_sentences(text)
  if len(_words(text)) < 2:
    return Answer(text, "empty")
  if loops(text):
    return Answer(text, "looping")
  return Answer(text, "echo" if _echoes(text, request.instruction) else "")


def whole_sentences(text: str) -> str:
  """`text` up to its last end of a sentence or line; all of it where there is none."""
  ends = [m.end() for m in re.finditer(r"[.!?][\"')\]]*(?=\s|$)|(?<=\S)(?=\n)", text)]
  # "5." at the end of a list is no sentence.
  ends = [end for end in ends if not re.search(r"(^|\s)\d+\.$", text[:end])]
  return text[:ends[-1]].rstrip() if ends else text


def loops(text: str) -> bool:
  """Whether a text says the same again and again.

  A sentence or line comes three times, or of the runs of four words fewer than half are distinct.
  """
  parts = [" ".join(_words(part)) for part in re.split(r"[.!?\n]+", text)]
  parts = [part for part in parts if len(part.split()) > 1]
  if any(parts.count(part) > 2 for part in set(parts)):
    return True
  words = _words(text)
  runs = [tuple(words[i:i + 4]) for i in range(len(words) - 3)]
  return len(words) >= _LOOP_WORDS and len(set(runs)) < _LOOP_SHARE * len(runs)


def _echoes(text: str, instruction: str) -> bool:
  said, words = " ".join(_words(text)), " ".join(_words(instruction)).split()
  runs = (words[i:i + _ECHO] for i in range(max(1, len(words) - _ECHO + 1)))
  return any(f" {' '.join(run)} " in f" {said} " for run in runs)


def _words(text: str) -> list[str]:
  return re.findall(r"\w+(?:'\w+)?", text.lower())
