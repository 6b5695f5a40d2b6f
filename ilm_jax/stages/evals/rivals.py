"""Methods without language, scored for the users and histories on which ILM is ranked."""
import numpy as np

from ilm_jax.baselines import bpr, ease, neighbours, popularity, sasrec
from ilm_jax.data import interactions as interactions_lib
from ilm_jax.evaluation import metrics
from ilm_jax.stages import context, vectors


def ranks(run: context.Run, user_U, target_U, blocked_UI) -> dict[str, np.ndarray]:
  """float64 [U] rank of each target, by the name of each method in `eval.baselines`.

  All learn from training interactions; those that read a history read all before the test target.

  Args:
    run: the run.
    user_U: users, numbered from 0.
    target_U: item rows.
    blocked_UI: bool [U, I + 1], item rows left out.
  """
  return {NAMES[name]: metrics.ranks_from_scores(scores, target_U, blocked_UI)
          for name, scores in _scores(run, user_U)}


def _scores(run: context.Run, user_U):
  """Yields (method, float32 [U, I + 1])."""
  interactions = run.data.log
  items = interactions.num_items
  learned = interactions_lib.train_histories(interactions)
  histories = [interactions.before_test(user) for user in user_U]
  for name in run.config.eval.baselines:
    if name == "popularity":
      count_I = popularity.popularity(learned, items)
      yield name, np.broadcast_to(count_I, (len(user_U), len(count_I)))
    elif name == "ials":
      user_UC, item_I1C = vectors.factors(run)
      yield name, popularity.factors(user_UC[user_U], item_I1C)
    elif name == "bpr":
      user_UC, item_I1C = bpr.bpr(learned, items, run.config.cf.width, seed=run.config.seed)
      yield name, popularity.factors(user_UC[user_U], item_I1C)
    elif name == "item_knn":
      yield name, neighbours.item_knn(learned, items, histories)
    elif name == "transition":
      yield name, neighbours.transition(learned, items, histories)
    elif name == "ease":
      yield name, ease.ease(learned, items, histories)
    else:
      config = sasrec.Config(**SASREC[name], seed=run.config.seed)
      params = sasrec.train(learned, items, config, validation(interactions))
      yield name, np.concatenate(list(sasrec.scores(params, config, histories)))


NAMES = {"popularity": "popularity", "ials": "iALS (the vectors themselves)", "bpr": "BPR-MF",
          "item_knn": "item-kNN", "transition": "transition graph",
          "sasrec_full": "SASRec, full softmax", "sasrec_sampled": "SASRec, sampled softmax",
          "sasrec_bce": "SASRec, binary loss", "sasrec_gbce": "gSASRec", "esasrec": "eSASRec",
          "ease": "EASE^R"}
SASREC = {"sasrec_full": {"loss": "full"}, "sasrec_sampled": {"loss": "sampled"},
           "sasrec_bce": {"loss": "bce"}, "sasrec_gbce": {"loss": "gbce"},
           "esasrec": {"block": "ligr", "loss": "sampled"}}


def validation(interactions) -> np.ndarray:
  """int [users] item row of each user's validation target; 0: none."""
  target_U = np.zeros(interactions.num_users, np.int64)
  valid_N = interactions.split.valid
  target_U[interactions.user_N[valid_N]] = interactions.item_N[valid_N]
  return target_U
