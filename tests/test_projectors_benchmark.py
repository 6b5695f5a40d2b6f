"""The benchmark of projectors: arms are configs that run, and its table is arithmetic of ranks."""
import gzip
import json
import sys
import types

import numpy as np
import pytest

from benchmarks import projectors
from ilm_jax import errors
from ilm_jax.config import reading
from ilm_jax.models import ilm
from ilm_jax.runtime import locks


@pytest.mark.parametrize("name", projectors.ARMS)
def test_every_arm_is_a_config_that_runs(name):
  arm = projectors.ARMS[name]
  c = projectors.configured("configs/ml100k_head.py", 3, arm, {"phase2.steps": 7})
  reading.validate(c, 1)
  assert c.seed == 3 and c.phase2.steps == 7
  assert c.phase2.compare == ((arm.variant,) if arm.variant in ("rand", "mlp") else ())
  for field, value in arm.changes.items():
    node = c
    for part in field.split("."):
      node = node[part]
    assert node == value, field


@pytest.mark.parametrize("name, head", [("mlp_words", 0.0), ("mlp_words_head", 1.0)])
def test_arms_of_words_run_where_indices_are_said(name, head):
  c = projectors.configured("configs/ml100k_index.py", 0, projectors.ARMS[name], {})
  reading.validate(c, 1)
  assert c.lm.index_only and (c.phase2.head.weight, c.phase2.head.rows) == (head, 0)


def test_arms_add_to_the_papers_form():
  c = projectors.configured("configs/ml100k_head.py", 0, projectors.ARMS["paper"], {})
  assert not any(vars(ilm.Form.of(c.phase2)).values())
  assert (c.qformer.cross_init, c.qformer.cross_every, c.phase1.candidates) == ("bert", 2, "batch")
  assert c.phase1.losses.ui and not c.phase1.losses.cf and c.phase2.spread


def test_an_arm_that_names_no_field_is_refused():
  with pytest.raises((KeyError, AttributeError)):
    projectors.configured("configs/ml100k_head.py", 0, projectors.Arm("mlp", {"phase2.skp": 1}), {})


def test_the_table_is_of_means_over_seeds_paired_by_user(tmp_path):
  """Four users; hits of arm "skip" 2 and 4 of 4, of "mlp" 1 and 1: .75 and .25, .5 apart."""
  ranks = {"skip": [[1, 2, 30, 40], [1, 2, 3, 4]], "mlp": [[1, 20, 30, 40], [20, 1, 30, 40]]}
  for name, by_seed in ranks.items():
    for seed, rank_U in enumerate(by_seed):
      folder = tmp_path / name / str(seed)
      folder.mkdir(parents=True)
      np.savez(folder / "ranks.npz", validation=np.array(rank_U, float))
      with (tmp_path / "log.jsonl").open("a") as log:
        log.write(json.dumps({"arm": name, "seed": seed, "parameters": 2_500_000, "gflops": 3.5,
                              "seconds": 60}) + "\n")
  args = types.SimpleNamespace(out=tmp_path, arms=["skip"], seeds=[0, 1], against="mlp")
  row = projectors.table(args, "validation").splitlines()[-1]
  assert row.startswith("| skip 0.7500 |") and f"| {0.25 * 2 ** 0.5:.4f} | +0.5000 [" in row
  assert row.endswith("| 2.50 M | 3.5 | 60 |")


def test_arms_share_what_stage_cf_makes_unless_their_vectors_differ(tmp_path, monkeypatch):
  """A teacher is trained once, in base; an arm of other vectors has a table of its own."""
  ran, base = [], tmp_path / "base"

  def run(config, workdir, names):
    ran.append((workdir.name, names))
    for name in ("entities", "sasrec"):
      (workdir / name).mkdir(parents=True, exist_ok=True)
      (workdir / name / "manifest.json").write_text("{}")

  monkeypatch.setattr(projectors.stages, "run", run)
  (base / "entities").mkdir(parents=True)
  (base / "entities" / "manifest.json").write_text("{}")
  shared = projectors.configured("configs/ml100k_head.py", 0, projectors.Arm("", {}), {})
  for name in ("mlp", "mlp_distil", "mlp_distil_twice", "skip_distil", "mlp_sasrec"):
    config = projectors.configured("configs/ml100k_head.py", 0, projectors.ARMS[name], {})
    (tmp_path / name).mkdir()
    projectors._vectors(config, shared, base, tmp_path / name)
  assert ran == [("base", ("cf",)), ("mlp_sasrec", ("cf",))]
  assert (tmp_path / "skip_distil" / "sasrec").resolve() == base / "sasrec"
  assert not (tmp_path / "mlp_sasrec" / "entities").is_symlink()


def test_an_arm_of_other_settings_is_refused_and_the_last_training_counts(tmp_path):
  (tmp_path / "mlp" / "0").mkdir(parents=True)
  np.savez(tmp_path / "mlp" / "0" / "ranks.npz", validation=np.ones(3))
  args = types.SimpleNamespace(out=tmp_path, config="configs/ml100k_head.py",
                               set={"phase2.steps": 400, "vectors": ("behavioral",)})
  line = {"arm": "mlp", "seed": 0, "config": args.config, "variant": "mlp",
          "changes": projectors._changes(args, projectors.ARMS["mlp"])}
  before = {**line, "changes": {**line["changes"], "phase2.steps": 9}}
  (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, (before, line))))
  projectors.train(args, "mlp", 0)
  assert projectors._line(tmp_path, "mlp", 0)["changes"]["phase2.steps"] == 400
  args.set = {"phase2.steps": 800, "vectors": ("behavioral",)}
  with pytest.raises(errors.UserError, match=r"mlp/0 was trained with other settings .phase2.steps"
                     ": 400 -> 800.: name another --out"):
    projectors.train(args, "mlp", 0)


def test_the_arm_to_subtract_is_known_before_anything_is_trained(tmp_path, monkeypatch, capsys):
  began = []
  monkeypatch.setattr(projectors, "train", lambda args, name, seed: began.append(args.against))
  monkeypatch.setattr(projectors, "_ranks_file", lambda *_: types.SimpleNamespace(files=[]))
  words = ["projectors", f"--out={tmp_path}", "--arms=skip,ilm", "--seeds=1"]
  monkeypatch.setattr(sys, "argv", [*words, "--against=mlp"])
  with pytest.raises(SystemExit):
    projectors.main()
  assert not began and "--against=mlp is not trained with seeds [1]" in capsys.readouterr().err
  monkeypatch.setattr(sys, "argv", words)
  projectors.main()
  assert began == ["skip", "skip"]


def test_an_arm_that_another_job_trains_is_refused(tmp_path):
  with locks.held(tmp_path / "mlp" / "0", ["projectors"]):
    with pytest.raises(errors.UserError, match="another job writes"):
      projectors.train(types.SimpleNamespace(out=tmp_path), "mlp", 0)


def test_leads_over_another_run_s_methods_are_of_the_same_users(tmp_path, monkeypatch):
  """b is hit by the arm with both seeds, a with one; the other run hits a and misses b."""
  folder = tmp_path / "eval" / "phase2" / "9"
  folder.mkdir(parents=True)
  (folder / "ranks.json.gz").write_bytes(gzip.compress(json.dumps(
      {"users": ["b", "a"], "ranks": {"graph": [None, 1], "beams, first user": [1]}}).encode()))
  ranks = {0: {"a": 1.0, "b": 2.0}, 1: {"a": 50.0, "b": 3.0}}
  monkeypatch.setattr(projectors, "_of_users", lambda args, name, seed, users: np.array(
      [ranks[seed][user] for user in users]))
  shown = projectors.beside(types.SimpleNamespace(beside=tmp_path, arms=["mlp"], seeds=[0, 1]))
  assert shown.splitlines()[0] == "| test, HR@10 | graph |"
  assert shown.splitlines()[2].startswith("| mlp minus | +0.250 [")
  (tmp_path / "eval" / "phase2" / "10").mkdir()
  (tmp_path / "eval" / "phase2" / "10" / "ranks.json.gz").touch()
  with pytest.raises(errors.UserError, match="found 2 files of ranks, expected one"):
    projectors.beside(types.SimpleNamespace(beside=tmp_path))


def test_an_arm_killed_before_its_line_is_trained_again(tmp_path, monkeypatch):
  """`ranks.npz` says that an arm is done: it comes last, behind the line in the log."""
  split = types.SimpleNamespace(valid=np.ones(2, bool), test=np.zeros(2, bool))
  run = types.SimpleNamespace(data=types.SimpleNamespace(log=types.SimpleNamespace(split=split)))
  monkeypatch.setattr(projectors.context, "Run", lambda *args: run)
  monkeypatch.setattr(projectors.stages, "run", lambda *args: None)
  monkeypatch.setattr(projectors, "_vectors", lambda *args: None)
  monkeypatch.setattr(projectors.phases, "phase2", lambda *args: None)
  monkeypatch.setattr(projectors, "rank", lambda *args: np.array([1.0, 30.0]))
  said = iter([KeyboardInterrupt, {"parameters": 1}])

  def costs(run, variant):
    if (what := next(said)) is KeyboardInterrupt:
      raise what
    return what

  monkeypatch.setattr(projectors, "costs", costs)
  args = types.SimpleNamespace(out=tmp_path, config="configs/ml100k_head.py", set={})
  with pytest.raises(KeyboardInterrupt):
    projectors.train(args, "mlp", 0)
  projectors.train(args, "mlp", 0)
  assert projectors._line(tmp_path, "mlp", 0)["validation hr@10"] == 0.5
  assert (tmp_path / "mlp" / "0" / "ranks.npz").exists()
