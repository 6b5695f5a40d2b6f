"""Every stage once, for tests: the numbers mean nothing. Expect: under a minute.

    python -m ilm_jax.main --config=configs/tiny.py --workdir=runs/tiny --stage=all
"""
import ml_collections

from ilm_jax.configs import base


def get_config() -> ml_collections.ConfigDict:
  c = base.get_config()
  c.cf.update(width=8, iterations=2)
  # Random weights: MiniLM's are a hundred times as many, which every checkpoint would hold.
  c.qformer.update(init="", num_layers=2, width=64, num_heads=4, mlp_width=128, proj_width=64,
                   num_queries=2, max_text=16)
  c.tasks.max_train_examples = 40
  c.phase1.update(steps=4, batch_size=4, pair_batch_size=4, warmup=1, checkpoint_every=2,
                  log_every=2)
  c.phase2.compare = ("rand", "mlp", "blind")
  c.phase2.update(steps=2, rows=2, length=192, slots=24, targets=48, examples_per_group=2,
                  rows_per_group=2, warmup=1, checkpoint_every=1, log_every=1,
                  qformer_scale=0.5, mlp_scale=0.5)
  c.phase2.head.update(weight=1.0, factors=0.5)
  c.tasks.update(prompt_targets=2)
  c.eval.update(users=2, beam_users=2, exact_users=0, bootstrap=20, loss_examples=4,
                consistency_examples=2, generations=2, batch_size=2)
  return c
