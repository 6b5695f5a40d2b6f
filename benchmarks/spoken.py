"""Checks the titles that a run's language model reads from item vectors (/about).

    python -m benchmarks.spoken --run=FOLDER [--items=100]

Items are drawn: half from those whose text was trained on, half from those held out. An answer is
valid if it is the title (with or without year) of any item in the catalogue, and right if it is the
title of this item. In the rows "dealt out anew" the model reads another item's vector. Results:
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
  """"valid": each answer is a title of the catalogue; "right": it is its item's title."""
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
