"""Three of ELM's 24 tasks on 280 items of MovieLens-100K: targets, then four models.

Expect, on the test texts of held-out items (docs/results/elm_texts.md): loss in nats a token ILM
1.822, ILM-rand 1.797, MLP projector 1.841. The text comes from the vector: in another run of ILM
(qformer.query_pool="mean") another item's vector costs the written texts .110 nats a token. It took
80 minutes on one core, and 28 more for the tables.

    python -m ilm_jax.main --config=configs/elm_ml100k_small.py --workdir=runs/elm_small --stage=all
"""
import ml_collections

from ilm_jax import elm
from ilm_jax.configs import elm_ml100k


def get_config() -> ml_collections.ConfigDict:
  c = elm_ml100k.get_config()
  c.tasks.mixture.update(dict.fromkeys(elm.WRITTEN, 0.0))
  c.tasks.mixture.update(elm_summary=1.0, elm_positive_review=1.0, elm_to_viewer=1.0)
  c.targets.update(max_items=240, max_heldout=40, max_tokens=64, batch_size=32)
  c.qformer.num_layers = 2
  c.phase1.update(steps=300, warmup=20, checkpoint_every=100, log_every=10)
  c.phase2.update(steps=240, rows=4, length=128, slots=8, targets=112, examples_per_group=6,
                  rows_per_group=4, warmup=20, checkpoint_every=50, log_every=10, dropout=0.0,
                  vector_noise=0.0)
  c.phase2.compare = ("rand", "mlp", "blind")
  c.eval.update(users=16, beam_users=16, loss_examples=40, consistency_examples=40,
                compared_examples=40, interpolations=16, batch_size=16)
  return c
