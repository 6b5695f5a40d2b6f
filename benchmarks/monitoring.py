"""Measures what monitoring costs: steps of `loop.fit` with and without a Monitor.

    python -m benchmarks.monitoring --out=monitoring.json

One run has steps of 5 to 40 ms in blocks of 40. In every other block the Monitor works (clock
thread, progress line, log with TensorBoard every 10 steps, heartbeat); in the others it is not
called. Each block is compared with its neighbour. Reported are the median ratios of wall time and
of the process's CPU time, which other work on the machine does not change, and then the CPU time of
each part of the Monitor alone.
"""
import argparse
import contextlib
import json
import os
import statistics
import tempfile
import time

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ilm_jax.monitoring import monitor, scalars, trackers
from ilm_jax.training import loop

WIDTH, ROWS, DEPTH, BLOCK, LOG_EVERY = 512, 256, 1, 40, 10


class Half(monitor.Monitor):
  """Monitors every other block of steps and records the seconds of each block."""
  on, blocks, newest = True, None, None

  def waiting(self):
    return super().waiting() if self.on else contextlib.nullcontext()

  @contextlib.contextmanager
  def step(self, number):
    if number % BLOCK == 1:
      self._next_block(number)
    unmonitored = contextlib.nullcontext(monitor.Dispatched())
    with super().step(number) if self.on else unmonitored as dispatched:
      yield dispatched
    self.newest = dispatched.result

  def _next_block(self, number):
    jax.block_until_ready(self.newest)
    now = (time.perf_counter(), time.process_time())
    if self.blocks is None:
      self.blocks = []
    else:
      self.blocks.append((self.on, now[0] - self._at[0], now[1] - self._at[1]))
    self.on, self._at = number // BLOCK % 2 == 0, now

  def done(self, step):
    if self.on:
      super().done(step)

  def log(self, step, scalars):
    return super().log(step, scalars) if self.on else {}


class NoCheckpoints:
  """Replaces a checkpoint.Checkpointer and saves nothing: saving costs the same in both blocks."""
  folder = "nowhere"

  def latest(self):
    return None

  def meta(self, step=None):
    return {"totals": {}}

  def save(self, state, totals=None):
    pass

  def wait(self):
    pass


class Batches:
  def iterate(self, start, stop):
    for step in range(start, stop):
      yield {"x": np.random.default_rng(step).normal(size=(ROWS, WIDTH)).astype(np.float32)}


def loss_fn(trainable, frozen, batch, rng):
  x = batch["x"]
  for _ in range(DEPTH):
    x = jnp.tanh(x @ trainable["w"])
  loss = jnp.mean(x * x)
  return loss, {"nll": (loss, jnp.float32(1)), "tokens": jnp.float32(ROWS)}


def in_a_run(pairs: int, folder: str) -> dict[str, float]:
  """Median ratios of monitored to unmonitored blocks, and seconds of an unmonitored step."""
  mesh = jax.make_mesh((1,), ("data",), devices=jax.devices()[:1],
                       axis_types=(jax.sharding.AxisType.Auto,))
  tx, steps = optax.adam(1e-3), BLOCK * (2 * pairs + 2) + 1
  state = loop.init_state({"w": 0.05 * jax.random.normal(jax.random.key(0), (WIDTH, WIDTH))}, tx,
                           mesh)
  half = Half("phase2", steps, workdir=folder, amounts={"places": ROWS})
  loop.fit(state, mesh, loop.Objective(loss_fn, {}, Batches()), loop.Optimization(tx, seed=0),
           loop.Cadence(steps, log_every=LOG_EVERY, checkpoint_every=10 ** 9),
           loop.Outputs("phase2", NoCheckpoints(),
                        scalars.Writer(f"{folder}/metrics.jsonl",
                                       (trackers.TensorBoard(folder),)), half))
  blocks = half.blocks[2:2 + 2 * pairs]      # the first block includes compilation
  of = {on: [b[1:] for b in blocks if b[0] is on] for on in (True, False)}
  wall, cpu = (statistics.median(a[i] / b[i] for a, b in zip(of[True], of[False]))
               for i in (0, 1))
  return {"step_seconds": statistics.median(b[0] for b in of[False]) / BLOCK,
          "wall_ratio": wall, "cpu_ratio": cpu}


def alone(folder: str) -> dict[str, float]:
  """CPU seconds of a Monitor per step, per log and per heartbeat."""
  running = monitor.Monitor("phase2", 10 ** 6, workdir=folder, quiet=True).start(0)
  running.flops_per_step = 1.0
  finite = jnp.bool_(True)

  def step(n):
    with running.waiting():
      pass
    with running.step(n) as dispatched:
      dispatched.result = finite
    running.done(n)

  def spent(function, times):
    at = time.process_time()
    for n in range(1, times + 1):
      function(n)
    running._clock.settle()
    return (time.process_time() - at) / times

  with running:
    a_step = spent(step, 2000)

    def step_and_log(n):
      step(n)
      running.log(n, {"loss": 1.0, "tokens": 5.0})

    return {"a_step": a_step, "a_log": spent(step_and_log, 500) - a_step,
            "a_heartbeat": spent(lambda n: running._beat._write(), 50)}


def main():
  args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  args.add_argument("--pairs", type=int, default=20)
  args.add_argument("--out", help="write the figures here as JSON")
  args = args.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    costs = {**in_a_run(args.pairs, folder), **alone(folder)}
  print(f"monitored, a step of {1e3 * costs['step_seconds']:.1f} ms takes "
        f"{costs['wall_ratio']:.4f} of its wall time and {costs['cpu_ratio']:.4f} of its CPU time")
  print(", ".join(f"{name.replace('_', ' ')} {1e6 * costs[name]:.0f} us"
                  for name in ("a_step", "a_log", "a_heartbeat")), "of CPU time alone")
  if args.out:
    with open(args.out, "w") as file:
      json.dump(costs, file, indent=2)


if __name__ == "__main__":
  main()
