"""The least and the most that each number of a config may be.

A number out of its bounds cannot work: it overflows, never ends, or means nothing. The bounds do
not say which values are sensible.
"""
import math
from typing import NamedTuple

from ilm_jax import errors
from ilm_jax.config import rules

_INT32 = 2 ** 31 - 1
_ABOVE_0, _BELOW_1 = math.nextafter(0.0, 1.0), math.nextafter(1.0, 0.0)


class Bound(NamedTuple):
  """Both ends are allowed; NaN never is."""
  least: float
  most: float
  expected: str             # in words


def _positive(most: int) -> Bound:
  return Bound(_ABOVE_0, most, f"more than 0, at most {most}")


def _from_0(most: int, zero: str = "") -> Bound:
  """From 0 on; `zero` says what 0 means."""
  return Bound(0, most, f"0{zero and f' ({zero})'} or more, at most {most}")


_FRACTION = Bound(0, _BELOW_1, "at least 0 and less than 1")

# The keys are dotted names. The name of a section (tasks.mixture, phase1.losses) bounds all of its
# fields.
_GROUPS = (
    (_from_0(_INT32), ("seed",)),
    (Bound(_ABOVE_0, _BELOW_1,
           "between 0 and 1, e.g. 0.2; retrieval is measured on the items held out"),
     ("data.heldout_fraction",)),
    (Bound(_ABOVE_0, _BELOW_1, "between 0 and 1, e.g. 0.1"), ("data.cold_fraction",)),
    (_from_0(_INT32, "keeps items without interactions, too"), ("data.k_core",)),
    (_from_0(_INT32, "all entities"), ("plan.catalogue",)),
    (_positive(_INT32), ("plan.entities", "plan.text_vocabulary", "profile.start")),
    # iALS: weights are float32, and squared.
    (_positive(10 ** 6), ("cf.alpha",)),
    (_positive(10 ** 9), ("cf.reg",)),
    (_positive(10 ** 6), ("cf.iterations", "cf.cg_steps")),
    # Sizes of arrays.
    (_positive(2 ** 20), (
        "cf.width", "cf.transition_width", "cf.transition_window", "mesh.data", "mesh.fsdp",
        "mesh.tensor", "cf.sasrec.width", "cf.sasrec.num_heads", "cf.sasrec.length",
        "cf.sasrec.batch_size", "phase1.batch_size",
        "phase1.pair_batch_size", "phase2.rows", "phase2.length", "phase2.slots",
        "phase2.targets", "phase2.examples_per_group", "phase2.rows_per_group",
        "phase2.microbatches", "eval.batch_size",
        *(f"phase2.head.{name}" for name in (
            "width", "length", "slots", "examples_per_group", "rows_per_group")),
        *(f"qformer.{name}" for name in (
            "width", "num_heads", "mlp_width", "num_queries", "kv_tokens", "proj_width",
            "max_text")))),
    (_positive(1000), ("qformer.num_layers", "qformer.cross_every", "cf.sasrec.num_layers")),
    (_from_0(2 ** 20), ("qformer.kv_width", "lm.new_tokens", "lm.whole_words")),
    (_from_0(_INT32, "all items"), ("phase1.negatives", "phase2.head.negatives")),
    (_from_0(2 ** 20, "ranking tasks among the others"), ("phase2.head.rows",)),
    (Bound(-1, 1000, "-1 (all layers) or more, at most 1000"), ("phase2.head.layer",)),
    (_from_0(1000, "none"), ("qformer.reader_hidden", "qformer.members", "cf.members", "cf.dialogs",
                             "lm.lora_rank")),
    (_from_0(1000, "all"), ("phase2.head.queries", "lm.layers")),
    (_FRACTION, ("qformer.dropout", "qformer.text_dropout", "phase1.label_smoothing",
                 "phase2.dropout", "cf.sasrec.dropout")),
    (Bound(0, 1, "a probability, from 0 to 1"), ("qformer.vector_dropout",
                                                 "phase2.vector_dropout")),
    (_positive(10 ** 6), ("cf.sasrec.epochs", "cf.sasrec.evaluate_every")),
    (_positive(100), ("cf.sasrec.learning_rate",)),
    (_from_0(10 ** 6, "all epochs, without validation"), ("cf.sasrec.patience",)),
    (_positive(10 ** 3), ("qformer.temperature", "qformer.min_temperature",
                          "phase1.cf_temperature", "phase2.head.distil_temperature")),
    (_from_0(10 ** 3), ("qformer.vector_noise", "phase2.vector_noise", "phase2.soft_token_rms",
                        "phase1.text_scale", "phase2.qformer_scale", "phase2.mlp_scale")),
    # Tasks, and the teachers that write their targets.
    (_positive(10 ** 6), tuple(f"tasks.{name}" for name in (
        "history", "index_clusters", "index_size", "index_codes"))),
    (_positive(1000), ("tasks.draws", "tasks.index_levels")),
    (_from_0(_INT32, "all"), ("tasks.max_train_examples", "tasks.eval_targets",
                              "tasks.prompt_targets", "targets.max_items",
                              "targets.max_heldout")),
    (_from_0(2 ** 20, "no dialog is cut"), ("tasks.dialog_tokens",)),
    (_from_0(10 ** 12, "left out"), ("tasks.mixture",)),
    (_from_0(10 ** 8, "none"), ("dialogs.count",)),
    (_positive(100), ("dialogs.turns",)),
    (_positive(10 ** 6), ("targets.max_tokens", "targets.batch_size", "targets.timeout")),
    (_from_0(1000), ("targets.retries", "targets.temperature")),
    (_from_0(10 ** 6), ("targets.backoff",)),
    (Bound(_ABOVE_0, 1, "above 0, at most 1"), ("targets.top_p",)),
    # Training.
    *((bound, tuple(f"{phase}.{name}" for phase in ("phase1", "phase2") for name in names))
      for bound, names in (
          (_positive(10 ** 9), ("steps", "clip", "log_every", "checkpoint_every",
                                "keep_checkpoints")),
          (_positive(100), ("learning_rate",)),
          (_from_0(10 ** 9), ("warmup",)),
          (_from_0(100), ("weight_decay",)),
          (_FRACTION, ("final_fraction", "b2")))),
    (_from_0(10 ** 6, "off"), ("phase1.losses",)),
    (_from_0(10 ** 6), ("phase2.head.weight",)),
    (_from_0(10 ** 6, "off"), ("phase2.head.factors", "phase2.head.distil",
                               "phase2.head.distil_transitions", "phase2.head.distil_ease")),
    (_from_0(10 ** 9, "no profile"), ("profile.steps",)),
    (Bound(1, 2, "1 or 2: the phase to plan a step of"), ("plan.phase",)),
    # Evaluation.
    (_from_0(_INT32, "none"), ("eval.beam_users", "eval.exact_users")),
    (_positive(10 ** 4), ("eval.beam_width",)),
    (_positive(10 ** 6), ("eval.bootstrap",)),
    (_from_0(_INT32), tuple(f"eval.{name}" for name in (
        "users", "prompt_users", "loss_examples", "consistency_examples", "compared_examples",
        "interpolations", "generations"))),
)
BOUNDS = {field: bound for bound, fields in _GROUPS for field in fields}


def check_numbers(c) -> list[str]:
  """A line for each number of config `c` that is missing, out of its bounds or not a number."""
  wrong = []
  for field, bound in BOUNDS.items():
    try:
      value = rules.get(c, field)
    except (AttributeError, KeyError):
      wrong.append(f"a field is missing: {field}; see configs/base.py")
      continue
    parts = value.items() if hasattr(value, "items") else [("", value)]
    wrong += [_line(f"{field}.{name}".rstrip("."), number, bound) for name, number in parts
              if not _within(number, bound)]
  return wrong


def _within(value, bound: Bound) -> bool:
  return isinstance(value, int | float) and bound.least <= value <= bound.most


def _line(field: str, value, bound: Bound) -> str:
  kind = "" if isinstance(value, int | float) else "of another type than in configs/base.py, "
  return f"{field}={errors.shown(value)}: {kind}expected {bound.expected}"


def too_long(c, prefix: str = "") -> list[str]:
  """A line for each field with a whole number beyond 64 bits: no other check could print it."""
  wrong = []
  for name, value in c.items():
    if hasattr(value, "items"):
      wrong += too_long(value, f"{prefix}{name}.")
    elif any(isinstance(part, int) and part.bit_length() > 64
             for part in (value if isinstance(value, list | tuple) else [value])):
      wrong.append(f"{prefix}{name}={errors.shown(value)}: expected whole numbers of at most 64 "
                   "bits")
  return wrong
