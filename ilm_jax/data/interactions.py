"""A log of interactions as arrays; the k-core, the split, and the texts of items.

Users are 0..U-1. Items are entity rows 1..I. Both are in ascending order of their raw ids, so that
their numbers do not reveal the order of events. The interactions of a user are in order of time;
the rule of the split (`splits`) orders equal times. A log without times keeps its own order.
"""
import collections
import dataclasses
import functools
import json
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from etils import epath

from ilm_jax import errors
from ilm_jax.data import arrays, ids, splits
from ilm_jax.data import rows as rows_lib

_HELD_AT_MOST = 1.25      # times the fraction of items that are asked to be held out
_DIGITS = 4000      # of an id that is compared as a number: Python reads 4,300 at most


@dataclasses.dataclass(frozen=True)
class Items:
  """Descriptions of the items. Position j describes entity row j + 1."""
  ids: list[str]
  titles: list[str]             # "The Usual Suspects": without the year, the article first
  years: list[int | None]
  genres: list[list[str]]

  def __len__(self) -> int:
    return len(self.ids)

  @functools.cached_property
  def row_of(self) -> dict[str, int]:
    """Raw id -> entity row."""
    return {raw: row for row, raw in enumerate(self.ids, 1)}

  @functools.cached_property
  def rows_of_genre(self) -> dict[str, np.ndarray]:
    """Genre without case -> int32 entity rows."""
    rows = collections.defaultdict(list)
    for row, genres in enumerate(self.genres, 1):
      for genre in {genre.casefold() for genre in genres}:
        rows[genre].append(row)
    return {genre: np.array(of, np.int32) for genre, of in rows.items()}

  @functools.cached_property
  def twins(self) -> dict[int, list[int]]:
    """Entity row -> all rows with its title and year, its own too; only of items that have such
    twins and a year (some logs list a film twice)."""
    rows: dict[tuple, list[int]] = {}
    for row, name in enumerate(zip(self.titles, self.years), 1):
      if all(name):
        rows.setdefault(name, []).append(row)
    return {row: of for of in rows.values() if len(of) > 1 for row in of}

  @functools.cached_property
  def year_I1(self) -> np.ndarray:
    """float64 [I + 1] years by entity row; NaN: not known."""
    return np.array([np.nan, *(np.nan if year is None else year for year in self.years)])

  def take(self, positions) -> "Items":
    """The items at `positions`, in that order."""
    return Items([self.ids[p] for p in positions], [self.titles[p] for p in positions],
                 [self.years[p] for p in positions], [self.genres[p] for p in positions])


_LEAVE_ONE_OUT = np.empty(0, np.int8)      # a mark


@dataclasses.dataclass(frozen=True)
class Interactions:
  """N interactions, sorted by user, then time, and the part of the split that each belongs to."""
  user_ids: list[str]    # raw ids; position u is user u
  num_items: int         # I
  user_N: np.ndarray     # int32, 0..U-1
  item_N: np.ndarray     # int32, entity rows 1..I
  time_N: np.ndarray     # int64, seconds; all 0 if not known
  value_N: np.ndarray    # float32, e.g. a rating
  # int8, splits.TRAIN ...; by default leave one out
  part_N: np.ndarray = dataclasses.field(default_factory=lambda: _LEAVE_ONE_OUT)

  def __post_init__(self):
    if self.part_N is _LEAVE_ONE_OUT:
      part_N = splits.parts(splits.STABLE, self.user_N, self.time_N)
      object.__setattr__(self, "part_N", part_N)

  @functools.cached_property
  def split(self) -> splits.Split:
    """The parts as masks."""
    return splits.Split(self.part_N == splits.TRAIN, self.part_N == splits.VALID,
                        self.part_N == splits.TEST)

  @property
  def num_users(self) -> int:
    return len(self.user_ids)

  @property
  def rows(self) -> rows_lib.EntityRows:
    """The rows of these items and users in the entity table."""
    return rows_lib.EntityRows(self.num_items, self.num_users)

  @functools.cached_property
  def offsets_U1(self) -> np.ndarray:
    """int64 [U + 1]: user u's interactions are [offsets[u], offsets[u + 1])."""
    return np.searchsorted(self.user_N, np.arange(self.num_users + 1, dtype=self.user_N.dtype))

  @functools.cached_property
  def train_counts(self) -> np.ndarray:
    """int64 [R] by entity row: the number of training interactions of each item and user."""
    train_N = self.split.train
    rows_N = np.r_[self.item_N[train_N], self.rows.user(self.user_N[train_N])]
    return np.bincount(rows_N, minlength=self.rows.total)

  @property
  def untrained_items(self) -> np.ndarray:
    """int64: item rows without a training interaction, ascending."""
    return 1 + np.flatnonzero(self.train_counts[1:self.num_items + 1] == 0)

  def of_user(self, user: int) -> slice:
    """The slice of the interactions of `user`."""
    start, stop = self.offsets_U1[user:user + 2].tolist()
    return slice(start, stop)

  def before_target(self, user: int, part: int = splits.TEST) -> np.ndarray:
    """int32: item rows of `user` before the target of `part`, oldest first; all if it has none."""
    span = self.of_user(user)
    at = np.flatnonzero(self.part_N[span] == part)
    return self.item_N[span][:at[0]] if len(at) else self.item_N[span]


def k_core(user_N, item_N, k: int) -> np.ndarray:
  """Removes users and items with fewer than k interactions until all that remain have k.

  Args:
    user_N, item_N: int codes from 0.
    k: the least number of interactions of a user and of an item.

  Returns:
    bool [N]: the interactions that remain.
  """
  keep_N = np.ones(len(user_N), bool)
  while True:
    many_user = np.bincount(user_N[keep_N], minlength=np.max(user_N, initial=0) + 1) >= k
    many_item = np.bincount(item_N[keep_N], minlength=np.max(item_N, initial=0) + 1) >= k
    smaller_N = keep_N & many_user[user_N] & many_item[item_N]
    if (smaller_N == keep_N).all():
      return keep_N
    keep_N = smaller_N


def build(user_ids, item_ids, times, values, items: Items, k: int,
          rule: splits.Rule = splits.STABLE, also: Sequence[str] = ()
          ) -> tuple[Interactions, Items]:
  """Arrays of the k-core of a log.

  Args:
    user_ids, item_ids: raw ids as str, one for each event, in the order of the log; a large log
      as `ids.Ids`.
    times: seconds; None: not known, the order of the log is used.
    values: a number for each event, e.g. its rating.
    items: descriptions of all items of the log, or more. The id replaces an empty title.
    k: users and items with fewer interactions are removed until all that remain have k. 0: all of
      `items` stay, those without an interaction too.
    rule: the rule of the split; it also orders equal times.
    also: ids of `items` that remain without interactions if they are not in the k-core.

  Returns:
    The interactions, and the items that remain.

  Raises:
    UserError: nothing remains, an item has no description, or the split needs times.
  """
  if times is None and rule.timed:
    raise errors.UserError(f"data.split={rule.name!r} needs times, and this log has none: use "
                           "data.split='loo_stable'")
  times = np.zeros(len(user_ids), np.int64) if times is None else np.asarray(times, np.int64)
  users, user_N = codes(user_ids)
  catalogue, item_N = codes(ids.Ids.of(item_ids).followed_by(also if k else items.ids))
  item_N, also_A = item_N[:len(user_N)], item_N[len(user_N):]
  kept_N = np.flatnonzero(k_core(user_N, item_N, k))
  if not len(kept_N):
    raise errors.UserError(f"no interaction of {len(times)} remains in the {k}-core: "
                           "choose a smaller data.k_core")
  kept_N = kept_N[splits.order(rule, user_N[kept_N], times[kept_N])]
  used_users, user_N = np.unique(user_N[kept_N], return_inverse=True)
  # With k=0 `also_A` has all of `items`.
  used_items, item_N = np.unique(np.concatenate([item_N[kept_N], also_A]), return_inverse=True)
  item_N = item_N[:len(kept_N)]
  left = described(items, [catalogue[i] for i in used_items])
  return Interactions(
      user_ids=[users[u] for u in used_users], num_items=len(left),
      user_N=user_N.astype(np.int32), item_N=(item_N + 1).astype(np.int32),
      time_N=times[kept_N], value_N=np.asarray(values, np.float32)[kept_N],
      part_N=splits.parts(rule, user_N, times[kept_N], item_N),
  ), left


def described(items: Items, raw_ids: list[str]) -> Items:
  """The items `raw_ids`, in that order; the id replaces an empty title.

  Raises:
    UserError: an item has no description.
  """
  position = {raw: i for i, raw in enumerate(items.ids)}
  if unknown := [raw for raw in raw_ids if raw not in position]:
    raise errors.UserError(f"{len(unknown)} items of the log have no description, e.g. item "
                           f"{unknown[0]!r}: the items file lacks them or belongs to another log; "
                           "give the right file")
  left = items.take([position[raw] for raw in raw_ids])
  return dataclasses.replace(left, titles=[t or raw for t, raw in zip(left.titles, left.ids)])


def codes(raw_ids) -> tuple[list[str], np.ndarray]:
  """(distinct ids, int64 [N] index of each event's id): ascending, as numbers if all ids are."""
  events = ids.Ids.of(raw_ids)
  numeric = all(raw.removeprefix("-").isdecimal() and len(raw) < _DIGITS for raw in events.names)
  ordered = sorted(events.names, key=lambda raw: (int(raw), raw) if numeric else raw)
  place = {raw: i for i, raw in enumerate(ordered)}
  return ordered, np.array([place[raw] for raw in events.names], np.int64)[events.code_N]


def train_histories(interactions: Interactions) -> list[np.ndarray]:
  """For each user, the entity rows of the training interactions, in time order."""
  train_N = interactions.split.train
  counts_U = np.bincount(interactions.user_N[train_N], minlength=interactions.num_users)
  return np.split(interactions.item_N[train_N], np.cumsum(counts_U)[:-1])


def validation_targets(interactions: Interactions) -> np.ndarray:
  """int [users]: item row of each user's last validation target; 0: none.

  Items without a training interaction are no targets here: a model that learns from interactions
  alone ranks them by chance, and their ranks would influence which epoch is kept.
  """
  target_U = np.zeros(interactions.num_users, np.int64)
  valid_N = interactions.split.valid & (interactions.train_counts[interactions.item_N] > 0)
  target_U[interactions.user_N[valid_N]] = interactions.item_N[valid_N]
  return target_U


def heldout_items(items: Items, fraction: float, seed: int) -> np.ndarray:
  """bool [I + 1] by entity row: items whose text is never trained on; False for row 0.

  These are a random share of the items, and all items with the same title and year as one of them:
  some logs list an item twice, and its twin in training would reveal the text. Where many items
  share a title, twins would make the share far larger. So at most 1.25 * fraction of the items,
  rounded up, are held out: a drawn title whose items would exceed this stays in training.
  """
  count = len(items)
  number_of: dict[str, int] = {}
  title_I = np.array([number_of.setdefault(full_title(items, row + 1), len(number_of))
                      for row in range(count)], np.int64)
  size_T = np.bincount(title_I)
  held_T = np.zeros(len(size_T), bool)
  room = math.ceil(_HELD_AT_MOST * fraction * count)
  chosen = np.random.default_rng(seed).permutation(count)[:round(fraction * count)]
  for title in title_I[chosen]:
    if not held_T[title] and size_T[title] <= room:
      held_T[title] = True
      room -= size_T[title]
  return np.r_[False, held_T[title_I]]


def full_title(items: Items, row: int) -> str:
  """ "Toy Story (1995)"; without a year just the title."""
  year = items.years[row - 1]
  return items.titles[row - 1] + (f" ({year})" if year else "")


def item_text(items: Items, row: int) -> str:
  """ "Toy Story (1995). Animation, Children's, Comedy": the text of an item for the text tower."""
  genres = ", ".join(items.genres[row - 1])
  return full_title(items, row) + (f". {genres}" if genres else "")


def save(folder, interactions: Interactions, items: Items, source: dict) -> str:
  """Writes interactions.npz, items.json and manifest.json; returns the fingerprint.

  Args:
    folder: where to write.
    interactions, items: what to write.
    source: what they were made from, e.g. {"ml-100k": sha256, "k_core": 5}.
  """
  stored = {name: getattr(interactions, name)
            for name in ("user_N", "item_N", "time_N", "value_N", "part_N")}
  documents = {"items": dataclasses.asdict(items), "users": interactions.user_ids}
  return arrays.save(folder, "interactions", stored, documents=documents, made_from=source)


class Data(NamedTuple):
  """The data that stage prepare writes to data/."""
  log: Interactions
  items: Items
  fingerprint: str      # sha256 of both and of the split


def load(folder) -> Data:
  """The interactions and items that `save` wrote; UserError if they are absent or damaged."""
  stored, documents, manifest = arrays.load(folder, "interactions", "run --stage=prepare")
  items = Items(**documents["items"])
  interactions = Interactions(user_ids=documents["users"], num_items=len(items), **stored)
  return Data(interactions, items, manifest["fingerprint"])


def load_names(folder) -> tuple[list[str], Items]:
  """(raw ids of the users, the items) that `save` wrote; the interactions are not read."""
  users, items = (json.loads((epath.Path(folder) / f"{name}.json").read_text())
                  for name in ("users", "items"))
  return users, Items(**items)
