"""Plan of phase 1 at a global batch of 8,192 items with their texts.

    python -m ilm_jax.main --config=configs/plan_phase1.py --workdir=runs/plan_1 --stage=plan \\
        --topology=v5e:4x4

With --config.qformer.cross_init=bert --config.qformer.cross_every=2
--config.qformer.cross_reads=all we found, in three compilations (27 minutes of one core): fits,
6.69 GiB of 16 a chip (.12 weights and entity table, .23 optimizer, 6.15 temporaries); 1.320e14
FLOPs compiled for 9.392e13 useful ones (1.406: remat). By roofline .442 s a step: matmuls .042 s,
collectives .023 s, memory .419 s. For memory XLA counts every byte, also of data that stays on the
chip, so .442 s is too high and the useful utilisation of .067 too low. The collectives' .023 s
(2.26 GB a chip) may be too high, too: each part of an asynchronous one was counted as a whole one,
which is mended, but this was not planned again. Without qformer.remat (and with threefry) it needed
25.72 GiB. benchmarks/phase1_bytes.py counts what each loss sends before that compiler (ITC 36.2 MB,
24.4 with a reduce-scatter; the least is 23.6). These useful FLOPs do not include attention's
products and similarities, counted now.
"""
import ml_collections

from ilm_jax.configs import base


def get_config() -> ml_collections.ConfigDict:
  c = base.get_config()
  c.plan.phase = 1
  c.prng = "unsafe_rbg"        # kernels that draw threefry's masks take minutes to compile
  c.mesh.update(data=16)
  c.qformer.remat = True       # without it the step does not fit
  c.phase1.update(batch_size=8192, pair_batch_size=8192)
  c.phase2.rows = 16
  return c
