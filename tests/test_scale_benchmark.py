"""benchmarks.scale: the synthetic log, the figures of a stage, the exponents."""
import json
import sys

import numpy as np
import pytest

from benchmarks import scale


def test_a_user_never_has_an_item_twice_and_popular_items_are_drawn_most(monkeypatch):
  monkeypatch.setattr(scale, "_TOGETHER", 700)           # three pieces
  user_N, item_N, _ = (np.concatenate(parts) for parts in zip(*scale.draw(scale.shape("1000"))))
  assert len(set(zip(user_N.tolist(), item_N.tolist()))) == len(user_N)
  assert np.all(np.diff(user_N) >= 0) and len(set(user_N.tolist())) == 2000
  assert item_N.min() >= 0 and item_N.max() < 1000
  drawn_I = np.sort(np.bincount(item_N, minlength=1000))[::-1]
  assert drawn_I[:100].sum() > 4 * drawn_I[-100:].sum() > 0


def test_users_prefer_their_clusters():
  user_N, item_N, _ = next(scale.draw(scale.shape("5000")))
  found = [np.sort(np.bincount(item_N[user_N == user] // 100))[-3:].sum() / np.sum(user_N == user)
           for user in range(50)]
  assert np.mean(found) > 0.6                            # by chance at most .2


def test_the_figures_are_those_of_the_stage_and_are_kept(monkeypatch, tmp_path):
  work = "x = bytearray(200 << 20)\nfor _ in range(3 * 10 ** 6): pass"
  monkeypatch.setattr(scale, "command", lambda *given: [sys.executable, "-c", work])
  monkeypatch.setattr(scale, "write", lambda folder, log: 7)
  told = scale.size(tmp_path, "10", ["cf"], ())
  assert told["log"]["interactions"] == 7 and 0.19 < told["cf"]["peak"] < 0.4
  assert 0 < told["cf"]["processor"]
  monkeypatch.setattr(scale, "command", None)            # nothing runs again
  assert scale.size(tmp_path, "10", ["cf"], ()) == told == json.loads(
      (tmp_path / "figures.json").read_text())


def test_a_stage_that_fails_says_where_its_output_is(monkeypatch, tmp_path):
  monkeypatch.setattr(scale, "command", lambda *given: [sys.executable, "-c", "1 / 0"])
  with pytest.raises(SystemExit, match=r"stage cf failed: see .*cf\.log"):
    scale.measured("cf", tmp_path, ())
  assert "ZeroDivisionError" in (tmp_path / "cf.log").read_text()


def test_exponents_from_size_to_size():
  rows = {str(n): {"cf": {"seconds": 1.0, "processor": cost, "peak": peak}}
          for n, cost, peak in ((10, 2.0, 1.0), (100, 20.0, 1.0), (1000, 2000.0, 10.0))}
  assert scale.table(rows, ["cf"]).splitlines()[-1].endswith("| 1.00, 2.00 | 0.00, 1.00 |")
