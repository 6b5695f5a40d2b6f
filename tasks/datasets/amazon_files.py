"""Reads Amazon's reviews and product metadata of 2014, 2018 and 2023. Imports no TensorFlow.

  2014   reviews_X_5.json.gz   {"reviewerID", "asin", "overall", "unixReviewTime"} a line, JSON
         meta_X.json.gz        {'asin', 'title', 'categories': [[..]], 'brand'}, Python literals
  2018   X_5.json.gz           as 2014
         meta_X.json.gz        {"asin", "title", "category": [..], "brand"}, JSON
  2023   X.csv.gz              user_id, parent_asin, rating, timestamp (ms): the benchmark's 5-core
         X.jsonl.gz            the reviews themselves, with the same fields
         meta_X.jsonl.gz       {"parent_asin", "title", "categories", "store", "main_category"}

An item's genres are the last names of its category paths, and its brand. No item has a year. HTML
markup in the metadata of 2018 is removed. Products of the log without metadata or title are called
by their id.
"""
import functools
import html
import re

from ilm_jax.data import interactions
from ilm_jax.tasks.datasets import cells, delimited, lines

_TAG = re.compile(r"</?[A-Za-z][^<>]*>")
_LONG = re.compile(r"&#[xX]?[0-9A-Fa-f]{9,};?")     # html reads no number of thousands of digits


def read_log(paths: dict):
  """(user_ids, item_ids, times, ratings) of 2014 or 2018; the reviews come first in `paths`."""
  path = next(iter(paths.values()))
  log = lines.Log()
  for number, review in lines.objects(path):
    get = functools.partial(lines.field, path, number, review)
    user, item = (cells.identity(path, number, name, get(name)) for name in ("reviewerID", "asin"))
    log.add(user, item,
            lines.number_of(path, number, "unixReviewTime", get("unixReviewTime"), int),
            lines.number_of(path, number, "overall", get("overall")))
  return log.done(path)


def read_log_2023(paths: dict):
  """The same of 2023, whose times are milliseconds."""
  path = next(iter(paths.values()))
  columns = ["user_id", "parent_asin", "rating", "timestamp"]
  if path.name.lower().removesuffix(".gz").endswith(".csv"):
    rows = delimited.table(path, columns)
  else:
    rows = ((number, [lines.field(path, number, review, name) for name in columns])
            for number, review in lines.objects(path))
  log = lines.Log(per_second=1000)
  for number, (user, item, rating, time) in rows:
    log.add(cells.identity(path, number, "user_id", user),
            cells.identity(path, number, "parent_asin", item),
            lines.number_of(path, number, "timestamp", time, int),
            lines.number_of(path, number, "rating", rating))
  return log.done(path)


def read_items(paths: dict, year: int) -> interactions.Items:
  """All products of the metadata, last in `paths`, in the layout of `year`."""
  path = list(paths.values())[-1]
  items = {}
  for number, product in lines.objects(path, literals=year == 2014):
    key = "parent_asin" if year == 2023 else "asin"
    raw_id = cells.identity(path, number, key, lines.field(path, number, product, key))
    items[raw_id] = (raw_id, _clean(product.get("title")), None, _genres(product, year))
  return lines.items(path, items.values())


def _genres(product: dict, year: int) -> list[str]:
  """Leaf categories, then the brand, each once. Values of other types have no names."""
  paths = product.get("category" if year == 2018 else "categories")
  paths = _listed(paths) if year == 2014 else [paths]
  leaves = (next(filter(None, map(_clean, reversed(_listed(path)))), "") for path in paths)
  names = [leaf for leaf in leaves if leaf]
  names += [] if names else [product.get("main_category")]
  names.append(product.get("store" if year == 2023 else "brand"))
  return list(dict.fromkeys(clean for name in names if (clean := _clean(name))))


def _listed(value) -> list:
  """The elements of a list, a text as the only one; of anything else, none."""
  return (list(value) if isinstance(value, list | tuple)
          else [value] if isinstance(value, str) else [])


def _clean(text) -> str:
  """One line without HTML; "" if it is a page's script instead of words."""
  if not isinstance(text, str) or "getTime(" in text:
    return ""
  return " ".join(html.unescape(_LONG.sub(" ", _TAG.sub(" ", text))).split())
