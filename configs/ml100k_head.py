"""MovieLens-100K ranked by the item head, through the frozen SmolLM2-135M.

    python -m ilm_jax.main --config=configs/ml100k_head.py --workdir=runs/ml100k_head --stage=all
"""
import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
  c = base.get_config()
  c.tasks.update(history=50, draws=4)
  c.tasks.mixture.update(dict.fromkeys(c.tasks.mixture, 0.0) | {"next_item": 1.0})
  # One soft token an item: a history of 50 fits a row of 88.
  c.qformer.update(num_layers=2, num_queries=1)
  c.phase1.losses.update(itc=0.5, itm=0.0, itg=0.0, ii=0.0, ui=1.0)
  c.phase1.update(steps=200, warmup=20, learning_rate=1e-3, logq=True)
  c.phase2.update(compare=(), steps=300, rows=6, length=88, slots=52, targets=40,
                  examples_per_group=7, rows_per_group=6, warmup=30, checkpoint_every=100,
                  dropout=0.1, vector_noise=0.2, log_every=10)
  c.phase2.spread = True
  c.phase2.head.weight = 4.0
  c.eval.update(beam_users=64, exact_users=0, loss_examples=200, baselines=(
      "popularity", "ials", "item_knn", "transition", "bpr", "sasrec_full", "sasrec_sampled",
      "sasrec_bce"))
  return c
