"""Stage recommend, --items=all: the nearest items of every item, to a file or to a folder of parts.

    .. --stage=recommend --items=all --k=20 --out=neighbours.parquet
    .. --stage=recommend --items=all --k=20 --out=neighbours/

A folder (a name that ends in /) holds a Parquet file for each 65,536 items. The processes of a job
share the parts; parts that are there whole are not made again, so the same command resumes.
"""
import hashlib
import json
import pathlib

import numpy as np

from ilm_jax import errors, files
from ilm_jax.data import interactions as interactions_lib
from ilm_jax.evaluation import list_files, nearest
from ilm_jax.runtime import distributed

PART = 1 << 16
COLUMNS = ("item", "rank", "neighbour", "title", "score")


def write(out: str, vector_IE, items: interactions_lib.Items, k: int) -> int:
  """Writes the neighbours of all items and returns how many this process wrote.

  Args:
    out: a .csv or .parquet file, which process 0 writes; or a folder, with / at its end.
    vector_IE: float32 [I, E] of items 1..I.
    items: ids and titles.
    k: neighbours of each.

  Raises:
    UserError: `out` cannot be written, or holds the neighbours by other vectors.
  """
  count = len(vector_IE)
  here = distributed.here()
  if not out.endswith("/"):
    if distributed.is_main():
      _write(out, vector_IE, items, range(count), k)
    return count if distributed.is_main() else 0
  folder, made, digits = pathlib.Path(out), 0, len(str(-(-count // PART)))
  _claim(folder, vector_IE, k)
  for number, first in enumerate(range(0, count, PART)):
    part = range(first, min(first + PART, count))
    path = folder / f"part-{number:0{digits}}.parquet"
    if number % here.count == here.process and not path.exists():
      _write(str(path), vector_IE, items, part, k)
      made += len(part)
  distributed.wait("neighbours")
  return made


def _claim(folder: pathlib.Path, vector_IE, k: int) -> None:
  """Says in the folder what its parts are made from, or refuses those of something else."""
  digest = hashlib.sha256(np.ascontiguousarray(vector_IE, np.float32).data)
  made_from = {"vectors": digest.hexdigest(), "k": k, "items of a part": PART}
  path = folder / "made_from.json"
  if not path.exists():
    if folder.is_dir() and any(folder.glob("*.parquet")):
      raise errors.UserError(f"--out={folder}/ holds Parquet files that are no neighbours: name "
                             "another folder")
    if distributed.is_main():
      files.write_text(path, json.dumps(made_from, indent=1))
  elif (was := json.loads(path.read_text())) != made_from:
    what = [name for name in made_from if was.get(name) != made_from[name]]
    raise errors.UserError(f"--out={folder}/ holds neighbours by other settings "
                           f"({', '.join(what)}): name another folder, or delete it")


def _write(path: str, vector_IE, items: interactions_lib.Items, part: range, k: int) -> None:
  with list_files.writing(path, COLUMNS) as write_rows:
    for of, near_NK, cosine_NK in nearest.neighbours(vector_IE, part.start, part.stop, k):
      write_rows([
          list_files.Row(items.ids[item], place + 1, items.ids[near],
                         interactions_lib.full_title(items, near + 1), cosine)
          for item, near_K, cosine_K in zip(of, near_NK.tolist(), cosine_NK.tolist())
          for place, (near, cosine) in enumerate(zip(near_K, cosine_K))])
