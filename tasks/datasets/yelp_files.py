"""Reads the Yelp Open Dataset. Imports no TensorFlow.

  yelp_academic_dataset_review.json     {"user_id", "business_id", "stars", "date"} a line
  yelp_academic_dataset_business.json   {"business_id", "name", "categories": "Pizza, Bars"}

Dates are "2018-07-07 22:09:11", taken as UTC. Yelp publishes a new set every few years; which one
it is can be told from the sha256 in data/manifest.json.
"""
import datetime
import functools

from ilm_jax import errors
from ilm_jax.data import interactions
from tasks.datasets import lines

REVIEWS, BUSINESSES = (f"yelp_academic_dataset_{name}.json" for name in ("review", "business"))


def read_log(paths: dict):
  """(user_ids, item_ids, times, stars), in the order of the file."""
  path = paths[REVIEWS]
  log = lines.Log()
  for number, review in lines.objects(path):
    get = functools.partial(lines.field, path, number, review)
    log.add(get("user_id"), get("business_id"), _seconds(path, number, get("date")),
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
    names = (name.strip() for name in (business.get("categories") or "").split(","))
    rows.append((lines.field(path, number, business, "business_id"),
                 (business.get("name") or "").strip(), None, [name for name in names if name]))
  return lines.items(path, rows)
