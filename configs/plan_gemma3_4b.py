"""Plan of phase 2 through a frozen decoder of Gemma 3 4B's shape, 512-token prompts. No weights.

    python -m ilm_jax.main --config=configs/plan_gemma3_4b.py --workdir=runs/plan_4b --stage=plan \\
        --topology=v5e:4x4

In the paper's form (--gin_file=configs/gin/paper_form.gin) we found, with 4 rows a chip: fits, 9.35
GiB of 16 a chip (1.82 weights and entity table, .03 optimizer, 7.45 temporaries); 4.474e14 FLOPs
compiled for 4.320e14 useful ones (1.036). At published peaks the matmuls take .142 s, memory .287 s
and the collectives .433 s (all-gathers of weights send 4.3e10 bytes a chip), so .433 to .719 s a
step: a useful utilisation of .191 if no collective is hidden, .32 if all are. With few rows a chip,
the weights are still gathered just as often.
These useful FLOPs do not include attention's products, which are counted now.
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
