"""Counts of what the k-core keeps of a log; stage prepare prints them and writes data/kept.json."""
import json
from collections.abc import Sequence
from typing import NamedTuple

from etils import epath

from ilm_jax import files
from ilm_jax.data import ids
from ilm_jax.data import interactions as interactions_lib

FILE = "kept.json"
_NAMED = 3                       # number of examples in a line


class Kept(NamedTuple):
  """Counts of a log before and after the k-core."""
  k: int
  users: tuple[int, int]         # (before, after)
  items: tuple[int, int]         # before: those with an interaction
  interactions: tuple[int, int]
  without: int = 0               # items with a description but no interaction
  named: tuple[str, ...] = ()    # examples of these
  nameless: int = 0              # items of the log without a row in the items file
  ids: tuple[str, ...] = ()      # examples of these
  dialog_items: int = 0          # without interactions, there because dialogs name them

  def lines(self) -> list[str]:
    """The counts as lines of text."""
    counts = ", ".join(f"{before:,} {name}" + (f" -> {after:,}" if before != after else "")
                       for name in ("users", "items", "interactions")
                       for before, after in [getattr(self, name)])
    by = f" by the {self.k}-core (data.k_core={self.k})" if self.k else " (data.k_core=0)"
    lines = [f"data: {counts}{by}"]
    if self.without:
      fate = "left out; data.k_core=0 keeps them" if self.k else "kept (data.k_core=0)"
      lines.append(f"data: {self.without:,} items of the items file have no interaction: {fate}; "
                   f"{'e.g. ' * (self.without > len(self.named))}{', '.join(self.named)}")
    if self.nameless:
      lines.append(f"data: {self.nameless:,} of {self.items[0]:,} items of the log have no row in "
                   "the items file and are called by their ids: "
                   f"{'e.g. ' * (self.nameless > len(self.ids))}{', '.join(self.ids)}")
    if self.dialog_items:
      lines.append(f"data: {self.dialog_items:,} more items, which ReDial's dialogs name "
                   "(data.dialog_items)")
    return lines


def counted(user_ids, item_ids, items: interactions_lib.Items,
            log: interactions_lib.Interactions, k: int, dialog_items: Sequence[str] = ()) -> Kept:
  """Counts a log before and after `interactions.build`.

  Args:
    user_ids, item_ids: raw ids, one for each event.
    items: all described items.
    log: the result of `interactions.build`.
    k: data.k_core.
    dialog_items: ids of the items that are there only because dialogs name them.
  """
  met = set(ids.Ids.of(item_ids).names)
  there = met.union(dialog_items)
  without = [f"{title!r} ({raw})" if title else repr(raw)
             for raw, title in zip(items.ids, items.titles) if raw not in there]
  nameless = sorted(met - set(items.ids))
  users = len(ids.Ids.of(user_ids).names)
  return Kept(k, (users, log.num_users), (len(met), log.num_items - len(dialog_items)),
              (len(user_ids), len(log.user_N)), len(without), tuple(without[:_NAMED]),
              len(nameless), tuple(map(repr, nameless[:_NAMED])), len(dialog_items))


def save(folder, kept: Kept) -> None:
  """Writes kept.json. It is only for display: no fingerprint depends on it."""
  files.write_text(epath.Path(folder) / FILE,
                   json.dumps(files.stamped(kept._asdict()), indent=1, ensure_ascii=False))


def load(folder) -> Kept | None:
  """The counts that `save` wrote; None if there are none, e.g. in data of an older version.

  Raises:
    UserError: the file is damaged.
  """
  path = epath.Path(folder) / FILE
  if not path.exists():
    return None
  return Kept(**files.read_stamped(path, f"delete {path.parent} and run --stage=prepare"))
