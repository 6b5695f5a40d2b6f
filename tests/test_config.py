"""Reading, checking and writing configs: every mistake is one clear line."""
import pathlib
import subprocess
import sys

import ml_collections
import pytest
from absl import flags
from ml_collections import config_flags

from configs import base
from ilm_jax import errors
from ilm_jax.config import bounds, reading

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
    ("--phase2.steps=4", "Unknown command line flag 'phase2.steps': did you mean --config.phase2."),
    ("--phase2.stepz=4", "Unknown command line flag 'phase2.stepz'"),
    ("steps=4", "unexpected arguments ['steps=4']"),
])
def test_a_mistake_on_the_command_line_is_one_line(override, words):
  assert words in error_of(f"--config={TINY}", override)


@pytest.mark.parametrize("text, words", [
    ("def get_config():\n  return 1 / 0\n", "mine.py, line 2: division by zero"),
    ("def get_config(:\n", "mine.py, line 1: invalid syntax"),
    ("import no_such_module\n", "mine.py, line 1: No module named 'no_such_module'"),
    ("x = 1\n", "mine.py has no get_config()"),
    ("def get_config():\n  pass\n", "returns NoneType, expected an ml_collections.ConfigDict"),
])
def test_a_config_file_that_is_none_is_one_line(tmp_path, text, words):
  (tmp_path / "mine.py").write_text(text)
  assert words in error_of(f"--config={tmp_path}/mine.py")


def test_a_config_file_must_be_there(tmp_path):
  assert "--config is not set" in error_of()
  assert "config file configs/none.py does not exist" in error_of("--config=configs/none.py")
  (tmp_path / "mine.yaml").write_text("seed: 1")
  assert "mine.yaml is no Python file" in error_of(f"--config={tmp_path}/mine.yaml")


@pytest.mark.parametrize("line, words", [
    ("c.phase2.stepz = 5", "config has no field phase2.stepz: did you mean phase2.steps? phase2"),
    ("c.phase2['stepz'] = 5", "did you mean phase2.steps?"),
    ("c.phase2.update(stepz=5)", "did you mean phase2.steps?"),
    ("c.update({'phase2': {'stepz': 5}})", "did you mean phase2.steps?"),
    ("c.phase2.steps = c.phase1.stepz", "did you mean phase1.steps?"),
    ("p = c.phase2; p.stepz = 5", "no field"),
    ("c.fase2.steps = 5", "config has no field fase2: did you mean phase2?"),
    ("c.phase2.steps = 'many'", "'steps'"),
])
def test_a_typo_in_a_config_file_is_answered_as_one_on_the_command_line(tmp_path, line, words):
  path = tmp_path / "mine.py"
  path.write_text("from configs import base\ndef get_config():\n  c = base.get_config()\n"
                  f"  {line}\n  return c\n")
  assert f"config file {path}, line 4: " in error_of(f"--config={path}")
  assert words in error_of(f"--config={path}")


def test_a_tilde_in_paths_is_the_home_folder(tmp_path, monkeypatch):
  """Also in --config=~/mine.py, which no shell expands."""
  monkeypatch.setenv("HOME", str(tmp_path))
  (tmp_path / "mine.py").write_text(
      "from configs import base\ndef get_config():\n  c = base.get_config()\n"
      "  c.data.path = '~/films'\n  return c\n")
  c = reading.at_home(parse("--config=~/mine.py", "--config.phase2.init_from=~"))
  assert (c.data.path, c.phase2.init_from) == (f"{tmp_path}/films", str(tmp_path))
  assert reading.load("~/mine.py").data.path == f"{tmp_path}/films"


@pytest.mark.parametrize("argv", [("--config=tiny",), ("--config", "tiny")])
def test_a_bare_name_is_a_file_of_configs(argv, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert reading.to_json(parse(*argv)) == reading.to_json(parse(f"--config={TINY}"))
  (tmp_path / "tiny").mkdir()
  assert "config file tiny" in error_of(*argv)     # what is there comes before


def test_the_readme_s_configs_are_found_from_any_folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert reading.to_json(parse("--config=configs/tiny.py")) == reading.to_json(
      parse(f"--config={TINY}"))
  (tmp_path / "configs").mkdir()
  (tmp_path / "configs" / "tiny.py").write_text("")
  assert "configs/tiny.py has no get_config()" in error_of("--config=configs/tiny.py")
  assert "config file configs/none.py does not exist" in error_of("--config=configs/none.py")


def test_a_flag_without_a_value_is_one_line():
  assert "config" in error_of("--config")


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


def test_no_beams_at_all():
  """No width is too small then, and beams of what is trained beside cannot be asked for."""
  c = base.get_config()
  c.eval.update(beam_users=0, exact_users=0, beam_width=5)
  reading.validate(c, device_count=1)
  c.eval.rank_compared = True
  with pytest.raises(errors.UserError, match="rank_compared=True with eval.beam_users=0"):
    reading.validate(c, device_count=1)


def test_int8_weights_are_not_drawn():
  c = base.get_config()
  c.lm.update(random=True, dtype="int8")
  with pytest.raises(errors.UserError, match="lm.random=True with lm.dtype='int8'"):
    reading.validate(c, device_count=1)


def test_rows_that_no_task_needs_fit_any_mesh():
  c = reading.load("configs/ml100k_head.py", {
      "mesh.data": 32, "phase1.batch_size": 64, "phase1.pair_batch_size": 64, "phase2.rows": 18,
      "phase2.head.rows": 64})
  reading.validate(c, device_count=32)
  c.tasks.mixture.elm_title = 1.0
  with pytest.raises(errors.UserError, match="phase2.rows=18 does not divide over mesh.data"):
    reading.validate(c, device_count=32)


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
    ("data.name", "ml-1m", "data.path is empty: data.name='ml-1m' is read from your files"),
    ("data.path", "no/such/folder", "is no folder"),
    ("data.split", "loo", "expected one of 'loo_stable', 'loo_last', 'loo_openp5', "
     "'global_time'"),
    ("data.heldout_fraction", 0.0, "between 0 and 1"),
    ("cf.solver", "cgs", "did you mean 'cg'?"),
    ("prng", "threefry", "did you mean 'threefry2x32'?"),
    ("cf.dtype", "float16", "expected one of 'float32', 'bfloat16'"),
    ("text_encoder.asset", "minilm", "did you mean 'minilm-l6'?"),
    ("lm.dtype", "float16", "'float32', 'bfloat16'"),
    ("vectors", (), "vectors is empty"),
    ("qformer.vector_dropout", 0.5, "qformer.vector_dropout=0.5 with vectors=('behavioral',)"),
    ("phase2.vector_dropout", 0.5, "and there is none: name 'semantic' in vectors"),
    ("qformer.num_heads", 7, "width=384 does not divide over qformer.num_heads=7"),
    ("qformer.text_pool", "max", "'cls', 'mean'"),
    ("qformer.query_pool", "max", "'mean', 'nearest'"),
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
    ("eval.beam_users", -1, "expected 0 (none) or more"),
    ("eval.beam_users", 0, "eval.exact_users=20 is more than eval.beam_users=0"),
    ("eval.bootstrap", 0, "eval.bootstrap=0: expected more than 0"),
    ("plan.catalogue", 100_000, "not less than plan.entities=100000"),
    ("eval.references", ("shuffled_mlp",), "phase2.compare no 'mlp': the MLP is not"),
])
def test_each_mistake(field, value, words):
  c = base.get_config()
  c.update_from_flattened_dict({field: value})
  with pytest.raises(errors.UserError) as e:
    reading.validate(c, 1)
  assert words in str(e.value)
  assert field in str(e.value)


@pytest.mark.parametrize("field, value", [
    ("seed", -1), ("seed", 2 ** 64), ("cf.alpha", float("inf")), ("cf.alpha", 1e38),
    ("cf.reg", float("nan")), ("tasks.mixture.sequential", float("nan")),
    ("phase1.losses.itc", float("inf")), ("phase2.learning_rate", float("nan")),
    ("phase2.clip", float("nan")), ("phase1.weight_decay", float("inf")),
    ("eval.beam_width", 2 ** 31), ("eval.bootstrap", 2 ** 31), ("eval.generations", -1),
    ("eval.batch_size", 0), ("qformer.temperature", 0.0), ("qformer.vector_noise", -1.0),
    ("qformer.kv_width", -1), ("phase2.soft_token_rms", float("nan")), ("lm.new_tokens", -1),
    ("phase1.batch_size", 2 ** 40), ("targets.timeout", float("inf")), ("targets.top_p", 2.0),
    ("data.heldout_fraction", float("nan"))])
def test_numbers_out_of_bounds(field, value):
  c = base.get_config()
  c.update_from_flattened_dict({field: value})
  with pytest.raises(errors.UserError) as e:
    reading.validate(c, 1)
  assert f"{field}={value!r}: expected " in str(e.value)


def leaves(c, prefix=""):
  for name, value in c.items():
    yield from leaves(value, f"{prefix}{name}.") if hasattr(value, "items") else [
        (prefix + name, value)]


def test_every_number_of_a_config_has_bounds():
  numbers = {name for name, value in leaves(base.get_config())
             if isinstance(value, int | float) and not isinstance(value, bool)}
  bound = {name for name in numbers
           if name in bounds.BOUNDS or name.rpartition(".")[0] in bounds.BOUNDS}
  assert numbers - bound == set()


def test_paths_of_another_machine_are_not_looked_for():
  c = base.get_config()
  c.update_from_flattened_dict({"data.path": "/on/the/host", "lm.asset": "/on/the/host/model",
                                "tasks.prompts": "/on/the/host/prompt.txt"})
  reading.validate(c, 1, paths=False)
  with pytest.raises(errors.UserError, match="lm.asset=.*nor is it a path that exists"):
    reading.validate(c, 1)


@pytest.mark.parametrize("value", [
    "some/hub-name", "hf://some/hub-name", "https://huggingface.co/some/hub-name",
    "https://huggingface.co/some/hub-name/tree/main"])
def test_a_model_of_the_hub_is_told_how_to_be_had(value, monkeypatch):
  """In one line and without a network: an unknown scheme once asked TensorFlow for the file."""
  monkeypatch.setattr("socket.socket.connect", None)
  c = base.get_config()
  c.lm.asset = value
  with pytest.raises(errors.UserError) as e:
    reading.validate(c, 1)
  assert str(e.value).count("nor is it a path") == 1 and "lm.tokenizer" not in str(e.value)
  assert str(e.value).endswith("hf download some/hub-name --local-dir=FOLDER, then "
                               "--config.lm.asset=FOLDER")


@pytest.mark.parametrize(("field", "says"), [
    ("data.path", "data.path='https://host/x' is no folder"),
    ("tasks.prompts", "tasks.prompts='https://host/x' does not exist"),
    ("qformer.init", "qformer.init='https://host/x' is unknown.*path that exists$")])
def test_an_address_is_no_path(field, says):
  c = base.get_config()
  c.update_from_flattened_dict({field: "https://host/x"})
  with pytest.raises(errors.UserError, match=says):
    reading.validate(c, 1)


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
    ({"name": "lastfm", "split": "cold_items"}, "'cold_items' needs times, and data.name='lastfm'"),
    ({"name": "ml-1m", "split": "cold_items"}, "vectors=('behavioral',): a cold item has no"),
    ({"name": "lastfm", "split": "cold_drawn"}, "vectors=('behavioral',): a cold item has no"),
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
    (with_fields("phase1.losses", itc=0.0, ui=0.0, rec=1.0), "phase1.losses has only rec and uni"),
])
def test_names_and_rates_of_tasks_and_losses(c, words):
  with pytest.raises(errors.UserError, match=words):
    reading.validate(c, 1)


def test_a_group_of_items_is_larger_than_the_number_of_its_clusters():
  """Otherwise numbers of clusters repeat, and so would codes. Other indices have no clusters."""
  c = base.get_config()
  c.tasks.update(index="collaborative", index_clusters=20, index_size=21)
  reading.validate(c, 1)
  c.tasks.index_size = 20
  with pytest.raises(errors.UserError, match=(
      "tasks.index_size=20 is not more than tasks.index_clusters=20: .*make it 21 or more")):
    reading.validate(c, 1)
  c.tasks.index = "title"
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
    ("gs://bucket/run/", "gs://bucket/run/compiled"), ("runs/here", "compiled")])
def test_compiled_programs_of_a_remote_run_are_kept_with_it(workdir, folder):
  """Every host of a pod reads them there; process 0 writes them."""
  from ilm_jax import main
  assert main._compiled_programs(workdir).endswith(folder)
  assert ("://" in main._compiled_programs(workdir)) == ("://" in workdir)
