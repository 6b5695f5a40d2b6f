"""The whole path on real data, small enough for two CPU cores. Expect: under 15 minutes,
and the figures in README.md.

    python -m ilm_jax.main --config=configs/quickstart.py --workdir=runs/quickstart --stage=all
"""
import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
  c = base.get_config()
  c.tasks.max_train_examples = 4000
  c.qformer.num_layers = 2         # the first two of MiniLM's six: a third of the time
  c.qformer.update(temperature=0.1, min_temperature=0.1)  # 200 steps want larger gradients
  # Without the losses that cost most: what is left aligns vectors with text and behaviour.
  c.phase1.losses.update(itm=0.0, itg=0.0, ii=0.0)
  c.phase1.update(steps=200, warmup=20, learning_rate=1e-3, checkpoint_every=100, log_every=10)
  # Tokens are dear: more of the short tasks, and no noise in so few steps.
  c.tasks.mixture.update(sequential=2.0, elm_genres=2.0, elm_year=2.0)
  c.phase2.update(steps=80, rows=4, length=128, slots=28, targets=40, examples_per_group=12,
                  rows_per_group=4, warmup=8, checkpoint_every=40, log_every=4, dropout=0.0,
                  vector_noise=0.0)
  # 80 steps are too few to learn to tell entities apart, and enough for a Q-Former to forget them.
  c.phase2.update(spread=True, learning_rate=1e-2, qformer_scale=0.01)
  c.eval.update(users=64, beam_users=64, exact_users=1, loss_examples=48, consistency_examples=32,
                batch_size=8)
  return c
