"""Q-Former and item head by jax.export: files that need only jax, for any number of entities.

    from jax import export
    soft_tokens = export.deserialize(open("soft_tokens.jaxexport", "rb").read())
    soft_BQD = soft_tokens.call(vectors, present)

Parameters are constants of the files; a file has only the parameters that its function reads.
"""
import contextlib
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import export

from ilm_jax.objectives import inputs

PLATFORMS = ("cpu", "cuda", "tpu")
SUFFIX = ".jaxexport"
_PLACES = "jax_traceback_in_locations_limit"


def exported(graphdef, params: dict, frozen: dict, lm_width: int) -> dict[str, bytes]:
  """The functions of a model of phase 2 by name, serialised.

  soft_tokens(vectors, present) -> float32 [B, Q, D]; and where there is an item head
  item_keys(vectors, present, log_draws [B]) -> (keys [B, P], bias [B]), and
  state(hidden [B, D]) -> [B, P].

  Args:
    graphdef, params: of the model (`phase2.build_phase2`).
    frozen: entity arrays: vectors [R, C] and present [R] by name, members.
    lm_width: D.
  """
  params = jax.tree.map(np.asarray, params)
  examples = jax.eval_shape(inputs.entity_inputs, _table(frozen), np.ones(1, np.int32))
  batch, = export.symbolic_shape("b")
  entities = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct((batch, *x.shape[1:]), x.dtype), examples)

  def model():
    return nnx.merge(graphdef, params)

  functions = {"soft_tokens": (lambda vectors, present: model().soft_tokens(vectors, present),
                               entities)}
  if "head" in params:
    functions |= {
        "item_keys": (lambda vectors, present, log_draws: model().head.items(
            model().features(vectors, present), log_draws),
            (*entities, jax.ShapeDtypeStruct((batch,), jnp.float32))),
        "state": (lambda hidden: model().head.query(hidden),
                  (jax.ShapeDtypeStruct((batch, lm_width), jnp.float32),))}
  with _no_places():
    return {name: bytes(export.export(jax.jit(function), platforms=PLATFORMS)(*shapes).serialize())
            for name, (function, shapes) in functions.items()}


@contextlib.contextmanager
def _no_places():
  """Leaves the source location of each operation out: it names folders of this machine, and exports
  of one model by different callers would differ."""
  before = getattr(jax.config, _PLACES)
  jax.config.update(_PLACES, 0)
  try:
    yield
  finally:
    jax.config.update(_PLACES, before)


def write(folder: pathlib.Path, graphdef, params: dict, frozen: dict, lm_width: int, rows
          ) -> dict[str, np.ndarray]:
  """Writes the functions as <name>.jaxexport.

  Args:
    folder: of the export.
    graphdef, params, lm_width: as in `exported`.
    frozen: as in `exported`, with log_draws [R].
    rows: int [B] entity rows; their arguments and results let check.py prove parity.

  Returns:
    Arguments and results of these rows by name: "vectors/<name>", "present/<name>", "log_draws",
    "hidden"; "soft_tokens", "keys", "bias", "hidden_states".
  """
  for name, serialised in exported(graphdef, params, frozen, lm_width).items():
    (folder / f"{name}{SUFFIX}").write_bytes(serialised)
  model = nnx.merge(graphdef, params)
  vectors, present = inputs.entity_inputs(_table(frozen), rows)
  made = {"soft_tokens": model.soft_tokens(vectors, present)}
  made |= {f"vectors/{name}": x for name, x in vectors.items()}
  made |= {f"present/{name}": x.astype(np.int32) for name, x in present.items()}
  if "head" in params:
    made["log_draws"] = frozen["log_draws"][rows]
    made["keys"], made["bias"] = model.head.items(
        model.features(vectors, present), made["log_draws"])
    made["hidden"] = jax.random.normal(jax.random.key(0), (len(rows), lm_width))
    made["hidden_states"] = model.head.query(made["hidden"])
  return {name: np.asarray(x) for name, x in made.items()}


def _table(frozen: dict) -> dict:
  return {name: frozen[name] for name in ("vectors", "present", "members") if name in frozen}
