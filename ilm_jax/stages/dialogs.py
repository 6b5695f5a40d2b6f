"""Synthetic dialogs from a log: dialogs/train.jsonl, validation.jsonl and manifest.json.

Stage targets makes them if `dialogs.count` is above 0, before stage prepare reads them. Both files
are made from training interactions; no user is in both.
"""
import hashlib
import json

import numpy as np
import tqdm

from ilm_jax import elm, errors, files
from ilm_jax.cf import fold_in
from ilm_jax.config import settings
from ilm_jax.conversation import rewording, synthetic, wording
from ilm_jax.conversation import session as s
from ilm_jax.data import arrays, store
from ilm_jax.data import targets as targets_lib
from ilm_jax.runtime import distributed
from ilm_jax.stages import context, targets, vectors

FOLDER = "dialogs"
_VALIDATION = 0.1        # share of the users; and of `dialogs.count`, as additional dialogs


def run(run: context.Run, make_teacher=None) -> None:
  """Writes dialogs/, unless it exists and has these data and settings; prints counts.

  All processes factorise and ask the teacher; process 0 writes. The manifest comes last: a killed
  run makes the dialogs again, with the teacher's stored answers.

  Args:
    run: the run.
    make_teacher: () -> a teacher, for `dialogs.reword`; None: that of `targets`.

  Raises:
    UserError: the log gives no dialog; the teacher failed for good.
  """
  log, items, _ = run.data
  folder, made_from = run.workdir / FOLDER, _made_from(run)
  if (store.read_manifest(folder) or {}).get("made_from") == made_from and not damage(folder):
    return
  _, item_I1C = vectors.factorise(run.config, log, run.mesh)
  c = run.config
  def maker():
    return synthetic.Maker(
        log, items, fold_in.Form(item_I1C, c.cf.reg, c.cf.alpha),
        synthetic.Setting(c.dialogs.turns, elm.words(c.data).thing))
  parts = _parts(log.num_users, c.seed, c.dialogs.count)
  words = _rewording(run, maker, parts, make_teacher) if c.dialogs.reword else None
  if distributed.is_main():
    _write(run, maker(), parts, made_from, words)


def _rewording(run: context.Run, maker, parts, make_teacher) -> rewording.Rewording:
  """The teacher's words for every turn; process 0 writes the requests."""
  folder = run.workdir / FOLDER
  if distributed.is_main():
    asked = {}
    for name, (users, count) in parts.items():
      for line in maker().lines(users, run.config.seed, count, name):
        turns = [s.Turn(**turn) for turn in line["turns"]]
        for number in range(len(turns)):
          request = rewording.request(turns, number, name)
          asked.setdefault(request.text, request._replace(rows=(len(asked),)))
    targets_lib.write_requests(folder, list(asked.values()))
  distributed.wait("dialogs_asked")
  requests = targets_lib.read_requests(folder)
  answers = targets_lib.Store(folder, run.teacher_fingerprint)
  def sentence(row):
    return rewording.sentence(requests[row])
  targets.answer(run, requests, answers, make_teacher or (
      lambda: targets.teacher(run, sentence, lambda row: repr(sentence(row)))))
  return rewording.Rewording(run.data.items, answers.lookup())


def _write(run: context.Run, maker: synthetic.Maker, parts, made_from: dict,
           words: rewording.Rewording | None) -> None:
  c, folder = run.config, run.workdir / FOLDER
  manifest: dict = {"made_from": made_from, "dialogs": {}, "files": {}}
  for name, (users, count) in parts.items():
    digest, made = hashlib.sha256(), 0
    with files.writing(folder / f"{name}.jsonl") as file:
      lines = maker.lines(users, c.seed, count, name)
      for line in tqdm.tqdm(lines, desc=f"dialogs {name}", total=count, mininterval=1.0):
        line = words.line(line) if words else line
        file.write(data := (json.dumps(line, ensure_ascii=False) + "\n").encode())
        digest.update(data)
        made += 1
    manifest["dialogs"][name] = made
    manifest["files"][f"{name}.jsonl"] = digest.hexdigest()
  manifest["dropped"] = dict(sorted(maker.dropped.items()))
  if words:
    manifest["turns"] = dict(sorted(words.counts.items()))
  manifest["fingerprint"] = arrays.of_manifest(manifest, "fingerprint")
  if not manifest["dialogs"]["train"]:
    raise errors.UserError(f"dialogs.count={c.dialogs.count}: the log gives no dialog "
                           f"({_dropped(manifest)}): it needs users who like two items or more in "
                           "its training part")
  files.write_text(folder / "manifest.json", json.dumps(manifest, indent=1))
  print(f"dialogs: {manifest['dialogs']['train']:,} to train, "
        f"{manifest['dialogs']['validation']:,} to validate; dropped: {_dropped(manifest)}",
        flush=True)
  if words:
    print("dialogs: turns in the words of " + targets.teacher_words(run) + ": "
          + ", ".join(f"{count:,} {what}" for what, count in manifest["turns"].items()), flush=True)


def check(run: context.Run) -> None:
  """Raises a UserError if dialogs/ is missing, damaged, or has other data or settings."""
  folder = run.workdir / FOLDER
  was, now = (store.read_manifest(folder) or {}).get("made_from"), _made_from(run)
  if was != now:
    why = "was made from other data or settings" if was else "does not exist"
    raise errors.UserError(f"tasks.dialogs={run.config.tasks.dialogs!r}: {folder} {why}: run "
                           "--stage=targets with dialogs.count above 0")
  if wrong := damage(folder):
    raise errors.UserError(f"{wrong}: run --stage=targets, which makes it again")


def damage(folder) -> str:
  """The first file of dialogs/ that differs from its manifest, in words; "" if none does."""
  manifest = store.read_manifest(folder)
  if not manifest or manifest.get("fingerprint") != arrays.of_manifest(manifest, "fingerprint"):
    return f"{folder / 'manifest.json'} is damaged: it does not match its own fingerprint"
  for name, expected in manifest["files"].items():
    path = folder / name
    if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != expected:
      return f"{path} is damaged: it does not match its digest in the manifest"
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
          "wordings": hashlib.sha256(wording.TEMPLATES.read_bytes()).hexdigest(),
          **({"teacher": run.teacher_fingerprint, "asked": rewording.INSTRUCTION}
             if run.config.dialogs.reword else {})}
