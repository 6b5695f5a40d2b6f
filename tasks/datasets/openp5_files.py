"""Reads the folder of a data set as OpenP5 distributes it. Imports no TensorFlow.

  user_sequence.txt       user item item ...      a line a user, oldest first
  user_indexing.txt       user number             optional
  item_*_indexing*.txt    item index              optional: 1001, or <CI3><CI17>
  prompt.txt              task; seen|unseen; input; output

The sequences have no times and no ratings: their order is the order in time. Items have no words:
an items file named by `config.data.columns` describes them, else ids are their titles.
"""
from typing import NamedTuple

from ilm_jax import errors
from ilm_jax.data import interactions
from ilm_jax.tasks.datasets import lines, table_files

SEQUENCES = "user_sequence.txt"


class Prompt(NamedTuple):
  """A line of prompt.txt."""
  task: str        # "sequential", "straightforward"
  seen: bool       # asked in training
  inputs: str      # "... {user_id} ... {history} ..."
  targets: str     # "{dataset} {target}"


def read_log(paths: dict):
  """(user_ids, item_ids, None, ones): the sequences, one user after the other."""
  path, log, users = paths[SEQUENCES], lines.Log(timed=False), set()
  with lines.text(path) as file:
    for number, line in enumerate(file, 1):
      if not (words := line.split()):
        continue
      user, *items = words
      if not items:
        raise errors.UserError(f"{path}, line {number}: user {user!r} has no items, expected "
                               "user item item ...")
      if user in users:
        raise errors.UserError(f"{path}, line {number}: user {user!r} has a line already")
      users.add(user)
      for item in items:
        log.add(user, item, None, 1.0)
  return log.done(path)


def read_items(paths: dict, columns) -> interactions.Items:
  """The items of the items file if there is one, else ids only."""
  if len(paths) > 1:
    return table_files.read_items(paths, columns)
  raw_ids = sorted(read_log(paths).item_ids.names)
  return lines.items(paths[SEQUENCES], [(raw_id, "", None, []) for raw_id in raw_ids])


def read_index(path) -> dict[str, str]:
  """{raw id: index} of an index file, in the order of the file."""
  index_of = {}
  for number, (raw_id, index) in lines.separated(path, " ", "id, index"):
    if raw_id in index_of:
      raise errors.UserError(f"{path}, line {number}: {raw_id!r} has an index already")
    index_of[raw_id] = index
  if len(set(index_of.values())) < len(index_of):
    raise errors.UserError(f"{path}: some ids share an index, so decoding could not tell them "
                           "apart; make the index again")
  return index_of


def read_prompts(path) -> list[Prompt]:
  """The templates of prompt.txt, in the order of the file."""
  prompts = []
  for number, fields in lines.separated(path, ";", "task, seen or unseen, input, output"):
    task, kind, inputs, targets = (field.strip() for field in fields)
    if kind not in ("seen", "unseen"):
      raise errors.UserError(f"{path}, line {number}: found {kind!r}, expected 'seen' or 'unseen'")
    prompts.append(Prompt(task, kind == "seen", inputs, targets))
  return prompts
