"""The scalars of a phase: one line per log step in a file, and the same records in its trackers.

`metrics.jsonl` holds only numbers that (seed, step) decide, so that a run that was killed and
resumed ends with the same file as one that was not. Each line has its own digest, so damage is
noticed (older lines without one are accepted). Numbers of the clock go to the trackers only.
"""
import json

from etils import epath

from ilm_jax import errors, files
from ilm_jax.monitoring import trackers as trackers_lib
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
        "again; the weights do not depend on it, its curves begin anew") from e
  return records


class Writer:
  """Writes the scalars of one phase; in a job of several processes only process 0 writes.

  Args:
    path: the metrics.jsonl, rewritten whole at every record (buckets cannot append).
    trackers: from `trackers.make`; they get the same records.
  """

  def __init__(self, path, trackers: tuple[trackers_lib.Tracker, ...] = ()):
    self._path, self._trackers = epath.Path(path), trackers
    self._lines = []         # of the file; kept, as a digest costs time in the training thread
    self._writes = distributed.is_main()

  def resume(self, step: int) -> None:
    """Forgets every record after `step`, which a run that starts at `step` writes again."""
    self._lines = [_line(r) for r in read(self._path) if r["step"] <= step]
    if self._path.exists():
      self._save()
    for tracker in self._trackers:
      tracker.start(step)

  def write(self, step: int, scalars: dict[str, float], clock: dict[str, float]) -> None:
    """Adds one record: `scalars` to file and trackers, `clock` (rates, waits) to trackers only."""
    if self._writes:
      self._lines.append(_line({"step": step, **scalars}))
    self._save()
    for tracker in self._trackers:
      tracker.write(step, {**scalars, **clock})

  def close(self) -> None:
    for tracker in self._trackers:
      tracker.close()

  def _save(self) -> None:
    if not self._writes:
      return
    try:
      files.write_text(self._path, "".join(self._lines))
    except OSError as e:
      if e.errno in files.FULL_DISK:
        raise files.full_disk(self._path.parent, e) from e
      raise


def _line(record: dict) -> str:
  return json.dumps(files.stamped(record)) + "\n"
