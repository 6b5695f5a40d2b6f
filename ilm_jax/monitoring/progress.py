"""What a long job shows and hears: the progress line, and the wish to stop (SIGTERM)."""
import signal
import sys
import threading

import jax
import tqdm


class Progress:
  """One line with loss, rate and time left.

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
    self._first = self._done = first

  def close(self) -> None:
    self._bar.close()

  def done(self, step: int) -> None:
    """Says that `step` is complete. The rate is of the steps after the first, which is compiled."""
    if step <= self._done:
      return
    if self._done == self._first:
      self._bar.set_postfix_str("", refresh=False)
      self._bar.unpause()
    self._bar.update(step - self._done)
    self._done = step

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
