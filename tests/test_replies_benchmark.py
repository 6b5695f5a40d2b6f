"""benchmarks/replies.py: which films replies name."""
import numpy as np

from benchmarks import replies as benchmark
from ilm_jax.conversation import titles
from ilm_jax.data import interactions

KNOWN = titles.Titles(interactions.Items(
    ["1", "2", "3"], ["Heat", "The Matrix", "Emma"], [1995, 1999, 2020], [[], [], []]))


def test_a_title_is_valid_with_the_year_of_the_catalogue():
  assert benchmark.named("Try Heat (1995), not Emma.", KNOWN) == (1, [1])
  assert benchmark.named("Heat (1996), Heat (1997)", KNOWN) == (2, [1])
  assert benchmark.named("the matrix (1999) or Heat (1972)? Up (2009)", KNOWN) == (3, [2])


def test_what_is_counted_of_a_reply():
  counts = benchmark.counted(
      ["Heat (1995), Emma (2020) and Ema (2019)", "Hello"],
      ["I like Emma (2020)", "The Matrix (1999)"], [np.array([1]), np.array([])], KNOWN)
  assert {name: of.tolist() for name, of in counts.items()} == {
      "titles": [3, 0], "valid": [2, 0], "new": [1, 0], "the human's": [1, 0]}
  line = benchmark.row("ILM", ["a b", "a a"], counts, np.array([0, 1]))
  assert line.startswith("| ILM | 1.500 [") and "| 0.667 [" in line and "| 0.333 [" in line
  assert line.endswith(" | 0.500 [0.000, 1.000] | 0.50 | 1.00 |")
