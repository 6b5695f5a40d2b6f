"""Amazon Beauty (2014): can words and phase 1 rank products without training interactions?

    python -m ilm_jax.main --config=configs/beauty_cold.py --workdir=runs/beauty_cold --stage=all \\
        --config.data.path=folder/with/reviews_Beauty_5.json.gz

A tenth of the 12,101 products, drawn at random, is cold, alternately for validation and test. As in
configs/ml100k_cold.py half of the products are read by their words alone in training, and stage
eval ranks among the cold products and among all: tables `cold` (test) and `cold_validation`. There
are nine times as many cold items as there, so differences between models can be told from chance.

Expect (docs/results/cold_items.md): HR@10 among the cold products on test .21 with ILM
and ILM-rand, .20 with the MLP projector, .12 by text neighbours; two hours of one core.
"""
import ml_collections

from ilm_jax.configs import beauty_head


def get_config() -> ml_collections.ConfigDict:
  c = beauty_head.get_config()
  c.data.split = "cold_drawn"
  c.vectors = ("behavioral", "semantic")
  c.cf.sequential = "transitions"
  c.qformer.vector_dropout = 0.5
  c.phase2.vector_dropout = 0.5
  c.phase2.update(steps=300, warmup=30, learning_rate=1e-3, compare=("rand", "mlp"))
  c.eval.baselines = ("popularity",)
  return c
