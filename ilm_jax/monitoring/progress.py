"""The progress line of a long job, and the signals that stop it (SIGTERM, Ctrl-C)."""
import signal
import sys
import threading

import jax
import tqdm


class Progress:
  """One line with loss, rate and time left.

  Args:
    name: the first word of the line.
    first: steps that earlier processes completed.
    steps: how many there are in all.
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
    """Notes that `step` is complete. The rate leaves out the first step, which compiles."""
    if step <= self._done:
      return
    if self._done == self._first:
      self._bar.set_postfix_str("", refresh=False)
      self._bar.unpause()
    self._bar.update(step - self._done)
    self._done = step

  def show(self, scalars: dict[str, float]) -> None:
    self._bar.set_postfix(loss=f"{scalars['loss']:.4f}", refresh=False)


class StopSignals:
  """Context in which SIGTERM and SIGINT (Ctrl-C) set `came` instead of ending the process.

  A second SIGINT ends the process at once. In a thread other than the main one it has no effect.

  Attributes:
    came: the first signal; None: none yet.
  """

  def __init__(self):
    self.came: signal.Signals | None = None
    self._before: dict = {}

  def __enter__(self):
    if threading.current_thread() is threading.main_thread():
      self._before = {number: signal.signal(number, self._note)
                      for number in (signal.SIGTERM, signal.SIGINT)}
    return self

  def __exit__(self, *_):
    for number, handler in self._before.items():
      signal.signal(number, handler)

  def _note(self, number, _frame):
    if self.came is None:
      self.came = signal.Signals(number)
    if number == signal.SIGINT:        # the next one ends the process at once
      signal.signal(signal.SIGINT, signal.SIG_DFL)
