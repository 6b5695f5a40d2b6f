"""What a stage finds done, and what it does again when the config has changed."""
import json
import pathlib
import sys

import numpy as np
import pytest
import real

from configs import tiny
from ilm_jax import errors
from ilm_jax.config import reading as config_lib
from ilm_jax.data import interactions, kept, store
from ilm_jax.runtime import locks
from ilm_jax.stages import context, phases, prepare, vectors
from ilm_jax.stages import run as stages
from ilm_jax.stages.evals import made_from, retrieval, tables
from ilm_jax.training import checkpoint

TINY = pathlib.Path(__file__).parents[1] / "configs" / "tiny.py"


def make_run(workdir, **changes):
  config = config_lib.load(str(TINY))
  config.update_from_flattened_dict(changes)
  return context.Run(config, workdir, devices=False)


def test_another_k_core_or_split_makes_the_data_again(tmp_path, monkeypatch, capsys):
  pytest.importorskip("tensorflow_datasets", reason=real.NEEDS_DATA)
  from test_interactions import built

  import tasks.prepare
  from tasks.datasets import builder, registry
  asked = []

  def load(found, folder, k, rule, beam, talks):
    asked.append((k, rule.name))
    return *built(k=2), kept.Kept(k, (2, 2), (3, 3), (6, 6))

  monkeypatch.setattr(registry, "find", lambda data: registry.Found(
      "ml-100k", registry.DATASETS["ml-100k"], {}, "abc", None, None))
  monkeypatch.setattr(builder, "load", load)
  monkeypatch.setattr(tasks.prepare, "prepare", lambda *_, **__: None)
  for name in ("lm_tokenizer", "text_tokenizer"):
    monkeypatch.setattr(context.Run, name, None)
  for k in (5, 5, 7, 7):
    prepare.run(make_run(tmp_path, **{"data.k_core": k}))
  assert [int(line[-2]) for line in capsys.readouterr().out.splitlines()] == [5, 5, 7, 7]
  other = make_run(tmp_path, **{"data.k_core": 7, "data.split": "loo_openp5"})
  with pytest.raises(errors.UserError, match="split: loo_stable -> loo_openp5"):
    _ = other.data
  prepare.run(other)
  assert asked == [(5, "loo_stable"), (7, "loo_stable"), (7, "loo_openp5")]
  made_from = store.read_manifest(tmp_path / "data")["made_from"]
  with pytest.raises(errors.UserError, match="k_core: 7 -> 3.: run --stage=prepare again"):
    _ = make_run(tmp_path, **{"data.k_core": 3, "data.split": "loo_openp5"}).data
  with pytest.raises(errors.UserError, match="dialog_items: False -> True.: run --stage=prepare"):
    _ = make_run(tmp_path, **{"data.k_core": 7, "data.split": "loo_openp5",
                              "data.dialog_items": True, "cf.dialogs": 1,
                              "tasks.dialogs": f"redial:{tmp_path}"}).data
  assert made_from == {"dataset": "ml-100k", "files": "abc", "k_core": 7, "split": "loo_openp5",
                       "time": "seconds"}
  assert other.data.items.ids == ["4", "5", "30"]


def test_films_of_dialogs_are_part_of_the_data(tmp_path, monkeypatch):
  """The films of ReDial's training dialogs are recorded: with others the data are made again."""
  pytest.importorskip("tensorflow_datasets", reason=real.NEEDS_DATA)
  from test_interactions import built

  from tasks.datasets import builder, registry
  asked = []

  def load(found, folder, k, rule, beam, talks):
    asked.append([talk.films for talk in talks])
    return *built(k=2), kept.Kept(k, (2, 2), (3, 3), (6, 6))

  monkeypatch.setattr(registry, "find", lambda data: registry.Found(
      "ml-100k", registry.DATASETS["ml-100k"], {}, "abc", None, None))
  monkeypatch.setattr(builder, "load", load)
  films = [{"1": "Heat (1995)"}, {"2": "Emma (2020)"}]
  for named in (films[0], films[0], films[1]):
    for part, of_part in (("valid", named), ("test", {"9": "Of test alone (2000)"})):
      (tmp_path / f"{part}.jsonl").write_text(json.dumps({
          "conversationId": "1", "initiatorWorkerId": 0, "respondentWorkerId": 1,
          "movieMentions": of_part, "messages": [{"senderWorkerId": 0, "text": "x"}]}))
    run = make_run(tmp_path / "run", **{
        "data.dialog_items": True, "data.k_core": 2, "cf.dialogs": 1,
        "tasks.dialogs": f"redial:{tmp_path}"})
    prepare.make_data(run)
  assert asked == [[films[0]], [films[1]]] and len(run.data.items) == 3
  plain = make_run(tmp_path / "run", **{"data.k_core": 2})
  with pytest.raises(errors.UserError, match="dialog_items: True -> False.: run --stage=prepare"):
    _ = plain.data


@pytest.mark.parametrize("package", ["seqio", "tensorflow", "tensorflow_datasets"])
def test_prepare_without_its_packages_says_the_cure(tmp_path, monkeypatch, package):
  """In the process of stages targets and prepare, before anything is written."""
  for name in [name for name in sys.modules
               if name.split(".")[0] in ("tasks", package) or name.startswith("ilm_jax.tasks")]:
    monkeypatch.delitem(sys.modules, name)
  monkeypatch.setitem(sys.modules, package, None)
  config = config_lib.to_json(config_lib.load(str(TINY)))
  with pytest.raises(errors.UserError, match="extra data in Python 3.11.*or prepare on") as e:
    stages._prepare_here("run", config, str(tmp_path), ())
  assert "\n" not in str(e.value) and not list(tmp_path.iterdir())


def test_a_fault_of_the_tasks_is_no_missing_package(monkeypatch):
  monkeypatch.setitem(sys.modules, "ilm_jax.tasks.datasets", None)
  for name in [name for name in sys.modules if name.startswith("ilm_jax.tasks.datasets.")]:
    monkeypatch.delitem(sys.modules, name)
  with pytest.raises(ModuleNotFoundError, match="tasks.datasets"):
    prepare.load_tasks()


def test_factors_that_are_missing_are_made_beside_the_same_table(tmp_path, monkeypatch):
  """Checkpoints hang on the bits of entities/, which another machine might not make again."""
  from test_interactions import built
  log, items = built(k=2)
  interactions.save(tmp_path / "data", log, items, {"split": "loo_stable"})
  factors = np.ones((log.num_users, 4), np.float32), np.ones((len(items) + 1, 4), np.float32)
  monkeypatch.setattr(context.Run, "mesh", None)
  monkeypatch.setattr(context.Run, "sentence_vectors", lambda _, texts: np.ones((len(texts), 3)))
  monkeypatch.setattr(vectors, "factorise", lambda *_: factors)
  vectors.run(make_run(tmp_path))
  table = {p: p.stat().st_mtime_ns for p in (tmp_path / "entities").iterdir()}
  (tmp_path / "factors.npz").unlink()
  with pytest.raises(errors.UserError, match="factors.npz is missing: run --stage=cf"):
    vectors.factors(make_run(tmp_path))
  vectors.run(make_run(tmp_path))
  np.testing.assert_array_equal(vectors.factors(make_run(tmp_path))[0], factors[0])
  assert table == {p: p.stat().st_mtime_ns for p in (tmp_path / "entities").iterdir()}


def test_each_stage_locks_what_it_writes(tmp_path, monkeypatch):
  ran = []
  monkeypatch.setattr(stages, "_STAGES", {
      name: lambda _, name=name: ran.append(name) for name in stages._STAGES})
  monkeypatch.setattr(context.Run, "_device_count", lambda _: 1)
  monkeypatch.setattr(context.Run, "check_groups", lambda _: None)
  monkeypatch.setattr(stages, "_check_rows", lambda _: None)
  config = config_lib.load(str(TINY))
  with locks.held(tmp_path, ["train"]):
    for name in ("targets", "prepare", "cf", "phase1", "phase2"):
      with pytest.raises(errors.UserError, match="another job writes in .*train"):
        stages.run(config, tmp_path, ("report", name, "eval"))
    assert not ran and not list(tmp_path.glob("config.*"))
    stages.run(config, tmp_path, ("eval", "report", "audit"))
  with locks.held(tmp_path, ["eval"]):
    with pytest.raises(errors.UserError, match="another job writes in .*eval"):
      stages.run(config, tmp_path, ("phase1", "eval"))
    stages.run(config, tmp_path, ("phase1", "phase2", "report"))
  assert ran == ["eval", "report", "audit", "phase1", "phase2", "report"]


def test_an_example_that_fits_into_no_row_is_known_before_phase_1(tmp_path, monkeypatch):
  def batches(run):
    raise errors.UserError("conv_next: example 667 needs targets=177")

  ran = []
  monkeypatch.setattr(stages, "_STAGES", {
      name: lambda _, name=name: ran.append(name) for name in stages._STAGES})
  monkeypatch.setattr(context.Run, "_device_count", lambda _: 1)
  monkeypatch.setattr(context.Run, "check_groups", lambda _: None)
  monkeypatch.setattr(phases, "phase2_batches", batches)
  config = config_lib.load(str(TINY))
  with pytest.raises(errors.UserError, match="example 667"):
    stages.run(config, tmp_path, ("prepare", "phase1", "phase2"))
  assert ran == ["prepare"]
  stages.run(config, tmp_path, ("phase1",))      # alone it needs no rows
  assert ran == ["prepare", "phase1"]


@pytest.mark.parametrize("init_from, phase1_is_here, retrieves", [
    ("", False, True), ("", True, True), ("elsewhere", False, False), ("elsewhere", True, True)])
def test_tables_of_phase_1_are_of_the_one_in_the_workdir(
    tmp_path, monkeypatch, init_from, phase1_is_here, retrieves):
  """Without one the stage says so, unless phase 2 begins elsewhere."""
  c, made = tiny.get_config(), []
  c.phase2.init_from = init_from
  monkeypatch.setattr(checkpoint, "newest", lambda folder: (
      5 if folder.parent.name != "phase1" or phase1_is_here else None))
  monkeypatch.setattr(made_from, "of_phase2", lambda run: None)
  monkeypatch.setattr(retrieval, "run", lambda run: made.append("retrieval"))
  monkeypatch.setattr(tables, "run", lambda run: made.append("tables"))
  stages._eval(context.Run(c, tmp_path, devices=False))
  assert made == ["retrieval"] * retrieves + ["tables"]
