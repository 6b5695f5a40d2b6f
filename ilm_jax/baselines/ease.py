"""EASE^R: a linear autoencoder of users' items, in closed form (Steck 2019, arXiv 1905.03375)."""
import numpy as np
import scipy.linalg

from ilm_jax import errors
from ilm_jax.baselines import neighbours
from ilm_jax.cf import cooccurrence

MOST_ITEMS = 40_000      # the dense item-by-item inverse then takes 13 GB


def ease(histories: list, num_items: int, queries: list, *, reg: float = 200.0) -> np.ndarray:
  """Scores of all items: for each, the sum of its `weights` over the items of a history.

  Args:
    histories: item rows (1..I) of each user's training interactions.
    num_items: I.
    queries: item rows of each history to score.
    reg: as in `weights`.

  Returns:
    float32 [len(queries), I + 1]; column 0 is -inf.

  Raises:
    UserError: as `weights`.
  """
  weight_II = weights(histories, num_items, reg)
  return neighbours.with_padding(cooccurrence.incidence(queries, num_items) @ weight_II)


def weights(histories: list, num_items: int, reg: float = 200.0) -> np.ndarray:
  """float64 [I, I]: in row i, how strongly item row i + 1 predicts each item.

  The weights B minimise |X - X B|^2 + reg |B|^2 with a zero diagonal, where X [users, I] is 1 for
  the items that a user chose: with P = (X'X + reg)^-1, B_ij = -P_ij / P_jj for i != j.

  Args:
    histories: item rows (1..I) of each user's training interactions.
    num_items: I.
    reg: the paper's lambda, > 0. More users need a larger one: tune it over powers of ten.

  Raises:
    UserError: reg is not above 0; more items than `MOST_ITEMS`.
  """
  if reg <= 0:
    raise errors.UserError(f"EASE^R: reg={reg}, expected more than 0, e.g. 200")
  if num_items > MOST_ITEMS:
    raise errors.UserError(f"EASE^R: {num_items:,} items, expected at most {MOST_ITEMS:,}: its "
                           "weights are a dense matrix of items by items; leave 'ease' out of "
                           "eval.baselines, or raise data.k_core")
  chosen_UI = cooccurrence.incidence(histories, num_items)
  gram_II = (chosen_UI.T @ chosen_UI).toarray()
  gram_II[np.diag_indices(num_items)] += reg
  inverse_II = scipy.linalg.inv(gram_II, overwrite_a=True)
  weight_II = inverse_II / -np.diag(inverse_II)
  np.fill_diagonal(weight_II, 0.0)
  return weight_II
