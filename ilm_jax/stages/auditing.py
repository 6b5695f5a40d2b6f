"""Stage audit: looks for what makes the numbers of a run too good; a finding ends it with 1."""
import json
import re

import numpy as np

from ilm_jax import errors
from ilm_jax.data import store
from ilm_jax.evaluation import audit
from ilm_jax.stages import context, vectors

LARGEST = 5_000_000      # interactions up to which factors are made again to compare


def run(this: context.Run) -> None:
  """Prints each check that was made.

  Raises:
    UserError: something was found; it names all of it.
  """
  findings: list[str] = []
  for name, found in _checks(this):
    print(f"audit: {name}: {'clean' if not found else f'{len(found)} finding(s)'}", flush=True)
    findings += found
  if findings:
    raise errors.UserError("audit found: " + "; ".join(findings))


def _checks(this: context.Run):
  """Yields (check, findings)."""
  log, items, data = this.data
  for folder in sorted((this.workdir / "prepared").glob("*/*/manifest.json")):
    made_from = json.loads(folder.read_text())["made_from"]
    yield f"{folder.parent} is of these data", audit.of_these_data(
        str(folder.parent), made_from, data)
  manifest = store.read_manifest(this.workdir / "entities")
  if manifest:
    yield "entities/ is of these data", audit.of_these_data(
        "entities/", manifest["made_from"], data)
    yield from _vectors(this, log)
  yield from _tasks(this, log)
  yield "item rows carry no order", audit.rows_carry_no_order(
      log, np.r_[log.rows.items], "item rows")
  yield from _index(this, log, items)
  yield "ties are not sorted by item", audit.ties_not_sorted(log)


def _tasks(this: context.Run, log):
  for task in ("sequential", "straightforward"):
    for split in ("train", "validation", "test"):
      examples = store.Prepared(_folder(this, task, split))
      if this.config.tasks.entities == "slots":
        yield f"{task} {split}: no target in the text", audit.target_not_told(
            task, split, examples)
        if task == "sequential":
          yield f"{task} {split}: histories are as logged", audit.histories_as_logged(
              task, split, examples, log, this.config.tasks.history)
  for task in ("sequential", "straightforward", "user_item", "item_item"):
    examples = store.Prepared(_folder(this, task, "train"))
    yield f"{task} train: training interactions alone", audit.trained_on_training_alone(
        task, examples, log)


def _vectors(this: context.Run, log):
  if len(log.user_N) > LARGEST:
    print(f"audit: factors are not made again from over {LARGEST:,} interactions", flush=True)
    return
  again = vectors.factorise(this.config, log, this.mesh)
  yield "vectors are of training interactions", audit.vectors_of_training(
      *vectors.factors(this), *map(np.asarray, again))


def _index(this: context.Run, log, items):
  path = this.workdir / "prepared" / "index.json"
  if not path.exists():
    return
  names = json.loads(path.read_text())["names"]
  spelled = [re.fullmatch(r" ?(?:<index_)?(\d+)>?", names[raw_id]) for raw_id in items.ids]
  # A sequential index follows training by its nature; what it may not follow is the test part.
  if all(spelled) and this.config.tasks.index != "sequential":
    yield "the index carries no order", audit.rows_carry_no_order(
        log, [int(m[1]) for m in spelled], "the index")


def _folder(this: context.Run, task: str, split: str):
  return this.workdir / "prepared" / f"{this.dataset}_{task}" / split
