"""Ranking, texts and conversation in one model, on MovieLens latest-small and SmolLM2-135M.

    python -m ilm_jax.main --config=configs/talk_ml_small.py --workdir=runs/talk --stage=all \\
        --config.data.path=FOLDER      # with ratings.csv and movies.csv of ml-latest-small

On one core of a two-core AMD EPYC with other work, and with ReDial's tasks, phase 1 took half an
hour and a step of phase 2 took 9 s: two hours in all. With ReDial's tasks, fresh R@10 on ReDial's
test dialogs is .051 by the item head alone, level with popularity there (docs/results/redial.md).

The head reads rows of histories and of synthetic dialogs after six layers. Other rows predict
words: about one film, and the recommender's questions, reasons and profiles in dialogs. To learn
from ReDial, too, add --config.tasks.dialogs=synthetic,redial:FOLDER
--config.tasks.mixture.redial_recommend=1.0 --config.tasks.mixture.redial_respond=1.0
"""
import ml_collections

from ilm_jax.configs import quickstart


def get_config() -> ml_collections.ConfigDict:
  c = quickstart.get_config()
  c.data.update(name="ml-latest-small", path="data/ml-latest-small")
  c.dialogs.update(count=2000, turns=4)
  c.tasks.update(history=20, dialogs="synthetic", dialog_tokens=288)
  c.tasks.mixture.update(conv_next=1.0, conv_critique=0.5, conv_explain=0.5, conv_elicit=0.5,
                         conv_profile=0.5)
  c.phase1.update(steps=400, warmup=40, checkpoint_every=100)
  # Dialogs are longer than texts about one film, so rows are longer.
  c.phase2.update(steps=800, rows=2, length=320, slots=40, targets=192, examples_per_group=8,
                  rows_per_group=2, warmup=50, checkpoint_every=200, log_every=10)
  c.phase2.head.update(rows=4, layer=6, length=300, slots=60, examples_per_group=10,
                       rows_per_group=4)
  c.eval.update(loss_examples=200)
  return c
