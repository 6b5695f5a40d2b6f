"""References of ELM's tables: titles in place of slots, and vectors exchanged among entities."""
import numpy as np
import pytest

from ilm_jax.stages.evals import methods


def test_titles_stand_where_the_slots_were_in_the_order_of_the_prompt():
  example = {"inputs": np.array([7, 99, 8, 99]), "entities": np.array([4, 2]), "targets": [1]}
  said = {4: [40, 41, 42], 2: [20]}.__getitem__
  found = methods.with_titles(example, 99, said)
  assert found["inputs"].tolist() == [7, 40, 41, 42, 8, 20] and len(found["entities"]) == 0
  assert found["targets"] is example["targets"] and len(example["inputs"]) == 4


@pytest.mark.parametrize("seed", range(5))
def test_every_vector_goes_to_another_entity_of_its_group(seed):
  groups = [np.array([1, 4, 5]), np.array([2, 3, 6, 8])]
  to_R = methods.exchanged(groups, 10, seed)
  for group in groups:
    assert sorted(to_R[group]) == sorted(group) and (to_R[group] != group).all()
  assert to_R[[0, 7, 9]].tolist() == [0, 7, 9]      # of no group: as they were
