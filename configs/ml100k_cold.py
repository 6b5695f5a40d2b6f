"""MovieLens-100K: can text and phase 1 rank films without training ratings?

    python -m ilm_jax.main --config=configs/ml100k_cold.py --workdir=runs/ml100k_cold --stage=all

The last tenth of the films by first appearance, 135 of 1,349, are cold, alternately for validation
(68) and test (67); 586 and 451 users have a target. In training half of the films are read by their
text alone, so that text learns to rank. Phase 1 distils the scores of collaborative filtering, into
text as well. Rows only rank, as in configs/ml100k_head.py. Stage eval ranks among the cold films
and among all: tables `cold` (test) and `cold_validation` (to choose settings).

Expect (docs/results/cold_items.md, the Q-Former alone): HR@10 among the cold films on test ILM .24,
ILM-rand .20, MLP .22, text neighbours .25, on validation .24, .27, .29, .16. The films are too few
to say which method is better.
"""
import ml_collections

from ilm_jax.configs import ml100k_head


def get_config() -> ml_collections.ConfigDict:
  c = ml100k_head.get_config()
  c.data.split = "cold_items"
  c.vectors = ("behavioral", "semantic")
  c.qformer.vector_dropout = 0.5
  c.phase2.vector_dropout = 0.5
  c.phase2.update(steps=300, warmup=30)
  c.eval.baselines = ("popularity",)
  return c
