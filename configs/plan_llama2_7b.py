"""Plan of phase 2 through a frozen decoder of Llama 2 7B's shape, 512-token prompts. No weights.

    python -m ilm_jax.main --config=configs/plan_llama2_7b.py --workdir=runs/plan_7b --stage=plan \\
        --topology=v5p:4x4x4

In the paper's form (--gin_file=configs/gin/paper_form.gin) we found, with 16 rows a chip: fits,
37.19 GiB of 95 a chip (12.62 weights and entity table, .10 optimizer, 24.42 temporaries); 1.423e16
FLOPs compiled for 1.362e16 useful ones (1.044); by XLA's model .7505 s a step, useful utilisation
.618 (at published peaks .484 s at least). Plain FSDP (--config.mesh.data=1 --config.mesh.fsdp=64):
.605, 24.98 GiB, .7665 s. With --search (31 CPU minutes), data x fsdp, ms a row and useful
utilisation: 16 x 4 with 2,048 rows .714, .634 (52.50 GiB), 1.05 times as fast as plain FSDP; 32 x 2
with 2,048 rows .721, .628; 64 x 1 with 2,048 rows .732, .618, as with the 1,024 of the config. With
4 rows a chip (--config.phase2.rows=256), planned before a change to the head: .545, 18.95 GiB.
XLA's model adds the time of a matmul's bytes to that of its FLOPs, and reads the weights once for
any number of rows.
These useful FLOPs do not include attention's products, which are counted now: 1.405e16.
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
