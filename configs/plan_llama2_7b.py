"""Plan of phase 2 through a frozen decoder of Llama 2 7B's shape, 512-token prompts. No weights.

    python -m ilm_jax.main --config=configs/plan_llama2_7b.py --workdir=runs/plan_7b --stage=plan \\
        --topology=v5p:4x4x4

This config, with 16 rows a chip: fits, 36.25 GiB of 95 a chip (12.67 weights and entity table, .18
optimizer, 23.36 temporaries); 1.429e16 FLOPs compiled for 1.405e16 useful ones (1.018). At
published peaks the matmuls take .487 s, memory .176 s, collectives .001 s: .487 s at least, a
useful utilisation of .98. By XLA's own model, which overlaps nothing, .705 s and .678. With
--config.mesh.data=16 --config.mesh.fsdp=4 --config.phase2.rows=2048: 50.27 GiB, 1.381 s by XLA's
model and .693 (.993 s and .963 at published peaks, with collectives of .020 s that overlap with
nothing). With 60 rows a chip (--config.phase2.rows=3840): 90.70 GiB, 2.547 s and .704; 64 rows do
not fit. Without the attention kernel (--config.lm.attention=plain): .769 s and .622, memory .249 s
for 6.9e11 bytes instead of 4.9e11. A search (--search) in the paper's form, before the kernel: 16 x
4 with 2,048 rows was 1.05 times as fast as plain FSDP; 32 x 2 and 64 x 1 were slower by 1 and 2.5
percent.
XLA's model adds the time of a matmul's bytes to that of its FLOPs, and reads the weights once for
any number of rows.
"""
import ml_collections

from ilm_jax.configs import base


def get_config() -> ml_collections.ConfigDict:
  c = base.get_config()
  c.lm.update(shape="llama-2-7b", dtype="bfloat16", remat="weights")
  c.mesh.update(data=64)
  c.phase2.update(rows=1024, length=512, slots=24, targets=64, rows_per_group=4,
                  examples_per_group=16)
  return c
