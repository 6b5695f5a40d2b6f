"""Reads the Last.fm set of HetRec 2011. Imports no TensorFlow.

  user_artists.dat   userID, artistID, weight: tab separated, header
  artists.dat        id, name, url, pictureURL: tab separated, header, UTF-8

The weight is a play count. There are no times: the order of the file, which is most played first,
stands in for them and means nothing; use this set for collaborative filtering.
"""
from ilm_jax.data import interactions
from tasks.datasets import lines


def read_log(paths: dict):
  """(user_ids, item_ids, None, play counts), in the order of the file."""
  path = paths["user_artists.dat"]
  log = lines.Log(timed=False)
  for number, (user, artist, weight) in lines.separated(path, "\t", "user, artist, weight",
                                                        header=True):
    log.add(user, artist, None, lines.number_of(path, number, "weight", weight))
  return log.done(path)


def read_items(paths: dict) -> interactions.Items:
  """All artists: names alone."""
  rows = [row for _, row in lines.separated(
      paths["artists.dat"], "\t", "id, name, url, pictureURL", header=True)]
  return interactions.Items(ids=[row[0] for row in rows], titles=[row[1].strip() for row in rows],
                            years=[None] * len(rows), genres=[[] for _ in rows])
