"""Reads MovieLens-100K from either layout in which its files come. Imports no TensorFlow.

  u.data         user, item, rating, time: tab separated, no header
  u.item         24 fields joined by "|", ISO-8859-1: id, "Usual Suspects, The (1995)", ...
  ml-100k.inter  u.data with a header (RecBole)
  ml-100k.item   id, title without year, year, genres joined by spaces: header, UTF-8 (RecBole)

Both give the same log and the same items.
"""
import pathlib
import re

from ilm_jax import errors
from ilm_jax.data import interactions

# In the order of the flags in u.item, whose first flag means that the genre is not known.
GENRES = ("", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary",
          "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi",
          "Thriller", "War", "Western")

_ARTICLES = "The|A|An|La|Le|Les|L'|Il|O|Der|Die|Das|Det"
# ", The" at the end, or before an alternative title in brackets, or at the end of that one.
_ARTICLE_LAST = re.compile(rf"(?P<title>[^()]+), (?P<article>{_ARTICLES})(?=\s*[()]|\s*$)")
_YEAR = re.compile(r"\s*\((?P<year>\d{4})\)\s*(\(V\))?\s*$")     # (V): made for video


def read(paths: dict[str, pathlib.Path]):
  """The whole data set.

  Args:
    paths: file name -> path, of one of the two layouts.

  Returns:
    (user_ids, item_ids, times, ratings, items), the first four in the order of the log.
  """
  return *read_log(paths), read_items(paths)


def read_log(paths: dict[str, pathlib.Path]):
  """(user_ids, item_ids, times, ratings), in the order of the log."""
  header = "ml-100k.inter" in paths
  path = paths["ml-100k.inter" if header else "u.data"]
  rows = [line.split("\t") for line in path.read_text("utf-8").splitlines()[header:]]
  if wrong := [i for i, row in enumerate(rows, 1 + header) if len(row) != 4]:
    raise errors.UserError(f"{path}, line {wrong[0]}: expected user, item, rating and time "
                           "separated by tabs")
  users, items, ratings, times = zip(*rows)
  return list(users), list(items), [int(t) for t in times], [float(r) for r in ratings]


def read_items(paths: dict[str, pathlib.Path]) -> interactions.Items:
  """All items, in the order of the file."""
  recbole = "ml-100k.item" in paths
  rows = _recbole_items(paths["ml-100k.item"]) if recbole else _grouplens_items(paths["u.item"])
  ids, titles, years, genres = zip(*rows)
  return interactions.Items(list(ids), list(titles), list(years), list(genres))


def _grouplens_items(path: pathlib.Path):
  for line in path.read_text("iso-8859-1").split("\n"):
    if line:
      raw_id, title, _, _, _, *flags = line.split("|")
      genres = [genre for genre, flag in zip(GENRES, flags) if genre and flag == "1"]
      yield raw_id, *title_and_year(title), genres


def _recbole_items(path: pathlib.Path):
  for line in path.read_text("utf-8").split("\n")[1:]:
    if line:
      raw_id, title, year, genres = line.split("\t")
      if raw_id == "267":             # "unknown" in u.item; misspelt here, and so is its year
        title, year = "unknown", ""
      # Item 1412 has "V" (for video) in the column of the year, and the year in the title.
      title = f"{title} ({year})" if year.isdecimal() else title
      yield raw_id, *title_and_year(title), [g for g in genres.split(" ") if g in GENRES and g]


def title_and_year(raw: str) -> tuple[str, int | None]:
  """ "Usual Suspects, The (1995)" -> ("The Usual Suspects", 1995). Without year: None."""
  found = _YEAR.search(raw)
  title = (raw[:found.start()] if found else raw).strip()
  return _ARTICLE_LAST.sub(_article_first, title), int(found["year"]) if found else None


def _article_first(found: re.Match) -> str:
  gap = "" if found["article"].endswith("'") else " "
  return found["article"] + gap + found["title"]
