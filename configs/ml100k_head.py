"""MovieLens-100K ranked by the item head, through two layers of the frozen SmolLM2-135M.

    python -m ilm_jax.main --config=configs/ml100k_head.py --workdir=runs/ml100k_head --stage=all

No words are predicted: a batch is 16 rows of histories, which only the head reads; the projector
reads the catalogue once a step. Phase 1 distils the scores of collaborative filtering. For the
paper's form add --gin_file=configs/gin/paper_form.gin.

Expect, with --config.phase2.head.distil=1.0 (docs/results/ml100k_projectors.md, where each model
is trained separately): test HR@10 .218 +- .004 over four seeds, level with the MLP projector's
.217; the transition graph has .173; distil_transitions and distil_ease add .010 on validation, and
nothing on test. This config has not been run as a whole.
"""
import ml_collections

from ilm_jax.configs import base


def get_config() -> ml_collections.ConfigDict:
  c = base.get_config()
  c.tasks.update(history=50, draws=4, max_train_examples=20000, prompt_targets=100)
  c.tasks.mixture.update(dict.fromkeys(c.tasks.mixture, 0.0) | {"next_item": 1.0})
  # One soft token an item: a history of 50 fits a row of 64.
  c.qformer.update(num_layers=2, num_queries=1, temperature=0.1, min_temperature=0.03,
                   vector_noise=0.2, dropout=0.1, user_projection=True)
  c.phase1.losses.update(itc=0.5, itm=0.0, itg=0.0, ii=0.5, ui=0.0, cf=1.0, rec=0.2)
  c.phase1.update(steps=200, warmup=20, learning_rate=1e-3, candidates="catalogue",
                  pair_batch_size=256, label_smoothing=0.0)
  c.phase2.update(compare=("rand", "mlp"), steps=400, warmup=30, learning_rate=3e-3,
                  qformer_scale=0.3, checkpoint_every=100, log_every=10, dropout=0.1,
                  vector_noise=0.2)
  c.phase2.head.update(weight=1.0, rows=16, layer=2, length=64, slots=52, examples_per_group=19,
                       rows_per_group=16)
  c.eval.update(beam_users=0, exact_users=0, batch_size=64, baselines=(
      "popularity", "ials", "item_knn", "transition", "bpr", "sasrec_full", "sasrec_sampled",
      "sasrec_bce"))
  return c
