"""Goodput: how much of the time since a phase began has gone into steps that still count.

  goodput = seconds in which the devices worked on steps that still count (`clock.Clock`)
            / seconds since the phase first began in this workdir

The time below runs through loading, compiling (the first step of each process counts for nothing),
waiting for input, saving, and the while in which no process ran because one was killed or stopped.
A step that a restart makes again counts once, so what was lost between the last checkpoint and the
kill is lost here too. Once the phase is done the time stands still.
"""
_KEPT = 8     # checkpoints whose seconds are remembered: more than training keeps


class Ledger:
  """Productive seconds over all processes that trained this phase, one after another.

  Args:
    record: what an earlier process left by `record`, with "state" and "time" beside it; or None.
    first: the step from which this process goes on.
    began: unix time at which this process began with the phase.
  """

  def __init__(self, record: dict | None, first: int, began: float):
    self._kept, self._began = {}, began
    if record and not (record["state"] == "done" and not first):   # else trained anew, all deleted
      self._kept = {int(k): v for k, v in record["kept"].items() if int(k) <= first}
      paused = began - record["time"] if record["state"] == "done" else 0.0
      self._began = record["began"] + paused
    self._before = self._kept[max(self._kept)] if self._kept else 0.0

  def saved(self, step: int, productive: float) -> None:
    """A checkpoint of `step` was begun after so many productive seconds of this process."""
    kept = {**self._kept, step: self._before + productive}
    self._kept = dict(sorted(kept.items())[-_KEPT:])   # a new dict: another thread calls `record`

  def goodput(self, productive: float, now: float) -> float:
    """Between 0 and 1, after so many productive seconds of this process."""
    worked = self._before + productive
    return worked / max(now - self._began, worked, 1e-9)       # a clock may be set back

  def record(self) -> dict:
    """JSON-able."""
    return {"began": self._began, "kept": {str(k): v for k, v in self._kept.items()}}
