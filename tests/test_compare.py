"""Significance against exact enumeration and scipy; runs beside one another."""
import gzip
import itertools
import json
import shutil

import numpy as np
import pytest
import scipy.stats

from ilm_jax import errors
from ilm_jax.evaluation import compare, measured, metrics, significance
from ilm_jax.evaluation.rows import label

RANDOM = np.random.default_rng(0)


def test_the_randomisation_test_against_every_assignment():
  a, b = RANDOM.normal(0.4, 1, 9), RANDOM.normal(0, 1, 9)
  d = a - b
  sums = [abs(np.dot(s, d)) for s in itertools.product((-1, 1), repeat=9)]
  exact = np.mean(np.array(sums) >= abs(d.sum()) - 1e-12)
  got = significance.randomisation_test(a, b, permutations=40_000, seed=1)
  assert abs(got - exact) < 0.01
  theirs = scipy.stats.permutation_test(
      (a, b), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=np.inf)
  assert abs(got - theirs.pvalue) < 0.01


def test_equal_systems_and_certain_ones():
  same = RANDOM.random(50)
  assert significance.randomisation_test(same, same) == 1.0
  assert significance.randomisation_test(same + 1, same, permutations=999) == 1 / 1000


def test_holm_by_hand():
  np.testing.assert_allclose(significance.holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
  np.testing.assert_allclose(significance.holm([0.9, 0.8]), [1.0, 1.0])


def test_ranking_metrics_equal_another_way_to_count():
  """By sorting with Python, one user a time, with ties and blocked items."""
  score = RANDOM.integers(0, 30, (40, 61)).astype(float)
  blocked = RANDOM.random((40, 61)) < 0.2
  target = RANDOM.integers(1, 61, 40)
  score[:, 0] = -np.inf
  blocked[np.arange(40), target] = False
  rank = metrics.ranks_from_scores(score, target, blocked)
  for u in range(40):
    order = sorted((i for i in range(1, 61) if not blocked[u, i]), key=lambda i: (-score[u, i], i))
    top = order[:10]
    gain = sum(1 / np.log2(place + 2) for place, i in enumerate(top) if i == target[u])
    assert metrics.hit_rate(rank, 10)[u] == (target[u] in top)
    np.testing.assert_allclose(metrics.ndcg(rank, 10)[u], gain)


def test_ranking_metrics_equal_ir_measures():
  ir = pytest.importorskip("ir_measures", reason="the independent implementation is not installed")
  score = RANDOM.random((30, 50))
  target = RANDOM.integers(1, 50, 30)
  score[:, 0] = -np.inf
  rank = metrics.ranks_from_scores(score, target)
  wanted = [ir.ScoredDoc(str(u), str(i), score[u, i]) for u in range(30) for i in range(1, 50)]
  right = [ir.Qrel(str(u), str(target[u]), 1) for u in range(30)]
  found = ir.calc_aggregate([ir.nDCG @ 10, ir.Success @ 10, ir.RR], right, wanted)
  for measure, value in ((ir.nDCG @ 10, metrics.ndcg(rank, 10)),
                         (ir.Success @ 10, metrics.hit_rate(rank, 10)),
                         (ir.RR, metrics.reciprocal_rank(rank))):
    np.testing.assert_allclose(found[measure], value.mean(), rtol=1e-9)


def evaluated(folder, seed, shift=0, **changes):
  """A workdir with ranks of 60 users by two methods."""
  step = folder / "eval" / "phase2" / "7"
  step.mkdir(parents=True)
  base = np.arange(60) % 12
  stored = {"protocol": {"split": "s", "filter": "f", "tie rule": "t", "task": "k"},
            "users": [f"u{n}" for n in range(60)], "targets": ["i"] * 60,
            "ranks": {"ILM": [int(r) + 1 + shift + seed for r in base],
                      "popularity": [None if r == 3 else 9 for r in base]}}
  stored.update(changes)
  measured.mark(step, {"checkpoints": {}})
  (step / "ranks.json.gz").write_bytes(gzip.compress(json.dumps(stored).encode()))
  (folder / "config.eval.json").write_text(json.dumps({"seed": seed, "x": shift}))
  return folder


def test_runs_beside_one_another(tmp_path, capsys):
  a, b, c = (evaluated(tmp_path / name, seed, shift) for name, seed, shift in
             (("a", 0, 0), ("b", 1, 0), ("c", 0, 6)))
  content = compare.write([a, b, c])
  rows = {label(row): row["metrics"] for row in content["tables"][0]["rows"]}
  two = rows["ILM (a, 2 seeds)"]["hr@10"]
  by_seed = [np.mean(np.arange(60) % 12 + 1 + s <= 10) for s in (0, 1)]
  np.testing.assert_allclose([two["value"], two["deviation"]],
                             [np.mean(by_seed), np.std(by_seed, ddof=1)])
  worse = rows["ILM (c) minus ILM (a, 2 seeds)"]
  assert worse["ndcg@10"]["hi"] < 0 and worse["p (Holm)"]["value"] < 0.01
  assert "ILM (c)" in capsys.readouterr().out
  page, text = (a / "comparison.html").read_text(), (a / "comparison.md").read_text()
  assert "<img" in page and "| ILM (c) |" in text and "(seeds: " in text
  assert json.loads((a / "comparison.json").read_text()) == content


def put(folder, **documents):
  """Writes documents of a run: `a__b` is the file a/b.json."""
  for name, document in documents.items():
    path = folder / (name.replace("__", "/") + ".json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))


def part(value, **protocol):
  """A table of evaluation with two rows; the second is equal in all runs."""
  def estimate(v):
    return {"all": {"value": v, "lo": v - .1, "hi": v + .1, "n": 9}}
  return {"title": "T", "note": "N.", "protocol": protocol,
          "rows": [{"method": "ILM", "metrics": estimate(value)},
                   {"method": "no slots", "metrics": estimate(9.0)}]}


def test_one_run_is_no_second_seed(tmp_path):
  a = evaluated(tmp_path / "a", 0)
  with pytest.raises(errors.UserError, match="a is given twice"):
    compare.write([a, tmp_path / "a" / ".." / "a"])
  copy = shutil.copytree(a, tmp_path / "copy")
  with pytest.raises(errors.UserError, match="a and copy have the same settings and seed 0"):
    compare.write([a, copy])
  assert not (a / "comparison.json").exists()
  # A copy that was evaluated with another seed: the record of its training gives it away.
  for folder, seed in ((a, 0), (copy, 1)):
    (folder / "phase2").mkdir()
    (folder / "phase2" / "metrics.jsonl").write_text('{"step": 1, "loss": 2.5}\n')
    put(folder, **{"config.eval": {"seed": seed, "x": 0}})
  with pytest.raises(errors.UserError, match="copy has the training record of a"):
    compare.write([a, copy])
  # Trained with other seeds and evaluated with one: two seeds.
  (copy / "phase2" / "metrics.jsonl").write_text('{"step": 1, "loss": 2.6}\n')
  for folder, seed in ((a, 0), (copy, 1)):
    put(folder, **{"config.eval": {"seed": 0, "x": 0}, "config.phase2": {"seed": seed, "x": 0}})
  names = [label(row) for row in compare.write([a, copy])["tables"][0]["rows"]]
  assert "ILM (a, 2 seeds)" in names


def test_settings_that_differ_are_named(tmp_path, capsys):
  a, c = evaluated(tmp_path / "a", 0), evaluated(tmp_path / "c", 0, 3)
  for folder, steps in ((a, 80), (c, 200)):
    put(folder, **{"config.phase2": {"seed": 0, "phase2": {"steps": steps, "rows": 2},
                                     "eval": {"users": steps}},
                   "config.eval": {"seed": 0, "phase2": {"steps": 80}, "eval": {"users": 2}}})
  content = compare.write([a, c])
  # What a stage does not read is no difference: eval.users of stage phase2.
  assert content["examples"][0]["examples"] == [
      {"setting": "phase2.steps", "stages": "phase2", "a": "80", "c": "200"}]
  assert "phase2.steps (phase2): a: 80, c: 200" in capsys.readouterr().out
  assert "| phase2.steps | phase2 | 80 | 200 |" in (a / "comparison.md").read_text()
  assert "<td>phase2.steps</td>" in (a / "comparison.html").read_text()
  # Evaluated alike, trained otherwise: no seeds of one another.
  assert "ILM (c)" in [label(row) for row in content["tables"][0]["rows"]]


def test_equal_baselines_stand_there_once(tmp_path):
  a, b, c = (evaluated(tmp_path / name, seed, shift) for name, seed, shift in
             (("a", 0, 0), ("b", 1, 0), ("c", 0, 6)))
  names = [label(row) for row in compare.write([a, b, c])["tables"][0]["rows"]]
  assert names == ["ILM (a, 2 seeds)", "popularity (a, c)", "ILM (c)",
                   "popularity (a, c) minus ILM (a, 2 seeds)", "ILM (c) minus ILM (a, 2 seeds)"]


def test_losses_and_retrieval_stand_side_by_side(tmp_path, capsys):
  a, c = evaluated(tmp_path / "a", 0), evaluated(tmp_path / "c", 0, 3)
  put(a, eval__phase2__7__loss=part(3.5, split="test", examples=4),
      eval__phase1__2__retrieval=part(.25))
  measured.mark(a / "eval" / "phase1" / "2", {"checkpoints": {}})
  put(c, eval__phase2__7__loss=part(3.25, split="test", examples=8))
  content = compare.write([a, c])
  _, losses, retrieval = content["tables"]
  assert [(label(row), row["metrics"]["all"]["value"]) for row in losses["rows"]] == [
      ("ILM (a)", 3.5), ("ILM (c)", 3.25), ("no slots (a, c)", 9.0)]
  assert "no paired test" in losses["note"] and losses["note"].endswith("N.")
  assert losses["protocol"] == {"split": "test", "examples": "a: 4, c: 8"}
  assert [label(row) for row in retrieval["rows"]] == ["ILM (a)", "no slots (a)"]
  out = capsys.readouterr().out
  assert out.rstrip().splitlines()[-1].endswith("a/comparison.html")
  assert "| ILM (c) | 3.2500 [3.1500, 3.3500] |" in (a / "comparison.md").read_text()


def test_runs_of_one_name_are_told_apart(tmp_path):
  a, c = evaluated(tmp_path / "x" / "run", 0), evaluated(tmp_path / "y" / "run", 0, 3)
  names = [label(row) for row in compare.write([a, c])["tables"][0]["rows"]]
  assert "ILM (x/run)" in names and "ILM (y/run)" in names


def test_a_filter_without_repeats_is_that_of_older_runs(tmp_path):
  protocol = {"split": "s", "filter": "f", "tie rule": "t", "task": "k"}
  a, b, c = (evaluated(tmp_path / name, seed, protocol=protocol | more) for name, seed, more in (
      ("a", 0, {}), ("b", 1, {"repeated targets": "none"}), ("c", 2, {"repeated targets": "3"})))
  compare.write([a, b])
  with pytest.raises(errors.UserError, match="repeated targets is 'none' and '3'"):
    compare.write([a, c])


def test_what_cannot_be_compared_is_named(tmp_path):
  a = evaluated(tmp_path / "a", 0)
  other = evaluated(tmp_path / "b", 0, protocol={"split": "s", "filter": "none", "tie rule": "t",
                                                 "task": "k"})
  with pytest.raises(errors.UserError, match="a and b cannot be .*: filter is 'f' and 'none'"):
    compare.write([a, other])
  with pytest.raises(errors.UserError, match="ranked other users"):
    compare.write([a, evaluated(tmp_path / "c", 0, targets=["j"] * 60)])
  (tmp_path / "d").mkdir()
  with pytest.raises(errors.UserError, match="d has no evaluation to compare"):
    compare.write([a, tmp_path / "d"])


def test_a_cell_of_markdown_holds_marks_as_text():
  assert compare._line(["a|b", "c\nd"]) == "| a\\|b | c d |"
