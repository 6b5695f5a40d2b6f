"""benchmarks/collisions.py counts every item of a shared index, not the indices."""
from benchmarks import collisions


def test_items_that_share_an_index():
  assert collisions.shared(["Heat", "Fargo", "Heat", "Heat", "Big", "Big"]) == (5, 3)
  assert collisions.shared([(1, 2), (2, 1)]) == (0, 1)
