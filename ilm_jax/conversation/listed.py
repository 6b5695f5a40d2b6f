"""What a user says of the last list by places: "I have seen 1 and 3", "more like number 2"."""
import itertools
import re
from collections.abc import Sequence

_ORDINALS = {word: n for n, word in enumerate(
    ("first", "second", "third", "fourth", "fifth"), 1)} | {"last": 0}
# Both are no part of a title: "The Fifth Element", "the last crusade".
_NUMBER = re.compile(r"(?:\bnumber|\bno\.|#)\s*(\d{1,2})\b(?!\s+[A-Z])")
_ORDINAL = re.compile(rf"\b[Tt]he ({'|'.join(_ORDINALS)})\b(?: one\b|(?=\s*(?:[.,;!?]|$))|"
                      r"(?=\s+(?:and|or|but|was|is|looks|sounds|seems)\b))")
# Numbers after a verb, to the end of the clause: "seen 1, 3 and 5", but not "seen 12 Monkeys".
_NUMBERS = re.compile(
    r"\b(?P<verb>seen|saw|watched|know|like[sd]?|love[sd]?|enjoyed|hate[sd]?|dislike[sd]?|not)\s+"
    r"(?P<list>\d{1,2}(?:\s*(?:,\s*and|,|and|or|&)\s*\d{1,2})*)(?=\s*(?:[.!?,;]|but\b|$))",
    re.IGNORECASE)
_OTHERS = re.compile(
    r"\W*(?:no,? )?(?:(?:none|not any|neither) of (?:these|them|those)|not (?:these|those)|"
    r"(?:please )?(?:(?:show|give) me |(?:have you|do you have|you) (?:got )?|any )*"
    r"(?:some |any )?(?:more|others?|other (?:ones|films|movies|things)|something else|"
    r"anything else|next|what else)(?: (?:films|movies|please|of them))?)\W*", re.IGNORECASE)
_LINE = re.compile(r"^\d{1,3}\.(?: (.+))?$", re.MULTILINE)
_MOST_PLACES, _MOST_BLANKS = 100, 3         # of a list; pairs of blanks in a line, from its end


def resolved(text: str, titles: Sequence[str]) -> str:
  """The text with the titles of a list in place of its numbers; numbers beyond it stay.

  Args:
    text: the user's words.
    titles: of the last list, with their years, in order.
  """
  def title(number: int, written: str) -> str:
    return titles[number - 1] if 1 <= number <= len(titles) else written

  text = _NUMBER.sub(lambda match: title(int(match[1]), match[0]), text)
  text = _ORDINAL.sub(lambda match: title(
      _ORDINALS[match[1]] or len(titles), match[0]), text)
  return _NUMBERS.sub(lambda match: f"{match['verb']} " + re.sub(
      r"\d+", lambda number: title(int(number[0]), number[0]), match["list"]), text)


def places(text: str) -> list[list[str]]:
  """What may be the title in each line of a numbered list ("1. Heat (1995)  Crime"), the longest
  first: genres stand behind two blanks, but a title may have two blanks, too."""
  found = []
  for line in itertools.islice(_LINE.finditer(text), _MOST_PLACES):
    names = [line[1] or ""]
    while "  " in names[-1] and len(names) <= _MOST_BLANKS:
      names.append(names[-1].rpartition("  ")[0])
    found.append(names)
  return found


def wants_others(text: str) -> bool:
  """Whether the whole text asks for other items than those shown: "none of these", "more"."""
  return bool(_OTHERS.fullmatch(text))
