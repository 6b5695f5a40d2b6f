"""The scalars of a phase: one line per log step in a file, and the same for TensorBoard.

`metrics.jsonl` holds only what (seed, step) decide, so that a run that was killed and resumed ends
with the same file as one that was not. Each line has a digest of itself, so damage is noticed
(lines of before there were digests are read as they are). The clock's go to TensorBoard alone. The
TensorBoard records are written through tensorboard's own protocol buffers: `clu.metric_writers`
would import TensorFlow.
"""
import json
import time

from etils import epath
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer import record_writer

from ilm_jax import errors, files
from ilm_jax.runtime import distributed


def read(path) -> list[dict]:
  """The records of a metrics.jsonl, oldest first; none if there is no such file.

  Raises:
    UserError: a line is damaged.
  """
  path = epath.Path(path)
  if not path.exists():
    return []
  records = []
  try:
    for line in path.read_text().splitlines():
      records.append(files.unstamped(files.parse_json(line)))
  except ValueError as e:
    raise errors.UserError(
        f"{path} is damaged in line {len(records) + 1} ({e}): delete it and run the same command "
        "again; weights do not depend on it, its curves begin anew") from e
  return records


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
      files.write_text(self._path, "".join(
          json.dumps(files.stamped(r)) + "\n" for r in self._records))
    except OSError as e:
      if e.errno in files.FULL_DISK:
        raise files.full_disk(self._path.parent, e) from e
      raise

  def _event(self, **fields) -> None:
    event = event_pb2.Event(wall_time=time.time(), **fields)
    try:
      record_writer.RecordWriter(self._events).write(event.SerializeToString())
      self._events.flush()
    except OSError as e:
      if e.errno in files.FULL_DISK:
        raise files.full_disk(self._tensorboard, e) from e
      raise
