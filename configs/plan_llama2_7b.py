"""Plan of phase 2 through a frozen decoder of Llama 2 7B's shape, 512-token prompts. No weights.

    python -m ilm_jax.main --config=configs/plan_llama2_7b.py --workdir=runs/plan_7b --stage=plan \\
        --topology=v5p:4x4x4

Found: fits, 18.95 GiB of 95 a chip (12.62 weights and entity table, .10 optimizer, 6.20
temporaries); 3.557e15 FLOPs compiled for 3.406e15 useful ones; by XLA's model .213 s a step, useful
utilisation .545 (at published peaks .121 s at least). Four minutes of CPU time. Since then logits
that need one turn are computed once, which the figures do not have yet.
"""
import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
  c = base.get_config()
  c.lm.update(shape="llama-2-7b", dtype="bfloat16", remat="weights")
  c.mesh.update(data=64)
  c.phase2.update(rows=1024, length=512, slots=24, targets=64, rows_per_group=4,
                  examples_per_group=16)
  return c
