"""Lists of recommended items, by hand: whose they are, and how alike those of all users are."""
import gzip
import json
import types

import numpy as np
import pytest

from ilm_jax.data import interactions
from ilm_jax.evaluation import lists
from ilm_jax.stages.evals import ranking
from tests import test_table_arithmetic as arithmetic

INF = np.inf


def test_the_highest_scores_come_first_and_of_equal_ones_the_lower_row():
  scores = np.array([[-INF, 1.0, 5.0, 1.0, 1.0], [-INF, -INF, -INF, 2.0, 3.0]])
  assert lists.top_items(scores, None, 3).tolist() == [[2, 1, 3], [4, 3, 0]]


def test_blocked_items_are_not_listed_and_what_is_missing_is_0():
  scores = np.array([[-INF, 1.0, 5.0, 4.0]] * 2)
  blocked = np.array([[0, 0, 1, 0], [0, 1, 1, 1]], bool)
  assert lists.top_items(scores, blocked, 5).tolist() == [[3, 1, 0, 0, 0], [0] * 5]


@pytest.mark.parametrize(("items", "shared", "distinct"), [
    ([[1, 2], [2, 1], [1, 2]], 1.0, 2),                 # everybody gets the same
    ([[1, 2], [3, 4], [5, 6]], 0.0, 6),                 # nobody the same
    ([[1, 2], [2, 3], [4, 5]], 1 / 6, 5),               # one of two, in one of three pairs
    ([[1, 2], [1, 0]], 0.5, 2),                         # a list of one item: 0 is none
])
def test_what_two_users_share_and_how_many_items_are_listed(items, shared, distinct):
  made = lists.alike(np.array(items), top=2)
  assert made["shared by two users"]["value"] == pytest.approx(shared)
  assert made["distinct items"]["value"] == distinct


def test_only_the_top_counts_and_one_user_shares_with_nobody():
  assert lists.alike(np.array([[1, 2, 9], [1, 3, 9]]), top=2)["shared by two users"]["value"] == 0.5
  assert "shared by two users" not in lists.alike(np.array([[1, 2]]), top=2)


def test_the_pairs_are_all_pairs():
  """Against counting pair by pair."""
  items = np.stack([np.random.default_rng(u).permutation(np.arange(1, 30))[:10] for u in range(12)])
  pairs = [len(set(a) & set(b)) / 10 for i, a in enumerate(items) for b in items[:i]]
  assert lists.alike(items)["shared by two users"]["value"] == pytest.approx(np.mean(pairs))


# Whose lists are shown.

BEAM = ranking.Ranking("ILM", np.array([2.0, INF]), 3, "beam 3", np.array([[4, 2, 1], [3, 2, 0]]))
HEAD = ranking.Ranking("ILM", np.array([1.0, 30.0]), by="item head",
                       items_UK=np.array([[2, 1, 3], [1, 4, 0]]))
OTHERS = [ranking.Ranking("ILM-rand", np.array([3.0, 4.0]), by="item head",
                          items_UK=np.array([[3, 1, 2], [2, 3, 1]])),
          ranking.Ranking("ILM", np.array([9.0]), by="exact, first 1 users")]


@pytest.mark.parametrize(("rankings", "shown"), [
    ([BEAM, HEAD, *OTHERS], HEAD), ([BEAM, *OTHERS], BEAM), (OTHERS, None)])
def test_the_lists_shown_are_the_head_s_and_without_one_the_beams(rankings, shown):
  assert ranking.listed(rankings, "ILM") is shown


def run_of_two():
  log = types.SimpleNamespace(
      user_ids=["a", "b"], before_target=lambda user: np.array([[1, 3], [2]][user], object))
  items = interactions.Items(list("1234"), ["One", "Two", "Three", "Four"],
                             [None, 1995, None, None], [[]] * 4)
  return types.SimpleNamespace(
      data=types.SimpleNamespace(log=log, items=items),
      config=types.SimpleNamespace(data=types.SimpleNamespace(domain="book", name="table")))


def test_examples_and_predictions_are_of_the_same_lists():
  of_users = arithmetic.questions([2, 4], [[], []])
  part = ranking._recommended(run_of_two(), HEAD.by, HEAD.items_UK, of_users)
  assert part["examples"] == [
      {"user": "a", "last read": ["One", "Three"], "recommended": ["Two (1995)", "One", "Three"],
       "next (the target)": "Two (1995)"},
      {"user": "b", "last read": ["Two (1995)"], "recommended": ["One", "Four"],
       "next (the target)": "Four"}]
  assert "item head" in part["note"]
  stored = gzip.decompress(ranking._predictions(
      run_of_two(), HEAD.rank_U, HEAD.items_UK, of_users)).decode()
  assert [json.loads(line) for line in stored.splitlines()] == [
      {"user": "a", "target": 2, "items": [2, 1, 3], "rank": 1},
      {"user": "b", "target": 4, "items": [1, 4], "rank": 30}]


def test_the_table_of_lists_has_a_row_for_each_method_with_lists():
  table = ranking._alike([BEAM, HEAD, *OTHERS], {"seed": 1})
  assert [arithmetic.rows.label(row) for row in table["rows"]] == [
      "ILM, beam 3", "ILM, item head", "ILM-rand, item head"]
  assert table["rows"][1]["metrics"]["distinct items"]["value"] == 4
  assert table["protocol"] == {"seed": 1}
