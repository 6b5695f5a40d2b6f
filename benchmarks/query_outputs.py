"""Whether a Q-Former's queries say different things, and how large soft tokens are; Markdown.

    python -m benchmarks.query_outputs --run=FOLDER

For every model of phase 2 with a Q-Former, at its start and after training. "Differs": RMS of what
is left of an output without its mean over items. "Between queries": RMS of that without its mean
over the queries, as a share of it; 0 means that all queries say the same. Results:
docs/results/queries.md.
"""
import argparse
import pathlib

import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.conversations import header
from ilm_jax.config import reading, variants
from ilm_jax.objectives import inputs
from ilm_jax.stages import context, recipe
from ilm_jax.training import checkpoint

ITEMS = 2000           # at most


def rms(x) -> float:
  return float(np.sqrt(np.mean(np.square(x))))


def spread(output_IQW) -> tuple[float, float, float]:
  """(RMS, RMS of what differs between items, share of that which differs between queries)."""
  differs_IQW = output_IQW - output_IQW.mean(0, keepdims=True)
  between_IQW = differs_IQW - differs_IQW.mean(1, keepdims=True)
  return rms(output_IQW), rms(differs_IQW), rms(between_IQW) / rms(differs_IQW)


def outputs(model, vectors: dict, present: dict) -> dict[str, np.ndarray]:
  """Name -> [I, Q, W or D] outputs of a model's parts."""
  soft_IQD = np.asarray(model.soft_tokens(vectors, present))
  made = {"Q-Former's outputs": np.asarray(model.qformer.queries(vectors, present)),
          "soft tokens": soft_IQD}
  if model.form.skip:
    mlp_IQD = np.asarray(model.skip.soft_tokens(vectors, present))
    made |= {"of them the MLP's": mlp_IQD, "of them the Q-Former's": soft_IQD - mlp_IQD}
  return made


def main():
  parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
  parser.add_argument("--run", type=pathlib.Path, required=True, help="after stage phase2")
  args = parser.parse_args()
  run = context.Run(reading.load(f"configs/recorded.py:{args.run}/config.phase2.json"), args.run)
  print("\n".join(header(["model", "part", "RMS", "differs", "between queries"])))
  for variant in variants.trained(run.config):
    folder = run.workdir / variant.folder / "checkpoints"
    if variant.projector != "qformer" or checkpoint.newest(folder) is None:
      continue
    built = recipe.phase2(run, variant)
    items_I = jnp.arange(1, min(run.data.log.num_items, ITEMS) + 1)
    entities = inputs.entity_inputs(built.frozen, items_I)
    for when, trainable in (("fresh", built.trainable),
                            ("trained", checkpoint.read_trainable(folder, built.trainable))):
      model = nnx.merge(built.graphdef, trainable)
      for part, output_IQW in outputs(model, *entities).items():
        size, differs, between = spread(output_IQW)
        print(f"| {variant.label}, {when} | {part} | {size:.3f} | {differs:.3f} | {between:.1%} |")


if __name__ == "__main__":
  main()
