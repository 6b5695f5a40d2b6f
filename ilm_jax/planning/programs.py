"""Builds the step of a phase from shapes alone: the program that `loop.fit` would run."""
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from ilm_jax import errors
from ilm_jax.baselines import head_teacher
from ilm_jax.config import mixture
from ilm_jax.data import batches as batches_lib
from ilm_jax.data import packing
from ilm_jax.models import ilm, language_model
from ilm_jax.models.qformer import QFormerConfig
from ilm_jax.monitoring import utilization
from ilm_jax.objectives import inputs, item_head, phase1_config
from ilm_jax.objectives import phase1 as phase1_lib
from ilm_jax.objectives import phase2 as phase2_lib
from ilm_jax.runtime import axes
from ilm_jax.training import loop, optimizer

_SEMANTIC = 384              # width of MiniLM-L6's sentence vectors


@dataclasses.dataclass(frozen=True)
class Program:
  """A step and the shapes of its arguments, placed on a mesh."""
  loss: Any
  tx: Any
  state: loop.TrainState   # ShapeDtypeStructs with shardings, like frozen and batch
  frozen: dict
  batch: dict
  prng: str
  microbatches: int
  # FLOPs of all chips, independent of the mesh, counted at the first call: those that the step
  # needs, and those repeated because each microbatch reads the whole catalogue.
  useful_flops: Callable[[], float]
  again_flops: Callable[[], float]
  entity_bytes: Callable[[], float] | None = None    # phase 2: see `kept_of_entity`

  @functools.cached_property
  def _traced(self):
    return loop.compile_step(self.loss, self.tx, 0, self.state, self.microbatches, self.prng).trace(
        self.state, self.frozen, self.batch)

  def lower(self):
    """The jitted step of training, lowered for the mesh."""
    return self._traced.lower()

  def kernel_flops(self) -> float:
    """FLOPs of a chip in Pallas kernels, which XLA does not count."""
    return utilization.kernel_flops(self._traced.jaxpr.jaxpr)


def qformer_config(c, *, unroll: bool = False, num_layers: int = 0, **changes) -> QFormerConfig:
  """The Q-Former of a run's config, with the widths of vectors that its data would have."""
  of_sasrec = c.cf.sequential == "sasrec"
  width = {"behavioral": c.cf.width, "semantic": _SEMANTIC,
           "sequential": c.cf.sasrec.width if of_sasrec else c.cf.transition_width}
  fields = {k: v for k, v in c.qformer.items() if k != "init"} | changes
  fields["num_layers"] = num_layers or c.qformer.num_layers
  return QFormerConfig(vectors=tuple((n, width[n]) for n in c.vectors), unroll=unroll,
                       vocab_size=c.plan.text_vocabulary,
                       reconstructs=c.phase1.losses.get("rec", 0.0) > 0, **fields)


def num_items(c) -> int:
  """Rows of the planned entity table that are items."""
  return c.plan.catalogue or c.plan.entities - 1


def phase2(c, lm: language_model.Config, mesh: Mesh | AbstractMesh, unroll: bool = False,
           rank_layers: int | None = None) -> Program:
  """Phase 2's step.

  Args:
    c: config of the run.
    lm: see `shapes.of`.
    mesh: to run on; its devices need not exist.
    unroll: unroll the Q-Former's layers and run all rows at once, since XLA counts the body of a
      loop (also of that over microbatches) only once. The language model has its own `unroll`.
    rank_layers: replaces `phase2.head.layer`; None: keep it.

  Raises:
    UserError: the language model is a T5.
  """
  if language_model.is_encoder_decoder(lm):
    raise errors.UserError("--stage=plan supports decoders only, but this language model is a T5: "
                           "name a decoder by lm.shape or lm.asset")
  p = c.phase2
  config = qformer_config(c, unroll=unroll, dropout=p.dropout, vector_noise=p.vector_noise,
                          vector_dropout=p.vector_dropout)
  graphdef, trainable = inputs.abstract(lambda: phase2_lib.build_phase2(
      config, lm.width, ilm.Form.of(p), 1.0, seed=0,
      head_width=p.head.width if p.head.weight else 0))
  frozen_lm, trained_lm = language_model.split_trained(
      language_model.abstract_params(lm), c.lm.train)
  trainable |= {"lm": trained_lm} if trained_lm else {}
  frozen, head = {"lm": frozen_lm, **_entities(c, config)}, None
  if p.head.weight:
    head = item_head.HeadConfig.of(p.head, num_items(c), mixture.ranks_items_only(c),
                                   head_teacher.distil(c, num_items(c)))
    if rank_layers is not None:
      head = dataclasses.replace(head, layer=rank_layers)
    frozen["log_draws"] = jax.ShapeDtypeStruct((c.plan.entities,), jnp.float32)
    if head.distil:
      frozen["teacher"] = head_teacher.shapes(c, num_items(c))
  loss = phase2_lib.phase2_loss(graphdef, lm, mixture.said_tasks(c), head)
  program = _program(loss, c, p, trainable, frozen, _phase2_batch(c), mesh,
                     microbatches=1 if unroll else p.microbatches)
  ours = {name: part for name, part in trainable.items() if name != "lm"}
  return dataclasses.replace(program, entity_bytes=functools.cache(
      lambda: kept_of_entity(graphdef, ours, frozen)))


def kept_of_entity(graphdef, trainable: dict, frozen: dict) -> float:
  """Bytes that the projector stores per entity for its backward pass.

  It is half the difference between 4 entities and 2.
  """
  def kept(count: int) -> int:
    def residuals(trainable, frozen):
      rows = jnp.zeros(count, jnp.int32)
      return jax.vjp(lambda t: nnx.merge(graphdef, t).read(
          *inputs.entity_inputs(frozen, rows), jax.random.key(0)), trainable)[1]

    return sum(x.size * x.dtype.itemsize
               for x in jax.tree.leaves(jax.eval_shape(residuals, trainable, frozen)))

  return (kept(4) - kept(2)) / 2


def _phase2_batch(c) -> dict:
  """An empty batch of phase 2: rows with target texts, and rows that only rank."""
  p, said, ranked = c.phase2, mixture.said_tasks(c), mixture.rank_tasks(c)
  among = p.head.weight and not p.head.rows          # the head reads the rows with target texts
  spec = packing.LmBatchSpec(rows=p.rows, length=p.length, slots=p.slots, targets=p.targets,
                             queries=c.qformer.num_queries, slot_id=-1, task_names=said,
                             examples_per_group=p.examples_per_group,
                             rows_per_group=p.rows_per_group, whole_words=0,
                             head_tasks=mixture.HEAD_TASKS if among else ())
  batch = _empty(spec) if said else {}
  if ranked:
    batch["rank"] = _empty(dataclasses.replace(
        spec, rows=p.head.rows, length=p.head.length, slots=p.head.slots, targets=0,
        queries=p.head.queries or spec.queries, task_names=ranked,
        examples_per_group=p.head.examples_per_group, rows_per_group=p.head.rows_per_group,
        head_tasks=mixture.HEAD_TASKS, head_only=True))
  return batch


def _empty(spec: packing.LmBatchSpec) -> dict:
  return packing.empty(spec.rows, spec) | {"dropped": np.zeros(spec.rows, np.int32)}


def phase1(c, mesh: Mesh | AbstractMesh, unroll: bool = False, num_layers: int = 0) -> Program:
  """Phase 1's step.

  Args:
    c: config of the run.
    mesh: to run on; its devices need not exist.
    unroll: unroll the Q-Former's layers.
    num_layers: of the Q-Former; 0: as in the config.
  """
  p = c.phase1
  config = qformer_config(c, unroll=unroll, num_layers=num_layers)
  graphdef, trainable = inputs.abstract(lambda: phase1_lib.build_phase1(config, seed=0))
  of_losses = phase1_config.Phase1Config.of(p, num_items(c))
  loss = phase1_lib.phase1_loss(graphdef, of_losses)
  joined = phase1_config.joins_users(p.losses)
  pairs = {"pair_a": p.losses.ii, "pair_b": p.losses.ii, "upair_user": joined, "upair_item": joined}
  batch = batches_lib.text_batch([], p.batch_size, c.qformer.max_text) | {
      name: np.zeros(p.pair_batch_size if weight else 0, np.int32)
      for name, weight in pairs.items()}
  frozen = _entities(c, config)
  if of_losses.needs_log_draws:
    frozen["log_draws"] = jax.ShapeDtypeStruct((c.plan.entities,), jnp.float32)
  if p.losses.cf:
    frozen["factors"] = jax.ShapeDtypeStruct((c.plan.entities, c.cf.width), jnp.float32)
  return _program(loss, c, p, trainable, frozen, batch, mesh)


def _entities(c, config: QFormerConfig) -> dict:
  rows = c.plan.entities
  table = {"vectors": {n: jax.ShapeDtypeStruct((rows, C), jnp.float32) for n, C in config.vectors},
           "present": {n: jax.ShapeDtypeStruct((rows,), bool) for n, _ in config.vectors}}
  if config.vector_dropout:
    table["never_met"] = jax.ShapeDtypeStruct((rows,), bool)
  if config.members:
    table["members"] = jax.ShapeDtypeStruct((rows, config.members), jnp.int32)
  return table


def _program(loss, c, phase, trainable, frozen, batch, mesh, microbatches: int = 1) -> Program:
  tx = optimizer.make_optimizer(phase)
  state = jax.eval_shape(
      lambda t: loop.TrainState(jnp.zeros((), jnp.int32), t, tx.init(t)), trainable)
  rows = tuple(n for n in axes.RULES["batch"] if n in mesh.shape)
  over = jax.tree.map(lambda _: NamedSharding(mesh, PartitionSpec(rows)), batch)

  @functools.cache
  def useful(parts: int = 1) -> float:
    part = jax.tree.map(lambda x: x[:len(x) // parts], batch)
    return parts * utilization.useful_flops(loss, trainable, frozen, part)

  again = lambda: useful(microbatches) - useful() if microbatches > 1 else 0.0  # noqa: E731
  return Program(loss, tx, _on(mesh, state), _on(mesh, frozen), axes.shapes_at(batch, over),
                 c.prng, microbatches, useful, again)


def _on(mesh, tree):
  return axes.shapes_at(tree, axes.param_sharding(mesh, tree))


def moved(program: Program, mesh: Mesh | AbstractMesh) -> Program:
  """The program with its parameters on another mesh; the batch keeps its mesh."""
  return dataclasses.replace(program, state=_on(mesh, program.state),
                             frozen=_on(mesh, program.frozen))


def bytes_per_chip(tree) -> int:
  """Bytes per chip of a tree of placed shapes."""
  return sum(int(np.prod(x.sharding.shard_shape(x.shape))) * x.dtype.itemsize
             for x in jax.tree.leaves(tree))
