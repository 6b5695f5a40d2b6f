"""Measures what a run's Q-Former keeps of item vectors, at the start and after each phase.

    python -m benchmarks.kept --config=configs/elm_ml100k_small.py --workdir=runs/elm_small

For the outputs of all items, with queries concatenated, it prints: their RMS; the RMS of their
differences between items; the effective number of directions of these differences (exp of the
entropy of the variance shares); and for each named vector the share of its variance on held-out
items that a ridge regression from the outputs explains, fitted on the other items (1: a linear
layer can read the vector).
"""
import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging
from flax import nnx
from ml_collections import config_flags

from ilm_jax.config import variants
from ilm_jax.evaluation import ridge as ridge_lib
from ilm_jax.objectives import inputs
from ilm_jax.stages import context, recipe
from ilm_jax.training import checkpoint

_CONFIG = config_flags.DEFINE_config_file("config", "configs/elm_ml100k_small.py", "the run's")
_WORKDIR = flags.DEFINE_string("workdir", None, "of the run", required=True)


def main(_):
  logging.set_verbosity(logging.ERROR)
  run = context.Run(_CONFIG.value, _WORKDIR.value)
  built = recipe.phase2(run, variants.ILM)
  graphdef, start = built.graphdef, built.trainable
  print(f"{'':16}{'RMS':>7}{'items':>7}{'directions':>12}", *(
      f"{name:>12}" for name in run.config.vectors))
  report(run, graphdef, "start", start)
  for name in ("phase1", "phase2", "phase2_rand"):
    folder = run.workdir / name / "checkpoints"
    if checkpoint.newest(folder) is not None:
      trained = checkpoint.read_trainable(folder, {"qformer": start["qformer"]})
      report(run, graphdef, name, start | trained)


def report(run: context.Run, graphdef, name: str, trainable: dict) -> None:
  """Prints one line of the table."""
  held_I = run.heldout[1:]
  items = run.entities.rows.items
  x_IF = np.asarray(_outputs(graphdef, trainable, recipe.entity_arrays(run), jnp.r_[items]))
  about_IF = x_IF - x_IF.mean(axis=0)
  share_F = np.linalg.svd(about_IF, compute_uv=False) ** 2
  share_F = share_F[share_F > 0] / share_F.sum()
  parts = [run.entities.vectors[n][items] for n in run.config.vectors]
  y_IC = np.concatenate([p / p.std() / p.shape[1] ** 0.5 for p in parts], axis=1)
  penalty = ridge_lib.choose(x_IF[~held_I], y_IC[~held_I], seed=run.config.seed)
  ridge = ridge_lib.fit(x_IF[~held_I], y_IC[~held_I], penalty)
  truth_IC = y_IC[held_I] - ridge.mean_P
  square_C = np.sum((ridge.predict(x_IF[held_I]) - truth_IC) ** 2, axis=0)
  cuts = np.cumsum([p.shape[1] for p in parts])[:-1]
  kept = [1.0 - np.sum(error) / np.sum(whole) for error, whole in zip(
      np.split(square_C, cuts), np.split(np.sum(truth_IC ** 2, axis=0), cuts))]
  print(f"{name:16}{_rms(x_IF):7.3f}{_rms(about_IF):7.3f}"
        f"{np.exp(-np.sum(share_F * np.log(share_F))):12.1f}", *(f"{k:12.3f}" for k in kept))


@functools.partial(jax.jit, static_argnums=0)
def _outputs(graphdef, params, frozen, rows) -> jax.Array:
  """[rows, Q W]."""
  read = nnx.merge(graphdef, params).qformer.queries
  return read(*inputs.entity_inputs(frozen, rows)).reshape(len(rows), -1)


def _rms(x) -> float:
  return float(np.sqrt(np.mean(np.square(x))))


if __name__ == "__main__":
  app.run(main)
