"""The whole path on real data, small enough for two CPU cores. Expect: about twelve minutes, and
the figures in docs/results/quickstart.md.

    python -m ilm_jax.main --config=configs/quickstart.py --workdir=runs/quickstart --stage=all

One model learns two things at once. Rows with a history rank through the first two layers of the
frozen language model; rows about one film predict its title, genres and year through all thirty.
"""
import ml_collections

from ilm_jax.configs import base


def get_config() -> ml_collections.ConfigDict:
  c = base.get_config()
  c.tasks.update(history=50, draws=2, max_train_examples=5000, prompt_targets=1)
  c.tasks.mixture.update(sequential=0.0, straightforward=0.0, next_item=1.0, elm_title=1.0,
                         elm_genres=2.0, elm_year=1.0)
  # The first two of MiniLM's six layers take a third of the time. Two soft tokens describe an item;
  # histories show only the first of them.
  c.qformer.update(num_layers=2, num_queries=2, user_projection=True)
  c.qformer.update(temperature=0.1, min_temperature=0.05)  # few steps want larger gradients
  # Without the losses that cost most. The others align vectors with text, reconstruct the vectors,
  # and distil the scores of collaborative filtering.
  c.phase1.losses.update(itm=0.0, itg=0.0, ii=0.0, ui=0.0, cf=0.5, rec=0.2)
  c.phase1.update(steps=120, warmup=12, learning_rate=1e-3, checkpoint_every=60, log_every=10,
                  candidates="catalogue")
  c.phase2.update(steps=90, rows=2, length=96, slots=10, targets=32, examples_per_group=6,
                  rows_per_group=2, warmup=9, checkpoint_every=45, log_every=5, dropout=0.0,
                  vector_noise=0.1, learning_rate=2e-3, qformer_scale=0.5)
  # The weight of the factorisation's scores was chosen on validation targets.
  c.phase2.head.update(weight=1.0, rows=16, layer=2, queries=1, length=64, slots=52,
                       examples_per_group=19, rows_per_group=16, factors=0.3)
  c.eval.update(beam_users=0, exact_users=0, loss_examples=0, consistency_examples=32,
                batch_size=16, baselines=("popularity", "ials", "transition", "sasrec_full"))
  return c
