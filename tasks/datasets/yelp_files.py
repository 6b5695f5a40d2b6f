"""Reads the Yelp Open Dataset. Imports no TensorFlow.

  yelp_academic_dataset_review.json     {"user_id", "business_id", "stars", "date"} a line
  yelp_academic_dataset_business.json   {"business_id", "name", "categories": "Pizza, Bars"}; a list
                                        in releases of before 2018

Dates are "2018-07-07 22:09:11", taken as UTC. Yelp publishes a new set every few years; the sha256
in data/manifest.json tells which one was read.
"""
import datetime
import functools

from ilm_jax import errors
from ilm_jax.data import interactions
from ilm_jax.tasks.datasets import cells, lines

REVIEWS, BUSINESSES = (f"yelp_academic_dataset_{name}.json" for name in ("review", "business"))


def read_log(paths: dict):
  """(user_ids, item_ids, times, stars), in the order of the file."""
  path = paths[REVIEWS]
  log = lines.Log()
  for number, review in lines.objects(path):
    get = functools.partial(lines.field, path, number, review)
    user, item = (cells.identity(path, number, name, get(name))
                  for name in ("user_id", "business_id"))
    log.add(user, item, _seconds(path, number, get("date")),
            lines.number_of(path, number, "stars", get("stars")))
  return log.done(path)


def _seconds(path, number: int, date: str) -> int:
  try:
    naive = datetime.datetime.fromisoformat(date)
  except (ValueError, TypeError) as e:
    raise errors.UserError(f"{path}, line {number}: date is {date!r}, expected e.g. "
                           "'2018-07-07 22:09:11'") from e
  return int(naive.replace(tzinfo=datetime.UTC).timestamp())


def read_items(paths: dict) -> interactions.Items:
  """All businesses; their categories are the genres."""
  path = paths[BUSINESSES]
  rows = []
  for number, business in lines.objects(path):
    raw_id = lines.field(path, number, business, "business_id")
    rows.append((cells.identity(path, number, "business_id", raw_id),
                 cells.word(path, number, "name", business.get("name")), None,
                 cells.words(path, number, "categories", business.get("categories"), ",")))
  return lines.items(path, rows)
