"""Plan of phase 1 at a global batch of 8,192 items with their texts.

    python -m ilm_jax.main --config=configs/plan_phase1.py --workdir=runs/plan_1 --stage=plan \\
        --topology=v5e:4x4

Found for v5e: without qformer.remat 25.72 GiB a chip of 15.75 (with threefry): too many; with it
it fits: 6.30 GiB of temporaries and .35 of arguments. That program took 40 minutes of CPU time to
compile (before the generation loss took fewer turns); a plan compiles two more for the time of a
step, which were not awaited. What the losses send: benchmarks/phase1_bytes.py (ITC 36.2 MB a chip,
24.4 with a reduce-scatter, beside the least of 23.6).
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
