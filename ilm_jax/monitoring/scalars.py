"""The scalars of a phase: one line per log step in a file, and the same for TensorBoard.

`metrics.jsonl` holds only what (seed, step) decide, so that a run that was killed and resumed ends
with the same file as one that was not. What depends on the clock goes to TensorBoard alone. The
TensorBoard records are written through tensorboard's own protocol buffers: `clu.metric_writers`
would import TensorFlow.
"""
import errno
import json
import os
import time

from etils import epath
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer import record_writer

from ilm_jax import errors, files
from ilm_jax.runtime import distributed

FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# How writers that are not Python's say the same.
NO_ROOM = ("No space left", "ENOSPC", "File too large", "quota exceeded")
_UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR,
               errno.ENAMETOOLONG)


def read(path) -> list[dict]:
  """The records of a metrics.jsonl, oldest first; none if there is no such file."""
  path = epath.Path(path)
  return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


class Writer:
  """Writes the scalars of one phase; of several processes, the first.

  Args:
    path: the metrics.jsonl, rewritten whole at every record (buckets cannot append).
    tensorboard: folder for TensorBoard events, or None.
  """

  def __init__(self, path, tensorboard=None):
    self._path = epath.Path(path)
    self._tensorboard = None if tensorboard is None else epath.Path(tensorboard)
    self._records = []
    self._events = None
    self._writes = distributed.is_main()

  def resume(self, step: int) -> None:
    """Forgets every record after `step`, which a run that starts at `step` writes again."""
    self._records = [r for r in read(self._path) if r["step"] <= step]
    if self._path.exists():
      self._save()
    if self._tensorboard is not None and self._writes:
      self._tensorboard.mkdir(parents=True, exist_ok=True)
      name = f"events.out.tfevents.{time.time_ns()}.ilm"
      self._events = (self._tensorboard / name).open("wb")
      self._event(file_version="brain.Event:2")
      self._event(step=step + 1,
                  session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START))

  def write(self, step: int, scalars: dict[str, float], clock: dict[str, float]) -> None:
    """Adds one record: `scalars` to both places, `clock` (rates, waits) to TensorBoard only."""
    self._records.append({"step": step, **scalars})
    self._save()
    if self._events is not None:
      values = [summary_pb2.Summary.Value(tag=name, simple_value=value)
                for name, value in {**scalars, **clock}.items()]
      self._event(step=step, summary=summary_pb2.Summary(value=values))

  def close(self) -> None:
    if self._events is not None:
      self._events.close()
      self._events = None

  def _save(self) -> None:
    if not self._writes:
      return
    try:
      files.write_text(self._path, "".join(json.dumps(r) + "\n" for r in self._records))
    except OSError as e:
      if e.errno in FULL_DISK:
        raise full_disk(self._path.parent, e) from e
      raise

  def _event(self, **fields) -> None:
    event = event_pb2.Event(wall_time=time.time(), **fields)
    try:
      record_writer.RecordWriter(self._events).write(event.SerializeToString())
      self._events.flush()
    except OSError as e:
      if e.errno in FULL_DISK:
        raise full_disk(self._tensorboard, e) from e
      raise


def chain(error: BaseException | None):
  """`error` and all that it was raised from."""
  while error is not None:
    yield error
    error = error.__cause__ or error.__context__


def write_error(error: Exception, workdir) -> errors.UserError | None:
  """The user's error if `error` is of a disk without room, or of a workdir that cannot be written;
  None if it is neither."""
  here = os.path.abspath(workdir)
  for cause in chain(error):
    number = getattr(cause, "errno", None)
    if number in FULL_DISK or any(words in str(cause) for words in NO_ROOM):
      return full_disk(workdir, cause)
    name = getattr(cause, "filename", None)
    if number in _UNWRITABLE and isinstance(name, str | os.PathLike) and (
        f"{os.path.abspath(name)}/".startswith(f"{here}/")):
      return errors.UserError(f"{os.fspath(name)} cannot be made or written ({cause.strerror}): "
                              "give another --workdir, a folder that you may write in")
  return None


def full_disk(folder, cause) -> errors.UserError:
  """The error for a write that found no room."""
  return errors.UserError(
      f"no room to write in {folder} ({str(cause).splitlines()[0][:120]}): free some space or give "
      "another --workdir, then run the same command again; it resumes from the last checkpoint")
