"""Orbax as checkpoint.py uses it: what does not fit or cannot be read is refused in one line."""
import logging
import sys

import jax
import numpy as np
import orbax.checkpoint as ocp

from ilm_jax import errors, files
from ilm_jax.runtime import axes, distributed

NO_ROOM = (*files.NO_ROOM, "RESOURCE_EXHAUSTED")      # RESOURCE_EXHAUSTED: TensorStore's word
# At each opening Orbax warns of the effects of reading alone, which are intended.
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


def _unless_loop_closed(args, before=sys.unraisablehook) -> None:
  """Python's hook for exceptions that nobody can catch, without those of late writes.

  When a save has failed, TensorStore still reports the save's other writes to Orbax's event loop,
  which is closed by then.
  """
  error = args.exc_value
  if not (isinstance(error, RuntimeError) and str(error) == "Event loop is closed"):
    before(args)


for _name in ("absl", "asyncio"):
  logging.getLogger(_name).addFilter(_is_news)
sys.unraisablehook = _unless_loop_closed


def open_manager(folder, *, alone: bool = False, **options) -> ocp.CheckpointManager:
  """The checkpoints of a folder, each with a "state" (arrays) and a "meta" (JSON).

  Args:
    folder: where they lie, one folder a step.
    alone: this process opens it without the other processes of the job; else all of them do, and
      Orbax has them wait for each other.
    **options: of ocp.CheckpointManagerOptions.
  """
  here = distributed.here().process
  several = ocp.options.MultiprocessingOptions(
      primary_host=here, active_processes={here},
      barrier_sync_key_prefix=f"alone.{here}") if alone else ocp.options.MultiprocessingOptions()
  return ocp.CheckpointManager(
      folder, options=ocp.CheckpointManagerOptions(multiprocessing_options=several, **options),
      item_handlers={"state": ocp.PyTreeCheckpointHandler(multiprocessing_options=several),
                     "meta": ocp.JsonCheckpointHandler(multiprocessing_options=several)})


def restore_args(want, **kwargs) -> ocp.args.PyTreeRestore:
  """Asks for `want`, each leaf as its struct says: shape, dtype and place."""
  return ocp.args.PyTreeRestore(
      item=want, restore_args=ocp.checkpoint_utils.construct_restore_args(want), **kwargs)


def abstract(tree):
  """Shape, dtype and place of each leaf."""
  return jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=getattr(x, "sharding", None)), tree)


def _shapes(tree) -> dict[str, tuple[int, ...]]:
  leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda x: hasattr(x, "shape"))
  return {axes.path_name(path): tuple(x.shape) for path, x in leaves if hasattr(x, "shape")}


def same_shapes(manager, folder, step: int, want, *, exact: bool) -> None:
  """Refuses a checkpoint that lacks a wanted leaf: Orbax would hand the struct itself back.

  Args:
    manager: of `folder`.
    folder: for the message.
    step: which checkpoint.
    want: tree of arrays or ShapeDtypeStructs.
    exact: whether it may hold no others.

  Raises:
    UserError: another shape, a leaf missing or too many, or unreadable.
  """
  try:
    have = _shapes(manager.item_metadata(step)["state"])
  except Exception as e:
    raise unreadable(folder, step, e) from e
  if not have:
    raise unreadable(folder, step, "its state is missing")
  need = _shapes(want)
  wrong = [f"{n}: wanted {need[n]}, found {have.get(n, 'nothing')}" for n in sorted(need)
           if have.get(n) != need[n]]
  if exact:
    wrong += [f"{n}: wanted nothing, found {have[n]}" for n in sorted(have.keys() - need.keys())]
  if wrong:
    more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    raise errors.UserError(
        f"checkpoint {folder}/{step} is of another model: {'; '.join(wrong[:3])}{more}. Use the "
        "config it was trained with, or another --workdir")


def restore(manager, folder, step: int, **args):
  """What Orbax restores of `step`, given its args for "state" or "meta"; UserError if it cannot."""
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
