"""OpenP5 itself on MovieLens-100K: no vectors, a T5 trained whole to say item ids.

    python tests/random_lm.py openp5 runs/openp5_lm
    python -m ilm_jax.main --config=configs/openp5_ml100k.py --workdir=runs/openp5 --stage=all

The small T5 starts from nothing: OpenP5 starts from t5-small, which is a path as any other
(--config.lm.asset=, --config.lm.tokenizer=). --config.tasks.index= "random" and "sequential" are
OpenP5-R and -S; "collaborative" is -C.
"""
import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
  c = base.get_config()
  c.lm.update(asset="runs/openp5_lm", tokenizer="smollm2-135m-instruct", train="all",
              new_tokens=128)
  c.tasks.update(entities="names", index="collaborative", index_words=True, index_size=100,
                 history=20)
  c.tasks.mixture.update(dict.fromkeys(c.tasks.mixture, 0.0)
                         | {"sequential": 1.0, "straightforward": 1.0})
  # Nothing goes through it: as small as can be.
  c.qformer.update(init="", num_layers=1, width=16, num_heads=2, mlp_width=16, proj_width=16,
                   num_queries=1)
  c.phase2.update(compare=(), steps=1000, rows=16, length=256, slots=1, targets=48,
                  examples_per_group=64, rows_per_group=16, warmup=50, learning_rate=2e-3,
                  log_every=50)
  c.eval.update(exact_users=0, loss_examples=500, prompt_users=0)
  return c
