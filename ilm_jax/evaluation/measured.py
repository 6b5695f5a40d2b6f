"""Finished tables of a workdir: what they were made from, and whether it still exists.

`eval/<phase>/<step>/made_from.json` is written after all tables of its folder:

  {"checkpoints": {folder: `provenance.record`}, "inputs": {name: sha256}, "settings": {..},
   "files": {name of a table: sha256}, "check": digest of all this}

Stage eval measures damaged tables again; reports leave them out.
"""
import hashlib
import json

from etils import epath

from ilm_jax import files
from ilm_jax.runtime import distributed
from ilm_jax.training import checkpoint, provenance

NAME = "made_from.json"


def done(folder, made_from: dict) -> bool:
  """Whether a folder of eval/ holds finished, undamaged tables that were made from `made_from`."""
  folder = epath.Path(folder)
  if not (folder / NAME).exists() or damage(folder):
    return False
  was = _read(folder)
  was.pop("files", None)
  return was == provenance.plain(made_from)


def damage(folder) -> str:
  """A message about the first damaged or missing file of finished tables; "" if all are intact.

  Tables whose mark holds no digests are not checked.
  """
  folder = epath.Path(folder)
  try:
    expected = _read(folder).get("files", {})
  except ValueError as e:
    return f"{NAME} is damaged ({e})"
  for name, sha256 in expected.items():
    if not (folder / name).exists():
      return f"{name} is missing"
    if _sha256(folder / name) != sha256:
      return f"{name} is damaged: it is not what was written"
  return ""


def _read(folder) -> dict:
  """The content that `mark` wrote; raises ValueError if it is damaged."""
  return files.unstamped(files.parse_json((folder / NAME).read_bytes()))


def _sha256(path) -> str:
  return hashlib.sha256(path.read_bytes()).hexdigest()


def begin(folder) -> None:
  """Removes the mark and all tables of a folder before it is measured again.

  The mark goes first, so that tables of a killed run are not taken for finished ones. Old tables
  go too, since the new settings may not write all of them again.
  """
  if distributed.is_main() and (folder := epath.Path(folder)).exists():
    (folder / NAME).unlink(missing_ok=True)
    for path in [*folder.glob("*.json"), *folder.glob("*.gz")]:
      path.unlink()


def mark(folder, made_from: dict) -> None:
  """Marks the folder's tables as finished. Call it after the last table is written."""
  if distributed.is_main():
    folder = epath.Path(folder)
    tables = {path.name: _sha256(path)
              for path in sorted([*folder.glob("*.json"), *folder.glob("*.gz")])
              if path.name != NAME}
    files.write_text(folder / NAME,
                     json.dumps(files.stamped({**made_from, "files": tables}), indent=1))


def newest(workdir, phase: str):
  """The folder of a phase's newest finished tables whose checkpoint still exists, or None."""
  return next((folder for folder, why in _folders(workdir, phase) if not why), None)


def stale(workdir) -> dict[str, str]:
  """{"phase1/200": reason} for all folders of eval/ whose tables must not be read."""
  phases = epath.Path(workdir) / "eval"
  if not phases.exists():
    return {}
  return {f"{phase.name}/{folder.name}": why for phase in sorted(phases.iterdir())
          for folder, why in _folders(workdir, phase.name) if why}


def _folders(workdir, phase: str):
  """Yields (folder of eval/<phase>, reason not to read it or ""), the highest step first."""
  folder = epath.Path(workdir) / "eval" / phase
  if not folder.exists():
    return
  for step in sorted((s for s in folder.iterdir() if s.name.isdigit()), key=lambda s: -int(s.name)):
    yield step, _why_stale(workdir, step)


def _why_stale(workdir, folder) -> str:
  if not (folder / NAME).exists():
    return "measuring has not ended"
  if wrong := damage(folder):
    return f"{wrong}; --stage=eval measures it again"
  for name, kept in _read(folder)["checkpoints"].items():
    where = epath.Path(workdir) / name / "checkpoints"
    steps = checkpoint.steps(where)
    at_step = checkpoint.read_meta(where, kept["step"]) if kept["step"] in steps else None
    newest_meta = checkpoint.read_meta(where, steps[-1]) if steps else None
    if not provenance.still_there(kept, at_step, newest_meta):
      return f"the weights of {name} at step {kept['step']} that it measured are no longer there"
  return ""
