"""Reading, checking and writing configs: every mistake is one clear line."""
import pathlib
import subprocess
import sys
import types

import ml_collections
import pytest
from absl import flags
from ml_collections import config_flags

from configs import base
from ilm_jax import errors
from ilm_jax.config import reading

ROOT = pathlib.Path(__file__).parents[1]
TINY = str(ROOT / "configs" / "tiny.py")


def parse(*argv):
  """The config of a command line, with flags of its own."""
  values = flags.FlagValues()
  holder = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=["main", *argv])
  return reading.from_flags(values, ["main", *argv], holder)


def error_of(*argv) -> str:
  with pytest.raises(errors.UserError) as e:
    parse(*argv)
  assert "\n" not in str(e.value)
  return str(e.value)


def test_overrides_are_taken():
  c = parse(f"--config={TINY}", "--config.phase2.steps=7", "--config.mesh.data", "2",
            "--config.vectors=('behavioral','semantic')", "--config.phase2.compare=('mlp',)")
  assert (c.phase2.steps, c.mesh.data) == (7, 2)
  assert c.vectors == ("behavioral", "semantic")
  assert c.phase2.compare == ("mlp",)


@pytest.mark.parametrize("override, words", [
    ("--config.phase1.step=4", "no field phase1.step: did you mean phase1.steps? phase1 has"),
    ("--config.fase1.steps=4", "no field fase1.steps: did you mean phase1?"),
    ("--config.zzz=4", "config has no field zzz: it has cf, data"),
    ("--config.seed.x=4", "seed has no fields inside"),
    ("--config.phase1.steps=many", "config.phase1.steps=many: invalid literal for int"),
    ("--confg.phase1.steps=4", "Unknown command line flag 'confg.phase1.steps'"),
    ("steps=4", "unexpected arguments ['steps=4']"),
])
def test_a_mistake_on_the_command_line_is_one_line(override, words):
  assert words in error_of(f"--config={TINY}", override)


def test_a_config_file_must_be_there_and_sound(tmp_path):
  assert "--config is not set" in error_of()
  assert "none.py cannot be opened" in error_of("--config=configs/none.py")
  broken = tmp_path / "broken.py"
  broken.write_text("def get_config():\n  return 1 / 0\n")
  assert "division by zero" in error_of(f"--config={broken}")


def test_main_prints_one_line_and_exits_with_1(tmp_path):
  """As a user meets it; nothing is written."""
  done = subprocess.run(
      [sys.executable, "-m", "ilm_jax.main", f"--config={TINY}", f"--workdir={tmp_path}/run",
       "--config.phase1.step=4"], cwd=ROOT, capture_output=True, text=True, check=False)
  assert done.returncode == 1
  assert "did you mean phase1.steps?" in done.stderr and len(done.stderr.splitlines()) == 1
  assert not list(tmp_path.iterdir())


def test_load_takes_overrides_by_name():
  c = reading.load(TINY, {"phase2.steps": 9, "vectors": ("semantic",)})
  assert (c.phase2.steps, c.vectors) == (9, ("semantic",))
  assert c.is_locked
  with pytest.raises(errors.UserError, match=r"did you mean phase2.steps\?"):
    reading.load(TINY, {"phase2.stepps": 9})
  with pytest.raises(errors.UserError, match="none.py does not exist"):
    reading.load("none.py")


def test_json_and_back():
  c = base.get_config()
  again = reading.from_json(reading.to_json(c))
  assert again == c and again.vectors == ("behavioral",) and again.is_locked
  assert reading.fingerprint(again) == reading.fingerprint(c)
  with again.unlocked():
    again.phase2.steps += 1
  assert reading.fingerprint(again) != reading.fingerprint(c)
  assert reading.fingerprint(again.cf) == reading.fingerprint(c.cf)


def test_every_mistake_is_named_at_once():
  c = base.get_config()
  c.lm.asset = "smollm2-135m"
  c.mesh.data = 3
  c.phase1.steps = 0
  c.vectors = ("semantics",)
  c.eval.exact_users = 5000
  with pytest.raises(errors.UserError) as e:
    reading.validate(c, device_count=2)
  for words in ("lm.asset='smollm2-135m' is unknown", "needs 3 devices, this job has 2",
                "phase1.steps=0: expected more than 0", "did you mean 'semantic'?",
                "phase1.batch_size=64 does not divide over mesh.data * mesh.fsdp = 3",
                "--config.phase1.batch_size=66", "eval.exact_users=5000 is more than"):
    assert words in str(e.value)
  assert "\n" not in str(e.value)


@pytest.mark.parametrize("field, value, words", [
    ("data.name", "ml-2m", "did you mean 'ml-32m'?"),
    ("data.name", "ml-1m", "data.path is empty: data.name='ml-1m' is read from files of yours"),
    ("data.path", "no/such/folder", "is no folder"),
    ("data.split", "loo", "expected one of 'loo_stable', 'loo_openp5', 'global_time'"),
    ("data.heldout_fraction", 0.0, "between 0 and 1"),
    ("cf.solver", "cgs", "did you mean 'cg'?"),
    ("prng", "threefry", "did you mean 'threefry2x32'?"),
    ("cf.dtype", "float16", "expected one of 'float32', 'bfloat16'"),
    ("text_encoder.asset", "minilm", "did you mean 'minilm-l6'?"),
    ("lm.dtype", "float16", "'float32', 'bfloat16'"),
    ("vectors", (), "vectors is empty"),
    ("qformer.num_heads", 7, "width=384 does not divide over qformer.num_heads=7"),
    ("qformer.text_pool", "max", "'cls', 'mean'"),
    ("qformer.dropout", 1.0, "less than 1"),
    ("tasks.max_train_examples", -1, "expected 0 (all) or more"),
    ("tasks.mixture.elm_year", -1.0, "expected 0 (left out) or more"),
    ("mesh.tensor", 0, "mesh.tensor=0: expected more than 0"),
    ("phase1.contrastive", "triplet", "'infonce', 'margin'"),
    ("phase1.batch_size", 1, "without negatives"),
    ("phase1.losses.ii", -0.5, "expected 0 (off) or more"),
    ("phase1.warmup", -1, "phase1.warmup=-1: expected 0 or more"),
    ("phase1.text_scale", -0.1, "phase1.text_scale=-0.1: expected 0 or more"),
    ("phase2.qformer_scale", -1.0, "phase2.qformer_scale=-1.0: expected 0 or more"),
    ("phase2.mlp_scale", -1.0, "phase2.mlp_scale=-1.0: expected 0 or more"),
    ("phase2.log_every", 0, "phase2.log_every=0: expected more than 0"),
    ("phase2.rows", 7, "phase2.rows=7 is no multiple of phase2.rows_per_group=2"),
    ("phase2.microbatches", 0, "phase2.microbatches=0: expected more than 0"),
    ("phase2.microbatches", 3, "make it a multiple of 3, e.g. --config.phase2.rows=9"),
    ("profile.start", 0, "profile.start=0: expected more than 0"),
    ("profile.steps", -1, "profile.steps=-1: expected 0 (no profile) or more"),
    ("phase2.targets", 300, "is more than phase2.length=256"),
    ("phase2.length", 3, "no room for an entity"),
    ("eval.beam_width", 5, "HR@20 cannot be measured"),
    ("eval.exact_users", -2, "expected 0 (none) or more"),
    ("eval.bootstrap", 0, "eval.bootstrap=0: expected more than 0"),
    ("eval.references", ("shuffled_mlp",), "phase2.compare no 'mlp': nothing trains it"),
])
def test_each_mistake(field, value, words):
  c = base.get_config()
  c.update_from_flattened_dict({field: value})
  with pytest.raises(errors.UserError) as e:
    reading.validate(c, 1)
  assert words in str(e.value)
  assert field in str(e.value)


def test_a_profile_after_the_end_is_told():
  c = base.get_config()
  c.update_from_flattened_dict({"profile.start": 2000, "profile.steps": 1})
  reading.validate(c, 1)
  c.profile.start = 2001
  with pytest.raises(errors.UserError, match="profile.start=2001 is after the last step, 2000"):
    reading.validate(c, 1)


def with_fields(part, **fields):
  c = base.get_config()
  with c.unlocked():
    c[part.split(".")[0]][part.split(".")[1]] = ml_collections.ConfigDict(fields)
  return c


@pytest.mark.parametrize("fields, words", [
    ({"columns.user": ""}, "data.columns.user is empty: name the column"),
    ({"columns.items_file": "items.csv", "columns.id": ""}, "data.columns.id is empty"),
    ({"columns.interactions_file": ""}, "data.columns.interactions_file is empty: name the file"),
    ({"columns.interactions_file": "log.xlsx"}, "expected a file ending in .csv, .tsv"),
    ({"columns.time_unit": "h"}, "time_unit='h' is unknown: expected one of 's', 'ms'"),
    ({"split": "global_time"}, "has none: name data.columns.time, or choose 'loo_stable'"),
    ({"name": "lastfm", "split": "global_time"}, "'lastfm' has none: choose 'loo_stable'"),
    ({"name": "ml-1m", "split": "global_time", "time_fractions": (0.9, 0.8)},
     "data.time_fractions=(0.9, 0.8): expected two ascending numbers"),
])
def test_mistakes_in_naming_the_data(tmp_path, fields, words):
  c = base.get_config()
  c.data.update({"name": "table", "path": str(tmp_path)})
  reading.validate(c, 1)
  c.data.update_from_flattened_dict(fields)
  with pytest.raises(errors.UserError) as e:
    reading.validate(c, 1)
  assert words in str(e.value)


@pytest.mark.parametrize("c, words", [
    (with_fields("tasks.mixture", sequental=1.0), "'sequental' is unknown: .* mean 'sequential'"),
    (with_fields("tasks.mixture", sequential=0.0), "no task with a rate above 0"),
    (with_fields("phase1.losses", itc=1.0, itm=0.0, itx=1.0), "phase1.losses='itx' is unknown"),
    (with_fields("phase1.losses", itc=0.0, ui=0.0), "phase1.losses are all 0"),
])
def test_names_and_rates_of_tasks_and_losses(c, words):
  with pytest.raises(errors.UserError, match=words):
    reading.validate(c, 1)


def test_a_missing_field_and_a_wrong_type_are_named():
  c = base.get_config()
  with c.unlocked():
    del c.phase2["rows"]
    with c.eval.ignore_type():
      c.eval.beam_width = "wide"
  with pytest.raises(errors.UserError, match="field is missing: .*rows.*of another type"):
    reading.validate(c, 1)


@pytest.mark.parametrize("workdir, folder", [
    ("gs://bucket/run/", "gs://bucket/run/compiled"), ("runs/here", "compiled"),
    (None, "compiled")])
def test_compiled_programs_of_a_remote_run_are_kept_with_it(monkeypatch, workdir, folder):
  """Every host of a pod reads them there; process 0 writes them."""
  from ilm_jax import main
  monkeypatch.setattr(main, "_WORKDIR", types.SimpleNamespace(value=workdir))
  assert main._compiled_programs().endswith(folder)
  assert ("://" in main._compiled_programs()) == ("://" in (workdir or ""))
