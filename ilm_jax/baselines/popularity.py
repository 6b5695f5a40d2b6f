"""Rankings without text: how many users chose an item, and matrix factorisation."""
import numpy as np


def popularity(histories: list, num_items: int) -> np.ndarray:
  """The number of users who have each item in their history.

  Args:
    histories: item rows of each user's training interactions.
    num_items: I.

  Returns:
    float32 [I + 1] by item row; column 0 is -inf. The same for every user.
  """
  count_I = np.zeros(num_items + 1, np.int64)
  for rows in histories:
    count_I[np.unique(np.asarray(rows, np.int64))] += 1
  return _without_padding(count_I[None].astype(np.float32))[0]


def factors(user_UC, item_IC) -> np.ndarray:
  """Scores of users by the inner product of their vectors with those of all items.

  Args:
    user_UC: vectors of the users to score.
    item_IC: [I + 1, C] vectors of item rows 0..I; row 0 is padding.

  Returns:
    float32 [users, I + 1]; column 0 is -inf.
  """
  return _without_padding(np.asarray(user_UC, np.float32) @ np.asarray(item_IC, np.float32).T)


def _without_padding(score_UI) -> np.ndarray:
  score_UI[:, 0] = -np.inf
  return score_UI
