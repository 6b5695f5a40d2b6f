"""Stage eval, first half: retrieval of items never described in training, with a linear floor."""
import json

import numpy as np

from ilm_jax import files
from ilm_jax.data import batches as batches_lib
from ilm_jax.evaluation import measured, retrieval
from ilm_jax.runtime import distributed
from ilm_jax.stages import context, recipe
from ilm_jax.stages.evals import made_from, trained


def run(run: context.Run) -> None:
  """Writes eval/phase1/<step>/ for the newest checkpoint, unless its table is up to date."""
  made = made_from.of_phase1(run)
  step = made["checkpoints"]["phase1"]["step"]
  results = run.workdir / "eval" / "phase1" / str(step)
  if measured.done(results, made):
    return
  graphdef, params = trained.phase1(run, run.workdir, step)
  held_I = run.heldout[1:]
  vector_IC = _vectors(run, run.config.vectors)
  text_IP = _vectors(run, ("semantic",))    # by the text encoder: the target of the floor
  ridge, regularisation = retrieval.ridge_space(vector_IC, text_IP, held_I, seed=run.config.seed)
  spaces = {
      "Q-Former": retrieval.qformer_space(
          graphdef, params, recipe.entity_arrays(run), _text_batches(run), run.mesh, len(held_I)),
      "ridge regression (floor)": ridge}
  table = retrieval.table(
      spaces, held_I, vectors=tuple(run.config.vectors), resamples=run.config.eval.bootstrap,
      seed=run.config.seed, protocol={"ridge regularisation": regularisation,
                                       "text encoder": run.config.text_encoder.asset})
  measured.begin(results)
  if distributed.is_main():
    run.record("eval")
    files.write_text(results / "retrieval.json", json.dumps(table, indent=1))
  measured.mark(results, made)


def _vectors(run: context.Run, names: tuple[str, ...]) -> np.ndarray:
  """[I, C]: the items' vectors of these names, concatenated."""
  rows = run.entities.rows.items
  parts = [run.entities.vectors[n][rows] for n in names]
  return np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]


def _text_batches(run: context.Run, rows: int = 128):
  """Every item's text once, in batches of one shape."""
  examples = [example for split in ("train", "validation", "test")
              for stored in [run.prepared("item_text", split)]
              for example in map(stored.__getitem__, range(len(stored)))]
  for first in range(0, len(examples), rows):
    yield batches_lib.text_batch(examples[first:first + rows], rows,
                                 run.config.qformer.max_text)
