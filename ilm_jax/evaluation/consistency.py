"""Whether a text means its item and would be liked by the item's users: ELM's two consistencies.

**Semantic consistency**: cosine of the sentence vectors of the answer and of the reference. Our
reading: one greedy answer a prompt, against the teacher's text. The encoder is named beside every
number; other encoders give other numbers.

**Behavioural consistency**: what a text says must predict the behaviour of its item. The text is
mapped to a predicted behavioural vector, and the ranking that follows from it is compared with the
ranking by the item's own vector, by Spearman's rank correlation. So far the paper; how, we have not
found written, and take it so:

  the map      ridge regression from sentence vectors to the iALS factors of items, its
               regularisation chosen on folds; fitted on texts of training items alone (what the
               data set knows of them, and the references of the training splits);
  the ranking  all users by the inner product of their iALS factors with the item's: who would like
               it. Of very many users a seeded share;
  two items    the mean of their factors, for the references tell of both;
  a user       no value: the ranking is over users.
"""
from typing import NamedTuple

import numpy as np

from ilm_jax.evaluation import metrics
from ilm_jax.evaluation import ridge as ridge_lib

USERS = 10_000       # ranked at most


class Behaviour(NamedTuple):
  """The map from sentence vectors to item factors, and the users who are ranked."""
  ridge: ridge_lib.Ridge
  user_UC: np.ndarray

  def consistency(self, text_NP, item_NC) -> np.ndarray:
    """float64 [N] Spearman of the users' rankings by text and by item, -1..1.

    Args:
      text_NP: sentence vectors.
      item_NC: the items' own factors, or means of two items'.
    """
    predicted_NC = self.ridge.predict(np.asarray(text_NP, np.float64)) + self.ridge.mean_P
    return metrics.spearman(predicted_NC @ self.user_UC.T, item_NC @ self.user_UC.T)


def fit(text_NP, item_NC, user_UC, *, seed: int) -> Behaviour:
  """Fits the map on training texts.

  Args:
    text_NP: sentence vectors of texts about training items.
    item_NC: the factors of the item that text n tells of.
    user_UC: factors of all users.
    seed: of the folds and of the users.
  """
  text_NP, item_NC = np.asarray(text_NP, np.float64), np.asarray(item_NC, np.float64)
  best = ridge_lib.choose(text_NP, item_NC, seed=seed)
  chosen = np.sort(np.random.default_rng(seed).permutation(len(user_UC))[:USERS])
  return Behaviour(ridge_lib.fit(text_NP, item_NC, best),
                   np.asarray(user_UC, np.float64)[chosen])
