"""The recommender's next act, unless the user asked why: a small rule.

  - While nothing is liked, ask what the user likes.
  - While the best scores are nearly equal and it has asked fewer than `questions` questions, ask
    about the attribute that splits the best items most evenly.
  - Else recommend; refine, if the user has stated a critique or a constraint.

A question has two answers, in words that `heard` reads. The recommender's own turns show which
attributes it has asked about, so a session needs no other record.
"""
import re
from typing import NamedTuple

import numpy as np

from ilm_jax.conversation import attributes
from ilm_jax.conversation import session as session_lib

# A name of any length would be looked for behind each of many "More of", in quadratic time.
_QUESTIONS = (re.compile(r"More of (?P<name>.{1,300}?), or less\?"),
              re.compile(r"With (?P<name>.{1,300}?), or without\?"),
              re.compile(r"Newer than (?P<year>\d{1,4}), or older\?"),
              re.compile(r"From (?P<year>\d{1,4}) on, or from before\?"))
_HARD = (False, True, False, True)          # of `_QUESTIONS`
# Short answers for more of what a question names, and for less of it, as `_words`.
_ANSWERS = ((("with", "with {name}", "yes", "on", "since", "later", "newer", "after", "more",
              "more {name}", "from", "from on", "from {year}", "from {year} on", "since on",
              "since {year}", "since {year} on"), True),
            (("without", "without {name}", "no", "no thanks", "before", "from before", "older",
              "earlier", "less", "less {name}"), False))
_WORD = re.compile(r"\w+")


class Policy(NamedTuple):
  """The rule's numbers; benchmarks.simulator chose them on validation targets of MovieLens.

  Attributes:
    entropy: ask if the entropy is above it: of the softmax over the best `top` scores, as a share
      of the entropy of equal scores, 0 to 1.
    questions: most questions in one conversation.
    top: how many of the best items count.
    hard: whether a question asks for a constraint ("With horror, or without?"), not a critique.
  """
  entropy: float = 0.0
  questions: int = 2
  top: int = 50
  hard: bool = True


NEVER = Policy(questions=0)        # asks about no attribute


class Question(NamedTuple):
  """A question about an attribute; for the year (`attributes.NEW`) with the year that splits."""
  name: str
  year: int | None = None
  hard: bool = False

  @property
  def text(self) -> str:
    if self.year is not None:
      return (f"From {self.year} on, or from before?" if self.hard else
              f"Newer than {self.year}, or older?")
    return f"With {self.name}, or without?" if self.hard else f"More of {self.name}, or less?"


  def answered(self, more: bool) -> str:
    """The answer of a user who wants more of it, or less, as a sentence that `heard` reads."""
    if self.year is not None:
      return f"{'Since' if more else 'Before'} {self.year}." if self.hard else (
          "Newer." if more else "Older.")
    if self.hard:
      return f"{'Only' if more else 'No'} {self.name}."
    return f"{'More' if more else 'Less'} {self.name}."


class Step(NamedTuple):
  """The next act (`session.ACTS`), and its question if it asks about an attribute."""
  act: str
  question: Question | None = None


def next_step(session: session_lib.Session, score_I1, may_I1, known: attributes.Leading,
              policy: Policy) -> Step:
  """The recommender's step after the user's last turn.

  Args:
    session: with that turn.
    score_I1: scores of all item rows; logits, or numbers of similar size. Read only if something
      is liked.
    may_I1: bool, true for items that may be recommended.
    known: labels that questions are about.
    policy: the rule's numbers.
  """
  if not session.liked or not np.any(may_I1):
    return Step(session_lib.ASK)
  put = questions(session)
  if len(put) < policy.questions and entropy(score_I1, may_I1, policy.top) > policy.entropy:
    # Attributes that were asked about, or that the user mentioned, are known.
    over = {question.name for question in put} | {
        each.attribute.casefold() for each in session.critiques}
    if question := parting(score_I1, may_I1, known, policy, over):
      return Step(session_lib.ASK, question)
  stated = session.critiques or session.constraints
  return Step(session_lib.REFINE if stated else session_lib.RECOMMEND)


def questions(session: session_lib.Session) -> list[Question]:
  """The recommender's questions about attributes, oldest first."""
  return [question for turn in session.turns
          if turn.role == session_lib.RECOMMENDER and turn.act == session_lib.ASK
          and (question := read(turn.text))]


def meant(session: session_lib.Session, text: str) -> str:
  """The user's text; if it answers the last question shortly ("rather without"), a sentence that
  `heard` reads."""
  last = session.turns[-1] if session.turns else None
  question = read(last.text) if last and last.act == session_lib.ASK else None
  if not question:
    return text
  said = _words(text).removesuffix(" please")
  for before in ("rather ", "maybe ", "i prefer "):
    said = said.removeprefix(before)
  for answers, more in _ANSWERS:
    if said in {each.format(name=_words(question.name), year=question.year) for each in answers}:
      return question.answered(more)
  return text


def _words(text: str) -> str:
  """The text's words, in lower case, without marks between them."""
  return " ".join(_WORD.findall(text.casefold()))


def read(text: str) -> Question | None:
  """The question (a `Question.text`) inside a text; None: there is none."""
  for pattern, hard in zip(_QUESTIONS, _HARD):
    if match := pattern.search(text):
      parts = match.groupdict()
      return (Question(attributes.NEW, int(parts["year"]), hard) if "year" in parts else
              Question(parts["name"], None, hard))
  return None


def entropy(score_I1, may_I1, top: int) -> float:
  """How undecided the best scores are: 1 if the best `top` are equal, 0 if one leads clearly.

  Args: see `next_step`.
  """
  _, share_K = _best(score_I1, may_I1, top)
  if len(share_K) < 2:
    return 0.0
  return float(-(share_K * np.log(np.maximum(share_K, 1e-30))).sum() / np.log(len(share_K)))


def parting(score_I1, may_I1, known: attributes.Leading, policy: Policy, over=()
            ) -> Question | None:
  """The question whose answer is least certain, by the softmax over the best items; None: they do
  not differ in any known attribute.

  An item whose attribute is not known does not count. The year splits the items in halves of about
  equal weight.

  Args: see `next_step`; `over`: attributes not to ask about.
  """
  rows_K, share_K = _best(score_I1, may_I1, policy.top)
  best, most = None, 1e-6
  for name, value_I1 in zip(known.names, known.value_AI1):
    if name in over:
      continue
    value_K = value_I1[rows_K]
    told_K = ~np.isnan(value_K)
    if not told_K.any():
      continue
    year = _middle(value_K[told_K], share_K[told_K]) if name == attributes.NEW else None
    more_K = value_K[told_K] >= (0.5 if year is None else year)
    whole = share_K[told_K].sum()
    bits = whole * _bits(share_K[told_K][more_K].sum() / max(whole, 1e-30))
    if bits > most:
      best, most = Question(name, year, policy.hard), bits
  return best


def any_question(rng: np.random.Generator, known: attributes.Leading, policy: Policy, over=()
                 ) -> Question | None:
  """A question drawn at random, the baseline of `parting`; its year is the median of all items.
  Args: see `parting`."""
  numbers = [n for n, name in enumerate(known.names) if name not in over]
  if not numbers:
    return None
  at = int(rng.choice(numbers))
  year = int(np.nanmedian(known.value_AI1[at])) if known.names[at] == attributes.NEW else None
  return Question(known.names[at], year, policy.hard)


def _best(score_I1, may_I1, top: int) -> tuple[np.ndarray, np.ndarray]:
  """(rows of the best items that may be recommended, their softmax)."""
  rows = np.flatnonzero(may_I1)
  score_I1 = np.asarray(score_I1, np.float64)
  rows_K = rows[np.argsort(-score_I1[rows], kind="stable")[:top]]
  weight_K = np.exp(score_I1[rows_K] - score_I1[rows_K].max(initial=-np.inf))
  return rows_K, weight_K / max(weight_K.sum(), 1e-30)


def _bits(share: float) -> float:
  """The entropy of a yes or no."""
  if not 0 < share < 1:
    return 0.0
  return float(-share * np.log2(share) - (1 - share) * np.log2(1 - share))


def _middle(value_K, share_K) -> int:
  """The first value above the weighted median; the largest value if there is none."""
  order = np.argsort(value_K, kind="stable")
  before_K = np.cumsum(share_K[order])
  at = int(np.searchsorted(before_K, before_K[-1] / 2))
  values = np.unique(value_K)
  later = values[values > value_K[order][at]]
  return int(later[0] if len(later) else values[-1])
