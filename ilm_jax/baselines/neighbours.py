"""Rankings from counts alone: items bought together, and items that follow one another."""
import numpy as np
import scipy.sparse

from ilm_jax.cf import cooccurrence


def item_knn(histories: list, num_items: int, queries: list, *, neighbours: int = 100,
             shrinkage: float = 10.0) -> np.ndarray:
  """Item-based nearest neighbours: the summed similarity to the items of a user's history.

  Similarity is as in `cooccurrence.nearest`; only the most similar neighbours of an item count.

  Args:
    histories: item rows of each user's training interactions.
    num_items: I.
    queries: item rows of each history to score.
    neighbours: number of neighbours to keep for each item, at most.
    shrinkage: pulls similarities of rare items towards 0.

  Returns:
    float32 [len(queries), I + 1]; column 0 is -inf.
  """
  near_II = cooccurrence.nearest(histories, num_items, neighbours, shrinkage)
  return with_padding((cooccurrence.incidence(queries, num_items) @ near_II.T).toarray())


def transition(histories: list, num_items: int, queries: list, *, last: int = 5,
               decay: float = 0.5, smoothing: float = 0.0) -> np.ndarray:
  """A training-free transition graph: scores items by how often they followed the last items.

  Its matrix holds counts of direct successors, each row divided by its sum. The last item of a
  history has weight 1, each earlier one `decay` times the weight of the next.

  Args:
    histories: item rows of each user's training interactions, in time order.
    num_items: I.
    queries: item rows of each history to score, in time order.
    last: number of items at the end of a history that count.
    decay: weight of an item relative to the one after it.
    smoothing: number of successors to add to every item, distributed like all successors: an item
      with few successors then scores others by their popularity.

  Returns:
    float32 [len(queries), I + 1]; column 0 is -inf.
  """
  before = np.concatenate([np.zeros(0, np.int64), *(np.asarray(h[:-1]) for h in histories)])
  after = np.concatenate([np.zeros(0, np.int64), *(np.asarray(h[1:]) for h in histories)])
  next_II = scipy.sparse.csr_array(
      (np.ones(len(before)), (before.astype(np.int64) - 1, after.astype(np.int64) - 1)),
      shape=(num_items, num_items))
  total_I = next_II.sum(axis=1)
  scale_I = np.where(total_I + smoothing > 0, total_I + smoothing, 1.0)
  popular_I = next_II.sum(axis=0) / max(len(before), 1)
  next_II = scipy.sparse.diags_array(1.0 / scale_I) @ next_II
  weights = [(u, item - 1, decay ** k) for u, history in enumerate(queries)
             for k, item in enumerate(list(history)[::-1][:last])]
  user, item, weight = zip(*weights) if weights else ((), (), ())
  last_UI = scipy.sparse.csr_array((np.array(weight, float), (user, item)),
                                   shape=(len(queries), num_items))
  score_UI = (last_UI @ next_II).toarray()
  if smoothing:
    score_UI += np.outer(last_UI @ (smoothing / scale_I), popular_I)
  return with_padding(score_UI)


def with_padding(score_UI) -> np.ndarray:
  """float32 [users, I + 1] from [users, I] scores: column 0, the padding, is -inf."""
  padded_UI = np.full((score_UI.shape[0], score_UI.shape[1] + 1), -np.inf, np.float32)
  padded_UI[:, 1:] = score_UI
  return padded_UI
