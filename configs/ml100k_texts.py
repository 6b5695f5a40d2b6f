"""MovieLens-100K: title, genres and year from a film's vector, without ranking.

    python -m ilm_jax.main --config=configs/ml100k_texts.py --workdir=runs/ml100k_texts --stage=all

The quickstart's rows of text, trained longer. A fifth of the films is held out and never
described in training. All texts of these films measure ILM, ILM-rand, the MLP projector, and ILM
with another film's vectors. Expect: not measured; docs/results/ml100k_texts.md has the texts of the
quickstart, and of a longer run of configs/elm_ml100k_small.py.
"""
import ml_collections

from ilm_jax.configs import quickstart


def get_config() -> ml_collections.ConfigDict:
  c = quickstart.get_config()
  c.tasks.mixture.next_item = 0.0
  c.phase1.update(steps=240, warmup=24)
  c.phase2.update(compare=("rand", "mlp"), steps=200, warmup=20, learning_rate=1e-3, rows=8,
                  rows_per_group=8, examples_per_group=25)
  c.phase2.head.update(weight=0.0, rows=0, queries=0, layer=-1)
  c.eval.update(references=("shuffled",), baselines=("popularity",))
  return c
