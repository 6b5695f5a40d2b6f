"""Which fields of a config decide the numbers that a phase trains.

Left out is what changes how a run is logged, saved or computed, or what belongs to another model.
"""
from ilm_jax.config import variants

_DATA = ("data", "cf", "vectors", "text_encoder", "seed", "prng")
_SAME_NUMBERS = {
    "data.path",                 # where the files lie; their content is fingerprinted
    "cf.stream",                 # the same factors, piece by piece
    "qformer.remat", "lm.remat", "lm.shape",
    *(f"{phase}.{name}" for phase in ("phase1", "phase2")
      for name in ("log_every", "checkpoint_every", "keep_checkpoints")),
    "phase2.init_from",          # which phase 1 it was is fingerprinted
    "phase2.compare",
}
_FILES = {"lm.asset", "lm.tokenizer", "lm.gin_file", "tasks.prompts"}     # fingerprinted
_OF_EVALUATION = {"tasks.prompt_targets"}
_OF_MLP = {"phase2.mlp_scale"}
_OF_QFORMER = {"phase2.qformer_scale", "phase2.spread"}


def of_phase1(config) -> dict:
  """{dotted field: value} of what decides phase 1."""
  return _fields(config, (*_DATA, "qformer", "phase1"))


def of_phase2(config, variant: variants.Variant) -> dict:
  """{dotted field: value} of what decides one model of phase 2."""
  mlp = variant.projector == "mlp"
  fields = _fields(config, (*_DATA, "qformer", "lm", "tasks", "phase2"))
  others = (_OF_QFORMER if mlp else _OF_MLP) | _OF_EVALUATION
  return {name: value for name, value in fields.items() if name not in others
          and not (mlp and name.startswith("qformer.") and name != "qformer.num_queries")
          and not (name.startswith("tasks.mixture.") and not value)}


def of_prepared(config) -> dict:
  """{dotted field: value} of what decides prepared tasks, beside data, vocabularies and prompts."""
  fields = _fields(config, ("seed", "data", "tasks"))
  return {name: value for name, value in fields.items()
          if name in ("seed", "data.heldout_fraction", "data.domain")
          or (name.startswith("tasks.") and not name.startswith("tasks.mixture.")
              and name not in ("tasks.module", "tasks.prompts"))}


def of_entities(config) -> dict:
  """{dotted field: value} of what decides the entity table, beside the data."""
  fields = _fields(config, ("seed", "cf", "text_encoder"))
  sequential = "sequential" in config.vectors
  unused = {name for name in fields if name.startswith("cf.transition_") and not sequential}
  unused |= {"cf.members"} if not config.cf.members else set()
  return {name: value for name, value in fields.items() if name not in unused} | (
      {"vectors": "sequential"} if sequential else {})


def shared_with_phase1(settings: dict) -> dict:
  """Of the settings of either phase, those that both must have: the shape of the Q-Former."""
  return {name: value for name, value in settings.items()
          if name == "vectors" or name.startswith("qformer.")}


def _fields(config, sections: tuple[str, ...]) -> dict:
  out = {}
  for section in sections:
    out |= _flat(section, config[section])
  return {name: "a path" if name in _FILES and "/" in value else value
          for name, value in out.items() if name not in _SAME_NUMBERS}


def _flat(name: str, value) -> dict:
  if not hasattr(value, "items"):
    return {name: value}
  out = {}
  for key, inner in value.items():
    out |= _flat(f"{name}.{key}", inner)
  return out
