"""Which fields of a config decide the trained parameters of a phase.

Fields that only change how a run is logged, saved or computed are left out, and fields of other
models.
"""
from ilm_jax.config import mixture, variants

_DATA = ("data", "cf", "vectors", "text_encoder", "seed", "prng")
_SAME_NUMBERS = {
    "data.path",                 # where the files lie; their content is fingerprinted
    "cf.stream",                 # the same factors, piece by piece
    "qformer.remat", "lm.remat", "lm.attention", "lm.shape",
    *(f"{phase}.{name}" for phase in ("phase1", "phase2")
      for name in ("log_every", "checkpoint_every", "keep_checkpoints")),
    "phase2.init_from",          # the phase 1 checkpoint is fingerprinted
    "phase2.compare",
    "phase2.head.factors",       # added to the scores of a trained head
    "lm.chat_template",          # the examples that it renders are fingerprinted
}
_FILES = {"lm.asset", "lm.tokenizer", "lm.gin_file", "tasks.prompts"}     # fingerprinted
_OF_CONVERSATIONS = {"tasks.dialogs", "tasks.dialog_tokens"}   # their examples are fingerprinted
_OF_EVALUATION = {"tasks.prompt_targets", "tasks.eval_targets"}
# Fields added later, with the value that has no effect. A field with this value is left out, so
# that checkpoints from before the field was added stay valid.
OFF = {"data.cold_fraction": 0.1, "data.dialog_items": False, "data.columns.delimiter": "",
       "data.columns.items_delimiter": "", "data.columns.encoding": "utf-8", "cf.members": 0,
       "cf.dialogs": 0,
       "qformer.user_projection": False, "qformer.cross_reads": "all",
       "qformer.query_pool": "nearest",
       "qformer.matmul_precision": "default", "qformer.vector_dropout": 0.0, "phase1.negatives": 0,
       "phase1.draw": "uniform", "phase2.vector_dropout": 0.0, "phase2.mlp_scale": 1.0,
       "phase2.head.distil": 0.0,
       "phase2.head.distil_transitions": 0.0, "phase2.head.distil_ease": 0.0,
       "lm.lora_rank": 0, "lm.layers": 0, "lm.index_only": False, "tasks.index_apart": False,
       "tasks.eval_targets": 0,
       "dialogs.reword": False}
_OF_TEACHER = {f"phase2.head.distil_{name}" for name in ("temperature", "transitions", "ease")}
_OF_BOTH = {"qformer.num_queries", "qformer.members", "qformer.matmul_precision"}
_OF_QFORMER = {"phase2.qformer_scale", "phase2.spread"}


def of_phase1(config) -> dict:
  """{dotted field: value} of the fields that decide phase 1."""
  unused = _unused_of_cf(config, _vectors_of_sasrec(config)) | _unused_of_queries(config)
  return {name: value for name, value in _fields(config, (*_DATA, "qformer", "phase1")).items()
          if name not in unused}


def of_phase2(config, variant: variants.Variant) -> dict:
  """{dotted field: value} of the fields that decide one model of phase 2."""
  mlp = variant.projector == "mlp"
  fields = _fields(config, (*_DATA, "qformer", "lm", "tasks", "phase2"))
  others = _OF_EVALUATION | _OF_CONVERSATIONS | (_OF_QFORMER if mlp else set())
  others |= set() if mlp or config.phase2.skip else {"phase2.mlp_scale"}
  others |= _unused_of_cf(config, needs_sasrec(config)) | _unused_of_queries(config)
  others |= set() if config.phase2.head.distil else _OF_TEACHER
  return {name: value for name, value in fields.items() if name not in others
          and not (mlp and name.startswith("qformer.") and name not in _OF_BOTH)
          and not (name.startswith("tasks.mixture.") and not value)}


def of_prepared(config, task: str, split: str) -> dict:
  """{dotted field: value} of the fields that decide a split of a prepared task, beside the data,
  vocabularies and prompts.

  Numbers of evaluated targets decide only those splits, so that checkpoints of the training
  examples stay valid.
  """
  fields = _fields(config, ("seed", "data", "tasks"))
  others = {"tasks.module", "tasks.prompts", *_OF_CONVERSATIONS}
  others |= set() if task.endswith("_prompts") else {"tasks.prompt_targets"}
  others |= set() if task in mixture.HISTORY_TASKS and split != "train" else {"tasks.eval_targets"}
  return {name: value for name, value in fields.items()
          if name in ("seed", "data.heldout_fraction", "data.domain")
          or (name.startswith("tasks.") and not name.startswith("tasks.mixture.")
              and name not in others)}


def of_entities(config) -> dict:
  """{dotted field: value} of the fields that decide the entity table, beside the data."""
  fields = _fields(config, ("seed", "cf", "text_encoder"))
  sequential, of_sasrec = "sequential" in config.vectors, _vectors_of_sasrec(config)
  unused = {name for name in fields if name.startswith("cf.transition_")
            and (of_sasrec or not sequential)}
  unused |= _unused_of_cf(config, of_sasrec)
  return {name: value for name, value in fields.items() if name not in unused} | (
      {"vectors": "sequential"} if sequential else {})


def of_dialogs(config) -> dict:
  """{dotted field: value} of the fields that decide the synthetic dialogs, beside the data."""
  fields = _fields(config, ("seed", "dialogs", "cf"))
  return {name: value for name, value in fields.items()
          if not name.startswith(("cf.sasrec.", "cf.transition_")) and name not in (
              "cf.sequential", "cf.members", "cf.dialogs")} | {"data.domain": config.data.domain}


def of_sasrec(config) -> dict:
  """{dotted field: value} of the fields that decide the SASRec of stage cf, beside the data."""
  return {"seed": config.seed, **_flat("cf.sasrec", config.cf.sasrec)}


def needs_sasrec(config) -> bool:
  """Whether the run needs the SASRec of stage cf: for vectors, or as the item head's teacher."""
  return bool(_vectors_of_sasrec(config) or config.phase2.head.distil)


def _vectors_of_sasrec(config) -> bool:
  return "sequential" in config.vectors and config.cf.sequential == "sasrec"


def _unused_of_cf(config, trains_sasrec: bool) -> set[str]:
  """Fields of section cf about a SASRec that have no effect in this config."""
  return (set() if _vectors_of_sasrec(config) else {"cf.sequential"}) | (
      set() if trains_sasrec else set(_flat("cf.sasrec", config.cf.sasrec)))


def _unused_of_queries(config) -> set[str]:
  """Fields about several queries, if there is one: its own tokens are all tokens, and it is their
  mean and the nearest."""
  return {"qformer.cross_reads", "qformer.query_pool"} if config.qformer.num_queries == 1 else set()


def shared_with_phase1(settings: dict) -> dict:
  """The settings that must be the same in both phases: vectors and the Q-Former's. Fields that are
  not recorded have their value of `OFF`."""
  return {name: value for name, value in {**OFF, **settings}.items()
          if name == "vectors" or name.startswith("qformer.")}


def _fields(config, sections: tuple[str, ...]) -> dict:
  out = {}
  for section in sections:
    out |= _flat(section, config[section])
  return {name: "a path" if name in _FILES and "/" in value else value
          for name, value in out.items()
          if name not in _SAME_NUMBERS and not (name in OFF and value == OFF[name])}


def _flat(name: str, value) -> dict:
  if not hasattr(value, "items"):
    return {name: value}
  out = {}
  for key, inner in value.items():
    out |= _flat(f"{name}.{key}", inner)
  return out
