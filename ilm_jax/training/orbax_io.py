"""The Orbax calls of checkpoint.py; a checkpoint that does not fit or is unreadable: one line."""
import functools
import logging
import sys

import jax
import numpy as np
import orbax.checkpoint as ocp

from ilm_jax import errors, files
from ilm_jax.runtime import axes, distributed

NO_ROOM = (*files.NO_ROOM, "RESOURCE_EXHAUSTED")      # RESOURCE_EXHAUSTED: TensorStore's word
# Orbax warns about read-only mode, which we ask for, at each opening; that hides real warnings.
_MEANT = ("CheckpointManagerOptions.read_only=True", "Given directory is read only")


def _is_news(record: logging.LogRecord) -> bool:
  """Whether a log record says more than the error that a failed save raises anyway.

  Orbax logs a traceback for such a save, and asyncio logs its other writes that failed.
  """
  if "orbax" in record.pathname and record.exc_info:
    return False
  error = (record.exc_info or (None, None))[1]
  if record.name == "asyncio" and any(words in str(error) for words in NO_ROOM):
    return False
  return not str(record.msg).startswith(_MEANT)


def _unless_loop_closed(args, before) -> None:
  """Python's hook for exceptions that nobody can catch, without those of late writes.

  When a save has failed, TensorStore still reports the save's other writes to Orbax's event loop,
  which is closed by then.
  """
  error = args.exc_value
  if not (isinstance(error, RuntimeError) and str(error) == "Event loop is closed"):
    before(args)


@functools.cache
def _hear_less() -> None:
  """Sets the filters and the hook, once, when the first manager is opened."""
  for name in ("absl", "asyncio"):
    logging.getLogger(name).addFilter(_is_news)
  sys.unraisablehook = functools.partial(_unless_loop_closed, before=sys.unraisablehook)


def open_manager(folder, *, alone: bool = False, **options) -> ocp.CheckpointManager:
  """A manager of a folder's checkpoints, which hold a "state" (arrays) and a "meta" (JSON).

  Args:
    folder: the parent folder, with one folder per step.
    alone: only this process of the job opens it; False: all processes do, and Orbax makes them wait
      for each other.
    **options: of ocp.CheckpointManagerOptions.
  """
  _hear_less()
  here = distributed.here().process
  several = ocp.options.MultiprocessingOptions(
      primary_host=here, active_processes={here},
      barrier_sync_key_prefix=f"alone.{here}") if alone else ocp.options.MultiprocessingOptions()
  return ocp.CheckpointManager(
      folder, options=ocp.CheckpointManagerOptions(multiprocessing_options=several, **options),
      item_handlers={"state": ocp.PyTreeCheckpointHandler(multiprocessing_options=several),
                     "meta": ocp.JsonCheckpointHandler(multiprocessing_options=several)})


def restore_args(want, **kwargs) -> ocp.args.PyTreeRestore:
  """Arguments that restore `want`, each leaf with the shape, dtype and sharding of its struct."""
  return ocp.args.PyTreeRestore(
      item=want, restore_args=ocp.checkpoint_utils.construct_restore_args(want), **kwargs)


def abstract(tree):
  """The ShapeDtypeStruct of each leaf, with its sharding."""
  return jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=getattr(x, "sharding", None)), tree)


def shapes(tree) -> dict[str, tuple[int, ...]]:
  """{path of a leaf: shape} of a tree of arrays or ShapeDtypeStructs."""
  leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda x: hasattr(x, "shape"))
  return {axes.path_name(path): tuple(x.shape) for path, x in leaves if hasattr(x, "shape")}


def saved_shapes(manager, folder, step: int) -> dict[str, tuple[int, ...]]:
  """{path of a leaf: shape} of a checkpoint's state, read from its arrays.

  It opens every array, and TensorStore 0.1.86 then keeps 5 kB of each for as long as the process
  lives (`Spec.to_json`). Use it where the digests in `meta` do not tell.

  Raises:
    UserError: the checkpoint is unreadable.
  """
  try:
    found = shapes(manager.item_metadata(step)["state"])
  except Exception as e:
    raise unreadable(folder, step, e) from e
  if not found:
    raise unreadable(folder, step, "its state is missing")
  return found


def same_shapes(have: dict[str, tuple[int, ...]], want, checkpoint, *, exact: bool) -> None:
  """Checks that a checkpoint has every wanted leaf: for a missing one Orbax returns its struct.

  Args:
    have: {path of a leaf: shape} of the checkpoint.
    want: tree of arrays or ShapeDtypeStructs.
    checkpoint: its folder, named in the message.
    exact: whether other leaves are an error, too.

  Raises:
    UserError: a leaf is missing, has another shape or is one too many.
  """
  need = shapes(want)
  wrong = [f"{n}: expected {need[n]}, found {have.get(n, 'nothing')}" for n in sorted(need)
           if have.get(n) != need[n]]
  if exact:
    wrong += [f"{n}: expected nothing, found {have[n]}" for n in sorted(have.keys() - need.keys())]
  if wrong:
    more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    raise errors.UserError(
        f"checkpoint {checkpoint} is of another model: {'; '.join(wrong[:3])}{more}. Use the "
        "config and the version of ilm_jax it was trained with, or another --workdir")


def restore(manager, folder, step: int, **args):
  """Restores "state" or "meta" of `step`, as the Orbax args say; UserError if it is unreadable."""
  try:
    return manager.restore(step, args=ocp.args.Composite(**args))
  except Exception as e:
    raise unreadable(folder, step, e) from e


def read_meta(manager, folder, step: int) -> dict:
  """The "meta" of a checkpoint; UserError if it cannot be read or is damaged."""
  meta = restore(manager, folder, step, meta=ocp.args.JsonRestore())["meta"]
  try:
    return files.unstamped(meta)
  except ValueError as e:
    raise unreadable(folder, step, f"its meta is damaged: {e}") from e


def restore_on_host(manager, folder, step: int):
  """The "state" of a checkpoint as numpy arrays, whatever mesh it was saved from."""
  try:
    leaves = manager.item_metadata(step)["state"]
    how = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray),
                       getattr(leaves, "tree", leaves))
  except Exception as e:
    raise unreadable(folder, step, e) from e
  return restore(manager, folder, step, state=ocp.args.PyTreeRestore(restore_args=how))["state"]


def unreadable(folder, step: int, why) -> errors.UserError:
  """The error to raise for a checkpoint that is damaged."""
  why = " ".join(str(why).split())[:160]
  return errors.UserError(
      f"checkpoint {folder}/{step} cannot be read ({why}): delete that folder and run again; "
      "the run resumes from the checkpoint before it, or starts anew")
