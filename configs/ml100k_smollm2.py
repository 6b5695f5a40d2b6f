"""MovieLens-100K and SmolLM2-135M in full: every user ranked, every example used.

Expect: some 10 hours on two CPU cores, most of it phase 2 and the ranking by beam.

    python -m ilm_jax.main --config=configs/ml100k_smollm2.py --workdir=runs/ml100k --stage=all
"""
import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
  return base.get_config()
