"""Plan of phase 2 through a frozen decoder of Gemma 3 4B's shape, 512-token prompts. No weights.

    python -m ilm_jax.main --config=configs/plan_gemma3_4b.py --workdir=runs/plan_4b --stage=plan \\
        --topology=v5e:4x4

This config, with 4 rows a chip: fits, 9.34 GiB of 16 a chip (1.85 weights and entity table, .08
optimizer, 7.37 temporaries); 4.542e14 FLOPs compiled for 4.461e14 useful ones (1.018). At published
peaks the matmuls take .144 s, memory .241 s (for all bytes that XLA counts) and the collectives
.108 s, of which .026 s run beside no computation (all-gathers of weights send 1.07e10 bytes a
chip). So .267 s a step: a useful utilisation of .529; .349 s and .405 if no collective overlapped.
Without the attention kernel (--config.lm.attention=plain): memory .278 s, .487.
"""
import ml_collections

from ilm_jax.configs import base


def get_config() -> ml_collections.ConfigDict:
  c = base.get_config()
  c.lm.update(shape="gemma-3-4b", dtype="bfloat16", remat="weights")
  c.mesh.update(data=4, fsdp=4)
  c.phase2.update(rows=64, length=512, slots=24, targets=64, rows_per_group=4,
                  examples_per_group=16)
  return c
