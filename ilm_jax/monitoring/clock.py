"""When the devices worked and when they waited for a batch: the basis of step time and goodput.

The host runs ahead of the devices, so the time at which it calls a step says little. A thread waits
for each step in turn and notes when it was complete. With c[n] the completion of step n, w[n] the
time at which the host began to wait for its batch, b[n] the time at which the batch was ready and
s[n] the time at which the step was called,

  busy[n]     = c[n] - max(c[n - 1], s[n])   seconds in which the devices worked on step n
  starved[n]  = b[n] - max(c[n - 1], w[n])   seconds in which they were idle: no batch was ready

(at least 0). The first step of a process compiles: it starts the clock and is not counted.
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
  busy: float = 0.0       # in which the devices worked
  starved: float = 0.0    # in which the devices were idle because no batch was ready


class Clock:
  """Times of the steps of one process, from its second step on. Close it at the end."""

  def __init__(self):
    self.productive = 0.0                 # seconds busy, since the clock was made
    self._wait_began = self._batch_ready = self._read = self._complete = None
    self._since = Spent()
    self._called, self._lock = queue.Queue(), threading.Lock()
    self._thread = threading.Thread(target=self._watch, name="clock", daemon=True)
    self._thread.start()

  def close(self) -> None:
    self._called.put(None)

  @contextlib.contextmanager
  def waiting(self):
    """Context in which the host waits for a batch."""
    self._wait_began = time.perf_counter()
    yield
    self._batch_ready = time.perf_counter()

  def called(self, at: float, array) -> None:
    """A step was called at perf_counter `at`; it is complete when `array`, an output, is ready."""
    self._called.put((self._wait_began, self._batch_ready, at, array))

  def settle(self) -> None:
    """Waits until all steps that were called are complete and noted."""
    self._called.join()

  def read(self) -> Spent:
    """Seconds spent on the steps completed since the last call."""
    with self._lock:
      spent, self._since = self._since, Spent()
      if self._read is not None:
        spent.wall = time.perf_counter() - self._read
      self._read = time.perf_counter() if self._complete is not None else None
    return spent

  def _watch(self) -> None:
    while (step := self._called.get()) is not None:
      wait_began, batch_ready, called, array = step
      with contextlib.suppress(Exception):   # raised again where the loop reads the step's results
        array.block_until_ready()
        self._note(wait_began, batch_ready, called, time.perf_counter())
      del step, array
      self._called.task_done()

  def _note(self, wait_began, batch_ready, called, complete) -> None:
    with self._lock:
      if self._complete is None:
        self._read = complete
      else:
        busy = complete - max(self._complete, called)
        self.productive += busy
        self._since.steps += 1
        self._since.busy += busy
        self._since.starved += max(batch_ready - max(self._complete, wait_began), 0.0)
      self._complete = complete
