"""Plan of phase 1 at a global batch of 8,192 items with their texts.

    python -m ilm_jax.main --config=configs/plan_phase1.py --workdir=runs/plan_1 --stage=plan \\
        --topology=v5e:4x4

Found, three compilations in 27 minutes of one core: fits, 6.69 GiB of 16 a chip (.12 weights and
entity table, .23 optimizer, 6.15 temporaries); 1.320e14 FLOPs compiled for 9.392e13 useful ones
(1.406: remat). By roofline .442 s a step: matmuls .042 s, collectives .023 s, memory .419 s, for
which XLA counts every byte, also of what stays on the chip; so .442 s is much, and the useful
utilisation of .067 little. A chip sends 2.26 GB: XLA gathers the queries of pairs piece by piece,
again for every use (at least .99 GB, where .095 would do), the rest is mostly gradients. Without
qformer.remat (and with threefry) it wanted 25.72 GiB. What each loss sends before that compiler:
benchmarks/phase1_bytes.py (ITC 36.2 MB, 24.4 with a reduce-scatter, beside the least of 23.6).
Useful FLOPs are told here without attention's products and similarities, which count now.
"""
import ml_collections

from ilm_jax.configs import base


def get_config() -> ml_collections.ConfigDict:
  c = base.get_config()
  c.plan.phase = 1
  c.prng = "unsafe_rbg"        # kernels that draw threefry's masks take minutes to compile
  c.mesh.update(data=16)
  c.qformer.remat = True       # without it this does not fit
  c.phase1.update(batch_size=8192, pair_batch_size=8192)
  c.phase2.rows = 16
  return c
