"""From a config to the model, arrays and shapes of a phase, and the fingerprints of its inputs.

Training and evaluation build the same things here, so they cannot disagree; neither imports the
other.
"""
import dataclasses
import functools

import numpy as np
from etils import epath

from ilm_jax import errors
from ilm_jax.baselines import count_teachers, head_teacher
from ilm_jax.config import settings as settings_lib
from ilm_jax.config import variants
from ilm_jax.config.mixture import HEAD_TASKS, rank_tasks, ranks_items_only, said_tasks, task_names
from ilm_jax.data import batches as batches_lib
from ilm_jax.data import interactions as interactions_lib
from ilm_jax.models import ilm, language_model, qformer, qformer_init
from ilm_jax.objectives import inputs, item_head, phase1_config
from ilm_jax.objectives import phase1 as phase1_lib
from ilm_jax.objectives import phase2 as phase2_lib
from ilm_jax.runtime import axes, placement
from ilm_jax.stages import context, sequence_model, vectors
from ilm_jax.training import checkpoint, provenance
from ilm_jax.weights import blip2


@dataclasses.dataclass(frozen=True)
class MadeFrom:
  """The inputs and settings of a checkpoint (`training/provenance.py`)."""
  fingerprints: dict[str, str]
  settings: dict


@dataclasses.dataclass(frozen=True)
class Built:
  """A model of phase 2, for training and evaluation."""
  graphdef: object               # of the ILM
  trainable: dict                # initial arrays; if built for reading a checkpoint, their shapes
  frozen: dict                   # lm, vectors, present, log_draws, teacher: on the mesh


def has_phase1(config) -> bool:
  """Whether the run has a phase 1: prompts that name entities (OpenP5) have no soft tokens."""
  return config.tasks.entities == "slots"


def joins_users(config) -> bool:
  """Whether the run has a phase 1 that maps users into the space of items."""
  return has_phase1(config) and phase1_config.joins_users(config.phase1.losses)


def phase1_folder(run: context.Run):
  """The folder of the phase 1 checkpoints for phase 2: of this run, or of `phase2.init_from`."""
  workdir = run.config.phase2.init_from or run.workdir
  return epath.Path(workdir) / "phase1" / "checkpoints"


# Models.


def phase1(run: context.Run):
  """(graphdef of the Q-Former, trainable) where phase 1 starts."""
  graphdef, trainable = phase1_lib.build_phase1(qformer_config(run), run.config.seed)
  return graphdef, {"qformer": _pretrained(run, trainable["qformer"])}


def phase1_shapes(run: context.Run):
  """As `phase1`, with shapes in place of arrays: no weights are initialised or read."""
  return inputs.abstract(
      lambda: phase1_lib.build_phase1(qformer_config(run), run.config.seed))


def phase2(run: context.Run, variant: variants.Variant, fresh: bool = True) -> Built:
  """A model of phase 2.

  Args:
    run: the run.
    variant: which.
    fresh: True: `trainable` holds initial arrays, without those that come from phase 1. False: it
      holds the shapes of the trained arrays, for reading a checkpoint.
  """
  c = run.config.phase2
  config = dataclasses.replace(
      qformer_config(run), dropout=c.dropout, vector_noise=c.vector_noise,
      vector_dropout=c.vector_dropout)
  build = functools.partial(
      phase2_lib.build_phase2, config, run.lm.config.width,
      form=ilm.Form.of(c), seed=run.config.seed, mlp=variant.projector == "mlp",
      head_width=c.head.width if c.head.weight else 0)
  if fresh:
    rms = c.soft_token_rms or language_model.embedding_rms(*run.lm)
    graphdef, trainable = build(soft_token_rms=rms, start=functools.partial(_pretrained, run))
  else:
    graphdef, trainable = inputs.abstract(lambda: build(soft_token_rms=1.0))
  frozen_lm, trained_lm = language_model.split_trained(run.lm.params, run.config.lm.train)
  if trained_lm:
    trainable = {**trainable, "lm": trained_lm}
  frozen = {"lm": frozen_lm, **entity_arrays(run, variant), **never_met(run, c.vector_dropout)}
  if c.head.weight:
    frozen |= log_draws(run)
  if c.head.distil:
    frozen["teacher"] = placement.everywhere(run.mesh, _teacher_arrays(run))
  return Built(graphdef, trainable, frozen)


def qformer_config(run: context.Run) -> qformer.QFormerConfig:
  """The config's Q-Former, with the widths of the vectors and the size of the vocabulary."""
  fields = {k: v for k, v in run.config.qformer.items() if k != "init"}
  vectors = tuple((n, run.entities.vectors[n].shape[1]) for n in run.config.vectors)
  return qformer.QFormerConfig(
      vectors=vectors, vocab_size=run.text_tokenizer.vocab_size,
      reconstructs=run.config.phase1.losses.get("rec", 0.0) > 0, **fields)


# Shapes and arrays.


def lm_spec(run: context.Run, *, rows: int = 0, queries: int | None = None,
            one_a_row: bool = False) -> batches_lib.LmBatchSpec:
  """Shapes of phase 2's batches; evaluation changes the rows, or has 0 queries (no slots)."""
  c = run.config.phase2
  rows = rows or c.rows
  return batches_lib.LmBatchSpec(
      rows=rows, length=c.length, slots=c.slots, targets=c.targets,
      queries=run.config.qformer.num_queries if queries is None else queries,
      slot_id=run.lm_tokenizer.slot_id, pad_id=run.lm_tokenizer.pad_id,
      examples_per_group=1 if one_a_row else c.examples_per_group,
      rows_per_group=1 if one_a_row else c.rows_per_group, task_names=said_tasks(run.config),
      encoder_decoder=run.lm_encodes,
      before=run.lm_tokenizer.before, after=run.lm_tokenizer.after,
      head_tasks=HEAD_TASKS if c.head.weight and not (one_a_row or c.head.rows) else (),
      index_only=run.config.lm.index_only,
      branches=indices(run) if run.config.lm.index_only and not one_a_row else None,
      num_items=run.data.log.num_items,
      whole_words=run.config.lm.whole_words,
      word_starts=run.lm_tokenizer.starts_word if run.config.lm.whole_words else None)


def indices(run: context.Run) -> np.ndarray:
  """int32 [I + 1, T]: the tokens of each item's index, without EOS; -1 after its end."""
  stored = run.prepared("catalogue", "test")
  said = {int(e["target_entity"][0]): e["targets"][:-1]
          for e in map(stored.__getitem__, range(len(stored)))}
  index_IT = np.full((len(said) + 1, max(map(len, said.values()))), -1, np.int32)
  for row, tokens in said.items():
    index_IT[row, :len(tokens)] = tokens
  return index_IT


def rank_spec(run: context.Run) -> batches_lib.LmBatchSpec:
  """Shapes of the rows that only the item head reads."""
  c = run.config.phase2.head
  return dataclasses.replace(
      lm_spec(run, queries=c.queries or None), rows=c.rows, length=c.length, slots=c.slots,
      targets=0,
      examples_per_group=c.examples_per_group, rows_per_group=c.rows_per_group,
      task_names=rank_tasks(run.config), head_tasks=HEAD_TASKS, head_only=True)


def head_config(run: context.Run) -> item_head.HeadConfig | None:
  """The item head's part in phase 2's loss; None if `phase2.head.weight` is 0.

  Raises:
    UserError: the language model is an encoder-decoder; the item head needs a decoder's states.
  """
  c = run.config.phase2.head
  if not c.weight:
    return None
  if run.lm_encodes:
    raise errors.UserError(
        f"phase2.head.weight={c.weight}: the item head reads a decoder's hidden states, and "
        f"{run.config.lm.asset} is an encoder-decoder: set it to 0")
  return item_head.HeadConfig.of(
      c, run.data.log.num_items, ranks_items_only(run.config),
      head_teacher.distil(run.config, run.data.log.num_items))


def _teacher_arrays(run: context.Run) -> dict:
  """The arrays that the teacher of `head_teacher.distil` reads."""
  params, log = sequence_model.load(run)[0], run.data.log
  if not (counts := head_teacher.counts(run.config)).used:
    return params
  return {"sasrec": params, **count_teachers.arrays(
      counts, interactions_lib.train_histories(log), log.num_items)}


def entity_arrays(run: context.Run, variant: variants.Variant = variants.ILM) -> dict:
  """The entity table, rows over the mesh: {"vectors": .., "present": ..} of `config.vectors`.

  For a variant without vectors all are marked absent.
  """
  table = run.entities
  put = functools.partial(axes.put_rows, run.mesh)
  arrays = {"vectors": {n: put(table.vectors[n]) for n in run.config.vectors},
            "present": {n: put(table.present[n] & variant.sees_vectors)
                        for n in run.config.vectors}}
  if count := run.config.qformer.members:
    assert table.members is not None      # `Run.entities` checks it
    arrays["members"] = put(table.members[:, :count])
  return arrays


def never_met(run: context.Run, vector_dropout: float) -> dict:
  """On the mesh, {"never_met": bool [R]} (`inputs.never_met`) for a phase that hides vectors; {}
  for another, which treats items without a vector from collaborative filtering like all others."""
  if not vector_dropout:
    return {}
  return {"never_met": axes.put_rows(run.mesh, ~run.entities.present["behavioral"])}


def factors(run: context.Run) -> dict:
  """On the mesh, {"factors": float32 [R, C]} of items and users; their inner products rank."""
  user_UC, item_I1C = vectors.factors(run)
  return {"factors": axes.put_rows(run.mesh, np.concatenate([item_I1C, user_UC]))}


def log_draws(run: context.Run) -> dict:
  """On the mesh, {"log_draws": float32 [R]}: log of how many training interactions an item or user
  has; 0 if none."""
  log_R = np.log(np.maximum(run.data.log.train_counts, 1)).astype(np.float32)
  return {"log_draws": axes.put_rows(run.mesh, log_R)}


# Inputs and settings that affect the numbers.


def phase1_made_from(run: context.Run) -> MadeFrom:
  """What phase 1 is made from."""
  return MadeFrom({**_fingerprints(run), **_tasks(run, ("item_text", "item_item", "user_item"))},
                  settings_lib.of_phase1(run.config))


def phase2_made_from(run: context.Run, variant: variants.Variant) -> MadeFrom:
  """What a model of phase 2 is made from; if it begins from phase 1, with that one's identity.

  If that phase 1 is gone, the identity comes from the model's own checkpoint.
  """
  made_from = {**_fingerprints(run), "lm": run.lm_fingerprint,
               **_tasks(run, task_names(run.config))}
  if run.config.phase2.head.distil:
    made_from["teacher"] = sequence_model.load(run)[1]
  if variant.from_phase1 and has_phase1(run.config):
    theirs, mine = phase1_folder(run), run.workdir / variant.folder / "checkpoints"
    if checkpoint.newest(theirs) is not None:
      made_from["phase 1"] = provenance.identity(checkpoint.read_meta(theirs))
    elif checkpoint.newest(mine) is not None:
      made_from["phase 1"] = checkpoint.read_meta(mine)["fingerprints"].get("phase 1")
  return MadeFrom(made_from, settings_lib.of_phase2(run.config, variant))


def _fingerprints(run: context.Run) -> dict[str, str]:
  return {"entities": run.entities.fingerprint, "text_vocabulary": run.text_tokenizer.fingerprint}


def _tasks(run: context.Run, names) -> dict[str, str]:
  return {f"task {name}": run.prepared(name, "train").fingerprint for name in names}


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
