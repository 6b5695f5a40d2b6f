"""Finished tables of a workdir: what they were made from, and whether that is still there.

`eval/<phase>/<step>/made_from.json` is written when all tables of its folder are:

  {"checkpoints": {folder: `provenance.record`}, "inputs": {name: sha256}, "settings": {..}}
"""
import json

from etils import epath

from ilm_jax import files
from ilm_jax.runtime import distributed
from ilm_jax.training import checkpoint, provenance

NAME = "made_from.json"


def done(folder, made_from: dict) -> bool:
  """Whether a folder of eval/ holds the finished tables of `made_from`."""
  path = epath.Path(folder) / NAME
  return path.exists() and json.loads(path.read_text()) == provenance.plain(made_from)


def begin(folder) -> None:
  """Removes the mark first, so that tables of a killed run are not taken for finished ones.

  Then all else that was measured there: other settings may leave out a table, and the old one would
  stand beside the new ones.
  """
  if distributed.is_main() and (folder := epath.Path(folder)).exists():
    (folder / NAME).unlink(missing_ok=True)
    for path in [*folder.glob("*.json"), *folder.glob("*.gz")]:
      path.unlink()


def mark(folder, made_from: dict) -> None:
  """Says that all tables of the folder are there. Written last."""
  if distributed.is_main():
    files.write_text(epath.Path(folder) / NAME, json.dumps(made_from, indent=1))


def newest(workdir, phase: str):
  """The folder of the newest finished tables of a phase whose weights are there, or None."""
  return next((folder for folder, why in _folders(workdir, phase) if not why), None)


def stale(workdir) -> dict[str, str]:
  """{"phase1/200": why nobody may read its tables} of all folders of eval/."""
  phases = epath.Path(workdir) / "eval"
  if not phases.exists():
    return {}
  return {f"{phase.name}/{folder.name}": why for phase in sorted(phases.iterdir())
          for folder, why in _folders(workdir, phase.name) if why}


def _folders(workdir, phase: str):
  """Yields (folder of eval/<phase>, why it may not be read), the highest step first."""
  folder = epath.Path(workdir) / "eval" / phase
  if not folder.exists():
    return
  for step in sorted((s for s in folder.iterdir() if s.name.isdigit()), key=lambda s: -int(s.name)):
    yield step, _why_stale(workdir, step)


def _why_stale(workdir, folder) -> str:
  if not (folder / NAME).exists():
    return "measuring has not ended"
  for name, kept in json.loads((folder / NAME).read_text())["checkpoints"].items():
    where = epath.Path(workdir) / name / "checkpoints"
    steps = checkpoint.steps(where)
    at_step = checkpoint.read_meta(where, kept["step"]) if kept["step"] in steps else None
    newest_meta = checkpoint.read_meta(where, steps[-1]) if steps else None
    if not provenance.still_there(kept, at_step, newest_meta):
      return f"the weights of {name} at step {kept['step']} that it measured are no longer there"
  return ""
