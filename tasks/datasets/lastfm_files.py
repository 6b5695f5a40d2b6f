"""Reads the Last.fm set of HetRec 2011. Imports no TensorFlow.

  user_artists.dat   userID, artistID, weight: tab separated, header
  artists.dat        id, name, url, pictureURL: tab separated, header, UTF-8

The weight is a play count. There are no times. Instead the order of the file is used, which is most
played first and no order in time: use this set for collaborative filtering only.
"""
from ilm_jax.data import interactions
from ilm_jax.tasks.datasets import lines


def read_log(paths: dict):
  """(user_ids, item_ids, None, play counts), in the order of the file."""
  path = paths["user_artists.dat"]
  log = lines.Log(timed=False)
  for number, (user, artist, weight) in lines.separated(path, "\t", "user, artist, weight",
                                                        header=True):
    log.add(user, artist, None, lines.number_of(path, number, "weight", weight))
  return log.done(path)


def read_items(paths: dict) -> interactions.Items:
  """All artists, with names only."""
  path = paths["artists.dat"]
  rows = lines.separated(path, "\t", "id, name, url, pictureURL", header=True)
  return lines.items(path, ((raw_id, name.strip(), None, []) for _, (raw_id, name, *_) in rows))
