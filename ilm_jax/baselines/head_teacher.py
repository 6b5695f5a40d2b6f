"""The item head's teacher by a config: its scorer, and the shapes of the arrays that it reads.

The teacher is the SASRec of stage cf; the config may add scores from counts to its logits.
"""
import jax
import jax.numpy as jnp
from flax import nnx

from ilm_jax.baselines import count_teachers, sasrec, sasrec_teacher
from ilm_jax.objectives import distillation


def sasrec_config(c) -> sasrec.Config:
  """Shape and training of the SASRec in the run's config `c`."""
  fields = c.cf.sasrec.to_dict()
  if not fields["patience"]:       # 0: no validation; the one evaluation is at the last epoch
    fields |= {"evaluate_every": fields["epochs"], "patience": 1}
  return sasrec.Config(**fields, seed=c.seed)


def counts(c) -> count_teachers.Counts:
  """Weights of the scores from counts in the run's config `c`."""
  head = c.phase2.head
  return count_teachers.Counts(transitions=head.distil_transitions, ease=head.distil_ease)


def distil(c, num_items: int) -> distillation.Distil | None:
  """The teacher of the run's config `c`; None if `phase2.head.distil` is 0."""
  head = c.phase2.head
  if not head.distil:
    return None
  score = sasrec_teacher.scorer(sasrec_config(c), num_items)
  if counts(c).used:
    score = count_teachers.beside(counts(c), score)
  return distillation.Distil(head.distil, head.distil_temperature, score)


def shapes(c, num_items: int) -> dict:
  """Shapes of the arrays that the scorer of `distil` reads, all float32.

  Raises:
    UserError: see `count_teachers.check`.
  """
  count_teachers.check(counts(c), num_items)
  model = sasrec.abstract(sasrec_config(c), num_items)
  params = nnx.to_pure_dict(nnx.split(model, nnx.Param)[1])
  if not counts(c).used:
    return params
  matrix = jax.ShapeDtypeStruct((num_items, num_items), jnp.float32)
  wanted = {"transitions": counts(c).transitions, "ease": counts(c).ease}
  return {"sasrec": params, **{name: matrix for name, weight in wanted.items() if weight}}
