"""Stages phase1 and phase2: train what the recipe builds, with `loop.fit`."""
import functools
import time

from ilm_jax.config import settings as settings_lib
from ilm_jax.config import variants
from ilm_jax.data import batches as batches_lib
from ilm_jax.monitoring import monitor as monitor_lib
from ilm_jax.monitoring import parameters, scalars, trackers
from ilm_jax.objectives import phase1 as phase1_lib
from ilm_jax.objectives import phase1_config, whitening
from ilm_jax.objectives import phase2 as phase2_lib
from ilm_jax.runtime import axes, distributed
from ilm_jax.stages import context, recipe
from ilm_jax.training import checkpoint, loop, optimizer


def phase1(run: context.Run) -> None:
  """Aligns the Q-Former with text and behaviour; writes phase1/checkpoints. No-op without slots."""
  if not recipe.has_phase1(run.config):
    return
  c, began, made_from = run.config.phase1, time.time(), recipe.phase1_made_from(run)
  if _finished(run, "phase1", c.steps, made_from):
    return
  graphdef, trainable = recipe.phase1(run)
  of_losses = phase1_config.Phase1Config.of(c, run.data.log.num_items)
  loss = phase1_lib.phase1_loss(graphdef, of_losses)
  spec = batches_lib.Phase1Spec(
      batch_size=c.batch_size, pair_batch_size=c.pair_batch_size if of_losses.ii else 0,
      user_batch_size=c.pair_batch_size if phase1_config.joins_users(of_losses) else 0,
      max_text=run.config.qformer.max_text)
  share, shares = axes.batch_share(run.mesh)
  batches = batches_lib.phase1_batches(
      run.prepared("item_text", "train"), run.prepared("item_item", "train"),
      run.prepared("user_item", "train"), spec, seed=run.config.seed,
      process_index=share, process_count=shares)
  frozen = recipe.entity_arrays(run) | recipe.never_met(run, run.config.qformer.vector_dropout)
  if of_losses.needs_log_draws:
    frozen |= recipe.log_draws(run)
  if of_losses.cf:
    frozen |= recipe.factors(run)
  examples = spec.batch_size + spec.pair_batch_size + spec.user_batch_size
  monitor = _monitor(run, "phase1", c.steps, began, {"examples": examples})
  _fit(run, "phase1", c, loop.Objective(loss, frozen, batches), trainable, made_from, monitor)


def phase2(run: context.Run, variant: variants.Variant) -> None:
  """Trains soft tokens for the frozen language model; writes <variant.folder>/checkpoints."""
  c, began, made_from = run.config.phase2, time.time(), recipe.phase2_made_from(run, variant)
  if _finished(run, variant.folder, c.steps, made_from):
    return
  built, batches = recipe.phase2(run, variant), phase2_batches(run)
  loss = phase2_lib.phase2_loss(built.graphdef, run.lm.config, recipe.said_tasks(run.config),
                                recipe.head_config(run))
  has_phase1 = recipe.has_phase1(run.config)
  init_from = (c.init_from or str(run.workdir)) if variant.from_phase1 and has_phase1 else ""
  begin = None
  if c.spread and has_phase1 and variant.projector == "qformer":
    begin = functools.partial(whitening.spread, built.graphdef, frozen=built.frozen, mesh=run.mesh,
                              rows=run.entities.rows.total)
  monitor = _monitor(run, variant.folder, c.steps, began, {"places": _places(run)})
  _fit(run, variant.folder, _of_variant(c, variant), loop.Objective(loss, built.frozen, batches),
       built.trainable, made_from, monitor, init_from, begin)


def phase2_batches(run: context.Run) -> batches_lib.Batches:
  """The batches of phase 2: rows with target texts, and separate rows that only rank."""
  share, shares = axes.batch_share(run.mesh)

  def batches(names, spec):
    return batches_lib.lm_batches(
        {name: run.prepared(name, "train") for name in names}, run.config.tasks.mixture.to_dict(),
        spec, seed=run.config.seed, process_index=share, process_count=shares)

  said, ranked = recipe.said_tasks(run.config), recipe.rank_tasks(run.config)
  if not ranked:
    return batches(said, recipe.lm_spec(run))
  return batches_lib.with_ranking(batches(said, recipe.lm_spec(run)) if said else None,
                                  batches(ranked, recipe.rank_spec(run)))


def _places(run: context.Run) -> int:
  """The number of token positions of a batch."""
  c = run.config.phase2
  targets = c.targets if run.lm_encodes else 0
  said = c.rows * (c.length + targets) if recipe.said_tasks(run.config) else 0
  return said + (c.head.rows * c.head.length if recipe.rank_tasks(run.config) else 0)


def _of_variant(c, variant: variants.Variant):
  """phase2's config with the learning rate of the variant's projector, see `mlp_scale`."""
  c = c.copy_and_resolve_references()
  if variant.projector == "mlp":
    c.learning_rate *= c.mlp_scale
  return c


def _finished(run: context.Run, name: str, steps: int, made_from: recipe.MadeFrom) -> bool:
  return checkpoint.finished(
      run.workdir / name / "checkpoints", made_from.fingerprints, steps, made_from.settings,
      accept_changes=run.accept_changes)


def _monitor(run: context.Run, name: str, steps: int, began: float, amounts) -> monitor_lib.Monitor:
  window = run.config.profile
  return monitor_lib.Monitor(name, steps, workdir=run.workdir, amounts=amounts, began=began,
                             profile=(window.start, window.steps))


def _fit(run: context.Run, name: str, c, objective: loop.Objective, trainable: dict,
         made_from: recipe.MadeFrom, monitor, init_from: str = "", begin=None) -> None:
  """Restores or initialises a phase and trains it to its last step.

  Args:
    run: the run.
    name: folder of the phase.
    c: config of its optimizer and cadence.
    objective: loss, frozen arrays and batches.
    trainable: fresh parameters.
    made_from: stored in each checkpoint.
    monitor: of this phase.
    init_from: workdir of the phase 1 that it begins from; "": none.
    begin: transforms the parameters before the first step.
  """
  tx, folder = optimizer.make_optimizer(c), run.workdir / name
  writer = scalars.Writer(folder / "metrics.jsonl", trackers.make(
      run.config.tracker, run.workdir, name, made_from.settings))
  with checkpoint.Checkpointer(
      folder / "checkpoints", made_from.fingerprints, made_from.settings, steps=c.steps,
      keep=c.keep_checkpoints, accept_changes=run.accept_changes) as checkpointer:
    state = checkpoint.start(
        checkpointer, loop.init_state(trainable, tx, run.mesh), init_from,
        {"entities": made_from.fingerprints["entities"]},
        settings_lib.shared_with_phase1(made_from.settings))
    if begin and not int(state.step):
      state = state._replace(trainable=begin(state.trainable))
    if distributed.is_main():
      run.record(variants.stage_of(name))
      parameters.report(parameters.rows(state.trainable, objective.frozen),
                        run.workdir / f"parameters.{name}.txt", name)
    loop.fit(
        state, run.mesh, objective,
        loop.Optimization(tx, run.config.seed, microbatches=c.get("microbatches", 1),
                          prng=run.config.prng, learning_rate=optimizer.schedule(c)),
        loop.Cadence(c.steps, c.log_every, c.checkpoint_every),
        loop.Outputs(name, checkpointer, writer, monitor))
