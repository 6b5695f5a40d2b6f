"""The models of phase 2: ILM, and those of `phase2.compare`, trained for the same steps."""
import dataclasses

from ilm_jax import errors


@dataclasses.dataclass(frozen=True)
class Variant:
  """One model of phase 2."""
  key: str              # its name in phase2.compare
  folder: str           # folder of the workdir with its checkpoints and curves
  label: str            # its name in tables
  projector: str        # makes the soft tokens: "qformer", or "mlp" (CoLLM's projector)
  from_phase1: bool     # True: starts from phase 1; False: from where phase 1 started
  sees_vectors: bool    # False: every vector is marked absent


ILM = Variant("ilm", "phase2", "ILM", "qformer", from_phase1=True, sees_vectors=True)
COMPARED = {variant.key: variant for variant in (
    Variant("rand", "phase2_rand", "ILM-rand", "qformer", from_phase1=False, sees_vectors=True),
    Variant("mlp", "phase2_mlp", "MLP projector", "mlp", from_phase1=False, sees_vectors=True),
    Variant("blind", "phase2_blind", "ILM without vectors", "qformer", from_phase1=False,
            sees_vectors=False))}


def stage_of(folder: str) -> str:
  """The stage whose checkpoints are in a folder of the workdir: "phase1" or "phase2"."""
  return "phase2" if folder in {ILM.folder, *(v.folder for v in COMPARED.values())} else folder


def trained(config) -> tuple[Variant, ...]:
  """The models that a config trains: ILM, then those of `phase2.compare`, in its order."""
  return ILM, *(COMPARED[key] for key in config.phase2.compare)


def named(config, key: str) -> Variant:
  """The model with a key, "ilm" or one of `phase2.compare`.

  Raises:
    UserError: the config trains no model with this key.
  """
  keys = [variant.key for variant in trained(config)]
  if key not in keys:
    missing = f"; phase2.compare=({key!r},) trains it" if key in COMPARED else ""
    raise errors.UserError(f"--model={key}: this config trains {', '.join(keys)}{missing}")
  return trained(config)[keys.index(key)]
