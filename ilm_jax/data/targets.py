"""Requests for target texts to a teacher, and its answers.

    targets/requests.jsonl               one request in each line: task, split, entity rows, words
    targets/<teacher>/<sha256>.jsonl     answers, in small files that are complete or absent
    targets/<teacher>/report.json        counts

The key of an answer is the sha256 of (teacher, instruction, text of the items). So a teacher
answers the same request only once, and answers of different teachers are never mixed up.
"""
import hashlib
import json
import re
from collections.abc import Callable
from typing import NamedTuple

from etils import epath

from ilm_jax import errors, files

REQUESTS = "requests.jsonl"
_ECHO = 8           # an answer must not repeat so many successive words of the instruction
_LOOP_WORDS = 12    # shorter texts are no loops: the lines of a list may begin alike
_LOOP_SHARE = 0.5   # least share of distinct runs of four words


class Request(NamedTuple):
  """A request for one target."""
  task: str                # "elm_summary"
  split: str               # "train" or "test"
  rows: tuple[int, ...]    # entity rows, in the order of the task's places
  instruction: str         # "Summarise the film below ..."
  text: str                # facts of the items: "Film: Heat (1995). Action, Crime"

  @property
  def prompt(self) -> str:
    return f"{self.instruction}\n\n{self.text}"

  def key(self, teacher: str) -> str:
    """The key of the answer by the teacher with this fingerprint."""
    words = json.dumps([teacher, self.instruction, self.text], ensure_ascii=False)
    return hashlib.sha256(words.encode()).hexdigest()


class Answer(NamedTuple):
  """A teacher's answer; `rejected` says why it cannot be a target, "" if it can."""
  text: str
  rejected: str


def write_requests(folder, requests: list[Request]) -> None:
  lines = (json.dumps(r._asdict(), ensure_ascii=False) + "\n" for r in requests)
  files.write_text(epath.Path(folder) / REQUESTS, "".join(lines))


def read_requests(folder) -> list[Request]:
  lines = _objects(epath.Path(folder) / REQUESTS)
  return [Request(**{**line, "rows": tuple(line["rows"])}) for line in lines]


def _objects(path) -> list[dict]:
  """The objects of JSON lines. Only "\\n" ends a line: texts may hold Unicode's other line ends."""
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
    """The store in a folder targets/<teacher>, whose name is a shortened fingerprint."""
    folder = epath.Path(folder)
    return cls(folder.parent, folder.name)

  def read(self) -> dict[str, Answer]:
    """Key -> answer. Ignores temporary files, whose writers were killed before the rename.

    The name of a file is the sha256 of its content, which shows damage.

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
    """A function from a request to its answer; None if there is no answer yet."""
    answers = self.read()
    return lambda request: answers.get(request.key(self.teacher))

  def add(self, answers: dict[str, Answer]) -> None:
    """Writes answers to disk."""
    if answers:
      text = "".join(json.dumps({"key": key, **answer._asdict()}, ensure_ascii=False) + "\n"
                     for key, answer in sorted(answers.items()))
      name = hashlib.sha256(text.encode()).hexdigest()
      files.write_text(self.folder / f"{name}.jsonl", text)

  def write_report(self, report: dict) -> None:
    files.write_text(self.folder / "report.json", json.dumps(report, indent=1))


def judged(request: Request, text: str, finished: bool = True) -> Answer:
  """The answer with a teacher's text; `rejected` is "empty", "looping", "echo", or "" for a target.

  Args:
    request: the request.
    text: the teacher's text.
    finished: False if the teacher was cut off: the text is then cut after its last whole sentence.
  """
  text = text.encode(errors="replace").decode()      # half a surrogate becomes "?"
  text = text.replace("\r\n", "\n").strip()
  if not finished:
    text = whole_sentences(text)
  if len(_words(text)) < 2:
    return Answer(text, "empty")
  if loops(text):
    return Answer(text, "looping")
  return Answer(text, "echo" if _echoes(text, request.instruction) else "")


def whole_sentences(text: str) -> str:
  """`text` up to its last end of a sentence or line; all of it if there is none."""
  ends = [m.end() for m in re.finditer(r"[.!?][\"')\]]*(?=\s|$)|(?<=\S)(?=\n)", text)]
  # "5." at the end of a list is no sentence.
  ends = [end for end in ends if not re.search(r"(^|\s)\d+\.$", text[:end])]
  return text[:ends[-1]].rstrip() if ends else text


def loops(text: str) -> bool:
  """Whether a text repeats itself.

  True if a sentence or line comes three times, or if fewer than half of the runs of four words are
  distinct.
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
