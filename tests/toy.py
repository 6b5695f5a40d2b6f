"""A model of the project's shape that trains in a second, and a program that trains it.

    python tests/toy.py FOLDER STEPS [SLEEP]

trains to STEPS in FOLDER (resuming what is there), sleeping SLEEP seconds a step, and prints
"ready" when all is imported and the sha256 of the final parameters. The tests kill it.
"""
import hashlib
import sys
import time

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from ilm_jax import errors
from ilm_jax.monitoring import scalars, trackers
from ilm_jax.runtime import axes
from ilm_jax.training import checkpoint, loop, optimizer

ROWS, C, W, D, V = 11, 6, 8, 16, 12
FINGERPRINTS = {"entities": "a1b2", "lm": "c3d4"}
CONFIG = ml_collections.ConfigDict({
    "learning_rate": 0.05, "warmup": 2, "steps": 24, "final_fraction": 0.1, "weight_decay": 0.01,
    "clip": 1.0, "b2": 0.99})
TX = optimizer.make_optimizer(CONFIG)


def parameters(seed=0):
  """(trainable, frozen) as numpy trees."""
  draw = np.random.default_rng(seed).normal
  trainable = {
      "qformer": {"query": {"kernel": draw(size=(C, W)), "bias": np.zeros(W)},
                  "norm": {"scale": np.ones((1, W))}},
      "projection": {"kernel": draw(size=(W, D)) / 4}}
  frozen = {"lm": {"embed": draw(size=(V, D))}, "vectors": {"behavioral": draw(size=(ROWS, C))}}
  return jax.tree.map(lambda x: np.asarray(x, np.float32), (trainable, frozen))


def loss_fn(trainable, frozen, batch, rng):
  """Mean nll of a target token given an entity row, with dropout."""
  query = trainable["qformer"]["query"]
  hidden_BW = frozen["vectors"]["behavioral"][batch["entity"]] @ query["kernel"]
  hidden_BW = jnp.tanh(hidden_BW + query["bias"][None]) * trainable["qformer"]["norm"]["scale"]
  hidden_BW *= jax.random.bernoulli(rng, 0.9, hidden_BW.shape) / 0.9
  logits_BV = hidden_BW @ trainable["projection"]["kernel"] @ frozen["lm"]["embed"].T
  nll_B = -jnp.take_along_axis(jax.nn.log_softmax(logits_BV), batch["target"][:, None], 1)[:, 0]
  total, count = jnp.sum(nll_B * batch["weights"]), jnp.sum(batch["weights"])
  return total / count, {"nll": (total, count)}


class Batches:
  """A pure function of (seed, step), like data.batches."""

  def __init__(self, rows=8, poison_at=None, sleep=0.0):
    self._rows, self._poison_at, self._sleep = rows, poison_at, sleep

  def at(self, step):
    rng = np.random.default_rng((7, step))
    weights = rng.integers(0, 3, self._rows).astype(np.float32)
    weights[0] = np.nan if step == self._poison_at else 1
    return {"entity": rng.integers(1, ROWS, self._rows, dtype=np.int32), "weights": weights,
            "target": rng.integers(0, V, self._rows, dtype=np.int32), "dropped": np.int32(0)}

  def iterate(self, start, stop):
    for step in range(start, stop):
      time.sleep(self._sleep)
      yield self.at(step)


def one_device():
  """A mesh of the first device."""
  return jax.make_mesh((1,), ("data",), devices=jax.devices()[:1],
                       axis_types=(jax.sharding.AxisType.Auto,))


def fit(folder, steps, *, mesh=None, batches=None, fingerprints=None, loss=loss_fn, log_every=4,
        checkpoint_every=5, tensorboard=None, monitor=None):
  """Trains the toy in `folder`, from its newest checkpoint on; returns (state, frozen)."""
  mesh = mesh or one_device()
  trainable, frozen = parameters()
  shown = (trackers.TensorBoard(tensorboard),) if tensorboard else ()
  frozen = axes.place(mesh, frozen)
  with checkpoint.Checkpointer(f"{folder}/checkpoints", fingerprints or FINGERPRINTS) as saved:
    state = checkpoint.start(saved, loop.init_state(trainable, TX, mesh), "", {})
    state = loop.fit(
        state, mesh, loop.Objective(loss, frozen, batches or Batches()),
        loop.Optimization(TX, seed=3, learning_rate=optimizer.schedule(CONFIG)),
        loop.Cadence(steps, log_every, checkpoint_every),
        loop.Outputs("phase1", saved, scalars.Writer(f"{folder}/metrics.jsonl", shown), monitor))
  return state, frozen


def digest(tree) -> str:
  """sha256 over names and bytes of all leaves."""
  sha = hashlib.sha256()
  for path, x in jax.tree_util.tree_leaves_with_path(tree):
    sha.update(axes.path_name(path).encode() + np.asarray(x).tobytes())
  return sha.hexdigest()


def main():
  folder, steps, sleep = sys.argv[1], int(sys.argv[2]), float((sys.argv[3:] or ["0"])[0])
  print("ready", flush=True)
  try:
    state, _ = fit(folder, steps, batches=Batches(sleep=sleep))
  except errors.Preempted as e:
    sys.exit(128 + e.signal if print(e) is None else None)
  except errors.UserError as e:
    sys.exit(1 if print(e) is None else None)
  print(digest(state))


if __name__ == "__main__":
  main()
