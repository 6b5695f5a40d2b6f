"""Sums of step metrics, kept on the devices until they are read."""
import jax


class Totals:
  """Sums and counts of metrics since the last log, exact over restarts.

  Metrics stay on the device until `means` or `sums` is called, so the host runs ahead. Both first
  check `finite` of every step and raise `not_finite(step)` for the first step where it is false.

  Args:
    sums: {metric: [sum, count]} to continue from, as `sums()` returned them before a restart.
    not_finite: step -> the exception to raise.
  """

  def __init__(self, sums: dict[str, list[float]], not_finite):
    self._sums = {k: list(v) for k, v in sums.items()}
    self._pending = []         # (step, metrics on device), oldest first
    self._not_finite = not_finite
    self.finished = 0          # the newest step known to be complete

  def add(self, step: int, metrics: dict) -> None:
    self._pending.append((step, metrics))

  def keep_up(self, behind: int) -> None:
    """Waits until at most the `behind` newest steps are still running; fetches nothing."""
    if len(self._pending) > behind:
      step, metrics = self._pending[-1 - behind]
      metrics["finite"].block_until_ready()
      self.finished = step

  def sums(self) -> dict[str, list[float]]:
    """{metric: [sum, count]} of all steps added since the last `means`."""
    steps, fetched = [s for s, _ in self._pending], jax.device_get([m for _, m in self._pending])
    self._pending = []
    for step, metrics in zip(steps, fetched):
      if not metrics.pop("finite"):
        raise self._not_finite(step)
      for name, value in metrics.items():
        total, count = value if isinstance(value, tuple | list) else (value, 1)
        entry = self._sums.setdefault(name, [0.0, 0.0])
        entry[0] += float(total)
        entry[1] += float(count)
      self.finished = step
    return {k: list(v) for k, v in self._sums.items()}

  def means(self) -> dict[str, float]:
    """{metric: sum / count} since the last call, without metrics whose count is 0; resets sums."""
    sums = self.sums()
    self._sums = {}
    return {name: total / count for name, (total, count) in sums.items() if count}
