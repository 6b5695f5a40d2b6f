"""Targets that stand in their user's own history, wherever a filter is made."""
import os
import pathlib
import subprocess
import sys
import types

import numpy as np
import pytest

from ilm_jax.data import interactions, splits
from ilm_jax.evaluation import metrics
from ilm_jax.stages.evals import common

ROOT = pathlib.Path(__file__).parents[1]
# User 0 ends with an old item, users 1 and 2 with a new one.
ROWS = [[3, 1, 4, 3], [2, 5, 1, 3], [4, 4, 1, 2]]
LOG = interactions.Interactions(
    user_ids=["a", "b", "c"], num_items=5, user_N=np.repeat(np.arange(3), 4).astype(np.int32),
    item_N=np.concatenate(ROWS).astype(np.int32), time_N=np.arange(12, dtype=np.int64),
    value_N=np.ones(12, np.float32))
RUN = types.SimpleNamespace(data=interactions.Data(LOG, None, ""))


def test_stage_eval_filters_nothing_for_a_repeated_target():
  examples = [{"user": [u + 6], "target_entity": [ROWS[u][-1]]} for u in range(3)]
  user_U, target_U, rows, protocol = common.users_and_filter(RUN, examples)
  assert user_U.tolist() == [0, 1, 2] and target_U.tolist() == [3, 3, 2]
  assert [listed.tolist() for listed in rows] == [[], [1, 2, 5], [1, 4]]
  assert protocol["repeated targets"].startswith("1 of 3 ")


def test_what_a_user_trains_on_after_a_cold_target_is_filtered_too():
  """As a cold split has it: user 0 trains on 4 behind its target; user 1's target comes last."""
  log = interactions.Interactions(
      ["a", "b"], 5, np.repeat([0, 1], 3).astype(np.int32),
      np.array([3, 1, 4, 2, 5, 1], np.int32), np.arange(6, dtype=np.int64),
      np.ones(6, np.float32), np.array([1, 3, 1, 1, 1, 3], np.int8))
  run = types.SimpleNamespace(data=interactions.Data(log, None, ""))
  examples = [{"user": [u + 6], "target_entity": [1]} for u in range(2)]
  *_, rows, protocol = common.users_and_filter(run, examples)
  assert [row.tolist() for row in rows] == [[3, 4], [2, 5]]
  assert protocol["filter"] == "items of the user's history and training part are taken out"


@pytest.mark.parametrize("rule", ["loo_stable", "loo_openp5", "global_time"])
@pytest.mark.parametrize("part", [splits.VALID, splits.TEST])
def test_other_splits_train_on_nothing_behind_a_target(rule, part):
  """So their filter is the history, and their protocol says what it always said."""
  rng = np.random.default_rng(0)
  user_N, time_N = np.repeat(np.arange(12), 9).astype(np.int32), np.tile(np.arange(9), 12)
  log = interactions.Interactions(
      [str(u) for u in range(12)], 30, user_N, rng.integers(1, 31, 108).astype(np.int32), time_N,
      np.ones(108, np.float32), splits.parts(splits.Rule(rule, (0.4, 0.7)), user_N, time_N))
  run = types.SimpleNamespace(data=interactions.Data(log, None, ""))
  at_U = np.flatnonzero(log.part_N == part)
  examples = [{"user": [log.rows.user(user_N[n])], "target_entity": [log.item_N[n]]} for n in at_U]
  *_, rows, protocol = common.users_and_filter(run, examples, part)
  histories = [log.before_target(user, part) for user in user_N[at_U]]
  want = metrics.rows_to_filter(histories, log.item_N[at_U])
  assert len(rows) == 12 and any(len(row) for row in rows)
  assert [row.tolist() for row in rows] == [row.tolist() for row in want]
  assert protocol == metrics.filter_protocol(histories, log.item_N[at_U])


def test_the_benchmark_of_the_user_item_space():
  """Scores rank old items first, and among them the lower row: user 0 has 1 before its target.

  In a process of its own: its flags have the names of ilm_jax.main's.
  """
  program = """
import numpy as np
from benchmarks import user_item
from tests import test_repeats
score_UI = np.zeros((3, 6))
for score_I, rows in zip(score_UI, test_repeats.ROWS):
  score_I[rows[:-1]] = 1
user_item._ranking(test_repeats.RUN)("old first", score_UI)
"""
  done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True,
                        env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
  assert done.returncode == 0, done.stderr[-2000:]
  assert "1 of 3 targets" in done.stdout
  # Ranks 2 (of 1, 3, 4), 1 (of 3, 4) and 1 (of 2, 3, 5).
  assert f"NDCG@10 {(1 / np.log2(3) + 1 + 1) / 3:.4f}" in done.stdout


def test_the_benchmark_of_sasrec(monkeypatch):
  from benchmarks import sasrec
  filters = []

  def ranks(params, config, histories, target_U, blocked=None):
    filters.append(blocked)
    return np.ones(len(target_U))

  monkeypatch.setattr(sasrec.sasrec, "ranks", ranks)
  figures = sasrec._figures(None, None, [np.array(rows) for rows in ROWS])
  assert filters[0] is None and [f.tolist() for f in filters[1]] == [[], [1, 2, 5], [1, 4]]
  assert figures["repeated targets"] == 1
  assert figures["recall@5 filtered"] == pytest.approx(1)
