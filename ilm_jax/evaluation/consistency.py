"""ELM's two consistency metrics: does a text match its item in meaning and in behaviour?

**Semantic consistency**: cosine of the sentence vectors of the answer and of the reference. In our
reading each prompt gets one greedy answer, and the reference is the teacher's text. Every number
names its encoder; other encoders give other numbers.

**Behavioural consistency**: a text must predict the behaviour of its item. The text is mapped to a
predicted behavioural vector. Users ranked by this vector are compared with users ranked by the
item's own vector, by Spearman's rank correlation. The paper says no more; we chose the details:

  the map      ridge regression from sentence vectors to the iALS factors of items, with the
               regularisation chosen by cross-validation; fitted on texts of training items alone
               (the texts in the data set, and the references of the training splits);
  the ranking  all users by the inner product of their iALS factors with the item's; of more than
               10,000 users, 10,000 drawn by the seed;
  two items    the mean of their factors, since the references describe both;
  a user       no value: the ranking is over users.
"""
from typing import NamedTuple

import numpy as np

from ilm_jax.evaluation import metrics
from ilm_jax.evaluation import ridge as ridge_lib

USERS = 10_000       # most users that are ranked


class Behaviour(NamedTuple):
  """The map from sentence vectors to item factors, and the users who are ranked."""
  ridge: ridge_lib.Ridge
  user_UC: np.ndarray

  def consistency(self, text_NP, item_NC) -> np.ndarray:
    """float64 [N]: Spearman correlation of the users' rankings by text and by item, -1..1.

    Args:
      text_NP: sentence vectors.
      item_NC: the items' own factors, or the means of the factors of two items.
    """
    predicted_NC = self.ridge.predict(np.asarray(text_NP, np.float64)) + self.ridge.mean_P
    return metrics.spearman(predicted_NC @ self.user_UC.T, item_NC @ self.user_UC.T)


def fit(text_NP, item_NC, item_N, user_UC, *, seed: int) -> Behaviour:
  """Fits the map on training texts.

  Args:
    text_NP: sentence vectors of texts about training items.
    item_NC: row n: the factors of the item that text n describes.
    item_N: int: its row. Texts of an item are in one fold of the cross-validation, which would else
      reward learning items by heart.
    user_UC: factors of all users.
    seed: for the folds and for the draw of users.
  """
  text_NP, item_NC = np.asarray(text_NP, np.float64), np.asarray(item_NC, np.float64)
  best = ridge_lib.choose(text_NP, item_NC, seed=seed, group_N=item_N)
  chosen = np.sort(np.random.default_rng(seed).permutation(len(user_UC))[:USERS])
  return Behaviour(ridge_lib.fit(text_NP, item_NC, best),
                   np.asarray(user_UC, np.float64)[chosen])
