"""Plan of phase 2 through a frozen decoder of Gemma 3 4B's shape, 512-token prompts. No weights.

    python -m ilm_jax.main --config=configs/plan_gemma3_4b.py --workdir=runs/plan_4b --stage=plan \\
        --topology=v5e:4x4
"""
import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
  c = base.get_config()
  c.lm.update(shape="gemma-3-4b", dtype="bfloat16", remat="weights")
  c.mesh.update(data=4, fsdp=4)
  c.phase2.update(rows=64, length=512, slots=24, targets=64, rows_per_group=4,
                  examples_per_group=16)
  return c
