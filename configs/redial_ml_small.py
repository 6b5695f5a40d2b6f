"""ReDial's recommendations by the item head, on MovieLens latest-small and SmolLM2-135M.

    python -m ilm_jax.main --config=configs/redial_ml_small.py --workdir=runs/redial --stage=all \\
        --config.data.path=FOLDER --config.tasks.dialogs=synthetic,redial:FOLDER

The first FOLDER has ratings.csv and movies.csv of ml-latest-small, the second ReDial's dialogs.
No words are predicted: the item head reads all rows, histories and dialogs, after six layers.
Each training dialog also counts as five users of the log in the factorisation (cf.dialogs).

The films that these dialogs name are items, too (data.dialog_items).

Expect (docs/results/redial.md): fresh R@10 .136 on ReDial's test dialogs over three seeds, .070 by
the item head alone (.065 to .079); popularity has .057, fold-in from MovieLens .050, and fold-in
from MovieLens and these dialogs, without a language model, .126. Training takes 42 minutes on one
core, which other jobs also use. ILM had a gate before the Q-Former there, which is gone.
"""
import ml_collections

from ilm_jax.configs import talk_ml_small


def get_config() -> ml_collections.ConfigDict:
  c = talk_ml_small.get_config()
  c.data.update(k_core=2, dialog_items=True)     # the films that people talk about
  c.cf.update(dialogs=5, alpha=10.0)
  c.tasks.dialogs = "synthetic,redial:data/redial"
  c.tasks.mixture.update(dict.fromkeys(c.tasks.mixture, 0.0) | {
      "next_item": 1.0, "conv_next": 1.0, "conv_critique": 0.5, "redial_recommend": 4.0})
  c.qformer.num_queries = 1
  c.phase1.update(steps=60, warmup=6)
  c.phase2.update(compare=(), steps=400, warmup=30, learning_rate=3e-3, qformer_scale=0.3,
                  dropout=0.1, vector_noise=0.2, checkpoint_every=100)
  # The weight of the factorisation's scores was chosen on validation dialogs kept from training.
  c.phase2.head.update(rows=6, rows_per_group=6, examples_per_group=15, factors=2.0)
  return c
