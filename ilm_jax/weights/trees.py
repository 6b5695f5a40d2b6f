"""What every reader of other people's weights shares: complete name maps, checked and told once."""
import numpy as np

from ilm_jax import errors


def take(source: str, found: dict[str, tuple[int, ...]], wanted: dict[str, tuple[int, ...]],
         ignored: frozenset[str] = frozenset()) -> None:
  """Checks that a file holds exactly the wanted tensors.

  Args:
    source: the file, for the message.
    found: tensor name -> shape in the file.
    wanted: tensor name -> shape that the model has.
    ignored: names that may be there and are known not to be needed.

  Raises:
    UserError: a tensor is missing, left over or of another shape.
  """
  missing = sorted(set(wanted) - set(found))
  left_over = sorted(set(found) - set(wanted) - ignored)
  if missing:
    raise errors.UserError(
        f"{source}: {len(missing)} tensor(s) missing: {_some(missing)}; found {len(found)}, "
        f"expected {len(wanted)}. Get the file again, or use one of a supported model")
  if left_over:
    raise errors.UserError(
        f"{source}: {len(left_over)} tensor(s) left over that the model has no place for: "
        f"{_some(left_over)}. The file is of another kind of model: use a supported one")
  for name, shape in wanted.items():
    if tuple(found[name]) != tuple(shape):
      raise errors.UserError(
          f"{source}: tensor {name} has shape {tuple(found[name])}, expected {tuple(shape)} from "
          "the sizes the file states. Get the file again, or use one of a supported model")


def put(tree: dict, path: tuple, value: np.ndarray) -> None:
  """tree[path[0]][path[1]]... = value, making the dicts on the way."""
  for key in path[:-1]:
    tree = tree.setdefault(key, {})
  tree[path[-1]] = value


def _some(names: list[str], most: int = 4) -> str:
  return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
