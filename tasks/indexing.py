"""Names by which a language model calls an item: here, its title."""
from ilm_jax import errors
from ilm_jax.data import interactions as interactions_lib
from ilm_jax.data import tokenizer as tokenizer_lib


def titles(items: interactions_lib.Items) -> list[str]:
  """A different name for every item row; row 0 has the empty name.

  The first of several items with one title and year keeps it, the others get a number behind:
  "Heat (1995)", "Heat (1995) #2".
  """
  names, taken = [""], set()
  plain = [tokenizer_lib.escape(interactions_lib.full_title(items, row + 1))
           for row in range(len(items))]
  spoken_for = set(plain)
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
