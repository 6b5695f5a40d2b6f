"""ELM's 24 tasks and user profiles on MovieLens-100K. Expect: hours on a GPU; not yet measured.

    python -m ilm_jax.main --config=configs/elm_ml100k.py --workdir=runs/elm --stage=all

The teacher is the language model itself, SmolLM2-135M-Instruct, which writes poor targets; a better
one is --config.targets.teacher=endpoint --config.targets.endpoint=http://localhost:8000/v1
--config.targets.model=NAME. configs/elm_ml100k_small.py has the results of a small version.
"""
import ml_collections

from ilm_jax import elm
from ilm_jax.configs import base


def get_config() -> ml_collections.ConfigDict:
  c = base.get_config()
  c.tasks.mixture.update(sequential=0.0, straightforward=0.0, elm_title=1.0, elm_genres=1.0,
                         elm_year=1.0, **dict.fromkeys(elm.WRITTEN, 1.0))
  c.targets.update(batch_size=64, max_heldout=100, temperature=0.7, top_p=0.9)
  c.vectors = ("behavioral", "semantic")
  # The vectors contain the texts' meaning: texts need no dropout, and temperatures can be low.
  c.qformer.update(text_dropout=0.0, temperature=0.07, min_temperature=0.02, vector_noise=0.1)
  c.phase1.losses.update(itm=0.0, itg=0.0, ii=0.0, ui=0.25)
  c.phase1.learning_rate = 3e-4
  # The projection learns at 1e-2, the Q-Former at 1e-4: at 1e-3 its outputs lost the vectors. MLPs
  # learn at 1e-3: at 1e-2 the one in ILM made soft tokens a thousand times the size of words, and
  # the Q-Former's part of them 3 % (docs/results/queries.md).
  c.phase2.update(learning_rate=1e-2, qformer_scale=0.01, mlp_scale=0.1, spread=True)
  c.phase2.update(steps=3000, rows=16, length=256, slots=12, targets=240, examples_per_group=4,
                  rows_per_group=2)
  c.phase2.compare = ("rand", "mlp", "blind")
  c.eval.update(exact_users=0, loss_examples=0, consistency_examples=100, compared_examples=100,
                interpolations=100,
                references=("title", "shuffled", "shuffled_mlp"))
  return c
