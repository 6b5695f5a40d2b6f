"""Stages phase1 and phase2: model, batches, losses and start of each, handed to `loop.fit`."""
import dataclasses
import functools
import hashlib
import json
import time

import numpy as np

from ilm_jax import errors
from ilm_jax.config import reading as config_lib
from ilm_jax.data import batches as batches_lib
from ilm_jax.models import language_model, qformer, qformer_init
from ilm_jax.monitoring import monitor as monitor_lib
from ilm_jax.monitoring import parameters, scalars
from ilm_jax.objectives import phase1 as phase1_lib
from ilm_jax.objectives import phase2 as phase2_lib
from ilm_jax.objectives import whitening
from ilm_jax.runtime import axes, distributed
from ilm_jax.stages import context
from ilm_jax.training import checkpoint, loop, optimizer
from ilm_jax.weights import blip2

# What phase2.compare names: (folder of its checkpoints, name in the tables).
COMPARED = {"rand": ("phase2_rand", "ILM-rand"), "mlp": ("phase2_mlp", "MLP projector"),
            "blind": ("phase2_blind", "ILM without vectors")}
HEAD_TASKS = ("sequential", "straightforward", "next_item")    # whose prompts the item head reads


def has_phase1(config) -> bool:
  """Whether there is a phase 1: prompts that name entities (OpenP5) have no soft tokens."""
  return config.tasks.entities == "slots"


def phase1(run: context.Run) -> None:
  """Aligns the Q-Former with text and behaviour; phase1/checkpoints. Nothing without slots."""
  if not has_phase1(run.config):
    return
  c, began, made_from = run.config.phase1, time.time(), fingerprints(run)
  if checkpoint.finished(run.workdir / "phase1" / "checkpoints", made_from, c.steps):
    return
  graphdef, trainable = build_phase1(run)
  loss = phase1_lib.phase1_loss(graphdef, phase1_lib.Phase1Config(
      **c.losses.to_dict(), label_smoothing=c.label_smoothing, contrastive=c.contrastive,
      logq=c.logq))
  spec = batches_lib.Phase1Spec(
      batch_size=c.batch_size, pair_batch_size=c.pair_batch_size if c.losses.ii else 0,
      user_batch_size=c.pair_batch_size if c.losses.ui else 0,
      max_text=run.config.qformer.max_text)
  share, shares = axes.batch_share(run.mesh)
  batches = batches_lib.phase1_batches(
      run.prepared("item_text", "train"), run.prepared("item_item", "train"),
      run.prepared("user_item", "train"), spec, seed=run.config.seed,
      process_index=share, process_count=shares)
  frozen = entity_arrays(run)
  if c.logq:
    frozen |= log_draws(run)
  examples = spec.batch_size + spec.pair_batch_size + spec.user_batch_size
  monitor = _monitor(run, "phase1", began, {"examples": examples})
  _fit(run, "phase1", loss, trainable, frozen, batches, made_from, monitor)


def phase2(run: context.Run, name: str) -> None:
  """Trains soft tokens for the frozen language model; <name>/checkpoints.

  Args:
    run: the run.
    name: "phase2" starts from phase 1; "phase2_rand" (ILM-rand) from where phase 1 started;
      "phase2_mlp" has an mlp in the Q-Former's place; "phase2_blind" is ILM-rand with every vector
      taken away, so that it learns how answers sound and nothing of an item.
  """
  c, began = run.config.phase2, time.time()
  tasks = {short: run.prepared(short, "train") for short in task_names(run)}
  made_from = {**fingerprints(run), "lm": run.lm_fingerprint,
               **{f"task {n}": t.fingerprint for n, t in tasks.items()}}
  if checkpoint.finished(run.workdir / name / "checkpoints", made_from, c.steps):
    return
  graphdef, trainable, frozen_lm = build_phase2(run, name)
  share, shares = axes.batch_share(run.mesh)
  batches = batches_lib.lm_batches(
      tasks, run.config.tasks.mixture.to_dict(), lm_spec(run), seed=run.config.seed,
      process_index=share, process_count=shares)
  loss = phase2_lib.phase2_loss(graphdef, run.lm.config, task_names(run), head_config(run))
  starts_there = name == "phase2" and has_phase1(run.config)
  init_from = (c.init_from or str(run.workdir)) if starts_there else ""
  frozen = {"lm": frozen_lm, **entity_arrays(run, name)}
  if c.head.weight:
    frozen |= log_draws(run)
  begin = None
  if c.spread and has_phase1(run.config) and "qformer" in trainable:
    begin = functools.partial(whitening.spread, graphdef, frozen=frozen, mesh=run.mesh,
                              rows=run.entities.rows.total)
  targets = c.targets if language_model.is_encoder_decoder(run.lm.config) else 0
  monitor = _monitor(run, name, began, {"places": c.rows * (c.length + targets)})
  _fit(run, name, loss, trainable, frozen, batches, made_from, monitor, init_from, begin)


def task_names(run: context.Run) -> tuple[str, ...]:
  """The tasks of the mixture that have a rate, in the order of the config."""
  return tuple(name for name, rate in run.config.tasks.mixture.items() if rate)


def lm_spec(run: context.Run, *, rows: int = 0, length: int = 0, queries: int | None = None,
            one_a_row: bool = False) -> batches_lib.LmBatchSpec:
  """Shapes of phase 2's batches; for evaluation with other rows, or with 0 queries (no slots)."""
  c = run.config.phase2
  rows = rows or c.rows
  return batches_lib.LmBatchSpec(
      rows=rows, length=length or c.length, slots=c.slots, targets=c.targets,
      queries=run.config.qformer.num_queries if queries is None else queries,
      slot_id=run.lm_tokenizer.slot_id, pad_id=run.lm_tokenizer.pad_id,
      examples_per_group=1 if one_a_row else c.examples_per_group,
      rows_per_group=1 if one_a_row else c.rows_per_group, task_names=task_names(run),
      encoder_decoder=language_model.is_encoder_decoder(run.lm.config),
      before=run.lm_tokenizer.before, after=run.lm_tokenizer.after,
      head_tasks=HEAD_TASKS if c.head.weight and not one_a_row else (),
      num_items=run.data.log.num_items,
      whole_words=run.config.lm.whole_words,
      word_starts=run.lm_tokenizer.starts_word if run.config.lm.whole_words else None)


def head_config(run: context.Run) -> phase2_lib.HeadConfig | None:
  """The item head's part in phase 2's loss, if it has one.

  Raises:
    UserError: the language model is an encoder-decoder, which has no states to read there.
  """
  c = run.config.phase2.head
  if not c.weight:
    return None
  if language_model.is_encoder_decoder(run.lm.config):
    raise errors.UserError(
        f"phase2.head.weight={c.weight}: the item head reads what a decoder makes of a history, "
        f"and {run.config.lm.asset} is an encoder-decoder: set it to 0")
  return phase2_lib.HeadConfig(weight=c.weight, num_items=run.data.log.num_items,
                               negatives=c.negatives)


def qformer_config(run: context.Run) -> qformer.QFormerConfig:
  """The config's Q-Former, with the widths of the vectors and the size of the vocabulary."""
  fields = {k: v for k, v in run.config.qformer.items() if k != "init"}
  vectors = tuple((n, run.entities.vectors[n].shape[1]) for n in run.config.vectors)
  return qformer.QFormerConfig(
      vectors=vectors, vocab_size=run.text_tokenizer.vocab_size, **fields)


def build_phase1(run: context.Run):
  """(graphdef, trainable) where phase 1 starts."""
  graphdef, trainable = phase1_lib.build_phase1(qformer_config(run), run.config.seed)
  return graphdef, {"qformer": _pretrained(run, trainable["qformer"])}


def build_phase2(run: context.Run, name: str = "phase2"):
  """(graphdef of the ILM, trainable without phase 1, what is frozen of the language model)."""
  rms = run.config.phase2.soft_token_rms or language_model.embedding_rms(*run.lm)
  graphdef, trainable = phase2_builder(run, name)(
      rms, start=functools.partial(_pretrained, run))
  return graphdef, *with_language_model(run, trainable)


def phase2_builder(run: context.Run, name: str):
  """`objectives.build_phase2` of this run; what it still wants are RMS and start."""
  c = run.config.phase2
  config = dataclasses.replace(
      qformer_config(run), dropout=c.dropout, vector_noise=c.vector_noise)
  return lambda rms, **start: phase2_lib.build_phase2(
      config, run.lm.config.width, rms, run.config.seed, mlp=name == "phase2_mlp",
      head_width=c.head.width if c.head.weight else 0, **start)


def with_language_model(run: context.Run, trainable: dict) -> tuple[dict, dict]:
  """(`trainable` with what trains of the language model, what of it is frozen)."""
  frozen_lm, trained_lm = language_model.split_trained(run.lm.params, run.config.lm.train)
  return {**trainable, **({"lm": trained_lm} if trained_lm else {})}, frozen_lm


def entity_arrays(run: context.Run, name: str | None = None) -> dict:
  """The entity table, rows over the mesh: {"vectors": .., "present": ..} of what goes in.

  For "phase2_blind" all are marked absent.
  """
  table, shown = run.entities, name != "phase2_blind"
  put = functools.partial(axes.put_rows, run.mesh)
  return {"vectors": {n: put(table.vectors[n]) for n in run.config.vectors},
          "present": {n: put(table.present[n] & shown) for n in run.config.vectors}}


def log_draws(run: context.Run) -> dict:
  """On the mesh, {"log_draws": float32 [R]}: log of how many training interactions an item or user
  has; 0 if none."""
  log, _, _ = run.data
  train_N = log.split.train
  rows_N = np.r_[log.item_N[train_N], log.rows.user(log.user_N[train_N])]
  count_R = np.bincount(rows_N, minlength=log.rows.total)
  log_R = np.log(np.maximum(count_R, 1)).astype(np.float32)
  return {"log_draws": axes.put_rows(run.mesh, log_R)}


def fingerprints(run: context.Run) -> dict[str, str]:
  """What every checkpoint of this run depends on."""
  shape = {**run.config.qformer.to_dict(), "vectors": list(run.config.vectors)}
  del shape["remat"]           # the same numbers by another way
  return {"entities": run.entities.fingerprint,
          "text_vocabulary": run.text_tokenizer.fingerprint,
          "qformer": hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()}


def _pretrained(run: context.Run, params: dict) -> dict:
  init = run.config.qformer.init
  if not init:
    return params
  if init == run.config.text_encoder.asset:
    return qformer_init.init_from_bert(params, run.text_encoder[1]).params
  config = qformer_config(run)
  sizes, theirs = blip2.load(init)
  blip2.check_room(init, sizes, config)
  return qformer_init.init_from_qformer(params, theirs, config.decoder_start).params


def _monitor(run: context.Run, name: str, began: float, amounts) -> monitor_lib.Monitor:
  window, steps = run.config.profile, run.config[name.split("_")[0]].steps
  return monitor_lib.Monitor(name, steps, workdir=run.workdir, amounts=amounts, began=began,
                             profile=(window.start, window.steps))


def _fit(run: context.Run, name, loss, trainable, frozen, batches, made_from, monitor,
         init_from="", begin=None):
  """Trains one phase from its start ladder to its last step; `begin` changes where it begins."""
  c = run.config[name.split("_")[0]].copy_and_resolve_references()
  if name == "phase2_mlp":
    c.learning_rate *= c.mlp_scale
  tx = optimizer.make_optimizer(c)
  state = loop.init_state(trainable, tx, run.mesh)
  folder = run.workdir / name
  writer = scalars.Writer(folder / "metrics.jsonl", run.workdir / "tensorboard" / name)
  with checkpoint.Checkpointer(folder / "checkpoints", made_from, keep=c.keep_checkpoints,
                               config=config_lib.fingerprint(run.config)) as saved:
    shared = {n: made_from[n] for n in ("entities", "qformer")}
    state = checkpoint.start(saved, state, init_from, shared)
    if begin and not int(state.step):
      state = state._replace(trainable=begin(state.trainable))
    if distributed.is_main():
      parameters.report(parameters.rows(state.trainable, frozen),
                        run.workdir / f"parameters.{name}.txt", name)
    loop.fit(
        state, run.mesh, loop.Objective(loss, frozen, batches),
        loop.Optimization(tx, run.config.seed, microbatches=c.get("microbatches", 1),
                          prng=run.config.prng, learning_rate=optimizer.schedule(c)),
        loop.Cadence(c.steps, c.log_every, c.checkpoint_every),
        loop.Outputs(name, saved, writer, monitor))
