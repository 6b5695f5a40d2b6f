"""A checkpoint knows the settings that made it, and tables know their checkpoints."""
import json
import math

import pytest
import toy

from configs import tiny
from ilm_jax import errors
from ilm_jax.config import settings, variants
from ilm_jax.evaluation import audit, measured
from ilm_jax.stages import context, pretrained, recipe
from ilm_jax.training import checkpoint, loop, provenance

SETTINGS = {"seed": 0, "phase1.losses.ui": 0.5, "phase1.steps": 8, "vectors": ("behavioral",)}
INPUTS = {"entities": "e"}


def test_differences_name_field_old_and_new_value():
  now = {"seed": 0, "phase1.losses.ui": 0.0, "vectors": ["behavioral"], "phase1.logq": False}
  differences = provenance.changed(SETTINGS, now)
  assert differences == {"phase1.losses.ui": (0.5, 0.0), "phase1.steps": (8, "nothing"),
                         "phase1.logq": ("nothing", False)}
  assert provenance.words({"a": (1, 2), "b": ("x", 0.5)}) == "a: 1 -> 2, b: x -> 0.5"


def meta(step=8, **changes):
  return {"step": step, "settings": provenance.plain({**SETTINGS, **changes}), "history": [],
          "fingerprints": {"entities": "e"}, "digests": {"trainable/w": "1", "opt_state/m": "2"}}


@pytest.mark.parametrize(("accept", "steps", "message"), [
    (False, 8, r"step 8 with other settings: seed: 1 -> 0. Give another --workdir; or delete "
               ".*; or, .* --accept_changed_settings"),
    (False, None, "seed: 1 -> 0"),
    (True, 8, r"seed: 1 -> 0.*no step is left.*raise the phase's steps above 8"),
    (True, None, "seed: 1 -> 0"),
])
def test_changed_settings_are_refused(accept, steps, message):
  with pytest.raises(errors.UserError, match=message):
    provenance.check("W/phase1", meta(seed=1), INPUTS, SETTINGS, steps=steps, accept=accept)


def test_changed_settings_may_be_meant_where_steps_are_left():
  provenance.check("W", meta(seed=1), INPUTS, SETTINGS, steps=9, accept=True)
  provenance.check("W", meta(), INPUTS, SETTINGS, steps=8)
  with pytest.raises(errors.UserError, match="of an older version, which did not record"):
    provenance.check("W", {"step": 8}, INPUTS, SETTINGS, steps=9, accept=True)


def test_other_inputs_are_refused_whatever_is_meant():
  for accept in (False, True):
    with pytest.raises(errors.UserError, match=r"entities e, this run has f \(settings that "
                                               r"differ: seed: 1 -> 0\): give another"):
      provenance.check("W", meta(seed=1), {"entities": "f"}, SETTINGS, steps=9, accept=accept)


def test_history_keeps_what_was_changed_and_when():
  first = provenance.history(meta(seed=1), SETTINGS)
  assert first == [{"until_step": 8, "settings": {"seed": 1}}]
  again = provenance.history({**meta(step=12), "history": first}, {**SETTINGS, "seed": 2})
  assert again == [*first, {"until_step": 12, "settings": {"seed": 0}}]
  assert provenance.history(meta(), SETTINGS) == []
  assert provenance.history({"step": None, "settings": {}, "history": []}, SETTINGS) == []


def test_identity_is_of_the_weights_and_their_step():
  one = provenance.identity(meta())
  assert one == provenance.identity({**meta(seed=9), "digests": {
      "trainable/w": "1", "opt_state/m": "another"}})
  assert one != provenance.identity(meta(step=9))
  assert one != provenance.identity({**meta(), "digests": {"trainable/w": "3"}})


@pytest.mark.parametrize(("at_step", "newest", "there"), [
    (meta(), meta(16), True),
    ({**meta(), "digests": {"trainable/w": "retrained"}}, meta(16), False),
    (None, meta(16), True),                       # training went on and keeps its newest alone
    (None, meta(16, seed=1), False),              # another run has taken its place
    (None, {**meta(16), "fingerprints": {"entities": "f"}}, False),
    (None, meta(4), False),                       # retrained, and not yet as far
    (None, meta(8), False),
    (None, None, False),
])
def test_tables_are_shown_while_their_weights_are_those_of_the_run(at_step, newest, there):
  assert provenance.still_there(provenance.record(meta()), at_step, newest) is there


# Which fields of a config decide what.


def changed(field, value, of):
  before, c = of(tiny.get_config()), tiny.get_config()
  c.update_from_flattened_dict({field: value})
  return list(provenance.changed(before, of(c)))


@pytest.mark.parametrize(("field", "value", "phases"), [
    ("phase1.losses.ui", 0.0, "1"), ("phase1.learning_rate", 0.5, "1"), ("seed", 3, "12"),
    ("prng", "rbg", "12"), ("qformer.num_queries", 3, "12"),
    ("qformer.matmul_precision", "bfloat16", "12"), ("cf.reg", 1.0, "12"),
    ("vectors", ("semantic",), "12"), ("phase2.learning_rate", 0.5, "2"),
    ("phase2.head.width", 8, "2"), ("phase2.qformer_scale", 0.1, "2"), ("lm.dtype", "int8", "2"),
    ("tasks.mixture.sequential", 9.0, "2"), ("tasks.history", 5, "2"), ("phase1.steps", 6, "1"),
    ("phase2.steps", 6, "2"), ("phase2.mlp_scale", 0.1, "2"), ("phase2.compare", ("mlp",), ""),
    ("phase2.init_from", "elsewhere", ""), ("phase1.log_every", 1, ""),
    ("phase2.keep_checkpoints", 7, ""), ("eval.users", 7, ""), ("lm.remat", "full", ""),
    ("qformer.remat", True, ""), ("cf.stream", True, ""), ("mesh.data", 2, ""),
    ("data.path", "moved", ""), ("targets.retries", 9, ""), ("profile.steps", 3, ""),
])
def test_settings_of_each_phase(field, value, phases):
  assert changed(field, value, settings.of_phase1) == [field] * ("1" in phases)
  assert changed(field, value, lambda c: settings.of_phase2(c, variants.ILM)) == (
      [field] * ("2" in phases))


def test_the_rate_of_an_mlp_concerns_those_that_have_one():
  def of(c):
    c.phase2.skip = False
    return settings.of_phase2(c, variants.ILM)

  assert changed("phase2.mlp_scale", 0.1, of) == []


@pytest.mark.parametrize(("field", "value", "counts"), [
    ("phase2.mlp_scale", 0.1, True), ("phase2.qformer_scale", 0.1, False),
    ("phase2.spread", True, False), ("qformer.num_layers", 3, False),
    ("qformer.num_queries", 3, True), ("qformer.matmul_precision", "bfloat16", True),
    ("phase2.dropout", 0.5, True)])
def test_settings_of_the_mlp_are_those_that_it_reads(field, value, counts):
  mlp = variants.COMPARED["mlp"]
  assert changed(field, value, lambda c: settings.of_phase2(c, mlp)) == [field] * counts


@pytest.mark.parametrize("was, now, says", [
    ({}, {"cf.dialogs": 3}, "cf.dialogs: 0 -> 3"), ({"cf.dialogs": 3}, {}, "cf.dialogs: 3 -> 0"),
    ({"cf.reg": 1.0}, {"cf.reg": 2.0}, "cf.reg: 1.0 -> 2.0"), ({}, {"cf.reg": 2.0}, ""),
    ({"cf.gone": 1}, {}, ""), ({"cf.dialogs": 3}, {"cf.dialogs": 3}, "")])
def test_files_of_other_settings_are_refused_also_where_a_field_was_off(was, now, says):
  """A field that is not recorded had its value of settings.OFF; unknown ones say nothing."""
  if not says:
    context._same_settings("entities", was, now, "cf")
    return
  with pytest.raises(errors.UserError, match=f"entities .*{says}.*--stage=cf"):
    context._same_settings("entities", was, now, "cf")


@pytest.mark.parametrize("field", ["lm.asset", "lm.tokenizer", "lm.gin_file", "tasks.prompts"])
def test_a_file_that_was_moved_is_the_same_file(field):
  """Its content is fingerprinted; a name of an asset is a setting."""
  here, there = tiny.get_config(), tiny.get_config()
  here.update_from_flattened_dict({field: "/here/file"})
  there.update_from_flattened_dict({field: "gs://there/file"})
  of_here, of_there = (settings.of_phase2(c, variants.ILM) for c in (here, there))
  assert of_here == of_there and of_here[field] == "a path"
  assert settings.of_phase2(tiny.get_config(), variants.ILM)[field] != "a path"


@pytest.mark.parametrize("field", ["lm.gin_file", "lm.tokenizer"])
def test_the_language_model_s_files_count_by_their_content(tmp_path, field):
  def found(folder, content):
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "file").write_bytes(content)
    c = tiny.get_config()
    c.update_from_flattened_dict({field: f"{tmp_path}/{folder}/file", "targets.teacher": "lm"})
    return pretrained.lm_fingerprint(c), pretrained.teacher_fingerprint(c)

  first, moved, other = found("a", b"1"), found("b", b"1"), found("c", b"2")
  assert first == moved and first[0] != other[0] and first[1] != other[1]


def test_a_task_without_a_rate_is_no_setting():
  of = settings.of_phase2(tiny.get_config(), variants.ILM)
  assert "tasks.mixture.sequential" in of and "tasks.mixture.next_item" not in of


# In a workdir.


def train(folder, steps, mine=None, accept=False) -> dict:
  """The toy to step `steps`, a checkpoint a step, as `stages.phases` does; its newest meta."""
  trainable, _ = toy.parameters()
  with checkpoint.Checkpointer(folder, toy.FINGERPRINTS, mine or SETTINGS, keep=2, steps=steps,
                               accept_changes=accept) as saved:
    state = checkpoint.start(saved, loop.init_state(trainable, toy.TX, toy.one_device()), "", {})
    for _ in range(int(state.step), steps):
      state = state._replace(step=state.step + 1)
      saved.save(state)
      saved.wait()
  return checkpoint.read_meta(folder)


def test_a_run_goes_on_with_its_settings_alone_unless_the_change_is_meant(tmp_path):
  assert train(tmp_path, 2)["settings"] == provenance.plain(SETTINGS)
  lower = {**SETTINGS, "phase1.learning_rate": 1e-4, "phase1.steps": 3}
  with pytest.raises(errors.UserError, match=r"learning_rate: nothing -> 0.0001, .*steps: 8 -> 3"):
    train(tmp_path, 3, lower)
  with pytest.raises(errors.UserError, match="phase1.steps: 8 -> 3"):
    checkpoint.finished(tmp_path, toy.FINGERPRINTS, 3, lower)
  assert not checkpoint.finished(tmp_path, toy.FINGERPRINTS, 3, lower, accept_changes=True)
  newest = train(tmp_path, 3, lower, accept=True)
  assert newest["settings"] == lower | {"vectors": ["behavioral"]}
  assert newest["history"] == [
      {"until_step": 2, "settings": {"phase1.learning_rate": "nothing", "phase1.steps": 8}}]
  assert checkpoint.finished(tmp_path, toy.FINGERPRINTS, 3, lower)
  assert train(tmp_path, 4, lower)["history"] == newest["history"]      # once is enough


def test_phase2_refuses_a_phase1_of_another_shape(tmp_path):
  train(tmp_path / "phase1" / "checkpoints", 1, {**SETTINGS, "qformer.width": 8})
  trainable, _ = toy.parameters()
  fresh = loop.init_state(trainable, toy.TX, toy.one_device())
  with (checkpoint.Checkpointer(tmp_path / "phase2", {}) as own,
        pytest.raises(errors.UserError, match=r"another Q-Former \(qformer.width: 8 -> 16\)")):
    checkpoint.start(own, fresh, str(tmp_path), {}, {"qformer.width": 16})


def write_tables(workdir, phase, step, made_from):
  folder = workdir / "eval" / phase / str(step)
  folder.mkdir(parents=True)
  measured.mark(folder, made_from)
  return folder


def test_the_newest_tables_whose_weights_are_there_are_read(tmp_path):
  weights = tmp_path / "phase1" / "checkpoints"
  first = write_tables(tmp_path, "phase1", 2, {"checkpoints": {
      "phase1": provenance.record(train(weights, 2))}})
  assert measured.newest(tmp_path, "phase1") == first and measured.stale(tmp_path) == {}
  gone = write_tables(tmp_path, "phase1", 200, {"checkpoints": {
      "phase1": {**provenance.record(meta()), "step": 200}}})
  assert measured.newest(tmp_path, "phase1") == first
  assert measured.stale(tmp_path) == {
      "phase1/200": "the weights of phase1 at step 200 that it measured are no longer there"}
  (gone / measured.NAME).unlink()
  assert measured.stale(tmp_path) == {"phase1/200": "measuring has not ended"}
  (first / "examples.json").write_text("{}")
  (first / "mine.txt").write_text("a user's")
  measured.begin(first)
  assert measured.newest(tmp_path, "phase1") is None
  assert [path.name for path in first.iterdir()] == ["mine.txt"]     # no table of other settings


def test_tables_are_done_where_all_that_made_them_is_the_same(tmp_path):
  made = {"checkpoints": {"phase2": {"step": 1}}, "settings": {"compare": ("rand",)}}
  folder = write_tables(tmp_path, "phase2", 1, made)
  assert measured.done(folder, made)
  assert not measured.done(folder, {**made, "settings": {"compare": ("rand", "mlp")}})
  assert not measured.done(folder, {**made, "checkpoints": {"phase2": {"step": 2}}})
  assert not measured.done(tmp_path / "none", made)


@pytest.mark.parametrize("name, damage, says", [
    ("loss.json", lambda text: text.replace("0.5", "0.4"), "loss.json is damaged"),
    ("made_from.json", lambda text: text.replace('"step": 1', '"step": 3'), "made_from.json is da"),
    ("made_from.json", lambda text: text[:-3], "made_from.json is damaged"),
    ("loss.json", None, "loss.json is missing")])
def test_damaged_tables_are_shown_by_nobody_and_measured_again(tmp_path, name, damage, says):
  made = {"checkpoints": {"phase2": {"step": 1}}, "settings": {}}
  folder = tmp_path / "eval" / "phase2" / "1"
  folder.mkdir(parents=True)
  (folder / "loss.json").write_text('{"rows": [0.5]}')
  measured.mark(folder, made)
  assert measured.done(folder, made) and not measured.damage(folder)
  path = folder / name
  if damage:
    path.write_text(damage(path.read_text()))
  else:
    path.unlink()
  assert not measured.done(folder, made)
  assert measured.stale(tmp_path)["phase2/1"].startswith(says)
  assert measured.newest(tmp_path, "phase2") is None


def test_audit_finds_weights_of_other_settings_inputs_and_records():
  of = recipe.MadeFrom({"entities": "e"}, SETTINGS)
  assert audit.of_this_run("W", meta(), of) == []
  assert "seed: 1 -> 0" in audit.of_this_run("W", meta(seed=1), of)[0]
  other = recipe.MadeFrom({"entities": "f"}, SETTINGS)
  assert "trained with entities e, this run has f" in audit.of_this_run("W", meta(), other)[0]
  assert audit.of_its_record("W", meta(), SETTINGS, "config.phase1.json") == []
  found = audit.of_its_record("W", meta(), {**SETTINGS, "seed": 5}, "config.phase1.json")
  assert len(found) == 1 and "config.phase1.json says (seed: 0 -> 5)" in found[0]


def test_settings_survive_json():
  c = tiny.get_config()
  of = settings.of_phase2(c, variants.ILM)
  assert provenance.changed(of, json.loads(json.dumps(of))) == {}
  assert not any(isinstance(v, float) and math.isnan(v) for v in of.values())


@pytest.mark.parametrize(("folder", "stage"), [
    ("phase1", "phase1"), ("phase2", "phase2"), ("phase2_mlp", "phase2"),
    ("phase2_blind", "phase2")])
def test_the_stage_that_trains_a_folder(folder, stage):
  assert variants.stage_of(folder) == stage


def test_a_record_that_was_cut_short_is_written_again(tmp_path, monkeypatch):
  import types

  from ilm_jax import files
  from ilm_jax.config import gin_overlay, reading
  from ilm_jax.stages import context
  config = reading.load("configs/tiny.py")
  run, write = types.SimpleNamespace(workdir=tmp_path, config=config), files.write_text

  def killed(path, text):
    if written:
      raise KeyboardInterrupt
    written.append(path)
    write(path, text)

  written = []
  with pytest.raises(KeyboardInterrupt), monkeypatch.context() as patch:
    patch.setattr(files, "write_text", killed)
    context.Run.record(run, "prepare", ("data",))
  context.Run.record(run, "prepare", ("data",))
  said = reading.from_json((tmp_path / "config.prepare.json").read_text())
  assert (tmp_path / "config.prepare.gin").read_text() == gin_overlay.to_gin(said)
