"""Names by which a language model calls an item: here, its title."""
import collections

from ilm_jax import errors
from ilm_jax.data import interactions as interactions_lib
from ilm_jax.data import tokenizer as tokenizer_lib


def titles(items: interactions_lib.Items) -> list[str]:
  """A different name for every item row; row 0 has the empty name.

  The title alone: a year would more than double the catalogue's trie where the tokenizer splits
  digits. Items that share a title get their year, "Hamlet (1996)"; of those that share both, all
  but the first get a number behind: "Heat (1995) #2".
  """
  short = [tokenizer_lib.escape(title) for title in items.titles]
  shared = {title for title, count in collections.Counter(short).items() if count > 1}
  plain = [tokenizer_lib.escape(interactions_lib.full_title(items, row + 1))
           if title in shared else title for row, title in enumerate(short)]
  names, taken, spoken_for = [""], set(), set(plain)
  for name in plain:
    number, chosen = 1, name
    while chosen in taken or (number > 1 and chosen in spoken_for):
      number += 1
      chosen = f"{name} #{number}"
    taken.add(chosen)
    names.append(chosen)
  return names


def check_distinct(names: list[str], tokenizer: tokenizer_lib.Tokenizer):
  """Raises UserError if two names are one to the language model (a lower-casing tokenizer)."""
  rows = {}
  for row, name in enumerate(names[1:], 1):
    ids = tuple(tokenizer.encode(" " + name))
    if ids in rows:
      raise errors.UserError(
          f"items {rows[ids]} and {row}, {names[rows[ids]]!r} and {name!r}, have the same tokens: "
          "choose a language model that tells them apart")
    rows[ids] = row
