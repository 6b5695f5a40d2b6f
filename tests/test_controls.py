"""Controls of ranking: histories in another order, items with one another's vectors."""
import numpy as np

from benchmarks import controls


def test_every_history_keeps_its_items_in_another_order():
  examples = [{"entities": np.arange(1, 21), "user": [7]}, {"entities": np.array([4]), "user": [8]}]
  many, one = controls.reordered(examples, num_items=20, seed=0)
  assert sorted(many["entities"]) == list(range(1, 21)) and many["user"] == [7]
  assert many["entities"].tolist() != list(range(1, 21)) and one["entities"].tolist() == [4]
  assert examples[0]["entities"].tolist() == list(range(1, 21))


def test_the_slot_of_a_user_stays_where_it_is():
  """Of 20 items, row 27 is a user: a prompt may show the user before, between or behind items."""
  for place in (0, 7, 20):
    entities = np.insert(np.arange(1, 21), place, 27)
    example, = controls.reordered([{"entities": entities}], num_items=20, seed=0)
    assert example["entities"][place] == 27 and example["entities"].dtype == entities.dtype
    items = np.delete(example["entities"], place).tolist()
    assert sorted(items) == list(range(1, 21)) and items != list(range(1, 21))


def test_items_get_one_another_s_vectors_and_users_keep_theirs():
  """Rows: padding, five items, two users. What is absent goes with its vector; members stay."""
  arrays = {"vectors": {"behavioral": np.arange(8.0)[:, None]},
            "present": {"behavioral": np.arange(8) != 3}, "members": np.zeros((8, 2))}
  dealt = controls.dealt(arrays, num_items=5, seed=1)
  vector_R = dealt["vectors"]["behavioral"][:, 0]
  assert vector_R[[0, 6, 7]].tolist() == [0, 6, 7]
  assert sorted(vector_R[1:6]) == [1, 2, 3, 4, 5] and vector_R.tolist() != list(range(8))
  np.testing.assert_array_equal(dealt["present"]["behavioral"], vector_R != 3)
  assert dealt["members"] is arrays["members"]      # rows, whose vectors are others now
