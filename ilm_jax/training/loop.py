"""The training loop of both phases: state, step, and the loop that feeds it.

Frozen arrays are an argument of the step and never part of the state, so they have no gradient, no
optimizer slots and no bytes in checkpoints.
"""
import contextlib
import dataclasses
import signal
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ilm_jax import errors
from ilm_jax.monitoring import monitor as monitor_lib
from ilm_jax.monitoring import progress, scalars, utilization
from ilm_jax.runtime import axes, distributed, host_memory
from ilm_jax.training import accumulation, checkpoint, totals

Params = Any


class TrainState(NamedTuple):
  """All that training changes. The frozen language model is not in it."""
  step: jax.Array       # int32 scalar: updates made so far
  trainable: Params     # nested dict of arrays
  opt_state: optax.OptState


def init_state(trainable: Params, tx: optax.GradientTransformation, mesh) -> TrainState:
  """A state at step 0 on the mesh. It may be donated, because the caller's arrays are copied.

  It has no weak types: an update returns none, so the step would be compiled a second time.
  """
  trainable = jax.tree.map(lambda x: jax.lax.convert_element_type(x, x.dtype),
                           axes.place(mesh, trainable, copy=True))
  state = TrainState(jnp.zeros((), jnp.int32), trainable, tx.init(trainable))
  return axes.place(mesh, state, copy=True)


def train_step(state: TrainState, frozen, batch, *, loss_fn, tx, seed: int, microbatches: int = 1,
               prng: str | None = None):
  """One update. Pure: jit it with `state` donated and `frozen` not.

  Args:
    state: the TrainState before the update.
    frozen: arrays that the loss reads and that never change.
    batch: dict of arrays, the first axis is the batch.
    loss_fn: (trainable, frozen, batch, rng) -> (scalar loss, metrics); a metric is a scalar or
      a (sum, count) pair.
    tx: the optimizer.
    seed: of the run.
    microbatches: see `accumulation.value_and_grad`.
    prng: implementation of `jax.random.key` for dropout and noise; None: jax's default.

  Returns:
    The next state, and the metrics with `loss`, `grad_norm` and `finite` (bool scalar) added.
  """
  rng = jax.random.fold_in(jax.random.key(seed, impl=prng), state.step)
  (loss, metrics), grads = accumulation.value_and_grad(loss_fn, microbatches)(
      state.trainable, frozen, batch, rng)
  updates, opt_state = tx.update(grads, state.opt_state, state.trainable)
  trainable = optax.apply_updates(state.trainable, updates)
  norm = optax.tree.norm(grads)
  metrics = {"loss": loss, "grad_norm": norm, **metrics,
             "finite": jnp.isfinite(loss) & jnp.isfinite(norm)}
  return TrainState(state.step + 1, trainable, opt_state), metrics


def compile_step(loss_fn, tx, seed: int, state: TrainState, microbatches: int = 1,
                 prng: str | None = None):
  """`train_step` jitted for the mesh of `state`. The state is donated and keeps its shardings.

  Only shapes and shardings of `state` are read.
  """
  where = jax.tree.map(lambda x: x.sharding, state)

  def step(state, frozen, batch):
    with axes.tracing(where.step.mesh):
      return train_step(state, frozen, batch, loss_fn=loss_fn, tx=tx, seed=seed,
                        microbatches=microbatches, prng=prng)

  return jax.jit(step, donate_argnums=0, out_shardings=(where, None))


def to_devices(mesh, batch):
  """Global arrays from this host's part of a batch (numpy), sharded over the batch axes."""
  return jax.tree.map(jax.make_array_from_process_local_data,
                      axes.batch_sharding(mesh, batch), batch)


@dataclasses.dataclass(frozen=True)
class Objective:
  """What is minimised, and on which data.

  Args:
    loss_fn: see `train_step`.
    frozen: arrays that the loss reads; `fit` places them on the mesh and never changes them.
    batches: has `.iterate(start, stop)`, an iterator of dicts of numpy arrays, each this host's
      part of the batch of one step (steps from 0).
  """
  loss_fn: Callable
  frozen: Any
  batches: Any


@dataclasses.dataclass(frozen=True)
class Optimization:
  """How a batch becomes an update.

  Args:
    tx: the optimizer.
    seed: of the run; together with the step it decides dropout and noise.
    microbatches: parts that a batch is split into, see `accumulation.value_and_grad`.
    prng: implementation of `jax.random.key` for dropout and noise; None: jax's default.
    learning_rate: step (from 0) -> rate, logged with the metrics; None: not logged.
  """
  tx: optax.GradientTransformation
  seed: int
  microbatches: int = 1
  prng: str | None = None
  learning_rate: optax.Schedule | None = None


@dataclasses.dataclass(frozen=True)
class Cadence:
  """How long to train, and how often to log and to save.

  Args:
    steps: updates in all, counted from the first run of the phase.
    log_every: steps between two records in the log.
    checkpoint_every: steps between two checkpoints.
  """
  steps: int
  log_every: int
  checkpoint_every: int

  def logs(self, step: int) -> bool:
    """Whether to log after `step` updates; always after the last one."""
    return step % self.log_every == 0 or step == self.steps

  def saves(self, step: int) -> bool:
    """Whether to save after `step` updates; always after the last one."""
    return step % self.checkpoint_every == 0 or step == self.steps


@dataclasses.dataclass(frozen=True)
class Outputs:
  """Where the results go.

  Args:
    name: of the phase, for messages.
    checkpointer: a checkpoint.Checkpointer.
    writer: a scalars.Writer; `fit` closes it.
    monitor: reports on the run; None: a progress line only.
  """
  name: str
  checkpointer: checkpoint.Checkpointer
  writer: scalars.Writer
  monitor: monitor_lib.Monitor | None = None


def fit(state: TrainState, mesh, objective: Objective, optimization: Optimization,
        cadence: Cadence, outputs: Outputs) -> TrainState:
  """Trains from `state.step` to `cadence.steps` and saves a checkpoint of the last step.

  Args:
    state: from `init_state` or `checkpoint.start`; donated.
    mesh: where state and frozen arrays are placed, by axes.RULES.
    objective, optimization, cadence, outputs: see their classes.

  Raises:
    UserError: a loss or gradient is not finite; no such state is ever saved.
    errors.Preempted: SIGTERM or SIGINT came; the state after the current step is saved. It may be
      the last step: then only the next phase must not begin.
  """
  state, frozen = axes.place(mesh, state), axes.place(mesh, objective.frozen)
  first, steps = int(state.step), cadence.steps
  name, checkpointer, writer = outputs.name, outputs.checkpointer, outputs.writer
  monitor = outputs.monitor or monitor_lib.Monitor(name, steps, quiet=True)
  update = compile_step(objective.loss_fn, optimization.tx, optimization.seed, state,
                        optimization.microbatches, optimization.prng)
  metric_totals = _resumed_totals(first, name, checkpointer)
  writer.resume(first)
  agreement = distributed.Agreement(mesh)
  with contextlib.closing(writer), progress.StopSignals() as signals, monitor.start(first):
    feed, step, preempted = iter(objective.batches.iterate(first, steps)), first, False
    for step in range(first + 1, steps + 1):
      with monitor.waiting():
        batch = to_devices(mesh, next(feed))
      if step == first + 1 and distributed.is_main():
        monitor.flops_per_step = utilization.flops_or_warning(
            name, objective.loss_fn, state.trainable, frozen, batch)
      with monitor.step(step) as dispatched:
        state, metrics = update(state, frozen, batch)
        dispatched.result = metrics["finite"]
      metric_totals.add(step, metrics)
      metric_totals.keep_up(behind=1)
      monitor.done(metric_totals.finished)
      if cadence.logs(step):
        _log(step, metric_totals.means(), optimization.learning_rate, writer, monitor)
      preempted = agreement.any(signals.came is not None, last=step == steps)
      if cadence.saves(step) or preempted:
        with monitor.saving(step):
          checkpointer.save(state, totals=metric_totals.sums())
          host_memory.give_back()
      if preempted:
        break
    checkpointer.wait()
    # Asked once more, because a signal may have come during the last save.
    if preempted or agreement.any(signals.came is not None, last=True):
      came = signals.came or signal.SIGTERM
      raise errors.Preempted(
          f"{name}: {came.name}; saved step {step} of {steps} in {checkpointer.folder}", came)
  return state


def _log(step: int, means: dict[str, float], learning_rate, writer, monitor) -> None:
  """Writes the record after `step` updates, with the learning rate of the last update."""
  if learning_rate is not None:
    means["learning_rate"] = float(learning_rate(step - 1))
  writer.write(step, means, monitor.log(step, means))


def _resumed_totals(first: int, name: str, checkpointer) -> totals.Totals:
  """Totals as they were when the checkpoint of step `first` was written, if there is one."""
  sums = checkpointer.meta(first)["totals"] if checkpointer.latest() == first else {}
  return totals.Totals(sums, lambda step: _not_finite(name, step, checkpointer))


def _not_finite(name: str, step: int, checkpointer) -> errors.UserError:
  checkpointer.wait()
  good = checkpointer.latest()
  last = "there is no checkpoint yet" if good is None else (
      f"the last good checkpoint is step {good} in {checkpointer.folder}")
  return errors.UserError(
      f"{name}: the loss or its gradient is not finite at step {step}; {last}. Lower "
      "this phase's learning_rate or clip and run again with --accept_changed_settings: it resumes "
      "there")
