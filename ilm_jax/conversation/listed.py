"""What a user says of the last list by places: "I have seen 1 and 3", "more like number 2"."""
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


def wants_others(text: str) -> bool:
  """Whether the whole text asks for other items than those shown: "none of these", "more"."""
  return bool(_OTHERS.fullmatch(text))
