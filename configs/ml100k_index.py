"""MovieLens-100K ranked by the index words that the frozen SmolLM2-135M predicts, and by the head.

    python -m ilm_jax.main --config=configs/ml100k_index.py --workdir=runs/ml100k_index --stage=all

An item's index is two added words: one for its cluster (OpenP5's spectral clusters of training
co-occurrence) and one for the item itself. Only these words can be predicted, and only they and the
projector are trained; the language model keeps two frozen layers. Histories are soft tokens. After
each of them the next item is predicted, in a branch that nothing else attends to, so a row of 25
items has 25 targets. The head reads the same rows. docs/results/ranking.md has measurements with
words only and the MLP projector; this config has not been measured as a whole.
"""
import ml_collections

from ilm_jax.configs import ml100k_head


def get_config() -> ml_collections.ConfigDict:
  c = ml100k_head.get_config()
  # 40 clusters of at most 100 items, and a word for each of the 1,349 items.
  c.lm.update(train="index_tokens", new_tokens=1389, index_only=True, layers=2)
  c.tasks.update(index="collaborative", index_words=True, index_apart=True, index_clusters=40,
                 index_size=100, history=25)
  c.phase2.update(compare=("mlp",), rows=16, length=64, slots=26, targets=52,
                  examples_per_group=17, rows_per_group=16)
  c.phase2.head.update(rows=0, layer=-1)
  # 943 users by beams and exactly: a minute each, for the words of clusters are 40.
  c.eval.update(beam_users=943, exact_users=943, rank_compared=True)
  return c
