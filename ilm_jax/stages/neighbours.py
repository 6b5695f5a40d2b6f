"""Stage recommend, --items=all: the nearest items of every item, to a file or to a folder of parts.

    .. --stage=recommend --items=all --k=20 --out=neighbours.parquet
    .. --stage=recommend --items=all --k=20 --out=neighbours/

A folder (a name that ends in /) holds a Parquet file for each 65,536 items. The processes of a job
share the parts; complete parts are not made again, so the same command resumes.
"""
import hashlib
import pathlib

import numpy as np

from ilm_jax.data import interactions as interactions_lib
from ilm_jax.evaluation import list_files, nearest
from ilm_jax.runtime import distributed
from ilm_jax.stages import list_parts

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
    UserError: `out` cannot be written, or holds neighbours made from other vectors.
  """
  count = len(vector_IE)
  here = distributed.here()
  if not out.endswith("/"):
    if distributed.is_main():
      _write(out, vector_IE, items, range(count), k)
    return count if distributed.is_main() else 0
  folder, made = pathlib.Path(out), 0
  digest = hashlib.sha256(np.ascontiguousarray(vector_IE, np.float32).data)
  list_parts.claim(folder, {"vectors": digest.hexdigest(), "k": k, "items of a part": PART},
                   "neighbours", distributed.is_main())
  for number, (path, part) in enumerate(list_parts.parts(folder, count, PART)):
    if number % here.count == here.process and not path.exists():
      _write(str(path), vector_IE, items, part, k)
      made += len(part)
  distributed.wait("neighbours")
  return made


def _write(path: str, vector_IE, items: interactions_lib.Items, part: range, k: int) -> None:
  with list_files.writing(path, COLUMNS) as write_rows:
    for of, near_NK, cosine_NK in nearest.neighbours(vector_IE, part.start, part.stop, k):
      write_rows([
          list_files.Row(items.ids[item], place + 1, items.ids[near],
                         interactions_lib.full_title(items, near + 1), cosine)
          for item, near_K, cosine_K in zip(of, near_NK.tolist(), cosine_NK.tolist())
          for place, (near, cosine) in enumerate(zip(near_K, cosine_K))])
