"""Reports on a phase while it trains: progress line, log line, heartbeat, profile.

`loop.fit` calls the training step; a Monitor times it and reports. It holds neither parameters nor
loss, only one scalar of the newest step, and changes no number. Numbers that depend on the clock go
to the log line on stdout, to the trackers and to the heartbeat, never to metrics.jsonl.

  step_seconds             seconds per step in which the devices worked
  steps_per_second         over all time between two logs, with waiting and saving
  input_wait_seconds       seconds per step in which the devices were idle: no batch was ready
  tokens_per_second        positions of the sequences without padding (phase 2)
  places_per_second        positions of the sequences with padding (phase 2)
  examples_per_second      (phase 1)
  tflops_per_second        useful FLOPs (`utilization.useful_flops`), all devices together
  utilization              the same divided by the devices' published peak, if it is known
  goodput                  since the phase began, with all restarts: goodput.py
  device_peak_gib          peak memory so far of the fullest device of this host; if the devices do
                           not report it, host_peak_gib of this process instead
"""
import contextlib
import dataclasses
import os
import resource
import socket
import sys
import time

import jax
import tqdm

from ilm_jax.monitoring import clock, goodput, heartbeat, profiling, progress, utilization
from ilm_jax.runtime import distributed

_LINE_EVERY = 10.0    # seconds between two log lines on stdout, at least
_GIB = 2 ** 30


@dataclasses.dataclass
class Dispatched:
  """A step that the host has called; the devices may still be working on it."""
  result: jax.Array | None = None     # one of its outputs, ready when the step is complete


class Monitor:
  """Watches one phase in one process. Use it once: `with monitor.start(first)`. Process 0 writes.

  Args:
    name: of the phase.
    steps: how many the phase has in all.
    workdir: where heartbeat and profile go; None: nowhere.
    amounts: {unit: how many in each step}, e.g. {"examples": 192}.
    profile: (first step, steps) under the profiler; 0 steps: none.
    began: unix time in seconds at which this process began the phase.
    quiet: no line on stdout.

  Attributes:
    flops_per_step: useful FLOPs of a step on all devices together, for TFLOP/s and utilization;
      None: neither is reported. `loop.fit` sets it.
  """

  def __init__(self, name: str, steps: int, *, workdir=None,
               amounts: dict[str, float] | None = None, profile: tuple[int, int] = (1, 0),
               began: float | None = None, quiet: bool = False):
    self._name, self._steps, self._workdir = name, steps, workdir
    self._amounts, self._profile, self._quiet = amounts or {}, profile, quiet
    self._began = time.time() if began is None else began
    self.flops_per_step: float | None = None
    self._state, self._why, self._previous = "running", "", None
    self._loss = self._loss_step = self._rate = None
    self._line_at, self._beat = -_LINE_EVERY, None

  def start(self, first: int) -> "Monitor":
    """Starts clock, progress line and heartbeat; earlier processes completed `first` steps."""
    self._done = first
    self._stepped = time.monotonic()      # the system's clock may be set back
    writes = self._workdir is not None and distributed.is_main()
    previous_run = heartbeat.read(self._workdir, self._name) if writes else None
    self._ledger = goodput.Ledger(previous_run, first, self._began)
    self._window = profiling.Window(
        f"{self._workdir}/profile/{self._name}", *self._profile if writes else (1, 0))
    self._clock = clock.Clock()
    self._bar = progress.Progress(self._name, first, self._steps)
    if writes:
      self._beat = heartbeat.Heartbeat(heartbeat.path(self._workdir, self._name), self._status)
    return self

  def __enter__(self):
    return self

  def __exit__(self, kind, error, _):
    self._state = "stopped" if kind else "done"
    self._why = " ".join(f"{kind.__name__}: {error}".split())[:300] if kind else ""
    self._clock.close()
    self._bar.close()
    try:
      self._window.close()
    finally:
      if self._beat is not None:
        self._beat.close()

  def waiting(self):
    """Context in which the loop waits for a batch and moves it to the devices."""
    return self._clock.waiting()

  @contextlib.contextmanager
  def step(self, number: int):
    """Context in which the loop calls step `number` (from 1).

    Yields:
      a Dispatched, whose `result` the loop sets to one of the step's outputs.
    """
    self._window.before(number, self._previous)
    dispatched, called_at = Dispatched(), time.perf_counter()
    with self._window.annotate(number):
      yield dispatched
    self._previous = dispatched.result
    self._clock.called(called_at, dispatched.result)
    self._window.after(number, dispatched.result)

  def done(self, step: int) -> None:
    """Notes that `step` is complete."""
    if step > self._done:
      self._done, self._stepped = step, time.monotonic()
    self._bar.done(step)

  @contextlib.contextmanager
  def saving(self, step: int):
    """Context in which training waits for a checkpoint of `step`."""
    self._state = "saving"
    yield
    self._clock.settle()
    self._ledger.saved(step, self._clock.productive)
    self._state = "running"

  def log(self, step: int, scalars: dict[str, float]) -> dict[str, float]:
    """Rates of the steps since the last call, {name: number} as above, for the trackers.

    Args:
      step: the newest complete step.
      scalars: means of the metrics over the same steps, with "loss".
    """
    self._clock.settle()
    self.done(step)
    self._loss, self._loss_step = scalars["loss"], step
    self._bar.show(scalars)
    rates = {**self._pace(scalars), "goodput": self._goodput(), **memory()}
    now = time.perf_counter()
    if not self._quiet and distributed.is_main() and (
        now - self._line_at >= _LINE_EVERY or step == self._steps):
      self._line_at = now
      tqdm.tqdm.write(self._line(step, scalars, rates), file=sys.stdout)
      sys.stdout.flush()
    return rates

  def _pace(self, scalars) -> dict[str, float]:
    spent = self._clock.read()
    if not spent.steps:
      return {}
    self._rate = rate = spent.steps / spent.wall
    amounts = {**self._amounts, **({"tokens": scalars["tokens"]} if "tokens" in scalars else {})}
    out = {"step_seconds": spent.busy / spent.steps, "steps_per_second": rate,
           "input_wait_seconds": spent.starved / spent.steps,
           **{f"{unit}_per_second": amount * rate for unit, amount in amounts.items()}}
    if self.flops_per_step:
      out["tflops_per_second"] = self.flops_per_step * rate / 1e12
      if peak := utilization.peak(jax.devices()):
        out["utilization"] = self.flops_per_step * rate / peak
    return out

  def _goodput(self) -> float:
    return self._ledger.goodput(self._clock.productive, time.time())

  def _line(self, step: int, scalars, rates: dict[str, float]) -> str:
    """One log line for people who follow a long job."""
    words = [f"{self._name} {step}/{self._steps}", f"loss {scalars['loss']:.4f}"]
    if "steps_per_second" in rates:
      words.append(heartbeat.rate(rates["steps_per_second"]))
      if {"tokens_per_second", "places_per_second"} <= rates.keys():
        filled = rates["tokens_per_second"] / rates["places_per_second"]
        words.append(f"{_count(rates['tokens_per_second'])} tokens/s ({filled:.0%} of positions)")
      if "examples_per_second" in rates:
        words.append(f"{_count(rates['examples_per_second'])} examples/s")
      words.append("input wait {:.0%}".format(
          rates["input_wait_seconds"] * rates["steps_per_second"]))
      if "tflops_per_second" in rates:
        words.append(_flops(rates["tflops_per_second"]))
      if "utilization" in rates:
        words.append(f"utilization {rates['utilization']:.1%}")
      left = (self._steps - step) / rates["steps_per_second"]
      words.append(f"{heartbeat.duration(left)} left")
    words.append(f"goodput {rates['goodput']:.0%}")
    words += [f"{name.split('_')[0]} {rates[name]:.1f} GiB"
              for name in ("device_peak_gib", "host_peak_gib") if name in rates]
    return "  ".join(words)

  def _status(self) -> dict:
    """The fields of heartbeat.py; called from its thread."""
    left = self._steps - self._done
    return {
        "phase": self._name, "state": self._state, "why": self._why, "step": self._done,
        "steps": self._steps, "rate": self._rate,
        "stepped": time.time() - (time.monotonic() - self._stepped),
        "eta": left / self._rate if self._rate else None, "loss": self._loss,
        "loss_step": self._loss_step, "processes": distributed.here().count,
        "host": socket.gethostname(), "pid": os.getpid(), "goodput": self._goodput(),
        **self._ledger.record()}


def _count(number: float) -> str:
  """'12,345', '0.43'."""
  return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"


def _flops(teraflops: float) -> str:
  """'1.25 TFLOP/s', '310 GFLOP/s'."""
  power = next((n for n in range(3) if teraflops * 1000 ** n >= 1), 3)
  return f"{teraflops * 1000 ** power:.3g} {'TGMk'[power]}FLOP/s"


def memory() -> dict[str, float]:
  """{"device_peak_gib": ..} of the fullest device here, or {"host_peak_gib": ..}."""
  peaks = [(d.memory_stats() or {}).get("peak_bytes_in_use") for d in jax.local_devices()]
  if None not in peaks:
    return {"device_peak_gib": max(peaks) / _GIB}
  unit = 1 if sys.platform == "darwin" else 1024
  return {"host_peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / _GIB}
