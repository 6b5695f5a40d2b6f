"""MovieLens-1M ranked by the item head, through two layers of the frozen SmolLM2-135M.

    python -m ilm_jax.main --config=configs/ml1m_head.py --workdir=runs/ml1m_head --stage=all \\
        --config.data.path=folder/with/ml-1m

As configs/ml100k_head.py, with histories of 200, as published sequential recommenders read.
Expect (docs/results/ml1m.md): with seed 1 and bfloat16 test HR@10 .288, level with the MLP
projector (.289; phase2.compare=('mlp',) trains it) and with SASRec (.286), after an hour and a half
of one core; in float32 two hours. Transition graph .230, iALS .088.
"""
import ml_collections

from ilm_jax.configs import ml100k_head


def get_config() -> ml_collections.ConfigDict:
  c = ml100k_head.get_config()
  c.data.update(name="ml-1m", path="data/ml-1m")
  c.tasks.update(history=200, draws=1, max_train_examples=60000, prompt_targets=1)
  c.phase2.update(compare=(), steps=2000, warmup=100, checkpoint_every=100)
  c.phase2.head.update(length=216, slots=204, examples_per_group=18, rows_per_group=16)
  c.eval.update(consistency_examples=1, baselines=("popularity", "ials", "transition", "ease"))
  return c
