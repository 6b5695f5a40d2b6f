"""benchmarks/baselines.py: tuned on validation, ranked on test, each method once."""
import dataclasses
import functools
import gzip
import json
import types

import numpy as np
import pytest

from benchmarks import baselines
from ilm_jax import errors
from ilm_jax.baselines import sasrec
from ilm_jax.config import names
from ilm_jax.data import interactions, splits
from ilm_jax.evaluation import metrics
from ilm_jax.stages.evals import rivals

PARTS = (*[splits.TRAIN] * 3, splits.VALID, splits.TEST)
# Each user walks on round a wheel of 9 items; user 2 comes back to item 1 for the test.
WALKS = [[1, 2, 3, 4, 5], [3, 4, 5, 6, 7], [1, 2, 3, 4, 1], [7, 8, 9, 1, 2]]


@pytest.fixture
def log():
  return interactions.Interactions(
      user_ids=list("abcd"), num_items=9, user_N=np.repeat(np.arange(4, dtype=np.int32), 5),
      item_N=np.concatenate(WALKS).astype(np.int32), time_N=np.zeros(20, np.int64),
      value_N=np.ones(20, np.float32), part_N=np.array(PARTS * 4, np.int8))


def test_draws_differ_and_are_all_of_a_small_space():
  space = {"a": (1, 2, 3), "b": (4, 5)}
  drawn = baselines.draw(space, 4)
  assert len({tuple(d.items()) for d in drawn}) == 4 and drawn == baselines.draw(space, 4)
  assert len(baselines.draw(space, 50)) == 6
  assert baselines.draw({}, 8) == [{}]


def test_a_test_history_has_the_validation_item_and_training_has_not(log):
  validation, test = baselines.targets(log)
  known = [walk for walk in WALKS if walk[3] != 6]      # nobody has 6 in training
  assert [list(h) for h in validation[0]] == [walk[:3] for walk in known]
  assert list(validation[2]) == [walk[3] for walk in known]
  assert [list(h) for h in test[0]] == [walk[:4] for walk in WALKS]
  assert list(test[2]) == [walk[4] for walk in WALKS]


def test_ranks_leave_out_the_history_unless_the_target_is_in_it(log):
  """All old items score above all others, and the lower row first."""
  histories, user_U, target_U = baselines.targets(log)[1]

  def scorer(histories, user_U):
    return np.array([[-np.inf, *(float(i in h) for i in range(1, 10))] for h in histories])

  # 5 is the first of those after 1..4; 7 comes after 1 and 2; 1 is old itself; 2 is the first.
  assert list(baselines.ranks(scorer, histories, user_U, target_U)) == [1, 3, 1, 1]


def test_the_best_on_validation_is_ranked_on_test_and_the_table_kept(log, monkeypatch, tmp_path,
                                                                     capsys):
  trained = []

  def train(name, log, setting, seed, epochs, patience):
    trained.append((setting["reg"], seed))
    def scorer(histories, user_U):
      step = {1.0: 1, 2.0: 2}[setting["reg"]]      # reg 1 knows the wheel, reg 2 does not
      score_UI = np.zeros((len(histories), 10))
      score_UI[:, 0] = -np.inf
      for score_I, history in zip(score_UI, histories):
        score_I[(history[-1] + step - 1) % 9 + 1] = 1
      return score_UI
    return scorer

  monkeypatch.setattr(baselines, "train", train)
  monkeypatch.setattr(baselines, "SPACES", {"bpr": {"reg": (1.0, 2.0)}})
  monkeypatch.setattr(baselines.context, "Run", lambda config, workdir: type(
      "Run", (), {"data": interactions.Data(log, None, "print")}))
  monkeypatch.setattr("sys.argv", ["baselines", f"--workdir={tmp_path}", "--seeds=3,4"])
  baselines.main()
  assert sorted(trained) == [(1.0, 3), (1.0, 4), (2.0, 3)]
  row = json.loads((tmp_path / "baselines.json").read_text())["bpr"]
  assert row["setting"] == {"reg": 1.0} and row["validation ndcg@10"] == 1.0
  # User 2 comes back to an item: no filter, and 5, then 1 of the rest, rank first.
  assert row["ndcg@10"]["value"] == pytest.approx((3 + 1 / np.log2(3)) / 4)
  assert row["hr@10"]["by seed"] == [1.0, 1.0] and row["hr@10"]["spread"] == 0.0
  assert "| BPR-MF | 1.0000 [1.0000, 1.0000] | +- 0.0000 |" in capsys.readouterr().out
  assert "| BPR-MF |" in (tmp_path / "baselines.md").read_text()
  kept = json.loads(gzip.decompress((tmp_path / "baselines_ranks.json.gz").read_bytes()))
  assert kept == {"users": list("abcd"), "ranks": {"BPR-MF": [[1, 1, 2, 1]] * 2}}
  baselines.main()
  assert len(trained) == 3, "what is there is not run again"


def test_every_space_holds_fields_that_the_method_takes(log):
  for name, space in baselines.SPACES.items():
    setting = {**{field: values[0] for field, values in space.items()}}
    scorer = baselines.train(name, log, setting, seed=0, epochs=1, patience=1)
    histories, user_U, target_U = baselines.targets(log)[1]
    assert np.isfinite(baselines.ranks(scorer, histories, user_U, target_U)).all(), name


def test_without_validation_targets_nothing_can_be_tuned(log):
  learnt = dataclasses.replace(log, part_N=np.where(
      log.part_N == splits.VALID, splits.TRAIN, log.part_N).astype(np.int8))
  with pytest.raises(errors.UserError, match="no validation targets to tune on"):
    baselines.measure("popularity", learnt, None)


def test_an_unknown_method_is_refused(monkeypatch, tmp_path, capsys):
  monkeypatch.setattr("sys.argv", ["baselines", f"--workdir={tmp_path}", "--methods=als"])
  with pytest.raises(SystemExit):
    baselines.main()
  assert "unknown ['als']" in capsys.readouterr().err


def test_every_baseline_of_a_config_is_ranked_under_a_name(log, monkeypatch):
  monkeypatch.setattr(rivals.sasrec, "Config", functools.partial(
      sasrec.Config, epochs=1, width=8, length=4, batch_size=4, negatives=2))
  monkeypatch.setattr(rivals.vectors, "factors", lambda run: (np.ones((4, 2)), np.ones((10, 2))))
  run = types.SimpleNamespace(
      config=types.SimpleNamespace(eval=types.SimpleNamespace(baselines=names.BASELINES), seed=0,
                                   cf=types.SimpleNamespace(width=4)),
      data=interactions.Data(log, None, "print"))
  _, user_U, target_U = baselines.targets(log)[1]
  got = {method: metrics.ranks_from_scores(score_UI, target_U)
         for method, score_UI in rivals.scores(run, user_U)}
  assert len(got) == len(names.BASELINES) and {"EASE^R", "gSASRec", "eSASRec"} <= got.keys()
  for method, rank_U in got.items():
    assert ((rank_U >= 1) & (rank_U <= 9)).all(), method
