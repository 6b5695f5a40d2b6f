"""Prompts of other histories, from prepared examples."""
import numpy as np
import pytest

from ilm_jax.data import history_prompt

SLOT, END = 99, 2


def prepared(inputs, entities, user):
  return {"inputs": np.array(inputs, np.int32), "entities": np.array(entities, np.int32),
          "user": np.array([user], np.int32)}


@pytest.mark.parametrize(("examples", "inputs", "entities"), [
    # no user, nothing between: next_item
    ([prepared([5, SLOT, SLOT, 6], [3, 4], 20)], [5, SLOT, SLOT, SLOT, 6], [7, 8, 9]),
    # the user before, a comma between; the first example has too short a history
    ([prepared([SLOT, 5, SLOT, 6], [20, 3], 20),
      prepared([SLOT, 5, SLOT, 1, SLOT, 6], [21, 3, 4], 21)],
     [SLOT, 5, SLOT, 1, SLOT, 1, SLOT, 6], [30, 7, 8, 9]),
    # the user behind
    ([prepared([5, SLOT, SLOT, 4, SLOT], [3, 4, 21], 21)],
     [5, SLOT, SLOT, SLOT, 4, SLOT], [7, 8, 9, 30]),
    # nobody has more than one item
    ([prepared([5, SLOT, 6], [3], 20)], [5, SLOT, SLOT, SLOT, 6], [7, 8, 9])])
def test_a_prompt_about_another_history(examples, inputs, entities):
  prompt = history_prompt.of(examples, SLOT)
  got = prompt.example([7, 8, 9], user=30, end=END)
  assert got["inputs"].tolist() == inputs and got["entities"].tolist() == entities
  assert got["targets"].tolist() == [END] and all(x.dtype == np.int32 for x in got.values())
  assert prompt.has_user == (30 in entities)


def test_the_prepared_history_gives_the_prepared_prompt():
  example = prepared([SLOT, 5, SLOT, 1, SLOT, 6], [21, 3, 4], 21)
  got = history_prompt.of([example], SLOT).example([3, 4], user=21, end=END)
  assert all((got[name] == example[name]).all() for name in ("inputs", "entities"))


def test_prompts_that_say_names_have_no_place():
  assert history_prompt.of([prepared([5, 6], [], 20)], SLOT) is None
