"""Reads Taobao's user behaviour set. Imports no TensorFlow.

  UserBehavior.csv   user, item, category, behaviour, time: no header; behaviour is pv, buy, cart
                     or fav

Only purchases ("buy") are interactions, as in OpenP5. Items have no words: they are called by
their id, and their category's number is their only genre.
"""
from ilm_jax import errors
from ilm_jax.data import interactions
from ilm_jax.tasks.datasets import lines

BEHAVIOURS = ("pv", "buy", "cart", "fav")
_FILE = "UserBehavior.csv"


def read_log(paths: dict):
  """(user_ids, item_ids, times, ones) of the purchases, in the order of the file."""
  path, log = paths[_FILE], lines.Log()
  for number, user, item, _, time in _purchases(path):
    log.add(user, item, lines.number_of(path, number, "time", time, int), 1.0)
  return log.done(path)


def read_items(paths: dict) -> interactions.Items:
  """All purchased items."""
  path = paths[_FILE]
  category = {item: name for _, _, item, name, _ in _purchases(path)}
  return lines.items(path, ((item, "", None, [f"category {name}"])
                            for item, name in category.items()))


def _purchases(path):
  for number, (user, item, category, behaviour, time) in lines.separated(
      path, ",", "user, item, category, behaviour, time"):
    if behaviour not in BEHAVIOURS:
      raise errors.UserError(f"{path}, line {number}: behaviour is {behaviour!r}, expected one of "
                             f"{', '.join(BEHAVIOURS)}")
    if behaviour == "buy":
      yield number, user, item, category, time
