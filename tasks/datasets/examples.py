"""Makes the examples of a TFDS data set from the output of the readers. Imports no TensorFlow."""
import numpy as np

from ilm_jax.data import interactions, splits


def of_users(user_ids, item_ids, times, ratings):
  """One example per user, users in ascending order of their id; see `registry.Found.read_log`."""
  users, user_N = interactions.codes(user_ids)
  times = known(times, len(user_N))
  order_N = splits.order(splits.STABLE, user_N, times)
  ends = np.cumsum(np.bincount(user_N))[:-1]
  for user, places in zip(users, np.split(order_N, ends)):
    yield of_user(user, item_ids[places], times[places], ratings[places], places)


def of_user(user: str, item_ids: list[str], times, ratings, places) -> dict:
  """The example of one user, whose events are already in order."""
  return {"user_id": user, "item_ids": item_ids, "timestamps": times,
          "ratings": np.array(ratings, np.float32), "places": places}


def known(times, count: int) -> np.ndarray:
  """int64 [count]: the times; zeros if the log has none."""
  return np.zeros(count, np.int64) if times is None else np.asarray(times, np.int64)


def of_items(items: interactions.Items):
  """One example per item, in the order of the file."""
  for raw_id, title, year, genres in zip(items.ids, items.titles, items.years, items.genres):
    yield {"item_id": raw_id, "title": title, "year": year or 0, "genres": genres}
