"""MovieLens-100K and SmolLM2-135M in full: every user ranked, every example used.

    python -m ilm_jax.main --config=configs/ml100k_smollm2.py --workdir=runs/ml100k --stage=all

Phase 1, measured on two CPU cores beside other work: 250 steps in 14 minutes. Retrieval of the 274
held-out items from `behavioral` vectors alone, R@10 with 95 % intervals (--stage=eval, report):

                     item to text          text to item
  among all 1,349
    Q-Former         .186 [.142, .230]     .252 [.204, .299]
    ridge (floor)    .164 [.120, .212]     .274 [.226, .325]     chance .007
  among the 274
    Q-Former         .515 [.456, .573]     .555 [.500, .613]
    ridge (floor)    .467 [.409, .526]     .573 [.518, .631]     chance .036

So after 250 steps the floor is passed from item to text, within its interval, and not from text to
item; matching (itm) had not begun to learn. Phase 2 has not been run with this config: at the
quickstart's rate its 2,000 steps are expected to take some 3 hours, and as many for ILM-rand.
"""
import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
  return base.get_config()
