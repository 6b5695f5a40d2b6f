"""Rankings from counts alone: items bought together, and items that follow one another."""
import numpy as np
import scipy.sparse

from ilm_jax.cf import cooccurrence


def item_knn(histories: list, num_items: int, queries: list, *, neighbours: int = 100,
             shrinkage: float = 10.0) -> np.ndarray:
  """Item-based nearest neighbours: the summed similarity to the items of a user's history.

  Similarity as in `cooccurrence.nearest`; of each item only the most similar neighbours count.

  Args:
    histories: item rows of each user's training interactions.
    num_items: I.
    queries: item rows of each history to score.
    neighbours: kept for each item.
    shrinkage: draws similarities of rare items towards 0.

  Returns:
    float32 [len(asked), I + 1]; column 0 is -inf.
  """
  near_II = cooccurrence.nearest(histories, num_items, neighbours, shrinkage)
  return _scores(cooccurrence.incidence(queries, num_items) @ near_II.T)


def transition(histories: list, num_items: int, queries: list, *, last: int = 5,
               decay: float = 0.5) -> np.ndarray:
  """A training-free transition graph: what came next after each of the last items.

  Counts of direct successors, each row divided by its sum; the k-th last item of a history counts
  decay ** k. Args and result as `item_knn`; `last`: how many items of a history are asked.
  """
  before = np.concatenate([np.zeros(0, np.int64), *(np.asarray(h[:-1]) for h in histories)])
  after = np.concatenate([np.zeros(0, np.int64), *(np.asarray(h[1:]) for h in histories)])
  next_II = scipy.sparse.csr_array(
      (np.ones(len(before)), (before.astype(np.int64) - 1, after.astype(np.int64) - 1)),
      shape=(num_items, num_items))
  total_I = np.asarray(next_II.sum(axis=1)).ravel()
  next_II = scipy.sparse.diags_array(1.0 / np.maximum(total_I, 1.0)) @ next_II
  weights = [(u, item - 1, decay ** k) for u, history in enumerate(queries)
             for k, item in enumerate(list(history)[::-1][:last])]
  user, item, weight = zip(*weights) if weights else ((), (), ())
  asked_UI = scipy.sparse.csr_array((np.array(weight, float), (user, item)),
                                    shape=(len(queries), num_items))
  return _scores(asked_UI @ next_II)


def _scores(score_UI) -> np.ndarray:
  dense_UI = np.full((score_UI.shape[0], score_UI.shape[1] + 1), -np.inf, np.float32)
  dense_UI[:, 1:] = score_UI.toarray()
  return dense_UI
