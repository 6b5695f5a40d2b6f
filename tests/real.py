"""Real data for tests: MovieLens-100K as an asset, else and others from ../shared, else skipped."""
import functools
import pathlib

import pytest

from ilm_jax import errors
from ilm_jax.assets import pinned
from tasks.datasets import movielens_files

DATA = pathlib.Path(__file__).parents[2] / "shared" / "data"
SHARED = DATA / "ml-100k"
# Where seqio (or tensorflow_datasets, which loads sooner) cannot be imported: pytest.importorskip.
NEEDS_DATA = "stage prepare needs the extra data, of Python 3.11: docs/python_versions.md"


@functools.cache
def movielens_files_or_none() -> dict[str, pathlib.Path] | None:
  try:
    return pinned.fetch("ml-100k")
  except errors.UserError:
    grouplens = {name: SHARED / name for name in ("u.data", "u.item")}
    return grouplens if all(path.is_file() for path in grouplens.values()) else None


def movielens_paths() -> dict[str, pathlib.Path]:
  """The files of one layout; skips the test if there are none."""
  paths = movielens_files_or_none()
  if paths is None:
    pytest.skip("MovieLens-100K is neither cached, nor downloadable, nor in ../shared")
  return paths


def movielens_log():
  """(user_ids, item_ids, times, values, items) in the order of the log."""
  return movielens_files.read(movielens_paths())


def shared(*names: str) -> list[pathlib.Path]:
  """Paths below ../shared/data; skips the test if one is not there."""
  paths = [DATA / name for name in names]
  if absent := [name for name, path in zip(names, paths) if not path.exists()]:
    pytest.skip(f"{absent[0]} is not in ../shared/data")
  return paths
