"""What a stage finds done, and what it does again when the config has changed."""
import pathlib

import pytest

from ilm_jax import config as config_lib
from ilm_jax.data import store
from ilm_jax.stages import context, prepare

TINY = pathlib.Path(__file__).parents[1] / "configs" / "tiny.py"


def make_run(workdir, **changes):
  config = config_lib.load(str(TINY))
  config.update_from_flattened_dict(changes)
  return context.Run(config, workdir, devices=False)


def test_tables_count_as_measured_under_their_own_settings_alone(tmp_path):
  run, folder = make_run(tmp_path), tmp_path / "eval" / "phase1" / "4"
  assert not run.measured(folder)
  run.mark_measured(folder)
  assert make_run(tmp_path).measured(folder)
  other = {"eval.bootstrap": run.config.eval.bootstrap + 1}
  assert not make_run(tmp_path, **other).measured(folder)
  run.begin_measuring(folder)  # killed before the mark: neither settings' tables are whole
  run.begin_measuring(folder)
  assert not run.measured(folder)


def test_another_k_core_makes_the_data_again(tmp_path, monkeypatch):
  movielens = pytest.importorskip("tasks.datasets.movielens")
  from test_interactions import built

  import tasks.prepare
  asked = []

  def load(folder, k):
    asked.append(k)
    return built(k=2)

  monkeypatch.setattr(movielens, "load", load)
  monkeypatch.setattr(tasks.prepare, "prepare", lambda *_: None)
  for name in ("lm_tokenizer", "text_tokenizer"):
    monkeypatch.setattr(context.Run, name, None)
  for k in (5, 5, 7, 7):
    prepare.run(make_run(tmp_path, **{"data.k_core": k}))
  assert asked == [5, 7]
  assert store.read_manifest(tmp_path / "data")["made_from"]["k_core"] == 7
