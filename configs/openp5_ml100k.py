"""OpenP5 itself on MovieLens-100K: no vectors, a T5 trained whole to say item ids.

    python tests/random_lm.py openp5 runs/openp5_lm
    python -m ilm_jax.main --config=configs/openp5_ml100k.py --workdir=runs/openp5 --stage=all

Next item of all 943 users among 1,349, leave-one-out, seen items filtered, seed 0, 1,000 steps (28
minutes on one busy CPU core), beam of 20 over the collaborative index:

                                  HR@5  NDCG@5  HR@10  95 %          NDCG@10
  OpenP5-C, small T5 from scratch .0551  .0345  .0901  [.072, .109]    .0460
  OpenP5-C, as published          .0530  .0331  .1006                  .0481
  popularity                      .0583  .0363  .0870  [.069, .105]    .0452

The ten best by beam search compared with exact scoring, 100 users (`python -m
benchmarks.agreement --config=configs/openp5_ml100k.py --workdir=runs/openp5 --users=100`): a beam
of 10 finds .590 of them and always the first; beams of 20 and 50 find all, in order.

The small T5 has random weights. OpenP5 starts from t5-small: give its path
(--config.lm.asset=, --config.lm.tokenizer=). --config.tasks.index= "random" and "sequential" are
OpenP5-R and -S; "collaborative" is -C.
"""
import ml_collections

from ilm_jax.configs import base


def get_config() -> ml_collections.ConfigDict:
  c = base.get_config()
  c.lm.update(asset="runs/openp5_lm", tokenizer="smollm2-135m-instruct", train="all",
              new_tokens=128)
  c.tasks.update(entities="names", index="collaborative", index_words=True, index_size=100,
                 history=20)
  c.tasks.mixture.update(dict.fromkeys(c.tasks.mixture, 0.0)
                         | {"sequential": 1.0, "straightforward": 1.0})
  # Neither Q-Former nor MLP is used: as small as possible.
  c.qformer.update(init="", num_layers=1, width=16, num_heads=2, mlp_width=16, proj_width=16,
                   num_queries=1)
  c.phase2.update(compare=(), steps=1000, rows=16, length=256, slots=1, targets=48,
                  examples_per_group=64, rows_per_group=16, warmup=50, learning_rate=2e-3,
                  log_every=50, skip=False)
  c.eval.update(exact_users=0, loss_examples=500, prompt_users=0)
  return c
