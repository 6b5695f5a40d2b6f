"""A file that says how far training is, rewritten every few seconds, for people and for --watch.

    <workdir>/heartbeat.<phase>.json

  phase, state     "running", "saving", "done", or "stopped" with the reason in `why`
  step, steps      complete, and in all
  time             when this was written, unix seconds; `stepped`: when the newest step was complete
  rate, eta        steps per second between the last two logs, and the seconds left at that rate;
                   null until known
  loss             mean between the last two logs, of which `loss_step` is the newer
  processes        of the job
  host, pid        of its process 0, which writes this
  goodput, began, kept     see goodput.py
  check            digest of all this (files.stamped)
"""
import json
import os
import socket
import threading
import time

from etils import epath

from ilm_jax import files

EVERY = 5.0          # seconds between two writes
DEAD_AFTER = 60.0    # seconds without a write, after which a job counts as dead
_GONE_AFTER = 3 * EVERY   # the same, if its process no longer runs on this machine


class Heartbeat:
  """Writes what `said()` returns, from a thread, until it is closed.

  Args:
    path: the file.
    said: -> JSON-able; called from the thread.
    every: seconds between two writes.
  """

  def __init__(self, path, said, every: float = EVERY):
    self._path, self._said, self._every = epath.Path(path), said, every
    self._stop, self.failure = threading.Event(), None
    self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
    self._thread.start()

  def close(self) -> None:
    """Writes a last time and ends the thread."""
    self._stop.set()
    self._thread.join()
    self._write()

  def _beat(self) -> None:
    self._write()
    while not self._stop.wait(self._every):
      self._write()

  def _write(self) -> None:
    try:
      beat = files.stamped({**self._said(), "time": time.time()})
      files.write_text(self._path, json.dumps(beat, indent=1))
    except OSError as e:        # saving a checkpoint reports a full disk
      self.failure = e


def path(workdir, phase: str):
  return epath.Path(workdir) / f"heartbeat.{phase}.json"


def read(workdir, phase: str) -> dict | None:
  """The newest heartbeat of a phase; None if it is missing or damaged."""
  try:
    return files.unstamped(files.parse_json(path(workdir, phase).read_text()))
  except (OSError, ValueError):
    return None


def tell(beat: dict, now: float) -> str:
  """One line for people: step, rate, time left; or that the job seems dead or stuck.

  A time in the future or a step after the last is reported as wrong.
  """
  at = f"{beat['phase']} step {beat['step']:,} of {beat['steps']:,}"
  if beat["state"] == "done":
    return f"{at}: done"
  if beat["state"] == "stopped":
    return f"{at}: stopped ({beat['why']}); run it again to continue"
  who = f"process {beat['pid']} on {beat['host']}"
  silent = now - beat["time"]
  if silent < -DEAD_AFTER:
    return (f"{at}: wrong heartbeat, {who} wrote it at a time that is {duration(-silent)} ahead of "
            "this clock: one of the clocks is wrong; look at the newest checkpoint")
  if not 0 <= beat["step"] <= beat["steps"]:
    return f"{at}: wrong heartbeat, there is no such step; look at the newest checkpoint"
  if silent > _GONE_AFTER and _gone(beat):
    return (f"{at}: {who} no longer runs and gave no reason; run it again to continue from its "
            "newest checkpoint")
  if silent > DEAD_AFTER:
    return (f"{at}: seems dead, {who} wrote nothing for {duration(silent)} (clocks of two machines "
            "may differ); run it again to continue from its newest checkpoint")
  still = now - beat["stepped"]
  if beat["rate"] and still > max(DEAD_AFTER, 20 / beat["rate"]):
    return f"{at}: seems stuck, {who} runs but completed no step for {duration(still)}"
  loss = "" if beat["loss"] is None else f", loss {beat['loss']:.4f}"
  pace = "" if not beat["rate"] else (
      f", {rate(beat['rate'])}, {duration(beat['eta'])} left, goodput {beat['goodput']:.0%}")
  return f"{at}{', saving' if beat['state'] == 'saving' else ''}{loss}{pace}"


def _gone(beat: dict) -> bool:
  """Whether the process was on this machine and no longer runs. Containers may share a host's name,
  so this alone is no proof."""
  if beat["host"] != socket.gethostname():
    return False
  try:
    os.kill(beat["pid"], 0)
  except ProcessLookupError:
    return True
  except OSError:
    pass
  return False


def rate(steps_per_second: float) -> str:
  """'2.50 steps/s', or '4.0 s/step' if a step takes more than a second."""
  return (f"{steps_per_second:.2f} steps/s" if steps_per_second >= 1
          else f"{1 / steps_per_second:.1f} s/step")


def duration(seconds: float) -> str:
  """'1:02:03', '2:03'."""
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
