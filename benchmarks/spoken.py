"""What a run's language model says of items' vectors (/about): are the titles real, and the right
ones?

    python -m benchmarks.spoken --run=FOLDER [--items=100]

Items are drawn, half of those whose text was trained on and half of those held out. An answer is
valid if it is the title, with or without year, of an item of the catalogue; right if of the item
asked about. Dealt out anew, each item is asked about by another one's vector. Results:
docs/results/conversations.md.
"""
import argparse
import pathlib

import numpy as np

from benchmarks import simulator
from benchmarks.conversations import BOOTSTRAP, cell, header
from ilm_jax.config import variants
from ilm_jax.data import interactions
from ilm_jax.evaluation import metrics, target_sets
from ilm_jax.stages import describe

WORDS = 24               # tokens of an answer


def measured(answers: list[str], rows: list[int], titles, items) -> dict[str, np.ndarray]:
  """Whether each answer is a title of the catalogue, and whether it is that of its item."""
  named = [titles.row(" ".join(answer.split()).rstrip(".")) for answer in answers]
  own = [interactions.full_title(items, row) for row in rows]
  said = [interactions.full_title(items, row) if row else "" for row in named]
  return {"valid": np.array([bool(row) for row in named], float),
          "right": np.array([one == other for one, other in zip(said, own)], float)}


def main():
  parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
  parser.add_argument("--run", type=pathlib.Path, required=True)
  parser.add_argument("--items", type=int, default=100)
  parser.add_argument("--model", default="ilm")
  args = parser.parse_args()
  material = simulator.Trained(args.run, args.model)
  heldout_I1, rng = material.run.heldout, np.random.default_rng(0)
  rows = {kind: rng.permutation(np.flatnonzero(of)[np.flatnonzero(of) > 0])[:args.items // 2]
          for kind, of in (("trained on", ~heldout_I1), ("held out", heldout_I1))}
  asked = describe.Describer(material.run, variants.named(material.run.config, args.model))
  print("\n".join(header(["items", "vectors", "valid", "right", "distinct-1", "distinct-2"])))
  for kind, of in rows.items():
    for vectors, given in (("their own", of), ("dealt out anew", np.roll(of, 1))):
      answers = asked.say([asked.vectors(int(row)) for row in given], max_new=WORDS)
      values = measured(answers, of.tolist(), material.titles, material.films)
      shown = target_sets.estimates(BOOTSTRAP, values, np.arange(len(of)))
      print(f"| {len(of)} {kind} | {vectors} | {cell(shown['valid'])} | {cell(shown['right'])} | "
            f"{metrics.distinct(answers, 1):.2f} | {metrics.distinct(answers, 2):.2f} |",
            flush=True)
    print("  " + "; ".join(" ".join(answer.split()) for answer in answers[:8]))


if __name__ == "__main__":
  main()
