"""One thread that runs the models; it scores waiting histories of one model in one batch."""
import collections
import concurrent.futures
import dataclasses
import threading
import time
from collections.abc import Callable

import numpy as np

from ilm_jax.serving import limits as limits_lib


@dataclasses.dataclass(frozen=True, eq=False)
class _Job:
  """A call of `ask`, or a history that `ask` scores."""
  ask: Callable
  history: np.ndarray | None
  future: concurrent.futures.Future


class ModelThread:
  """Runs calls that need a device, one after another.

  Args:
    limits: how many jobs may wait or be scored together, and for how long a caller waits.
    on_batch: called with the size of each batch and the seconds that it took.
  """

  def __init__(self, limits: limits_lib.Limits,
               on_batch: Callable[[int, float], None] = lambda size, seconds: None):
    self._limits, self._on_batch = limits, on_batch
    self._jobs: collections.deque[_Job] = collections.deque()
    self._change, self._over = threading.Condition(), False
    self._thread = threading.Thread(target=self._work, name="model", daemon=True)
    self._thread.start()

  @property
  def waiting(self) -> int:
    """How many jobs wait for the thread."""
    return len(self._jobs)

  def scores(self, scores: Callable, history: np.ndarray) -> np.ndarray:
    """float32 [I + 1]: the row of `scores([.., history, ..])` of this history.

    Raises:
      Refused: too many wait (429), or the answer did not come in time (504).
    """
    return self._result(_Job(scores, history, concurrent.futures.Future()))

  def call(self, function: Callable, seconds: float | None = None):
    """The result of `function()`. Raises: as `scores`, and what the function raises.

    Args:
      function: needs a device; without arguments.
      seconds: how long to wait for the result; None: `limits.seconds`.
    """
    return self._result(_Job(function, None, concurrent.futures.Future()), seconds)

  def stop(self) -> None:
    """Ends the thread after its present job; waiting jobs are refused."""
    with self._change:
      self._over = True
      self._change.notify()
    self._thread.join()

  def _result(self, job: _Job, seconds: float | None = None):
    seconds = seconds or self._limits.seconds
    with self._change:
      if self._over:
        raise limits_lib.Refused(503, "the server is stopping", "stopping", wait=5)
      if len(self._jobs) >= self._limits.waiting:
        raise limits_lib.Refused(429, f"{len(self._jobs)} requests wait for the model already: try "
                                 "again later", "queue_full", wait=1)
      self._jobs.append(job)
      self._change.notify()
    try:
      return job.future.result(seconds)
    except concurrent.futures.TimeoutError:
      job.future.cancel()
      with self._change:
        if job in self._jobs:
          self._jobs.remove(job)
      raise limits_lib.Refused(504, f"the model gave no answer within {seconds:g} seconds",
                               "timeout") from None

  def _work(self) -> None:
    while True:
      with self._change:
        self._change.wait_for(lambda: self._jobs or self._over)
        if self._over:
          for job in self._jobs:
            job.future.set_exception(limits_lib.Refused(503, "the server is stopping", "stopping"))
          return
        batch = self._batch()
      batch = [job for job in batch if job.future.set_running_or_notify_cancel()]
      if batch:
        self._answer(batch)

  def _batch(self) -> list[_Job]:
    """The job that waits longest, and waiting histories that the same model can score with it."""
    first, rest = self._jobs.popleft(), collections.deque()
    batch = [first]
    while self._jobs and first.history is not None and len(batch) < self._limits.together:
      job = self._jobs.popleft()
      (batch if job.history is not None and job.ask == first.ask else rest).append(job)
    self._jobs.extendleft(reversed(rest))
    return batch

  def _answer(self, batch: list[_Job]) -> None:
    began = time.monotonic()
    try:
      if batch[0].history is None:
        results = [batch[0].ask()]
      else:
        results = batch[0].ask([job.history for job in batch])
    except Exception as e:          # the callers get it; the thread goes on with other requests
      for job in batch:
        job.future.set_exception(e)
      return
    for job, result in zip(batch, results):
      job.future.set_result(result)
    self._on_batch(len(batch), time.monotonic() - began)
