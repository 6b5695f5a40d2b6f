"""A window of steps under jax's profiler: <workdir>/profile/<phase>, for xprof and TensorBoard."""
import pathlib
import tempfile

import jax
from etils import epath


class Window:
  """Traces the steps `start` ... `start + steps - 1` of a phase, in this process.

  The trace begins when all earlier steps are complete and ends when its last one is, so that it
  holds these steps and nothing else. The profiler can only write to a local folder, so the trace is
  copied from there.

  Args:
    folder: where traces go, e.g. <workdir>/profile/phase2; may be gs://.
    start: number of the first step, from 1.
    steps: how many; 0: none.
  """

  def __init__(self, folder, start: int, steps: int):
    self._folder, self._steps = epath.Path(folder), range(start, start + steps)
    self._local = None

  def before(self, step: int, earlier) -> None:
    """Called before `step`; `earlier` is an output of the step before, or None."""
    if step in self._steps and self._local is None:
      if earlier is not None:
        earlier.block_until_ready()
      self._local = tempfile.TemporaryDirectory()
      jax.profiler.start_trace(self._local.name)

  def annotate(self, step: int):
    """Context in which `step` is called; it marks the step in the trace."""
    return jax.profiler.StepTraceAnnotation("train", step_num=step)

  def after(self, step: int, result) -> None:
    """Called after the call of `step`; `result` is one of its outputs."""
    if self._local is not None and step >= self._steps[-1]:
      result.block_until_ready()
      self.close()

  def close(self) -> None:
    """Ends a trace that has begun, and writes it."""
    if self._local is None:
      return
    jax.profiler.stop_trace()
    for path in sorted(pathlib.Path(self._local.name).rglob("*")):
      if path.is_file():
        there = self._folder / path.relative_to(self._local.name).as_posix()
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_bytes(path.read_bytes())
    self._local.cleanup()
    self._local = None
