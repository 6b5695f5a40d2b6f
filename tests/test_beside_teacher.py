"""benchmarks.beside_teacher: differences over users and seeds, and groups of targets."""
import argparse

import numpy as np

from benchmarks import beside_teacher


def test_differences_are_of_the_same_users_over_all_seeds():
  rank_SU = {"mlp": np.array([[1, 99, 99, 99], [1, 1, 99, 99]]),
             beside_teacher.SASREC: np.array([[99, 99, 99, 1], [99, 99, 99, 99]])}
  lines = [line.split(" | ") for line in beside_teacher.table(rank_SU).splitlines()]
  assert lines[0][1:3] == ["HR@10", "minus SASRec"] and lines[2][0] == "| mlp"
  assert [cell.split()[0] for cell in lines[2][1:4]] == ["0.3750", "+0.2500", "+0.0000"]
  assert [cell.split()[0] for cell in lines[3][1:4]] == ["0.1250", "+0.0000", "-0.2500"]


def test_targets_are_grouped_by_their_training_interactions():
  shown = beside_teacher.by_count(
      {"mlp": np.array([[1, 99, 1, 99, 1]])}, np.array([0, 4, 5, 29, 30])).splitlines()
  assert shown[0].count("(1 targets)") == 3 and "from 0 (2 targets)" in shown[0]
  assert shown[2] == "| mlp | 0.5000 | 1.0000 | 0.0000 | 1.0000 |"


def test_the_teacher_ranks_the_targets_of_the_stored_examples(monkeypatch, tmp_path):
  class Log:
    train_counts = np.array([0, 7, 3])

    def before_target(self, user, part):
      return [user, part]

  run = argparse.Namespace(data=argparse.Namespace(log=Log()))
  monkeypatch.setattr(beside_teacher.projectors, "trained_arm", lambda out, arm, seed: (run, arm))
  examples = [{"target_entity": [2]}, {"target_entity": [1]}]
  monkeypatch.setattr(beside_teacher.projectors, "rank",
                      lambda run, split, score: score(run, examples, [0, 1]))
  monkeypatch.setattr(beside_teacher.factors, "by_sasrec", lambda run, histories: [
      10 * user + part for user, part in histories])
  for seed in (0, 1):
    (tmp_path / "mlp" / str(seed)).mkdir(parents=True)
    np.savez(tmp_path / "mlp" / str(seed) / "ranks.npz", test=np.array([seed, 5]))
  args = argparse.Namespace(rows=[tmp_path / "mlp"], seeds=[0, 1])
  rank_SU, count_U = beside_teacher.ranks(args, "test")
  part = beside_teacher.factors.PARTS["test"]
  assert count_U.tolist() == [3, 7]
  assert {name: of.tolist() for name, of in rank_SU.items()} == {
      str(tmp_path / "mlp"): [[0, 5], [1, 5]], "SASRec": [[part, 10 + part]] * 2}
