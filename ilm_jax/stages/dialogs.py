"""Synthetic dialogs of a log: dialogs/train.jsonl, validation.jsonl and manifest.json.

Made in stage targets where `dialogs.count` says so, before the tasks are prepared that read them.
Both files are of training interactions; no user is in both.
"""
import hashlib
import json

import numpy as np
import tqdm

from ilm_jax import elm, errors, files
from ilm_jax.cf import fold_in
from ilm_jax.config import settings
from ilm_jax.conversation import synthetic, wording
from ilm_jax.data import arrays, store
from ilm_jax.runtime import distributed
from ilm_jax.stages import context, vectors

FOLDER = "dialogs"
_VALIDATION = 0.1        # of the users, and as many dialogs beside `dialogs.count`


def run(run: context.Run) -> None:
  """Writes dialogs/, unless it is there, of these data and settings; prints counts.

  All processes factorise, the first writes. The manifest comes last: what was killed is made anew.
  """
  log, items, _ = run.data
  folder, made_from = run.workdir / FOLDER, _made_from(run)
  if (store.read_manifest(folder) or {}).get("made_from") == made_from and not damage(folder):
    return
  _, item_I1C = vectors.factorise(run.config, log, run.mesh)
  if not distributed.is_main():
    return
  c = run.config
  maker = synthetic.Maker(
      log, items, fold_in.Form(item_I1C, c.cf.reg, c.cf.alpha),
      synthetic.Setting(c.dialogs.turns, elm.words(c.data).thing))
  manifest: dict = {"made_from": made_from, "dialogs": {}, "files": {}}
  for name, (users, count) in _parts(log.num_users, c.seed, c.dialogs.count).items():
    digest, made = hashlib.sha256(), 0
    with files.writing(folder / f"{name}.jsonl") as file:
      lines = maker.lines(users, c.seed, count, name)
      for line in tqdm.tqdm(lines, desc=f"dialogs {name}", total=count, mininterval=1.0):
        file.write(data := (json.dumps(line, ensure_ascii=False) + "\n").encode())
        digest.update(data)
        made += 1
    manifest["dialogs"][name] = made
    manifest["files"][f"{name}.jsonl"] = digest.hexdigest()
  manifest["dropped"] = dict(sorted(maker.dropped.items()))
  manifest["fingerprint"] = arrays.of_manifest(manifest, "fingerprint")
  if not manifest["dialogs"]["train"]:
    raise errors.UserError(f"dialogs.count={c.dialogs.count}: the log gives no dialog "
                           f"({_dropped(manifest)}): it needs users who like two items or more in "
                           "its training part")
  files.write_text(folder / "manifest.json", json.dumps(manifest, indent=1))
  print(f"dialogs: {manifest['dialogs']['train']:,} to train, "
        f"{manifest['dialogs']['validation']:,} to validate; dropped: {_dropped(manifest)}",
        flush=True)


def check(run: context.Run) -> None:
  """Raises a UserError where dialogs/ is not there, or is of other data or settings."""
  folder = run.workdir / FOLDER
  was, now = (store.read_manifest(folder) or {}).get("made_from"), _made_from(run)
  if was != now:
    why = "is of other data or settings" if was else "is not there"
    raise errors.UserError(f"tasks.dialogs={run.config.tasks.dialogs!r}: {folder} {why}: run "
                           "--stage=targets with dialogs.count above 0")
  if wrong := damage(folder):
    raise errors.UserError(f"{wrong}: run --stage=targets, which makes it again")


def damage(folder) -> str:
  """Which file of dialogs/ is not as its manifest says, in words; "" if all are."""
  manifest = store.read_manifest(folder)
  if not manifest or manifest.get("fingerprint") != arrays.of_manifest(manifest, "fingerprint"):
    return f"{folder / 'manifest.json'} is damaged: it does not fit its own fingerprint"
  for name, expected in manifest["files"].items():
    path = folder / name
    if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != expected:
      return f"{path} is damaged: it is not what was written"
  return ""


def _dropped(manifest: dict) -> str:
  return ", ".join(f"{count:,} {why}" for why, count in manifest["dropped"].items()) or "none"


def _parts(num_users: int, seed: int, count: int) -> dict[str, tuple[np.ndarray, int]]:
  """Part -> (its users, how many dialogs)."""
  order = np.random.default_rng((seed, 1)).permutation(num_users)
  last = round(num_users * (1 - _VALIDATION))
  return {"train": (order[:last], count),
          "validation": (order[last:], max(1, round(count * _VALIDATION)))}


def _made_from(run: context.Run) -> dict:
  return {"data": run.data.fingerprint, "settings": settings.of_dialogs(run.config),
          "wordings": hashlib.sha256(wording.TEMPLATES.read_bytes()).hexdigest()}
