"""Stage audit: looks for leaks and damage that would falsify results; exits with 1 on a finding."""
import functools
import re

import numpy as np

from ilm_jax import errors, files
from ilm_jax.config import reading as config_lib
from ilm_jax.config import settings as settings_lib
from ilm_jax.config import variants
from ilm_jax.conversation import dialogs as dialogs_lib
from ilm_jax.data import entities as entities_lib
from ilm_jax.data import store, tokenizer
from ilm_jax.evaluation import audit, measured
from ilm_jax.stages import context, damage, recipe, vectors
from ilm_jax.training import checkpoint

LARGEST = 5_000_000      # up to so many interactions the factors are computed again to compare


def run(run: context.Run) -> None:
  """Prints the result of each check.

  Raises:
    UserError: it names all findings.
  """
  findings: list[str] = []
  for name, of_check in _checks(run):
    verdict = f"{len(of_check)} finding(s)" if of_check else "clean"
    print(f"audit: {name}: {verdict}", flush=True)
    findings += of_check
  print("audit: repeated targets (docs/reference/ranking.md): " + ", ".join(
      f"{count} of {targets} in {part}"
      for part, (count, targets) in audit.repeated_targets(run.data.log).items()), flush=True)
  if findings:
    raise errors.UserError("audit found: " + "; ".join(findings))


def _checks(run: context.Run):
  """Yields (check, findings)."""
  for name, wrong in damage.checks(run.workdir):
    yield f"{name} is undamaged", wrong
  log, items, data = run.data
  yield from _prepared(run.workdir, data)
  manifest = store.read_manifest(run.workdir / "entities")
  if manifest:
    yield "entities/ was made from these data", audit.of_these_data(
        "entities/", manifest["made_from"], data)
    of_dialogs = vectors.dialog_histories(run)
    yield from _vectors(run, log, of_dialogs)
    liked = {"behavioral": [row for rows in of_dialogs for row in rows]}
    present = entities_lib.load(run.workdir / "entities").present
    for name in (name for name in present if name != "semantic"):
      yield f"{name} vectors: only with training interactions", audit.no_vectors_of_untrained(
          name, present[name], log, liked.get(name, []))
  yield from _dialogs(run, log, items, data)
  yield from _checkpoints(run)
  yield "tables are of existing weights", [
      f"eval/{folder}: {why}: delete it, and run --stage=eval if there are weights to measure"
      for folder, why in measured.stale(run.workdir).items()]
  yield from _tasks(run, log)
  yield "item rows carry no order", audit.item_rows_carry_no_order(log, items.ids)
  yield from _index(run, log, items)
  yield "ties are not sorted by item", audit.ties_not_sorted(log)


def _prepared(workdir, data: str):
  for path in sorted((workdir / "prepared").glob("*/*/manifest.json")):
    manifest = store.read_manifest(path.parent)
    if manifest and "made_from" in manifest:       # if not, `damage` has said so
      yield f"{path.parent} was made from these data", audit.of_these_data(
          str(path.parent), manifest["made_from"], data)


def _dialogs(run: context.Run, log, items, data):
  folder = run.workdir / "dialogs"
  if (manifest := store.read_manifest(folder)) is None:
    return
  yield "dialogs/ was made from these data", audit.of_these_data(
      "dialogs/", manifest["made_from"], data)

  def lines(part):
    return (line for _, line in dialogs_lib.lines(folder / f"{part}.jsonl"))

  for part in (part for part, count in manifest["dialogs"].items() if count):
    yield f"dialogs {part}: only training interactions", audit.dialogs_of_training(
        part, lines(part), log, items.ids)
  if all(manifest["dialogs"].values()):
    yield "no user has both training and validation dialogs", audit.no_user_in_both(
        lines("train"), lines("validation"))


def _checkpoints(run: context.Run):
  """Yields the checks of each trained phase: its inputs, its settings and its recorded config."""
  phases = {"phase1": (recipe.phase1_made_from, settings_lib.of_phase1)}
  for variant in variants.trained(run.config):
    phases[variant.folder] = (
        functools.partial(recipe.phase2_made_from, variant=variant),
        functools.partial(settings_lib.of_phase2, variant=variant))
  for name, (made_from, settings) in phases.items():
    folder = run.workdir / name / "checkpoints"
    if (step := checkpoint.newest(folder)) is None:
      continue
    meta, recorded = checkpoint.read_meta(folder, step), _recorded(run, variants.stage_of(name))
    yield f"{name} was trained with these inputs and settings", audit.of_this_run(
        folder, meta, made_from(run))
    if recorded is not None:
      yield f"{name} was trained with its recorded config", audit.of_its_record(
          folder, meta, settings(recorded), f"config.{variants.stage_of(name)}.json")


def _recorded(run: context.Run, stage: str):
  """The config that `stage` recorded when it trained; None: it recorded none."""
  path = run.workdir / f"config.{stage}.json"
  return config_lib.from_json(path.read_text()) if path.exists() else None


def _tasks(run: context.Run, log):
  tasks = ("sequential", "straightforward", "next_item", "user_item", "item_item")
  trained = [task for task in tasks if _has_train(run, task)]
  for task in ("sequential", "straightforward"):
    for split in (*(["train"] if task in trained else []), "validation", "test"):
      examples = store.Prepared(_folder(run, task, split))
      if run.config.tasks.entities == "slots":
        yield f"{task} {split}: no target in the text", audit.target_not_told(
            task, split, examples, _templates(run, examples))
        if task == "sequential":
          yield f"{task} {split}: histories match the log", audit.histories_as_logged(
              task, split, examples, log, run.config.tasks.history)
  for task in (task for task in trained if task != "next_item"):      # which has many targets
    examples = store.Prepared(_folder(run, task, "train"))
    yield f"{task} train: only training interactions", audit.trained_on_training_alone(
        task, examples, log)
  for task in trained:
    examples = store.Prepared(_folder(run, task, "train"))
    yield f"{task} train: no items without training interactions", audit.untrained_items_unknown(
        task, examples, log)


def _templates(run: context.Run, examples: store.Prepared) -> list[list[int]]:
  """Token ids of each template of a task, with a slot in each of its places."""
  return [run.lm_tokenizer.encode(re.sub(r"\{\w+\}", tokenizer.SLOT, template))
          for template in examples.manifest["templates"]]


def _vectors(run: context.Run, log, of_dialogs):
  if len(log.user_N) > LARGEST:
    print(f"audit: vectors are not checked, the data have over {LARGEST:,} interactions",
          flush=True)
    return
  again = vectors.factorise(run.config, log, run.mesh, of_dialogs)
  yield "vectors come from training interactions only", audit.vectors_of_training(
      *vectors.factors(run), *map(np.asarray, again))


def _index(run: context.Run, log, items):
  path = run.workdir / "prepared" / "index.json"
  if not path.exists():
    return
  names = files.read_stamped(path, "run --stage=prepare again")["names"]
  spelled = [re.fullmatch(r" ?(?:<index_)?(\d+)>?", names[raw_id]) for raw_id in items.ids]
  numbers = [int(m[1]) for m in spelled if m]
  # A sequential index follows the training part by design; it must not follow the test part.
  if len(numbers) == len(spelled) and run.config.tasks.index != "sequential":
    yield "the index carries no order", audit.rows_carry_no_order(
        log, numbers, "the index",
        "name items by other words or at random: --config.tasks.index=random")


def _has_train(run: context.Run, task: str) -> bool:
  """Whether a task has training examples: not if its rate is 0, unless an earlier config made
  them."""
  return bool(run.config.tasks.mixture.get(task, 1.0)) or (
      _folder(run, task, "train") / "manifest.json").exists()


def _folder(run: context.Run, task: str, split: str):
  return run.workdir / "prepared" / f"{run.dataset}_{task}" / split
