"""Lists as a folder of Parquet files: a killed stage continues with the missing parts.

Each part holds the lists of a number of users or items (`evaluation/list_files.py` writes it), and
made_from.json says what all of them are made from.
"""
import json
import pathlib

from ilm_jax import errors, files


def claim(folder: pathlib.Path, made_from: dict, of: str, write: bool) -> None:
  """Records in a folder what its parts are made from; refuses parts made from something else.

  Args:
    folder: of Parquet files.
    made_from: plain data.
    of: what the files hold, e.g. "neighbours".
    write: whether to write made_from.json if there is none yet; one process of a job does.

  Raises:
    UserError: the folder holds other files, or parts made from something else.
  """
  path = folder / "made_from.json"
  if not path.exists():
    if folder.is_dir() and any(folder.glob("*.parquet")):
      raise errors.UserError(f"--out={folder}/ holds Parquet files that are no {of}: name another "
                             "folder")
    if write:
      files.write_text(path, json.dumps(made_from, indent=1))
  elif (was := files.read_json(path, f"name another folder, or delete {folder}")) != made_from:
    was = was if isinstance(was, dict) else {}
    what = [name for name in {**was, **made_from} if was.get(name) != made_from.get(name)] or [
        "fields"]
    raise errors.UserError(f"--out={folder}/ holds {of} made with other settings "
                           f"({', '.join(what)}): name another folder, or delete it")


def parts(folder: pathlib.Path, count: int, size: int) -> list[tuple[pathlib.Path, range]]:
  """(file, the numbers below `count` that it covers) of all parts of a folder, in order."""
  digits = len(str(-(-count // size)))
  return [(folder / f"part-{number:0{digits}}.parquet", range(first, min(first + size, count)))
          for number, first in enumerate(range(0, count, size))]
