"""Measures what phase 1's user-item space keeps of iALS, and where the rest is lost.

    python -m benchmarks.user_item --workdir=runs/user_item --num_layers=2 --steps=400

Ranks the full catalogue of MovieLens-100K for all users (loo_stable, items of the history
filtered), by dot products of

  the factors of iALS; the same with items scaled to length 1; the input vectors of the Q-Former,
  with each dimension standardised; these vectors after a LayerNorm, as the Q-Former reads them
  (none of these is trained);
  outputs of a Q-Former that is trained with the user-item loss alone, with and without phase1.logq
  (`ilm_jax/evaluation/dot_scores.py`).

Measured with the command above on two busy CPU cores:

                                     HR@10  NDCG@10
  popularity                         .0870    .0452
  iALS                               .1400    .0745
  iALS, items of length 1            .1166    .0634
  vectors, standardised              .1071    .0615
  vectors, LayerNorm of each         .0551    .0306
  Q-Former, logq=False               .0721    .0379
  Q-Former, logq=True                .0976    .0499
"""
import dataclasses

import jax
import numpy as np
import optax
from absl import app, flags
from etils import epath

from ilm_jax.config import reading as config_lib
from ilm_jax.data import batches as batches_lib
from ilm_jax.evaluation import dot_scores, metrics
from ilm_jax.objectives import phase1, phase1_config
from ilm_jax.stages import context, recipe, vectors
from ilm_jax.stages import run as stages
from ilm_jax.training import optimizer

_WORKDIR = flags.DEFINE_string("workdir", None, "where data, tasks and vectors are kept",
                               required=True)
_LAYERS = flags.DEFINE_integer("num_layers", 2, "of the Q-Former")
_STEPS = flags.DEFINE_integer("steps", 400, "of training")
_PAIRS = flags.DEFINE_integer("pairs", 128, "user-item pairs in a batch")


def main(_):
  c = config_lib.load("configs/ml100k_smollm2.py")
  c.qformer.update(num_layers=_LAYERS.value)
  c.qformer.update(cross_init="bert", cross_every=2, cross_reads="all")    # the paper's form
  c.phase1.losses.update(itc=0.0, itm=0.0, itg=0.0, ii=0.0, ui=1.0)
  c.phase1.update(steps=_STEPS.value, pair_batch_size=_PAIRS.value)
  run = context.Run(c, epath.Path(_WORKDIR.value))
  stages.run(c, run.workdir, ("prepare", "cf"))
  log, show = run.data.log, _ranking(run)
  user_UC, item_IC = vectors.factors(run)
  table, rows = run.entities.vectors["behavioral"], np.arange(log.num_items + 1)
  table_UC = table[log.rows.users]
  show("popularity", np.broadcast_to(np.bincount(
      log.item_N[log.split.train], minlength=len(rows)), (log.num_users, len(rows))))
  show("iALS", user_UC @ item_IC.T)
  show("iALS, items of length 1", user_UC @ _unit(item_IC).T)
  show("vectors, standardised", table_UC @ table[rows].T)
  show("vectors, LayerNorm of each", _normed(table_UC) @ _normed(table[rows]).T)
  for logq in (False, True):
    graphdef, params = _trained(run, logq)
    show(f"Q-Former, {_STEPS.value} steps of ui, logq={logq}", dot_scores.score(
        graphdef, params, recipe.entity_arrays(run),
        np.r_[log.rows.users], log.num_items))


def _trained(run: context.Run, logq: bool):
  """(graphdef, parameters) after `phase1.steps` steps of the user-item loss."""
  c = run.config.phase1
  graphdef, trainable = recipe.phase1(run)
  loss = phase1.phase1_loss(graphdef, dataclasses.replace(
      phase1_config.Phase1Config.of(c, run.data.log.num_items), logq=logq))
  frozen = {**recipe.entity_arrays(run), **recipe.log_draws(run)}
  tx = optimizer.make_optimizer(c)

  @jax.jit
  def step(trainable, state, batch, key):
    grads = jax.grad(loss, has_aux=True)(trainable, frozen, batch, key)[0]
    updates, state = tx.update(grads, state, trainable)
    return optax.apply_updates(trainable, updates), state

  spec = batches_lib.Phase1Spec(batch_size=1, pair_batch_size=0,
                                user_batch_size=c.pair_batch_size,
                                max_text=run.config.qformer.max_text)
  batches = batches_lib.phase1_batches(
      *(run.prepared(n, "train") for n in ("item_text", "item_item", "user_item")), spec,
      seed=run.config.seed, process_index=0, process_count=1)
  state, key = tx.init(trainable), jax.random.key(run.config.seed)
  for at in range(c.steps):
    trainable, state = step(trainable, state, batches.at(at), jax.random.fold_in(key, at))
  return graphdef, trainable["qformer"]


def _ranking(run: context.Run):
  """A function of (name, scores [U, I + 1]) that prints HR@10 and NDCG@10 of the test items."""
  log = run.data.log
  at = np.flatnonzero(log.split.test)
  user_U, target_U = log.user_N[at], log.item_N[at]
  histories = list(map(log.before_target, user_U))
  seen_UI = np.zeros((len(at), log.num_items + 1), bool)
  for own_I, rows in zip(seen_UI, metrics.rows_to_filter(histories, target_U)):
    own_I[rows] = True
  for name, value in metrics.filter_protocol(histories, target_U).items():
    print(f"{name}: {value}", flush=True)

  def show(name, score_UI):
    score_UI = np.array(score_UI, np.float32)[user_U]
    score_UI[:, 0] = -np.inf
    rank_U = metrics.ranks_from_scores(score_UI, target_U, seen_UI)
    print(f"{name:<44} HR@10 {metrics.hit_rate(rank_U, 10).mean():.4f}  "
          f"NDCG@10 {metrics.ndcg(rank_U, 10).mean():.4f}", flush=True)

  return show


def _unit(x_NC) -> np.ndarray:
  return x_NC / np.maximum(np.linalg.norm(x_NC, axis=-1, keepdims=True), 1e-9)


def _normed(x_NC) -> np.ndarray:
  return _unit(x_NC - x_NC.mean(axis=-1, keepdims=True))


if __name__ == "__main__":
  app.run(main)
