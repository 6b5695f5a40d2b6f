"""Plan of phase 1 at a global batch of 8,192 items with their texts.

    python -m ilm_jax.main --config=configs/plan_phase1.py --workdir=runs/plan_1 --stage=plan \\
        --topology=v5e:4x4

Found for v5e without qformer.remat: 25.72 GiB a chip where 15.75 are, so it does not fit. With it
XLA's TPU compiler had not ended after 35 minutes of CPU time; the same step compiled for 16 CPU
devices has temporaries of 11.31 GiB a device with it and 31.69 without (benchmarks/phase1_bytes.py,
which also says what the losses send: ITC 36.2 MB a chip, 24.4 with a
reduce-scatter, beside the least of 23.6).
"""
import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
  c = base.get_config()
  c.plan.phase = 1
  c.prng = "unsafe_rbg"        # kernels that draw threefry's masks take minutes to compile
  c.mesh.update(data=16)
  c.qformer.remat = True       # without it this does not fit
  c.phase1.update(batch_size=8192, pair_batch_size=8192)
  c.phase2.rows = 16
  return c
