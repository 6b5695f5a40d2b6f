"""The catalogue scored in the space of phase 1's user-item loss."""
import dataclasses

import jax
import numpy as np
import pytest
import test_objectives
from flax import nnx

from ilm_jax.evaluation import dot_scores
from ilm_jax.objectives import inputs, phase1


@pytest.mark.parametrize("batch, apart", [(1, False), (3, True), (64, False)])
def test_scores_are_the_largest_cosines_of_query_pairs(batch, apart):
  """Whatever the batch: the maximum over both entities' queries, worked one by one."""
  graphdef, trainable = phase1.build_phase1(
      dataclasses.replace(test_objectives.QFORMER, user_projection=apart), seed=0)
  # Fresh weights are small, and all entities nearly alike.
  params = jax.tree.map(lambda x: 8 * x, trainable["qformer"])
  frozen = test_objectives.frozen()
  rows = len(next(iter(frozen["present"].values())))
  num_items = rows - 3
  users = np.array([rows - 1, rows - 2])
  found = dot_scores.score(graphdef, params, frozen, users, num_items, batch)
  assert found.shape == (2, num_items + 1) and np.all(found[:, 0] == -np.inf)
  made = dot_scores.items(graphdef, params, frozen, num_items, batch)
  np.testing.assert_array_equal(
      dot_scores.score(graphdef, params, frozen, users, num_items, batch, items=made), found)
  qformer = nnx.merge(graphdef, params)

  def queries(row, users=False):
    given = inputs.entity_inputs(frozen, np.array([row]))
    return np.asarray(qformer.project_queries(qformer.queries(*given), users))[0]

  of_items = {item: queries(item) for item in range(1, num_items + 1)}
  for u, user in enumerate(users):
    of_user = queries(user, users=True)
    for item, of_item in of_items.items():
      best = np.max(of_user @ of_item.T)
      np.testing.assert_allclose(found[u, item], best, rtol=1e-5, atol=1e-6)
  assert np.ptp(found[:, 1:]) > 1e-2
