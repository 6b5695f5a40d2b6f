"""Finds items by title and year, as people write them: "The Matrix (1999)", "matrix", "WALL·E"."""
import bisect
import difflib
import functools
import itertools
import re
import unicodedata
import urllib.parse

from ilm_jax.data import interactions as interactions_lib

# Neither begins at every blank or bracket of a long row of them, which would take quadratic time.
_YEAR = re.compile(r"(?<!\s)\s*\((\d{4})\)\s*$")
_BRACKETS = re.compile(r"\(([^)]{0,300})\)")
ADDED = "redial:"        # before the id of an item that only dialogs of ReDial name
_LONGEST = 1000          # letters of a title that count
# Of `near`: fewest letters of a title, most more or fewer than written, least similarity; most
# words of a title, most runs of words that are tried, and most titles they are held against.
_SHORT, _APART, _ALIKE, _WORDS, _TRIED, _HELD = 5, 2, 0.8, 6, 40, 10_000
_ALSO_KNOWN = re.compile(r"^a\.?k\.?a\.?:? ")
_ARTICLES = ("the", "a", "an")
_ARTICLE = re.compile(rf"^({'|'.join(_ARTICLES)}) ")


class Titles:
  """The items of a catalogue by title and year.

  Args:
    items: the catalogue. A title in brackets is another name: "Seven (a.k.a. Se7en)". An item
      without a year has the one that its title ends with: "Heat (1995)".
    added: the items that only dialogs name (`ADDED`) are found, too.
  """

  def __init__(self, items: interactions_lib.Items, added: bool = True):
    self._by_title: dict[str, dict[int | None, list[int]]] = {}
    self._items = items
    for row, (raw, title, year) in enumerate(zip(items.ids, items.titles, items.years), 1):
      if year is None:
        title, year = split(title)
      for name in _names(title) if added or not raw.startswith(ADDED) else ():
        self._by_title.setdefault(name, {}).setdefault(year, []).append(row)

  def row(self, name: str) -> int:
    """The item row that `name` means; 0: none, or the name is ambiguous.

    Case, accents, punctuation and an article in front do not count. With a year: the first item of
    that year, else of the year before or after, because catalogues differ by one. Without a year:
    the only item of that title, where items that only dialogs name do not count beside others; the
    first, if all have the same title and known year.
    """
    title, year = split(name)
    by_year = self._by_title.get(plain(title), {})
    if year is not None:
      return next((by_year[y][0] for y in (year, year - 1, year + 1) if y in by_year), 0)
    rows = [row for rows in by_year.values() for row in rows]
    rows = [row for row in rows if not self._items.ids[row - 1].startswith(ADDED)] or rows
    different = {(self._items.titles[row - 1], self._items.years[row - 1] or row) for row in rows}
    return rows[0] if len(different) == 1 else 0

  def knows(self, name: str) -> bool:
    """Whether an item has this title, of whatever year."""
    return plain(split(name)[0]) in self._by_title

  def begin(self, words: str) -> bool:
    """Whether titles begin with these words, or may behind an article. What begins no title need
    not be looked up with more words behind it."""
    letters = plain(urllib.parse.unquote(words))
    at = bisect.bisect_left(self._sorted, letters)
    return bool(letters) and (letters in _ARTICLES or (
        at < len(self._sorted) and self._sorted[at].startswith(letters)))

  def near(self, text: str) -> int:
    """The item row of the title that is spelt most like `text`, or like words of it that begin with
    a capital; 0: none is spelt much alike. The first letter must be right."""
    best, held = (0.0, ""), 0
    for letters in _tries(text):
      alike = [title for apart in range(-_APART, _APART + 1)
               for title in self._spelt.get((letters[0], len(letters) + apart), ())]
      if (held := held + len(alike)) > _HELD:
        break
      for close in difflib.get_close_matches(letters, alike, 1, _ALIKE):
        best = max(best, (difflib.SequenceMatcher(None, close, letters).ratio(), close))
    return min(rows[0] for rows in self._by_title[best[1]].values()) if best[1] else 0

  @functools.cached_property
  def _sorted(self) -> list[str]:
    return sorted(self._by_title)

  @functools.cached_property
  def _spelt(self) -> dict[tuple[str, int], list[str]]:
    """(first letter, number of letters) -> plain titles."""
    found: dict[tuple[str, int], list[str]] = {}
    for title in self._by_title:
      found.setdefault((title[0], len(title)), []).append(title)
    return found


def split(name: str) -> tuple[str, int | None]:
  """ "What About Bob%3F (1991)" -> ("What About Bob?", 1991)."""
  name = urllib.parse.unquote(name)
  match = _YEAR.search(name)
  return (name[:match.start()], int(match[1])) if match else (name.strip(), None)


@functools.lru_cache(1 << 14)       # `heard` looks up every run of words of a text
def plain(title: str) -> str:
  """The title's letters and digits, without case, accents and an article in front."""
  letters = unicodedata.normalize("NFKD", title[:_LONGEST]).casefold().replace("&", "and").strip()
  return "".join(c for c in _ARTICLE.sub("", letters) if c.isalnum())


def _tries(text: str) -> list[str]:
  """What may be a misspelt title, as plain letters: the text, and its words from a capital on."""
  words = text.split()
  runs = (" ".join(words[first:first + count]) for first, word in enumerate(words)
          if word[0].isupper() for count in range(_WORDS, 0, -1) if first + count <= len(words))
  letters = dict.fromkeys(plain(split(each)[0]) for each in (text, *itertools.islice(runs, _TRIED)))
  return [each for each in letters if len(each) >= _SHORT]


def _names(title: str) -> set[str]:
  other = [_ALSO_KNOWN.sub("", each.strip()) for each in _BRACKETS.findall(title)]
  return {name for name in map(plain, (title, _BRACKETS.sub("", title), *other)) if name}
