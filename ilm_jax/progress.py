"""What a long job shows and hears: the progress line, and the wish to stop (SIGTERM)."""
import contextlib
import signal
import sys
import threading
import time

import jax
import tqdm


class Progress:
  """One line with loss, rate and time left, and what the clock says for the log.

  Args:
    name: the first word of the line.
    first: steps made before this process began.
    steps: steps there are in all.
  """

  def __init__(self, name: str, first: int, steps: int):
    self._bar = tqdm.tqdm(
        desc=name, initial=first, total=steps, unit="step", dynamic_ncols=True,
        mininterval=0.2 if sys.stderr.isatty() else 10.0, disable=jax.process_index() > 0)
    if first < steps:
      self._bar.set_postfix_str("compiling")
    self._done = self._logged = first
    self._since, self._waited = None, 0.0

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self._bar.close()

  @contextlib.contextmanager
  def waiting(self):
    """Counts the time spent inside as waiting for input."""
    start = time.perf_counter()
    yield
    self._waited += time.perf_counter() - start

  def done(self, step: int) -> None:
    """Says that `step` is complete. The clock starts after the first one, which was compiled."""
    if step <= self._done:
      return
    if self._since is None:
      self._since, self._logged, self._waited = time.perf_counter(), step, 0.0
      self._bar.set_postfix_str("", refresh=False)
      self._bar.unpause()
    self._bar.update(step - self._done)
    self._done = step

  def clock(self) -> dict[str, float]:
    """Steps per second and seconds of waiting for input per step, since the last call."""
    now, steps = time.perf_counter(), self._done - self._logged
    out = {} if not steps else {"steps_per_second": steps / (now - self._since),
                                "input_wait_seconds": self._waited / steps}
    self._since, self._logged, self._waited = now, self._done, 0.0
    return out

  def show(self, scalars: dict[str, float]) -> None:
    self._bar.set_postfix(loss=f"{scalars['loss']:.4f}", refresh=False)


class Sigterm:
  """Within it, SIGTERM sets `came` instead of ending the process (main thread only)."""

  def __init__(self):
    self.came = False

  def __enter__(self):
    self._main = threading.current_thread() is threading.main_thread()
    if self._main:
      self._before = signal.signal(signal.SIGTERM, self._note)
    return self

  def __exit__(self, *_):
    if self._main:
      signal.signal(signal.SIGTERM, self._before)

  def _note(self, *_):
    self.came = True
