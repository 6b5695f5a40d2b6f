"""Reads MovieLens sets in all layouts of their files. Imports no TensorFlow.

  u.data         user, item, rating, time: tab separated, no header                          100K
  u.item         24 fields joined by "|", ISO-8859-1: id, "Usual Suspects, The (1995)", ...
  ml-100k.inter  u.data with a header (RecBole)                                              100K
  ml-100k.item   id, title without year, year, genres joined by spaces: header, UTF-8 (RecBole)
  ratings.dat    user::item::rating::time                                                 1M, 10M
  movies.dat     id::Usual Suspects, The (1995)::Crime|Thriller; 1M in ISO-8859-1, 10M in UTF-8
  ratings.csv    userId,movieId,rating,timestamp                         20M and later, latest-small
  movies.csv     movieId,title,genres, quoted where needed

All layouts give the same form of log and items.
"""
import functools
import pathlib
import re

from ilm_jax import errors
from ilm_jax.data import interactions
from ilm_jax.tasks.datasets import delimited, lines

# In the order of the flags in u.item, whose first flag means that the genre is not known.
GENRES = ("", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary",
          "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi",
          "Thriller", "War", "Western")
_NO_GENRES = "(no genres listed)"

_ARTICLES = "The|A|An|La|Le|Les|L'|Il|O|Der|Die|Das|Det"
# ", The" at the end, or before an alternative title in brackets, or at the end of that one.
# It begins at a bracket or the start: tried at every letter, a long line takes quadratic time.
_ARTICLE_LAST = re.compile(
    rf"(?:^|(?<=[()]))(?P<title>[^()]+), (?P<article>{_ARTICLES})(?=\s*[()]|\s*$)")
# Of a series, 1987-1992 or 2009-, the first year. (V): made for video.
# Two runs of blanks that can share their blanks, or begin at each of them, take quadratic time.
_YEAR = re.compile(r"(?<!\s)\s*\((?P<year>\d{4})\s?([-–]\s?(\d{4})?)?\)(\s*\(V\))?\s*$")


def read(paths: dict[str, pathlib.Path]):
  """The whole data set.

  Args:
    paths: file name -> path, of one of the layouts.

  Returns:
    (user_ids, item_ids, times, ratings, items), the first four in the order of the log.
  """
  return *read_log(paths), read_items(paths)


def read_log(paths: dict[str, pathlib.Path]):
  """(user_ids, item_ids, times, ratings), in the order of the log."""
  fields = "user, item, rating, time"
  if "ratings.csv" in paths:
    path = paths["ratings.csv"]
    rows = delimited.table(path, ["userId", "movieId", "rating", "timestamp"])
  elif "ratings.dat" in paths:
    path = paths["ratings.dat"]
    rows = lines.separated(path, "::", fields)
  else:
    header = "ml-100k.inter" in paths
    path = paths["ml-100k.inter" if header else "u.data"]
    rows = lines.separated(path, "\t", fields, header=header)
  log = lines.Log()
  for number, (user, item, rating, time) in rows:
    log.add(user, item, lines.number_of(path, number, "time", time, int),
            lines.number_of(path, number, "rating", rating))
  return log.done(path)


def read_items(paths: dict[str, pathlib.Path], encoding: str = "utf-8") -> interactions.Items:
  """All items, in the order of the file; `encoding` is that of movies.dat."""
  readers = {"movies.csv": _csv_items, "ml-100k.item": _recbole_items, "u.item": _grouplens_items,
             "movies.dat": functools.partial(_dat_items, encoding=encoding)}
  name = next(name for name in readers if name in paths)
  return lines.items(paths[name], readers[name](paths[name]))


def _csv_items(path):
  for _, (raw_id, title, genres) in delimited.table(path, ["movieId", "title", "genres"]):
    yield raw_id, *title_and_year(title), _genres(genres)


def _dat_items(path, encoding: str):
  for _, (raw_id, title, genres) in lines.separated(path, "::", "id, title, genres",
                                                    encoding=encoding):
    yield raw_id, *title_and_year(title), _genres(genres)


def _genres(joined: str) -> list[str]:
  return [] if joined in ("", _NO_GENRES) else joined.split("|")


def _grouplens_items(path):
  with lines.text(path, "iso-8859-1") as file:
    for number, line in enumerate(file, 1):
      if not (line := line.rstrip("\r\n")):
        continue
      fields = line.split("|")
      if len(fields) != 5 + len(GENRES):
        raise errors.UserError(f"{path}, line {number}: found {len(fields)} fields, expected "
                               f"{5 + len(GENRES)} joined by '|'")
      raw_id, title, *rest = fields
      genres = [genre for genre, flag in zip(GENRES, rest[3:]) if genre and flag == "1"]
      yield raw_id, *title_and_year(title), genres


def _recbole_items(path):
  for _, (raw_id, title, year, genres) in lines.separated(
      path, "\t", "id, title, year, genres", header=True):
    if raw_id == "267":             # "unknown" in u.item; misspelt here, and so is its year
      title, year = "unknown", ""
    # Item 1412 has "V" (for video) in the column of the year, and the year in the title.
    title = f"{title} ({year})" if year.isdecimal() else title
    yield raw_id, *title_and_year(title), [g for g in genres.split(" ") if g in GENRES and g]


def title_and_year(raw: str) -> tuple[str, int | None]:
  """ "Usual Suspects, The (1995)" -> ("The Usual Suspects", 1995). Without year: None."""
  match = _YEAR.search(raw)
  title = (raw[:match.start()] if match else raw).strip()
  return _ARTICLE_LAST.sub(_article_first, title), int(match["year"]) if match else None


def _article_first(match: re.Match) -> str:
  gap = "" if match["article"].endswith("'") else " "
  return match["article"] + gap + match["title"]
