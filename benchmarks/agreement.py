"""Compares the items that beam search finds with those of exact scoring, for a trained model.

    python -m benchmarks.agreement --config=configs/ml100k_smollm2.py --workdir=runs/ml100k \\
        --users=12 --widths=10,20,50

For the first --users test users of a run after stage phase2, it compares the top ten of exact
scoring over the whole catalogue with the top ten of constrained beam search. Agreement: the share
of the exact ten that is in the beam's ten; first: the first item is the same; equal: all ten are
the same, in order.

Titles of 1,349 items (6,276 nodes), an earlier run of 600 steps in the paper's form, trained on the
next title, whose config is not kept; 12 users:

  width           10     20     50
  agreement     .117   .208   .400
  first         .250   .500   .583

With configs/openp5_ml100k.py (collaborative index, 2,739 nodes; 100 users) agreement is .590, 1.000
and 1.000, the first item is always the same, and all ten are in order from width 20. So titles,
which branch widely at their first words, need wide beams or exact scoring; short indices do not.
"""
import json

import numpy as np
from absl import app, flags
from etils import epath
from ml_collections import config_flags

from ilm_jax.config import reading as config_lib
from ilm_jax.config import variants
from ilm_jax.stages import context
from ilm_jax.stages.evals import common, ranking, speaker

_CONFIG = config_flags.DEFINE_config_file("config", None, "of the run", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "of the run, after phase2", required=True)
_USERS = flags.DEFINE_integer("users", 12, "number of users to rank")
_WIDTHS = flags.DEFINE_list("widths", ["10", "20", "50"], "beams")
_OUT = flags.DEFINE_string("out", "", "write the figures here as JSON")
TOP = 10


def main(_):
  config_lib.validate(_CONFIG.value, 1)
  run = context.Run(_CONFIG.value, epath.Path(_WORKDIR.value))
  ilm, (trie, _) = speaker.Speaker(run, variants.ILM), speaker.catalogue(run)
  stored = run.prepared(ranking.ranked_task(run.config), "test")
  examples = [stored[i] for i in range(min(_USERS.value, len(stored)))]
  _, _, seen, _ = common.users_and_filter(run, examples)
  spec = common.spec(run, [examples])
  best_UK = best(ilm.score(examples, spec, trie), seen)
  print(f"{len(examples)} users, {trie.num_items} items, {trie.num_nodes} nodes; seen items "
        f"filtered", flush=True)
  rows = []
  for width in map(int, _WIDTHS.value):
    beam_UK = ilm.rank(examples, spec, trie, width=width, blocked=seen)[:, :TOP]
    rows.append({
        "width": width,
        "agreement": float(np.mean([len(np.intersect1d(a, b)) / TOP
                                    for a, b in zip(best_UK, beam_UK)])),
        "first": float(np.mean(best_UK[:, 0] == beam_UK[:, 0])),
        "equal": float(np.mean((best_UK == beam_UK).all(axis=1)))})
    print("width {width:3d}: agreement {agreement:.3f}, first {first:.3f}, equal {equal:.3f}"
          .format(**rows[-1]), flush=True)
  if _OUT.value:
    epath.Path(_OUT.value).write_text(json.dumps({"users": len(examples), "rows": rows}, indent=1))


def best(score_UI, met_U) -> np.ndarray:
  """int [U, TOP]: item rows by score without those in `met_U`; on a tie the lower row first."""
  score_UI = np.array(score_UI)
  for own_I, rows in zip(score_UI, met_U):
    own_I[rows] = -np.inf
  return np.argsort(-score_UI, axis=1, kind="stable")[:, :TOP]


if __name__ == "__main__":
  app.run(main)
