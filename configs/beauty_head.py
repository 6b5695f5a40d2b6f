"""Amazon Beauty (2014) ranked by the item head, through two layers of the frozen SmolLM2-135M.

    python -m ilm_jax.main --config=configs/beauty_head.py --workdir=runs/beauty_head --stage=all \\
        --config.data.path=folder/with/reviews_Beauty_5.json.gz

As configs/ml100k_head.py, but most histories are short and most products rare: half of the 12,101
have at most seven training interactions. So a product has three vectors: from collaborative
filtering, from its words, and from a SASRec that stage cf trains. Each step draws 2,048 products
as negatives.

Expect (docs/results/beauty.md, where each model is trained separately): test HR@10 .083 with seed
0, level with the MLP projector and about level with SASRec, after 90 minutes of one core. With more
noise (--config.phase2.vector_noise=0.6 --config.phase2.dropout=0.3) ILM and the MLP projector have
.087 over three seeds, their own SASRecs .0835. ILM had a gate before the Q-Former there, which is
gone. This config has not been run as a whole.
"""
import ml_collections

from ilm_jax.configs import ml100k_head


def get_config() -> ml_collections.ConfigDict:
  c = ml100k_head.get_config()
  c.data.update(name="amazon-2014-beauty", path="data/beauty")
  c.vectors = ("behavioral", "semantic", "sequential")
  c.cf.sequential = "sasrec"
  c.cf.sasrec.update(length=20, dropout=0.4, batch_size=128, learning_rate=2e-3, epochs=30,
                     evaluate_every=3, patience=2)
  c.tasks.update(history=20, draws=1, max_train_examples=0, prompt_targets=1)
  c.phase1.update(negatives=2048)
  c.phase2.update(compare=(), steps=800, warmup=50, log_every=20)
  c.phase2.head.update(rows=32, negatives=2048, slots=32, examples_per_group=60)
  c.eval.update(consistency_examples=1, baselines=("popularity", "ials", "transition"))
  return c
