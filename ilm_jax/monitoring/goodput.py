"""Goodput: how much of the time since a phase began has gone into steps that still count.

  goodput = seconds in which the devices worked on steps that still count (`clock.Clock`)
            / seconds since the phase first began in this workdir

The denominator includes loading, compiling (the first step of each process does not count as work),
waiting for input, saving, and the time after a kill or stop in which no process ran. A step that a
restart repeats counts once, so work that a kill lost since the last checkpoint lowers goodput. Time
after the end of the phase does not count.
"""
_KEPT = 8     # checkpoints whose seconds are remembered: more than training keeps


class Ledger:
  """Productive seconds over all processes that trained this phase, one after another.

  Args:
    record: what `record` returned in an earlier process, with "state" and "time" added; or None.
    first: the step from which this process continues.
    began: unix time at which this process began the phase.
  """

  def __init__(self, record: dict | None, first: int, began: float):
    self._kept, self._began = {}, began
    if record and not (record["state"] == "done" and not first):   # else deleted and trained anew
      self._kept = {int(k): v for k, v in record["kept"].items() if int(k) <= first}
      paused = began - record["time"] if record["state"] == "done" else 0.0
      self._began = record["began"] + paused
    self._before = self._kept[max(self._kept)] if self._kept else 0.0

  def saved(self, step: int, productive: float) -> None:
    """Notes that a checkpoint of `step` was begun, after `productive` seconds of this process."""
    kept = {**self._kept, step: self._before + productive}
    self._kept = dict(sorted(kept.items())[-_KEPT:])   # a new dict: another thread calls `record`

  def goodput(self, productive: float, now: float) -> float:
    """Goodput between 0 and 1 at unix time `now`, after `productive` seconds of this process."""
    worked = self._before + productive
    return worked / max(now - self._began, worked, 1e-9)       # a clock may be set back

  def record(self) -> dict:
    """The state for a later process, JSON-able."""
    return {"began": self._began, "kept": {str(k): v for k, v in self._kept.items()}}
