"""Significance against exact enumeration and scipy; runs beside one another."""
import gzip
import itertools
import json

import numpy as np
import pytest
import scipy.stats

from ilm_jax import errors
from ilm_jax.evaluation import compare, metrics, significance

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
  (step / "ranks.json.gz").write_bytes(gzip.compress(json.dumps(stored).encode()))
  (folder / "config.eval.json").write_text(json.dumps({"seed": seed, "x": shift}))
  return folder


def test_runs_beside_one_another(tmp_path, capsys):
  a, b, c = (evaluated(tmp_path / name, seed, shift) for name, seed, shift in
             (("a", 0, 0), ("b", 1, 0), ("c", 0, 6)))
  content = compare.write([a, b, c])
  rows = {row["name"]: row["metrics"] for row in content["tables"][0]["rows"]}
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
