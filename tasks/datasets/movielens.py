"""MovieLens-100K as a TFDS data set, and as arrays.

    builder = movielens.MovieLens100K(config="interactions", data_dir=...)
    builder.download_and_prepare()

GroupLens's terms: research use with acknowledgement, no redistribution. What is prepared stays on
this machine.
"""
import numpy as np
import tensorflow_datasets as tfds

from ilm_jax import assets
from ilm_jax.data import interactions
from tasks.datasets import movielens_files

_FEATURES = {
    "interactions": {
        "user_id": tfds.features.Text(),
        "item_ids": tfds.features.Sequence(tfds.features.Text()),
        "ratings": tfds.features.Sequence(np.float32),
        "timestamps": tfds.features.Sequence(np.int64),
    },
    "items": {
        "item_id": tfds.features.Text(),
        "title": tfds.features.Text(),                             # "The Usual Suspects"
        "year": np.int32,                                          # 0: not known
        "genres": tfds.features.Sequence(tfds.features.Text()),
    },
}


class MovieLens100K(tfds.core.GeneratorBasedBuilder):
  """100,000 ratings of 1,682 films by 943 users, and the films' titles, years and genres.

  `interactions` has one example per user, events in time order, equal times in the order of the
  log. `items` has one example per film. Nothing is split: TFDS calls that `train`.
  """
  name = "ml_100k"
  VERSION = tfds.core.Version("1.0.0")
  RELEASE_NOTES = {"1.0.0": "First release."}
  BUILDER_CONFIGS = [
      tfds.core.BuilderConfig(name="interactions", description="One example per user."),
      tfds.core.BuilderConfig(name="items", description="One example per film."),
  ]

  def __init__(self, *, paths=None, **kwargs):
    """Like any builder; `paths` are files of `assets.fetch("ml-100k")`, fetched if None."""
    self._paths = paths
    super().__init__(**kwargs)

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
        builder=self, features=tfds.features.FeaturesDict(_FEATURES[self.builder_config.name]),
        homepage="https://grouplens.org/datasets/movielens/100k/", disable_shuffling=True,
        citation="Harper and Konstan: The MovieLens Datasets: History and Context. ACM TiiS 5(4), "
                 "2015.")

  def _split_generators(self, dl_manager):
    del dl_manager      # assets keep to our own pins, sources and cache
    return {"train": self._generate_examples(self._paths or assets.fetch("ml-100k"))}

  def _generate_examples(self, paths):
    if self.builder_config.name == "items":
      return enumerate(_item_examples(movielens_files.read_items(paths)))
    return enumerate(_user_examples(*movielens_files.read_log(paths)))


def _user_examples(user_ids, item_ids, times, ratings):
  """One example per user, users in ascending order of their id."""
  events = {}
  for event in zip(user_ids, item_ids, times, ratings):
    events.setdefault(event[0], []).append(event)
  for user in sorted(events, key=int):
    ordered = sorted(events[user], key=lambda event: event[2])     # stable: ties keep log order
    _, items, seconds, values = zip(*ordered)
    yield {"user_id": user, "item_ids": list(items), "ratings": list(values),
           "timestamps": list(seconds)}


def _item_examples(items: interactions.Items):
  """One example per item, in the order of the file."""
  for raw_id, title, year, genres in zip(items.ids, items.titles, items.years, items.genres):
    yield {"item_id": raw_id, "title": title, "year": year or 0, "genres": genres}


def load(data_dir, k: int = 5) -> tuple[interactions.Interactions, interactions.Items]:
  """The k-core of MovieLens-100K as arrays, read from the TFDS data set.

  Args:
    data_dir: where the data set is prepared, once.
    k: users and items with fewer interactions are removed until none is left to remove.

  Returns:
    (interactions, items).
  """
  paths = assets.fetch("ml-100k")
  return interactions.build(*_log(_read("interactions", data_dir, paths)),
                            _items(_read("items", data_dir, paths)), k)


def _read(config: str, data_dir, paths) -> list[dict]:
  """All examples of one config, prepared if they are not there yet."""
  builder = MovieLens100K(config=config, data_dir=data_dir, paths=paths)
  builder.download_and_prepare(
      download_config=tfds.download.DownloadConfig(try_download_gcs=False))
  return list(tfds.as_numpy(builder.as_dataset(split="train")))


def _log(users: list[dict]):
  """(user_ids, item_ids, times, values), one an event."""
  ids = [user["user_id"].decode() for user in users for _ in user["item_ids"]]
  items = [item.decode() for user in users for item in user["item_ids"]]
  return (ids, items, np.concatenate([user["timestamps"] for user in users]),
          np.concatenate([user["ratings"] for user in users]))


def _items(examples: list[dict]) -> interactions.Items:
  """The `items` examples as one object."""
  return interactions.Items(
      ids=[e["item_id"].decode() for e in examples],
      titles=[e["title"].decode() for e in examples],
      years=[int(e["year"]) or None for e in examples],
      genres=[[genre.decode() for genre in e["genres"]] for e in examples])
