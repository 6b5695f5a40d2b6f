"""Baselines without language, scored for the users and histories for which ILM ranks."""
import numpy as np

from ilm_jax.baselines import bpr, ease, neighbours, popularity, sasrec
from ilm_jax.data import interactions as interactions_lib
from ilm_jax.stages import context, vectors


def scores(run: context.Run, user_U):
  """Yields (name, float32 [U, I + 1] scores) of each method in `eval.baselines`.

  All learn from training interactions; those that read a history read all of it before the test
  target.

  Args:
    run: the run.
    user_U: users, numbered from 0.
  """
  interactions = run.data.log
  learned = interactions_lib.train_histories(interactions)
  histories = [interactions.before_target(user) for user in user_U]
  for name in run.config.eval.baselines:
    yield NAMES[name], _scores(run, name, user_U, learned, histories)


def _scores(run: context.Run, name: str, user_U, learned: list, histories: list) -> np.ndarray:
  items = run.data.log.num_items
  if name == "popularity":
    count_I = popularity.popularity(learned, items)
    return np.broadcast_to(count_I, (len(user_U), len(count_I)))
  if name == "ials":
    user_UC, item_I1C = vectors.factors(run)
    return popularity.factors(user_UC[user_U], item_I1C)
  if name == "bpr":
    user_UC, item_I1C = bpr.bpr(learned, items, run.config.cf.width, seed=run.config.seed)
    return popularity.factors(user_UC[user_U], item_I1C)
  if name == "item_knn":
    return neighbours.item_knn(learned, items, histories)
  if name == "transition":
    return neighbours.transition(learned, items, histories)
  if name == "ease":
    return ease.ease(learned, items, histories)
  config = sasrec.Config(**SASREC[name], seed=run.config.seed)
  params = sasrec.train(learned, items, config,
                        interactions_lib.validation_targets(run.data.log))
  return np.concatenate(list(sasrec.scores(params, config, histories)))


NAMES = {"popularity": "popularity", "ials": "iALS (the vectors themselves)", "bpr": "BPR-MF",
          "item_knn": "item-kNN", "transition": "transition graph",
          "sasrec_full": "SASRec, full softmax", "sasrec_sampled": "SASRec, sampled softmax",
          "sasrec_bce": "SASRec, binary loss", "sasrec_gbce": "gSASRec", "esasrec": "eSASRec",
          "ease": "EASE^R"}
SASREC: dict[str, dict] = {
    "sasrec_full": {"loss": "full"}, "sasrec_sampled": {"loss": "sampled"},
    "sasrec_bce": {"loss": "bce"}, "sasrec_gbce": {"loss": "gbce"},
    "esasrec": {"block": "ligr", "loss": "sampled"}}
