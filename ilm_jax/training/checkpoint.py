"""Checkpoints: what is saved, how a run starts, and which inputs it may start from.

A checkpoint holds the trained parameters, the optimizer's state, the step and `meta`, but not the
frozen language model. `meta` says what the checkpoint was made from (provenance.py) and has a
digest of each array, which is checked whenever the array is read. Orbax writes to a temporary
folder and renames it, so a folder with a step's name is complete; the next run that opens the
parent folder removes the unfinished folders of a killed run.
"""
import jax
import orbax.checkpoint as ocp
from etils import epath

from ilm_jax import errors, files
from ilm_jax.config import settings as settings_lib
from ilm_jax.runtime import distributed
from ilm_jax.training import leaf_digests, orbax_io, provenance


class Checkpointer:
  """The checkpoints of one phase of one run.

  Args:
    folder: the parent folder, with one folder per step.
    fingerprints: {name: sha256} of this run's inputs, stored in each checkpoint.
    settings: {dotted config field: value} that affect its numbers, stored as well.
    keep: how many of the newest checkpoints are kept.
    steps: the last step of the run; None: no limit.
    accept_changes: whether the run may resume from a checkpoint that was made with other settings.
  """

  def __init__(self, folder, fingerprints: dict[str, str], settings: dict | None = None, *,
               keep: int = 2, steps: int | None = None, accept_changes: bool = False):
    self.folder = epath.Path(folder)
    self.fingerprints = dict(fingerprints)
    self.settings = provenance.plain(settings or {})
    self._history, self._steps, self._accept = [], steps, accept_changes
    self._manager = orbax_io.open_manager(
        self.folder.absolute(), preservation_policy=ocp.checkpoint_managers.LatestN(keep),
        cleanup_tmp_directories=True)
    self._failed = False

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.close()

  def latest(self) -> int | None:
    """The newest complete step, or None."""
    return self._manager.latest_step()

  def save(self, state, totals: dict | None = None) -> None:
    """Starts to write `state` (a TrainState) and returns; an existing step is not rewritten.

    Args:
      state: the state, which may be donated as soon as this returns.
      totals: metrics summed since the last log, JSON-able; kept in `meta`.

    Raises:
      UserError: the disk is full, during this save or the one before.
    """
    step = int(state.step)
    if step == self.latest():
      return
    meta = {"step": step, "fingerprints": self.fingerprints, "settings": self.settings,
            "history": self._history, "totals": totals or {},
            "digests": leaf_digests.digests(_plain(state))}
    try:
      self._manager.save(step, args=ocp.args.Composite(
          state=ocp.args.PyTreeSave(_plain(state)), meta=ocp.args.JsonSave(files.stamped(meta))))
    except Exception as e:
      raise self._write_error(e) from e

  def wait(self) -> None:
    """Waits until all saves are on disk; raises the error of a save that failed."""
    try:
      self._manager.wait_until_finished()
    except Exception as e:
      raise self._write_error(e) from e

  def close(self) -> None:
    try:
      self._manager.close()
    except Exception as e:
      if not self._failed:      # an error that was raised once is not raised again
        raise self._write_error(e) from e

  def meta(self, step: int | None = None) -> dict:
    """{step, fingerprints, settings, history, totals, digests} of `step`, by default the newest.
    Without such a checkpoint the fields are empty, and there are no digests."""
    step = self.latest() if step is None else step
    if step is None or step not in self._manager.all_steps():
      return {"step": step, "fingerprints": {}, "settings": {}, "history": [], "totals": {}}
    return orbax_io.read_meta(self._manager, self.folder, step)

  def restore(self, like, step: int | None = None):
    """The state of `step` (the newest by default).

    Args:
      like: a TrainState of arrays on the mesh of the result, which may be any mesh.

    Raises:
      UserError: the checkpoint has other inputs, settings or shapes, is damaged, or is unreadable.
    """
    step = self.latest() if step is None else step
    meta = self.meta(step)
    provenance.check(self.folder, meta, self.fingerprints, self.settings, accept=self._accept,
                     steps=step + 1 if self._steps is None else self._steps)
    self._history = provenance.history(meta, self.settings)
    want = orbax_io.abstract(_plain(like))
    return type(like)(**_checked(self._manager, self.folder, step, meta, want, exact=True))

  def _write_error(self, e: Exception) -> Exception:
    """A UserError if the disk is full, after removing the unfinished folders; else `e`."""
    self._failed = True
    if not any(word in str(cause) for cause in files.chain(e) for word in orbax_io.NO_ROOM):
      return e
    for path in self.folder.glob("*.orbax-checkpoint-tmp*"):
      path.rmtree(missing_ok=True)
    return files.full_disk(self.folder, next(
        c for c in files.chain(e) if any(word in str(c) for word in orbax_io.NO_ROOM)))


def start(checkpointer: Checkpointer, fresh, init_from: str, fingerprints: dict[str, str],
          settings: dict | None = None):
  """The first state of a run, from the first of these that exists:

  1. the newest checkpoint of this run (a preempted job resumes);
  2. the Q-Former of the phase 1 run in the workdir `init_from` (phase 2 begins);
  3. `fresh`.

  Args:
    checkpointer: of this run.
    fresh: TrainState on the mesh.
    init_from: a workdir, or "" to begin fresh.
    fingerprints: {name: sha256} that phase 1 must share with this run.
    settings: `shared_with_phase1` of this run's.

  Raises:
    UserError: inputs or settings differ, `init_from` has no checkpoint or is not trained to its
      last step, or a leaf is missing or has another shape.
  """
  if checkpointer.latest() is not None:
    return checkpointer.restore(fresh)
  if not init_from:
    return fresh
  folder = epath.Path(init_from) / "phase1" / "checkpoints"
  step = newest(folder)      # of all processes and both readings: it may still be training
  theirs = read_meta(folder, step)
  fits_phase1(init_from, theirs, fingerprints, settings or {})
  if (steps := theirs.get("settings", {}).get("phase1.steps", 0)) > theirs["step"]:
    raise errors.UserError(f"phase 1 in {init_from} stands at step {theirs['step']} of {steps}: "
                           "finish it with --stage=phase1 first")
  identity = provenance.identity(theirs)
  if checkpointer.fingerprints.get("phase 1", identity) != identity:
    raise errors.UserError(f"phase 1 in {init_from} was trained on while this run began: run the "
                           "same command again")
  got = read_trainable(folder, {"qformer": fresh.trainable["qformer"]}, step)
  return fresh._replace(trainable={**fresh.trainable, **got})


def fits_phase1(init_from, theirs: dict, fingerprints: dict[str, str], settings: dict) -> None:
  """Raises a UserError if the phase 1 with this `meta` does not fit; args as in `start`."""
  cure = ("point --config.phase2.init_from at a phase 1 that fits, or train phase 1 again with "
          "these settings")
  for name, mine in fingerprints.items():
    if theirs["fingerprints"].get(name) != mine:
      was, is_now = errors.short(theirs["fingerprints"].get(name), mine)
      raise errors.UserError(
          f"phase 1 in {init_from} was trained with {name} {was}, this run has {is_now}. "
          f"Vectors from another source mean nothing to its Q-Former: {cure}")
  theirs_shared = settings_lib.shared_with_phase1(theirs.get("settings", {}))
  shared = {name: theirs_shared.get(name, provenance.ABSENT) for name in settings}
  if differences := provenance.changed(shared, settings):
    raise errors.UserError(f"phase 1 in {init_from} was trained with another Q-Former "
                           f"({provenance.words(differences)}): {cure}")


def finished(folder, fingerprints: dict[str, str], steps: int, settings: dict | None = None, *,
             accept_changes: bool = False) -> bool:
  """Whether a phase was trained to step `steps`; if so, nothing need be built or loaded for it.

  Raises:
    UserError: its checkpoint has other inputs; or other settings, and the change is not accepted or
      comes too late (`provenance.check`).
  """
  step = newest(folder)
  if step is None:
    return False
  meta = read_meta(folder, step)
  provenance.check(folder, meta, fingerprints, settings or {}, steps=steps, accept=accept_changes)
  return step >= steps


def read_meta(folder, step: int | None = None) -> dict:
  """`Checkpointer.meta` of a phase's checkpoint, by default the newest; UserError without one."""
  folder, step = _existing(folder, step)
  # Process 0 looks at checkpoints while the others wait for its report.
  with _reader(folder, alone=True) as manager:
    return orbax_io.read_meta(manager, folder, step)


def verify(folder, step: int) -> None:
  """Reads a whole checkpoint of any model on the host, and checks its digests.

  Raises:
    UserError: it cannot be read, or an array is missing or differs from the saved one.
  """
  folder = epath.Path(folder).absolute()
  with _reader(folder, alone=True) as manager:
    meta = orbax_io.read_meta(manager, folder, step)
    state = orbax_io.restore_on_host(manager, folder, step)
  expected = meta.get("digests")
  leaf_digests.check(state, expected, folder / str(step), whole=True)


def read_trainable(folder, want, step: int | None = None):
  """A part of the trained parameters, without the optimizer's state.

  Args:
    folder: a phase's `checkpoints` folder.
    want: nested dict of arrays or ShapeDtypeStructs with a sharding, a part of that phase's
      `trainable` tree; the result has their shardings.
    step: which checkpoint; None: the newest.

  Raises:
    UserError: no such checkpoint, another shape, a damaged array in that part, or unreadable.
  """
  folder, step = _existing(folder, step)
  want = {"trainable": orbax_io.abstract(want)}
  with _reader(folder) as manager:
    meta = orbax_io.read_meta(manager, folder, step)
    return _checked(manager, folder, step, meta, want, exact=False)["trainable"]


def _checked(manager, folder, step: int, meta: dict, want: dict, *, exact: bool) -> dict:
  """The state of `step`, or its part `want`, with the shapes and digests that `meta` names."""
  saved = meta.get("digests")
  have = leaf_digests.shapes(saved or {})
  if not orbax_io.shapes(want).keys() <= have.keys():
    have = orbax_io.saved_shapes(manager, folder, step)
  orbax_io.same_shapes(have, want, folder / str(step), exact=exact)
  got = orbax_io.restore(manager, folder, step, state=orbax_io.restore_args(
      want, partial_restore=not exact))["state"]
  if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(got)):
    raise orbax_io.unreadable(folder, step, "arrays of its state are missing")
  leaf_digests.check(got, saved, folder / str(step))
  return got


def steps(folder) -> list[int]:
  """The steps that have a complete checkpoint in `folder`, ascending.

  In a bucket Orbax writes a step under its own name and commits it last; before that it does not
  count.
  """
  folder = epath.Path(folder)
  if not folder.exists():
    return []
  return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit() and _committed(p))


def _committed(path) -> bool:
  try:
    return ocp.utils.is_checkpoint_finalized(path)
  except (FileNotFoundError, ValueError):       # deleted meanwhile
    return False


def newest(folder) -> int | None:
  """The newest of `steps`, or None; all processes get what process 0 sees."""
  step = distributed.first((steps(folder) or [-1])[-1])
  return None if step < 0 else step


def _existing(folder, step: int | None) -> tuple[epath.Path, int]:
  folder = epath.Path(folder)
  have = steps(folder)
  if not have:
    raise errors.UserError(
        f"{folder} holds no checkpoint: give the workdir of a run that has trained this phase, or "
        f"train it first with --stage={folder.parent.name}")
  if step is not None and step not in have:
    raise errors.UserError(f"{folder} holds no checkpoint of step {step}, expected one of {have}")
  return folder.absolute(), have[-1] if step is None else step


def _reader(folder, alone: bool = False, looks: int = 5) -> ocp.CheckpointManager:
  """A manager that only reads.

  Orbax looks at every step in the folder, and training may delete one meanwhile: then it looks
  again, unless other processes wait for this one.
  """
  try:
    return orbax_io.open_manager(folder, alone=alone, read_only=True)
  except FileNotFoundError as e:
    if looks > 1 and (alone or distributed.here().count == 1):
      return _reader(folder, alone, looks - 1)
    raise errors.UserError(f"{folder}: a checkpoint was deleted while it was looked at ({e}): run "
                           "the same command again") from e


def _plain(state) -> dict:
  """A NamedTuple as a dict, so that the files on disk name no class of ours."""
  return state._asdict()
