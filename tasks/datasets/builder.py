"""Every data set of the registry as a TFDS data set, and as arrays.

    found = registry.find(config.data)
    builder_of("ml-1m")(found, config="interactions", data_dir=...).download_and_prepare()
    interactions, items, kept = load(found, data_dir, k=5)

Data sets keep their own terms, mostly research without redistribution: do not distribute the
prepared files.
"""
import array
import contextlib
import functools
import io
import sys
from collections.abc import Iterable, Sequence

import numpy as np
import tensorflow_datasets as tfds

from ilm_jax import errors
from ilm_jax.conversation import redial
from ilm_jax.data import ids, interactions, kept, splits
from ilm_jax.tasks import beam_options
from ilm_jax.tasks.datasets import examples, lines, registry


def _list_of(dtype) -> tfds.features.Tensor:
  """Not `Sequence`, which encodes each element alone, in Python."""
  return tfds.features.Tensor(shape=(None,), dtype=dtype)


_FEATURES = {
    "interactions": {
        "user_id": tfds.features.Text(),
        "item_ids": _list_of(np.str_),
        "ratings": _list_of(np.float32),
        "timestamps": _list_of(np.int64),                          # seconds; 0: not known
        "places": _list_of(np.int64),                              # in the log of all users
    },
    "items": {
        "item_id": tfds.features.Text(),
        "title": tfds.features.Text(),                             # "The Usual Suspects"
        "year": np.int32,                                          # 0: not known
        "genres": _list_of(np.str_),
    },
}


class _Log(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """A log of users and items, and the items' titles, years and genres.

  `interactions` has one example per user, events in time order, equal times in the order of the
  log. `items` has one example per item. Nothing is split: TFDS calls that `train`.
  """
  VERSION = tfds.core.Version("2.0.0")
  RELEASE_NOTES = {"2.0.0": "Events keep their place in the log."}
  BUILDER_CONFIGS = [
      tfds.core.BuilderConfig(name="interactions", description="One example per user."),
      tfds.core.BuilderConfig(name="items", description="One example per item."),
  ]

  def __init__(self, found: registry.Found, *, beam: bool = False, **kwargs):
    """A builder for the files in `found`; `beam`: an Apache Beam pipeline makes the examples."""
    self._found, self._beam = found, beam
    super().__init__(**kwargs)

  def _info(self) -> tfds.core.DatasetInfo:
    about = self._found.about
    return tfds.core.DatasetInfo(
        builder=self, features=tfds.features.FeaturesDict(_FEATURES[self.builder_config.name]),
        description=type(self).__doc__, homepage=about.homepage or None, citation=about.citation,
        disable_shuffling=True)

  def _split_generators(self, dl_manager):
    del dl_manager      # files are the user's, or assets with our own pins, sources and cache
    return {"train": self._generate_examples()}

  def _generate_examples(self):
    items = self.builder_config.name == "items"
    if self._beam:
      from ilm_jax.tasks.datasets import beam_log
      return beam_log.items(self._found) if items else beam_log.users(self._found)
    if items:
      return enumerate(examples.of_items(self._found.read_items()))
    return enumerate(examples.of_users(*self._found.read_log()))


@functools.cache
def builder_of(name: str) -> type[tfds.core.GeneratorBasedBuilder]:
  """The TFDS builder of the data set `name`: "ml-1m" is `ml_1m` to TFDS."""
  return type(f"{name.title().replace('-', '')}Log", (_Log,), {
      "name": name.replace("-", "_"), "__doc__": _Log.__doc__, "__module__": __name__},
      skip_registration=True)


def load(found: registry.Found, data_dir, k: int = 5, rule: splits.Rule = splits.STABLE,
         beam: tuple[str, ...] = (), talks: Sequence[redial.Talk] = ()):
  """The k-core of a data set as arrays, read from the TFDS data set.

  Args:
    found: the data set and its files.
    data_dir: where the data set is prepared, once for each content of the files.
    k: users and items with fewer interactions are removed until all that are left have k; 0: keeps
      also items without interactions.
    rule: how it is split.
    beam: options of an Apache Beam pipeline that prepares it; (): this process does.
    talks: dialogs whose films remain whatever `k` is, also those that the log lacks.

  Returns:
    (interactions.Interactions, interactions.Items, kept.Kept).

  Raises:
    UserError: a line of the files is wrong, or the counts are not the published ones.
  """
  folder = data_dir / found.fingerprint[:12]
  users, raw_items, time_N, value_N = _log(_read(found, "interactions", folder, beam))
  _check(found, "the log", registry.Counts(0, 0, len(users)),
         registry.Counts(0, 0, found.about.events))
  items = described = _items(_read(found, "items", folder, beam))
  if found.about.partial:
    items = _with_unnamed(described, raw_items)
  every, named = redial.with_films(list(talks), items) if talks else (items, [])
  log, left = interactions.build(users, raw_items, time_N if found.timed else None, value_N, every,
                                 k, rule, also=named)
  core = {left.ids[row - 1] for row in np.unique(log.item_N)} if k else set(items.ids)
  if k in found.about.cores:
    _check(found, f"its {k}-core", registry.Counts(log.num_users, len(core), len(log.user_N)),
           found.about.cores[k])
  return log, left, kept.counted(users, raw_items, described, log, k,
                                 [raw for raw in left.ids if raw not in core])


def _check(found: registry.Found, what: str, counts, published) -> None:
  """Raises UserError if counts differ from published ones (0: not published)."""
  wrong = [f"{have:,} {name} (published: {want:,})"
           for name, have, want in zip(counts._fields, counts, published) if want and have != want]
  if wrong:
    files = ", ".join(str(path) for path in found.paths.values())
    raise errors.UserError(
        f"{found.name}: {what} has {' and '.join(wrong)}: {files} are cut short or of another "
        "release. Fetch them again, or read them as files of your own (data.name='table')")


def _with_unnamed(items: interactions.Items, item_ids: ids.Ids) -> interactions.Items:
  """`items`, and the log's other items without words; unchanged if no item of the log is there."""
  met = set(item_ids.names)
  lacking = sorted(met - set(items.ids))
  if len(lacking) == len(met):       # another log's items file: `interactions.build` says so
    return items
  return interactions.Items(
      items.ids + lacking, items.titles + [""] * len(lacking), items.years + [None] * len(lacking),
      items.genres + [[] for _ in lacking])


def _read(found: registry.Found, config: str, data_dir, beam: tuple[str, ...] = ()
          ) -> Iterable[dict]:
  """All examples of one config, which is prepared first if it is missing."""
  builder = builder_of(found.name)(found, beam=bool(beam), config=config, data_dir=data_dir)
  options = beam_options.parsed(beam) if beam else None
  if not sys.stderr.isatty():
    tfds.disable_progress_bar()
  # TFDS announces downloads even of files that are already on this machine.
  with beam_options.mistakes_told(), contextlib.redirect_stdout(io.StringIO()):
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(
        try_download_gcs=False, beam_options=options))
  return tfds.as_numpy(builder.as_dataset(split="train"))


def _log(users: Iterable[dict]) -> lines.Events:
  """The events of all users, in the order of the log."""
  names, counts, items = [], [], ids.Collector()
  decode = functools.cache(bytes.decode)
  columns = {"places": array.array("q"), "timestamps": array.array("q"),
             "ratings": array.array("f")}
  for user in users:
    names.append(user["user_id"].decode())
    counts.append(len(user["item_ids"]))
    for item in user["item_ids"]:
      items.add(decode(item))
    for name, column in columns.items():
      column.frombytes(user[name].tobytes())
  place_N, time_N, value_N = map(np.asarray, columns.values())
  order_N = np.argsort(place_N)
  user_N = np.arange(len(names), dtype=np.int32).repeat(counts)
  return lines.Events(ids.Ids(names, user_N).take(order_N), items.done().take(order_N),
                      time_N[order_N], value_N[order_N])


def _items(examples: Iterable[dict]) -> interactions.Items:
  """The `items` examples as one object."""
  examples = list(examples)
  return interactions.Items(
      ids=[e["item_id"].decode() for e in examples],
      titles=[e["title"].decode() for e in examples],
      years=[int(e["year"]) or None for e in examples],
      genres=[[genre.decode() for genre in e["genres"]] for e in examples])
