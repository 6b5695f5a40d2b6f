"""When the devices worked, and for what they waited: the times behind step time and goodput.

The host runs ahead of the devices, so its own clock says little. A thread waits for each step in
turn and notes when it was complete. Then, with c[n] the completion of step n, b[n] when its batch
was there and s[n] when the step was called,

  busy[n]     = c[n] - max(c[n - 1], s[n])                the devices worked on step n
  starved[n]  = b[n] - max(c[n - 1], when asking began)   they stood idle for want of a batch

(at least 0). The first step of a process is compiled: it starts the clock and counts for nothing.
"""
import contextlib
import dataclasses
import queue
import threading
import time


@dataclasses.dataclass
class Spent:
  """Seconds over some steps."""
  steps: int = 0
  wall: float = 0.0       # in all
  busy: float = 0.0       # the devices worked
  starved: float = 0.0    # the devices stood idle for want of a batch


class Clock:
  """Times of the steps of one process, from its second step on. To be closed."""

  def __init__(self):
    self.productive = 0.0                 # seconds busy, since the clock was made
    self._asked = self._there = self._read = self._complete = None
    self._since = Spent()
    self._called, self._lock = queue.Queue(), threading.Lock()
    self._thread = threading.Thread(target=self._watch, name="clock", daemon=True)
    self._thread.start()

  def close(self) -> None:
    self._called.put(None)

  @contextlib.contextmanager
  def waiting(self):
    """Within it the host waits for a batch."""
    self._asked = time.perf_counter()
    yield
    self._there = time.perf_counter()

  def called(self, at: float, array) -> None:
    """A step was called at perf_counter `at`; `array`, one of its results, says when it is done."""
    self._called.put((self._asked, self._there, at, array))

  def settle(self) -> None:
    """Waits until all steps called are complete and noted."""
    self._called.join()

  def read(self) -> Spent:
    """Of the steps complete since the last call."""
    with self._lock:
      spent, self._since = self._since, Spent()
      if self._read is not None:
        spent.wall = time.perf_counter() - self._read
      self._read = time.perf_counter() if self._complete is not None else None
    return spent

  def _watch(self) -> None:
    while (step := self._called.get()) is not None:
      asked, there, called, array = step
      with contextlib.suppress(Exception):   # told where the result of the step is read
        array.block_until_ready()
        self._note(asked, there, called, time.perf_counter())
      del step, array
      self._called.task_done()

  def _note(self, asked, there, called, complete) -> None:
    with self._lock:
      if self._complete is None:
        self._read = complete
      else:
        busy = complete - max(self._complete, called)
        self.productive += busy
        self._since.steps += 1
        self._since.busy += busy
        self._since.starved += max(there - max(self._complete, asked), 0.0)
      self._complete = complete
