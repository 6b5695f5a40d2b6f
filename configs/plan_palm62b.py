"""Plan of phase 2 through a frozen decoder of PaLM 62B's shape, 512-token prompts. No weights.

    python -m ilm_jax.main --config=configs/plan_palm62b.py --workdir=runs/plan_62b --stage=plan \\
        --topology=v5p:8x8x8

In the paper's form (--gin_file=configs/gin/paper_form.gin) we found, with 8 rows a chip: fits,
63.90 GiB of 95 a chip (14.59 weights and entity table, .03 optimizer, 49.24 temporaries); 5.193e17
FLOPs compiled for 5.089e17 useful ones (1.021); all-gathers of weights send 2.62e11 bytes a chip;
by XLA's model 2.915 s a step, useful utilisation .743 (at published peaks 2.210 s at least, 3.084 s
if no collective is hidden).
These useful FLOPs do not include attention's products, which are counted now.
"""
import ml_collections

from ilm_jax.configs import base


def get_config() -> ml_collections.ConfigDict:
  c = base.get_config()
  c.lm.update(shape="palm-62b", dtype="bfloat16", remat="weights")
  c.mesh.update(data=64, fsdp=8)
  c.phase1.update(batch_size=512, pair_batch_size=512)     # the mesh must divide them, too
  c.phase2.update(rows=4096, length=512, slots=24, targets=64, rows_per_group=4,
                  examples_per_group=16)
  return c
