"""Shared by all readers of foreign weights: checks of sizes and name maps, and nested dicts."""
import numpy as np

from ilm_jax import errors


def take(source: str, tensors: dict[str, tuple[int, ...]], wanted: dict[str, tuple[int, ...]],
         ignored: frozenset[str] = frozenset()) -> None:
  """Checks that a file holds exactly the wanted tensors.

  Args:
    source: the file, for the message.
    tensors: tensor name -> shape in the file.
    wanted: tensor name -> shape that the model needs.
    ignored: names that the file may have and that are not needed.

  Raises:
    UserError: tensors are missing, left over or of another shape; the message names all three.
  """
  missing = sorted(set(wanted) - set(tensors))
  left_over = sorted(set(tensors) - set(wanted) - ignored)
  shapes = [f"{name} has shape {tuple(tensors[name])}, expected {tuple(shape)}"
            for name, shape in wanted.items()
            if name in tensors and tuple(tensors[name]) != tuple(shape)]
  wrong = []
  if missing:
    wrong.append(f"{len(missing)} tensor(s) missing: {_some(missing)}")
  if left_over:
    wrong.append(f"{len(left_over)} left over that the model has no place for: {_some(left_over)}")
  if shapes:
    wrong.append(f"{len(shapes)} of another shape: {_some(shapes)}")
  if wrong:
    raise errors.UserError(
        f"{source}: {'; '.join(wrong)}; found {len(tensors)} tensors, expected {len(wanted)} of "
        "the sizes that the model states. Get the files again, or use a model of a supported kind")


MOST_AXES = 16       # of a tensor
_MOST_LAYERS, _MOST = 10_000, (1 << 31) - 1


def check_sizes(source: str, sizes: dict[str, object], layers: dict[str, object]) -> None:
  """Checks the sizes in a header before they are used.

  Args:
    source: the file, for the message.
    sizes: field -> value: widths, heads, words.
    layers: field -> value: numbers of layers; smaller, since every layer is looked up by name.

  Raises:
    UserError: a value is no whole number, below 1 or absurdly large; the message names the field.
  """
  for most, fields in ((_MOST, sizes), (_MOST_LAYERS, layers)):
    for name, value in fields.items():
      if type(value) is not int or not 1 <= value <= most:
        raise errors.UserError(f"{source}: {name} is {errors.shown(value)}, expected a whole "
                               f"number from 1 to {most}: the header is damaged, get the file "
                               "again")


def put(tree: dict, path: tuple, value: np.ndarray) -> None:
  """tree[path[0]][path[1]]... = value; makes missing dicts on the way."""
  for key in path[:-1]:
    tree = tree.setdefault(key, {})
  tree[path[-1]] = value


def get(tree: dict, path: tuple):
  """tree[path[0]][path[1]]..."""
  for key in path:
    tree = tree[key]
  return tree


def has(tree: dict, path: tuple) -> bool:
  """Whether `tree` has a value at `path`, so that `get` works."""
  for key in path:
    if not isinstance(tree, dict) or key not in tree:
      return False
    tree = tree[key]
  return True


def nest(path: tuple, value) -> dict:
  """A tree with only `value` at `path`."""
  tree: dict = {}
  put(tree, path, value)
  return tree


def _some(names: list[str], most: int = 4) -> str:
  return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
