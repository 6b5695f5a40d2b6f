"""Checks every file of a workdir that has a digest: the first part of stage audit.

Stages check files when they read them. This checks all files, also those that no stage reads again.
Not checked, because no number depends on them and no stage reads them: the report,
parameters.<phase>.txt, heartbeats, TensorBoard's events, and TFDS's cache after data/ is made.
"""
from collections.abc import Iterator

from etils import epath

from ilm_jax import errors, files
from ilm_jax.config import gin_overlay
from ilm_jax.config import reading as config_lib
from ilm_jax.data import arrays, interactions, kept, store, targets
from ilm_jax.data import entities as entities_lib
from ilm_jax.evaluation import measured
from ilm_jax.monitoring import scalars
from ilm_jax.stages import dialogs
from ilm_jax.training import checkpoint


def checks(workdir, only: str = "") -> Iterator[tuple[str, list[str]]]:
  """Yields (name of a folder or file below `workdir`, messages about its damage; [] if whole).

  Args:
    workdir: of a run.
    only: the one name to check; "": all.
  """
  for name, read in readers(workdir):
    if only not in ("", name):
      continue
    try:
      read()
    except errors.UserError as e:
      yield name, [str(e)]
    else:
      yield name, []


def readers(workdir):
  """Yields (name, function that reads it and raises a UserError if it is damaged)."""
  workdir = epath.Path(workdir)
  if (workdir / "data").exists():
    yield "data", lambda: (interactions.load(workdir / "data"), kept.load(workdir / "data"))
  if (workdir / "entities").exists():
    yield "entities", lambda: entities_lib.load(workdir / "entities")
  if (workdir / "factors.npz").exists():
    yield "factors.npz", lambda: arrays.load_file(workdir / "factors.npz", "run --stage=cf again")
  for path in sorted((workdir / "prepared").glob("*/*")):
    if path.is_dir() and not path.name.startswith("."):
      yield _name(workdir, path), lambda path=path: store.Prepared(path)
  if (path := workdir / "prepared" / "index.json").exists():
    yield _name(workdir, path), lambda path=path: files.read_stamped(
        path, "run --stage=prepare again")
  if (workdir / dialogs.FOLDER).exists():
    yield dialogs.FOLDER, lambda: _raise(
        dialogs.damage(workdir / dialogs.FOLDER), "run --stage=targets, which makes it again")
  for path in sorted((workdir / "targets").glob("*/")):
    if path.is_dir():
      yield _name(workdir, path), lambda path=path: targets.Store.of_folder(path).read()
  for path in sorted(workdir.glob("*/metrics.jsonl")):
    yield _name(workdir, path), lambda path=path: scalars.read(path)
  for folder in sorted(workdir.glob("*/checkpoints")):
    for step in checkpoint.steps(folder):
      yield f"{_name(workdir, folder)}/{step}", (
          lambda folder=folder, step=step: checkpoint.verify(folder, step))
  for path in sorted(workdir.glob("eval/*/*/")):
    if (path / measured.NAME).exists():
      yield _name(workdir, path), lambda path=path: _raise(
          (wrong := measured.damage(path)) and f"{path}/{wrong}",
          "run --stage=eval, which measures it again")
  for path in sorted(workdir.glob("config.*.json")):
    yield path.name, lambda path=path: _config(path)


def _raise(wrong: str, cure: str) -> None:
  if wrong:
    raise errors.UserError(f"{wrong}: {cure}")


def _config(path) -> None:
  """A stage's config is recorded as JSON and as gin, which must agree."""
  other = path.with_suffix(".gin")
  cure = f"delete both and run --stage={path.name.split('.')[1]} again, or take the config you used"
  try:
    said = gin_overlay.to_gin(config_lib.from_json(path.read_text()))
  except (ValueError, OSError, TypeError, AttributeError) as e:
    raise errors.UserError(f"{path} cannot be read ({e}): {cure}") from e
  if not other.exists() or other.read_bytes() != said.encode():
    raise errors.UserError(f"{path} and {other.name} beside it do not agree, one of them was "
                           f"changed: {cure}")


def _name(workdir, path) -> str:
  return str(path.relative_to(workdir))
