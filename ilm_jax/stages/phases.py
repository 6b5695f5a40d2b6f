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


def phase1(this: context.Run) -> None:
  """Aligns the Q-Former with text and behaviour; phase1/checkpoints. Nothing without slots."""
  if not has_phase1(this.config):
    return
  c, began, made_from = this.config.phase1, time.time(), fingerprints(this)
  if checkpoint.finished(this.workdir / "phase1" / "checkpoints", made_from, c.steps):
    return
  graphdef, trainable = build_phase1(this)
  loss = phase1_lib.phase1_loss(graphdef, phase1_lib.Phase1Config(
      **c.losses.to_dict(), label_smoothing=c.label_smoothing, contrastive=c.contrastive,
      logq=c.logq))
  spec = batches_lib.Phase1Spec(
      batch_size=c.batch_size, pair_batch_size=c.pair_batch_size if c.losses.ii else 0,
      user_batch_size=c.pair_batch_size if c.losses.ui else 0,
      max_text=this.config.qformer.max_text)
  share, shares = axes.batch_share(this.mesh)
  batches = batches_lib.phase1_batches(
      this.prepared("item_text", "train"), this.prepared("item_item", "train"),
      this.prepared("user_item", "train"), spec, seed=this.config.seed,
      process_index=share, process_count=shares)
  frozen = entity_arrays(this)
  if c.logq:
    frozen |= log_draws(this)
  examples = spec.batch_size + spec.pair_batch_size + spec.user_batch_size
  monitor = _monitor(this, "phase1", began, {"examples": examples})
  _fit(this, "phase1", loss, trainable, frozen, batches, made_from, monitor)


def phase2(this: context.Run, name: str) -> None:
  """Trains soft tokens for the frozen language model; <name>/checkpoints.

  Args:
    this: the run.
    name: "phase2" starts from phase 1; "phase2_rand" (ILM-rand) from where phase 1 started;
      "phase2_mlp" has an mlp in the Q-Former's place; "phase2_blind" is ILM-rand with every vector
      taken away, so that it learns how answers sound and nothing of an item.
  """
  c, began = this.config.phase2, time.time()
  tasks = {short: this.prepared(short, "train") for short in task_names(this)}
  made_from = {**fingerprints(this), "lm": this.lm_fingerprint,
               **{f"task {n}": t.fingerprint for n, t in tasks.items()}}
  if checkpoint.finished(this.workdir / name / "checkpoints", made_from, c.steps):
    return
  graphdef, trainable, frozen_lm = build_phase2(this, name)
  share, shares = axes.batch_share(this.mesh)
  batches = batches_lib.lm_batches(
      tasks, this.config.tasks.mixture.to_dict(), lm_spec(this), seed=this.config.seed,
      process_index=share, process_count=shares)
  loss = phase2_lib.phase2_loss(graphdef, this.lm[0], task_names(this), head_config(this))
  starts_there = name == "phase2" and has_phase1(this.config)
  init_from = (c.init_from or str(this.workdir)) if starts_there else ""
  frozen = {"lm": frozen_lm, **entity_arrays(this, name)}
  if c.head.weight:
    frozen |= log_draws(this)
  begin = None
  if c.spread and has_phase1(this.config) and "qformer" in trainable:
    begin = functools.partial(whitening.spread, graphdef, frozen=frozen, mesh=this.mesh,
                              rows=this.entities.rows.total)
  targets = c.targets if language_model.is_encoder_decoder(this.lm[0]) else 0
  monitor = _monitor(this, name, began, {"places": c.rows * (c.length + targets)})
  _fit(this, name, loss, trainable, frozen, batches, made_from, monitor, init_from, begin)


def task_names(this: context.Run) -> tuple[str, ...]:
  """The tasks of the mixture that have a rate, in the order of the config."""
  return tuple(name for name, rate in this.config.tasks.mixture.items() if rate)


def lm_spec(this: context.Run, *, rows: int = 0, length: int = 0, queries: int | None = None,
            one_a_row: bool = False) -> batches_lib.LmBatchSpec:
  """Shapes of phase 2's batches; for evaluation with other rows, or with 0 queries (no slots)."""
  c = this.config.phase2
  rows = rows or c.rows
  return batches_lib.LmBatchSpec(
      rows=rows, length=length or c.length, slots=c.slots, targets=c.targets,
      queries=this.config.qformer.num_queries if queries is None else queries,
      slot_id=this.lm_tokenizer.slot_id, pad_id=this.lm_tokenizer.pad_id,
      examples_per_group=1 if one_a_row else c.examples_per_group,
      rows_per_group=1 if one_a_row else c.rows_per_group, task_names=task_names(this),
      encoder_decoder=language_model.is_encoder_decoder(this.lm[0]),
      before=this.lm_tokenizer.before, after=this.lm_tokenizer.after,
      head_tasks=HEAD_TASKS if c.head.weight and not one_a_row else (),
      num_items=this.data[0].num_items,
      whole_words=this.config.lm.whole_words,
      word_starts=this.lm_tokenizer.starts_word if this.config.lm.whole_words else None)


def head_config(this: context.Run) -> phase2_lib.HeadConfig | None:
  """The item head's part in phase 2's loss, if it has one.

  Raises:
    UserError: the language model is an encoder-decoder, which has no states to read there.
  """
  c = this.config.phase2.head
  if not c.weight:
    return None
  if language_model.is_encoder_decoder(this.lm[0]):
    raise errors.UserError(
        f"phase2.head.weight={c.weight}: the item head reads what a decoder makes of a history, "
        f"and {this.config.lm.asset} is an encoder-decoder: set it to 0")
  return phase2_lib.HeadConfig(weight=c.weight, num_items=this.data[0].num_items,
                               negatives=c.negatives)


def qformer_config(this: context.Run) -> qformer.QFormerConfig:
  """The config's Q-Former, with the widths of the vectors and the size of the vocabulary."""
  fields = {k: v for k, v in this.config.qformer.items() if k != "init"}
  vectors = tuple((n, this.entities.vectors[n].shape[1]) for n in this.config.vectors)
  return qformer.QFormerConfig(
      vectors=vectors, vocab_size=this.text_tokenizer.vocab_size, **fields)


def build_phase1(this: context.Run):
  """(graphdef, trainable) where phase 1 starts."""
  graphdef, trainable = phase1_lib.build_phase1(qformer_config(this), this.config.seed)
  return graphdef, {"qformer": _pretrained(this, trainable["qformer"])}


def build_phase2(this: context.Run, name: str = "phase2"):
  """(graphdef of the ILM, trainable without phase 1, what is frozen of the language model)."""
  rms = this.config.phase2.soft_token_rms or language_model.embedding_rms(*this.lm)
  graphdef, trainable = phase2_builder(this, name)(
      rms, start=functools.partial(_pretrained, this))
  return graphdef, *with_language_model(this, trainable)


def phase2_builder(this: context.Run, name: str):
  """`objectives.build_phase2` of this run; what it still wants are RMS and start."""
  c = this.config.phase2
  config = dataclasses.replace(
      qformer_config(this), dropout=c.dropout, vector_noise=c.vector_noise)
  return lambda rms, **start: phase2_lib.build_phase2(
      config, this.lm[0].width, rms, this.config.seed, mlp=name == "phase2_mlp",
      head_width=c.head.width if c.head.weight else 0, **start)


def with_language_model(this: context.Run, trainable: dict) -> tuple[dict, dict]:
  """(`trainable` with what trains of the language model, what of it is frozen)."""
  frozen_lm, trained_lm = language_model.split_trained(this.lm[1], this.config.lm.train)
  return {**trainable, **({"lm": trained_lm} if trained_lm else {})}, frozen_lm


def entity_arrays(this: context.Run, name: str | None = None) -> dict:
  """The entity table, rows over the mesh: {"vectors": .., "present": ..} of what goes in.

  For "phase2_blind" all are marked absent.
  """
  table, shown = this.entities, name != "phase2_blind"
  put = functools.partial(axes.put_rows, this.mesh)
  return {"vectors": {n: put(table.vectors[n]) for n in this.config.vectors},
          "present": {n: put(table.present[n] & shown) for n in this.config.vectors}}


def log_draws(this: context.Run) -> dict:
  """On the mesh, {"log_draws": float32 [R]}: log of how many training interactions an item or user
  has; 0 if none."""
  log, _, _ = this.data
  train_N = log.split.train
  rows_N = np.r_[log.item_N[train_N], log.rows.user(log.user_N[train_N])]
  count_R = np.bincount(rows_N, minlength=log.rows.total)
  log_R = np.log(np.maximum(count_R, 1)).astype(np.float32)
  return {"log_draws": axes.put_rows(this.mesh, log_R)}


def fingerprints(this: context.Run) -> dict[str, str]:
  """What every checkpoint of this run depends on."""
  shape = {**this.config.qformer.to_dict(), "vectors": list(this.config.vectors)}
  del shape["remat"]           # the same numbers by another way
  return {"entities": this.entities.fingerprint,
          "text_vocabulary": this.text_tokenizer.fingerprint,
          "qformer": hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()}


def _pretrained(this: context.Run, params: dict) -> dict:
  init = this.config.qformer.init
  if not init:
    return params
  if init == this.config.text_encoder.asset:
    return qformer_init.init_from_bert(params, this.text_encoder[1]).params
  config = qformer_config(this)
  sizes, theirs = blip2.load(init)
  blip2.check_room(init, sizes, config)
  return qformer_init.init_from_qformer(params, theirs, config.decoder_start).params


def _monitor(this: context.Run, name: str, began: float, amounts) -> monitor_lib.Monitor:
  window, steps = this.config.profile, this.config[name.split("_")[0]].steps
  return monitor_lib.Monitor(name, steps, workdir=this.workdir, amounts=amounts, began=began,
                             profile=(window.start, window.steps))


def _fit(this: context.Run, name, loss, trainable, frozen, batches, made_from, monitor,
         init_from="", begin=None):
  """Trains one phase from its start ladder to its last step; `begin` changes where it begins."""
  c = this.config[name.split("_")[0]].copy_and_resolve_references()
  if name == "phase2_mlp":
    c.learning_rate *= c.mlp_scale
  tx = optimizer.make_optimizer(c)
  state = loop.init_state(trainable, tx, this.mesh)
  folder = this.workdir / name
  writer = scalars.Writer(folder / "metrics.jsonl", this.workdir / "tensorboard" / name)
  with checkpoint.Checkpointer(folder / "checkpoints", made_from, keep=c.keep_checkpoints,
                               config=config_lib.fingerprint(this.config)) as saved:
    shared = {n: made_from[n] for n in ("entities", "qformer")}
    state = checkpoint.start(saved, state, init_from, shared)
    if begin and not int(state.step):
      state = state._replace(trainable=begin(state.trainable))
    if distributed.is_main():
      parameters.report(parameters.rows(state.trainable, frozen),
                        this.workdir / f"parameters.{name}.txt", name)
    loop.fit(
        state, this.mesh, loop.Objective(loss, frozen, batches),
        loop.Optimization(tx, this.config.seed, microbatches=c.get("microbatches", 1),
                          prng=this.config.prng, learning_rate=optimizer.schedule(c)),
        loop.Cadence(c.steps, c.log_every, c.checkpoint_every),
        loop.Outputs(name, saved, writer, monitor))
