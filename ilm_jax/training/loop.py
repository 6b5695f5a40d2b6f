"""The training loop of both phases: state, step, and the loop that feeds it.

What is frozen is an argument of the step and never part of the state, so it has no gradient, no
optimizer slots and no bytes in checkpoints.
"""
import contextlib
import re
import signal
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ilm_jax import errors
from ilm_jax.monitoring import monitor, progress
from ilm_jax.runtime import axes, distributed
from ilm_jax.training import accumulation

Params = Any

# Parameters whose path has one of these words as a part are not pulled towards zero.
_UNDECAYED = re.compile(r"(^|[/_])(bias|scale|norm|temperature)([/_]|$)")

# What a config may let learn at a fraction of its learning rate: pretrained parameters that the
# text passes through on its way to its projection; all of the Q-Former.
_SCALED = {
    "text_scale": re.compile(
        r"(^|/)(text_embed|embed_norm|attention|attention_norm|text_mlp|text_norm)/"),
    "qformer_scale": re.compile(r"^qformer/")}


class Preempted(Exception):
  """A signal came; the state was saved. `main` exits with 128 + `signal`.

  Args:
    message: what was saved where.
    signal: which one came; in a job of several processes it may have come to another of them.
  """

  def __init__(self, message: str, signal: signal.Signals):
    super().__init__(message)
    self.signal = signal


class TrainState(NamedTuple):
  """All that training changes. The frozen language model is not in it."""
  step: jax.Array       # int32 scalar: updates made so far
  trainable: Params     # nested dict of arrays
  opt_state: optax.OptState


def schedule(c) -> optax.Schedule:
  """Linear warm-up over `c.warmup` steps, then a cosine down to `c.final_fraction` of the peak."""
  warmup = optax.linear_schedule(0.0, c.learning_rate, c.warmup)
  cosine = optax.cosine_decay_schedule(
      c.learning_rate, max(c.steps - c.warmup, 1), alpha=c.final_fraction)
  return optax.join_schedules([warmup, cosine], [c.warmup])


def decayed(params: Params):
  """A tree of bool: true where weight decay applies (matrices that are no norm or bias)."""
  return jax.tree_util.tree_map_with_path(
      lambda path, x: x.ndim >= 2 and not _UNDECAYED.search(axes.path_name(path)), params)


def make_optimizer(c) -> optax.GradientTransformation:
  """AdamW with global-norm clipping, for a config like `phase1` or `phase2`.

  With `c.text_scale` (phase 1) the updates of the text tower are scaled by it, with
  `c.qformer_scale` (phase 2) those of the Q-Former: pretrained weights that a thousand texts must
  not bend out of shape learn more slowly than fresh ones.
  """
  parts = [optax.clip_by_global_norm(c.clip),
           optax.adamw(schedule(c), b2=c.b2, weight_decay=c.weight_decay, mask=decayed)]
  parts += [_scaled(where, c.get(name)) for name, where in _SCALED.items()
            if c.get(name, 1.0) != 1.0]
  return optax.chain(*parts)


def _scaled(where: re.Pattern, scale: float) -> optax.GradientTransformation:
  """The updates of the parameters whose path `where` finds, times `scale`."""
  return optax.stateless(lambda updates, _: jax.tree_util.tree_map_with_path(
      lambda path, u: u * scale if where.search(axes.path_name(path)) else u, updates))


def init_state(trainable: Params, tx: optax.GradientTransformation, mesh) -> TrainState:
  """A state at step 0 on the mesh, which may be donated: the caller's arrays are copied.

  No weak types, which an update would not give back: its step would be compiled a second time.
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
    frozen: arrays the loss reads and nothing changes.
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
  """`train_step` jitted for the mesh of `state`, which is donated, and returned where it was.

  Of `state` only shapes and shardings are read.
  """
  where = jax.tree.map(lambda x: x.sharding, state)

  def step(state, frozen, batch):
    with axes.tracing(where.step.mesh):
      return train_step(state, frozen, batch, loss_fn=loss_fn, tx=tx, seed=seed,
                        microbatches=microbatches, prng=prng)

  return jax.jit(step, donate_argnums=0, out_shardings=(where, None))


def to_devices(mesh, batch):
  """A host's part of a batch (numpy) as global arrays, the first axis over the batch axes."""
  return jax.tree.map(jax.make_array_from_process_local_data,
                      axes.batch_sharding(mesh, batch), batch)


def fit(*, loss_fn, state: TrainState, frozen, batches, steps: int, tx, mesh, seed: int,
        checkpointer, log_every: int, checkpoint_every: int, writer, name: str,
        learning_rate: optax.Schedule | None = None, microbatches: int = 1,
        prng: str | None = None, seen: monitor.Monitor | None = None) -> TrainState:
  """Trains from `state.step` to `steps`, and leaves a checkpoint of the last step.

  Args:
    loss_fn: see `train_step`.
    state: from `init_state` or `checkpoint.start`; donated.
    frozen: arrays, placed on the mesh by axes.RULES; never changed.
    batches: has `.iterate(start, stop)`, an iterator of dicts of numpy arrays.
    checkpointer: a checkpoint.Checkpointer.
    writer: a history.Writer.
    name: what the progress line calls this phase.
    learning_rate: logged beside the metrics when given.
    microbatches, prng: see `train_step`.
    seen: who is told what goes on; by default the progress line alone.

  Raises:
    UserError: a loss or gradient is not finite; no such state is ever saved.
    Preempted: SIGTERM or SIGINT came; the state after the current step is saved.
  """
  state, frozen = axes.place(mesh, state), axes.place(mesh, frozen)
  first = int(state.step)
  update = compile_step(loss_fn, tx, seed, state, microbatches, prng)
  seen = seen or monitor.Monitor(name, steps, quiet=True)
  totals = Totals(checkpointer.meta(first)["totals"] if checkpointer.latest() == first else {},
                  lambda step: _not_finite(name, step, checkpointer))
  writer.resume(first)
  stop = distributed.Agreement(mesh)
  with contextlib.closing(writer), progress.StopSignals() as signals, seen.start(first):
    feed = iter(batches.iterate(first, steps))
    for step in range(first + 1, steps + 1):
      with seen.waiting():
        batch = to_devices(mesh, next(feed))
      state, metrics = seen.call(step, update, loss_fn, state, frozen, batch)
      totals.add(step, metrics)
      totals.keep_up(behind=1)
      seen.done(totals.finished)
      if step % log_every == 0 or step == steps:
        scalars = totals.means()
        if learning_rate is not None:
          scalars["learning_rate"] = float(learning_rate(step - 1))
        writer.write(step, scalars, seen.log(step, scalars))
      stopping = stop.any(signals.came is not None, last=step == steps)
      if step % checkpoint_every == 0 or step == steps or stopping:
        with seen.saving(step):
          checkpointer.save(state, totals=totals.sums())
      if stopping:
        checkpointer.wait()
        came = signals.came or signal.SIGTERM
        raise Preempted(
            f"{name}: {came.name}; saved step {step} of {steps} in {checkpointer.folder}", came)
    checkpointer.wait()
  return state


def _not_finite(name: str, step: int, checkpointer) -> errors.UserError:
  checkpointer.wait()
  good = checkpointer.latest()
  last = "there is no checkpoint yet" if good is None else (
      f"the last good checkpoint is step {good} in {checkpointer.folder}")
  return errors.UserError(
      f"{name}: the loss or its gradient is not finite at step {step}; {last}. Lower "
      "this phase's learning_rate or clip and run the same command again: it resumes there")


class Totals:
  """Sums and counts of metrics since the last log, exact over restarts.

  Metrics stay on the device until `means` or `sums` asks, so the host runs ahead. Both look at
  every step's `finite` first and raise `not_finite(step)` for the first step without it.
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
    """{metric: sum / count} since the last call, which it forgets; left out where count is 0."""
    sums = self.sums()
    self._sums = {}
    return {name: total / count for name, (total, count) in sums.items() if count}
