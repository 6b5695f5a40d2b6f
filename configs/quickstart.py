"""The whole path on real data, small enough for two CPU cores. Expect: under 15 minutes.

    python -m ilm_jax.main --config=configs/quickstart.py --workdir=runs/quickstart --stage=all
"""
import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
  c = base.get_config()
  c.tasks.max_train_examples = 4000
  c.phase1.update(steps=300, batch_size=32, pair_batch_size=32, warmup=30, checkpoint_every=100,
                  log_every=10)
  c.phase2.update(steps=100, rows=4, warmup=10, checkpoint_every=50, log_every=5)
  c.eval.update(beam_users=40, exact_users=2, loss_examples=60, consistency_examples=20)
  return c
