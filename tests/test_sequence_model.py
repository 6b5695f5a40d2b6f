"""The SASRec of stage cf: what it is trained on, the vectors it gives, and what refuses it."""
import dataclasses
import types

import jax
import numpy as np
import pytest
from flax import nnx

from configs import base, ml100k_head, tiny
from ilm_jax import errors
from ilm_jax.baselines import sasrec, sasrec_teacher
from ilm_jax.config import checks, reading, settings, variants
from ilm_jax.data import entities, interactions, packing
from ilm_jax.models import language_model
from ilm_jax.objectives import item_head, phase2
from ilm_jax.planning import programs
from ilm_jax.stages import context, recipe, sequence_model, vectors
from ilm_jax.weights import load
from tests import test_item_head, test_objectives, test_phase2_training, test_rank_rows, test_stages

ITEMS = interactions.Items(list("abcdefg"), list("ABCDEFG"), [None] * 7, [[]] * 7)
# Six users who each go round the seven items, from different starts.
LOG = [(str(user), "abcdefg"[(user + n) % 7], n, 1.0) for user in range(6) for n in range(7)]
SMALL = {"cf.sasrec.width": 4, "cf.sasrec.length": 5, "cf.sasrec.epochs": 3, "tasks.history": 5,
         "cf.sasrec.evaluate_every": 1, "cf.sasrec.learning_rate": 0.05, "cf.sasrec.batch_size": 3}
VECTORS = {"vectors": ("behavioral", "sequential"), "cf.sequential": "sasrec"}


@pytest.fixture
def workdir(tmp_path, monkeypatch):
  users, items, times, values = zip(*LOG)
  log, items = interactions.build(users, items, times, values, ITEMS, 0)
  interactions.save(tmp_path / "data", log, items, {"split": "loo_stable"})
  factors = np.ones((6, 4), np.float32), np.ones((8, 4), np.float32)
  monkeypatch.setattr(context.Run, "mesh", None)
  monkeypatch.setattr(context.Run, "sentence_vectors", lambda _, texts: np.ones((len(texts), 3)))
  monkeypatch.setattr(vectors, "factorise", lambda *_: factors)
  return tmp_path


def make(workdir, **changes):
  return test_stages.make_run(workdir, **SMALL | changes)


def bytes_of(folder):
  return {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.iterdir()}


def test_its_item_table_and_last_states_are_the_sequential_vectors(workdir):
  run = make(workdir, **VECTORS)
  vectors.run(run)
  params, _ = sequence_model.load(run)
  model = sasrec.SASRec(sequence_model.config(run), 7, rngs=nnx.Rngs(0))
  nnx.update(model, params)
  histories = interactions.train_histories(run.data.log)      # five items of seven
  assert [len(h) for h in histories] == [5] * 6
  state_UW = np.asarray(model.hidden(np.stack(histories)))[:, -1]
  table = entities.load(workdir / "entities")
  got = table.vectors["sequential"]
  assert got.shape == (14, 4) and not got[0].any() and table.present["sequential"][1:].all()
  np.testing.assert_allclose(got[1:8], vectors.standardised(params["item"][1:]), atol=1e-5)
  np.testing.assert_allclose(got[8:], vectors.standardised(state_UW), atol=1e-4)


def test_it_is_the_same_of_the_same_seed_and_made_once(workdir, capsys):
  run = make(workdir, **VECTORS)
  vectors.run(run)
  assert capsys.readouterr().out.count("validation NDCG@10") == 3
  first, tables = sequence_model.load(run), bytes_of(workdir / "sasrec")
  vectors.run(make(workdir, **VECTORS))
  assert bytes_of(workdir / "sasrec") == tables and not capsys.readouterr().out
  for path in (workdir / "sasrec").iterdir():
    path.unlink()
  sequence_model.make(run)
  assert sequence_model.load(run)[1] == first[1]
  sequence_model.make(make(workdir, seed=3, **VECTORS))
  assert sequence_model.load(make(workdir, seed=3, **VECTORS))[1] != first[1]


def test_a_teacher_is_trained_beside_a_table_that_stays(workdir):
  vectors.run(make(workdir))
  assert not (workdir / "sasrec").exists()
  table = bytes_of(workdir / "entities")
  teaches = make(workdir, **{"phase2.head.distil": 1.0})
  with pytest.raises(errors.UserError, match="sasrec lacks .*: run --stage=cf"):
    sequence_model.load(teaches)
  vectors.run(teaches)
  assert bytes_of(workdir / "entities") == table
  other = make(workdir, **{"phase2.head.distil": 1.0, "cf.sasrec.dropout": 0.1})
  with pytest.raises(errors.UserError, match="cf.sasrec.dropout: 0.5 -> 0.1.: run --stage=cf"):
    sequence_model.load(other)
  vectors.run(other)
  assert bytes_of(workdir / "entities") == table and sequence_model.load(other)


def test_neither_test_nor_without_patience_validation_items_are_looked_at(workdir, monkeypatch):
  given = []
  def train(histories, num_items, config, target_U, report):
    given.append((np.concatenate(histories), target_U, config))
    return real(histories, num_items, config, target_U, report)
  real = sasrec.train
  monkeypatch.setattr(sasrec, "train", train)
  sequence_model.make(make(workdir, **VECTORS))
  sequence_model.make(make(workdir, **VECTORS, **{"cf.sasrec.patience": 0}))
  split = make(workdir).data.log.split
  log = make(workdir).data.log
  (learned, target_U, _), (again, nothing_U, config) = given
  np.testing.assert_array_equal(learned, log.item_N[split.train])
  np.testing.assert_array_equal(target_U, log.item_N[split.valid])
  assert not nothing_U.any() and (again == learned).all()
  assert config.evaluate_every == config.epochs == 3          # the last epoch is kept


def test_a_split_without_validation_needs_no_patience():
  config = ml100k_head.get_config()
  config.data.split = "loo_last"
  assert not checks.mistakes(config, 1)
  config.phase2.head.distil = 1.0
  mistake, = checks.mistakes(config, 1)
  assert "set cf.sasrec.patience=0, and cf.sasrec.epochs" in mistake
  config.cf.sasrec.patience = 0
  assert not checks.mistakes(config, 1)


def test_without_a_validation_target_it_asks_for_no_patience(workdir, monkeypatch):
  """Before anything is factorised, and only where something reads a SASRec."""
  log, items, _ = make(workdir).data
  part_N = np.where(log.split.valid, 0, log.part_N).astype(np.int8)
  interactions.save(workdir / "data", dataclasses.replace(log, part_N=part_N), items, {})
  factorise = vectors.factorise
  monkeypatch.setattr(vectors, "factorise", None)
  with pytest.raises(errors.UserError, match="no validation .*set cf.sasrec.patience=0") as caught:
    vectors.run(make(workdir, **VECTORS))
  assert "\n" not in str(caught.value) and not (workdir / "sasrec").exists()
  monkeypatch.setattr(vectors, "factorise", factorise)
  vectors.run(make(workdir))
  vectors.run(make(workdir, **VECTORS, **{"cf.sasrec.patience": 0}))
  assert (workdir / "sasrec").exists()


def test_its_users_are_made_with_parameters_read_and_compiled_once(workdir, monkeypatch):
  run = make(workdir, **VECTORS)
  sequence_model.make(run)
  states = sequence_model.states(run)
  monkeypatch.setattr(sequence_model, "load", None)
  first = states([[1, 2], []])
  assert first.shape == (2, 4) and first[0].any() and not first[1].any()
  compiled = sasrec_teacher._last(sequence_model.config(run), 7)
  before = compiled._cache_size()
  np.testing.assert_array_equal(states([[1, 2]])[0], first[0])
  assert before == compiled._cache_size() == 1


def test_the_head_gets_it_as_a_teacher_only_where_it_weighs(workdir):
  run = make(workdir, **{"phase2.head.distil": 0.5, "phase2.head.distil_temperature": 2.0})
  head = recipe.head_config(_decoder(run))
  assert (head.distil.weight, head.distil.temperature) == (0.5, 2.0)
  vectors.run(run)
  score = head.distil.teacher(sequence_model.load(run)[0], np.array([[1, 2, 0]]),
                              np.array([[1, 1, 0]]))
  assert score.shape == (1, 3, 7)
  assert recipe.head_config(_decoder(make(workdir))) == item_head.HeadConfig(
      weight=1.0, num_items=7, negatives=0)


@pytest.mark.parametrize("key, counts", [("rand", 0.0), ("mlp", 0.0), ("mlp", 0.3)])
def test_what_the_recipe_builds_learns_from_it(workdir, monkeypatch, key, counts):
  """The loss and arrays of a run, as `loop.fit` gets them, on histories 1, 2 and 3, 4, 5."""
  monkeypatch.setattr(context.Run, "mesh", test_phase2_training.mesh_of(1, 1, 1))
  run = make(workdir, **{"phase2.head.distil": 0.5, "phase2.head.distil_transitions": counts,
                         "phase2.head.distil_ease": counts, "qformer.init": "",
                         "qformer.width": 24, "qformer.num_heads": 2, "qformer.mlp_width": 12,
                         "qformer.proj_width": 24})
  vectors.run(run)
  config = test_objectives.LM
  run.__dict__["lm"] = load.LanguageModel(config, language_model.init(config, 0))
  run.__dict__["text_tokenizer"] = types.SimpleNamespace(vocab_size=9)
  built = recipe.phase2(run, variants.COMPARED[key])
  loss = phase2.phase2_loss(built.graphdef, config, (), recipe.head_config(run))
  shape = test_rank_rows.rank_spec(rows=1, length=24, num_items=7)
  batch, _ = packing.pack_groups([[test_item_head.example([5, 18, 18], [1, 2], 3),
                                   test_item_head.example([5, 18, 18, 18], [3, 4, 5], 6)]], shape)
  (_, metrics), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(
      built.trainable, built.frozen, {"rank": batch}, jax.random.key(0))
  divergence, count = metrics["head_kl"]
  assert float(count) == 5 and np.isfinite(float(divergence)) and float(divergence) > 0
  assert np.asarray(gradient["head"]["query"]["kernel"]).any() and "teacher" not in gradient
  assert "teacher" in built.frozen


def _decoder(run):
  run.__dict__["lm"] = type("", (), {"config": None})()
  return run


@pytest.mark.parametrize("changes, words", [
    ({"cf.sequential": "gru4rec"}, "cf.sequential='gru4rec'"),
    ({"cf.sasrec.width": 9, "cf.sasrec.num_heads": 2}, "does not divide over"),
    ({"cf.sasrec.evaluate_every": 50}, "cf.sasrec.evaluate_every=50 is more than"),
    ({"phase2.head.distil": 1.0, "tasks.history": 60}, "more than the cf.sasrec.length=50"),
    ({"phase2.head.distil": 1.0, "phase2.head.negatives": 9}, "compares softmaxes over the cat"),
    ({"phase2.head.distil": 1.0, "phase2.head.weight": 0.0, "phase2.head.rows": 0,
      "phase2.head.layer": -1}, "there is no head to learn from a SASRec"),
    ({"phase2.head.distil_ease": 0.3}, "distil_ease=0.3 with phase2.head.distil=0: the scores"),
    ({"phase2.head.distil": -1.0}, "phase2.head.distil=-1.0: expected 0"),
    ({"phase2.head.distil_temperature": 0.0}, "distil_temperature=0.0: expected more than 0"),
])
def test_what_cannot_be_is_refused(changes, words):
  c = ml100k_head.get_config()
  reading.validate(c, 1)
  c.update_from_flattened_dict(changes)
  with pytest.raises(errors.UserError, match=words):
    reading.validate(c, 1)


@pytest.mark.parametrize("more, field, of, counts", [
    ({}, "cf.sasrec.dropout", "12e", ""), ({}, "cf.sequential", "12e", ""),
    ({"phase2.head.distil": 1.0}, "cf.sasrec.dropout", "12e", "2"),
    (VECTORS, "cf.sasrec.dropout", "12e", "12e"),
    (VECTORS, "cf.transition_width", "e", ""),
    (VECTORS | {"cf.sequential": "transitions"}, "cf.sasrec.dropout", "12e", ""),
    (VECTORS | {"cf.sequential": "transitions"}, "cf.transition_width", "e", "e"),
    ({}, "phase2.head.distil_temperature", "12e", ""),
    ({"phase2.head.distil": 1.0}, "phase2.head.distil_temperature", "12e", "2"),
    ({}, "phase2.head.distil", "12e", "2"),
    ({}, "phase2.head.distil_ease", "12e", ""),
    ({"phase2.head.distil": 1.0}, "phase2.head.distil_transitions", "12e", "2"),
])
def test_what_is_not_read_decides_nothing(more, field, of, counts):
  value = {"cf.sequential": "sasrec", "cf.transition_width": 6}.get(field, 0.25)
  functions = {"1": settings.of_phase1, "2": lambda c: settings.of_phase2(c, variants.ILM),
               "e": settings.of_entities}
  for name in of:
    was, now = tiny.get_config(), tiny.get_config()
    for c in (was, now):
      c.update_from_flattened_dict(more)
    now.update_from_flattened_dict({field: value})
    assert (functions[name](was).get(field) != functions[name](now).get(field)) == (
        name in counts), name


def test_checkpoints_from_before_there_were_teachers_stay_valid():
  fields = {*settings.of_phase1(tiny.get_config()), *settings.of_entities(tiny.get_config()),
            *settings.of_phase2(tiny.get_config(), variants.ILM)}
  assert "cf.transition_width" in fields and "phase2.head.layer" in fields
  assert not [f for f in fields if "sasrec" in f or "distil" in f or f == "cf.sequential"]


def test_a_field_that_came_later_is_left_out_where_it_is_off():
  """And counts where it is not; each is a field of the config, and off in it, but for one whose
  old value is no longer the default."""
  other = {"uniform": "popularity", "": ";", "utf-8": "latin-1", "default": "bfloat16",
           "all": "own", "nearest": "mean"}
  for field, value in settings.OFF.items():
    teacher = {"phase2.head.distil": 1.0} if "distil_" in field else {}
    c, off = tiny.get_config(), tiny.get_config()
    node = base.get_config().to_dict()
    for part in field.split("."):
      node = node[part]
    assert node == value or field == "qformer.cross_reads", field
    on = other[value] if value in other else type(value)(value + 1)
    off.update_from_flattened_dict(teacher | {field: value})
    c.update_from_flattened_dict(teacher | {field: on})
    with_it, without = ({**settings.of_phase1(x), **settings.of_phase2(x, variants.ILM),
                         **settings.of_dialogs(x), **of_targets(x)} for x in (c, off))
    assert field not in without and field in with_it


def of_targets(config) -> dict:
  return settings.of_prepared(config, "sequential", "test")


@pytest.mark.parametrize("decides, count", [
    (settings.of_phase1, 76), (lambda c: settings.of_phase2(c, variants.ILM), 112),
    (of_targets, 13), (settings.of_entities, 9), (settings.of_dialogs, 11)])
def test_a_new_field_leaves_trained_runs_valid(decides, count):
  """A field that you add belongs in `settings.OFF`, with the value that it had in effect before;
  otherwise no run from before can go on. Count one more only where none should."""
  assert len(decides(base.get_config())) == count


def test_with_one_query_it_does_not_matter_whose_tokens_it_reads():
  """So runs of one query from before the field go on."""
  for queries, counts in ((1, False), (2, True)):
    c = tiny.get_config()
    c.qformer.num_queries = queries
    assert c.qformer.cross_reads == "own"
    for of in (settings.of_phase1(c), settings.of_phase2(c, variants.ILM)):
      assert ("qformer.cross_reads" in of) is counts


def test_a_plan_knows_how_wide_sequential_vectors_are():
  c = tiny.get_config()
  c.vectors = ("behavioral", "sequential")
  assert dict(programs.qformer_config(c).vectors) == {"behavioral": 8, "sequential": 128}
  c.cf.sequential = "sasrec"
  assert dict(programs.qformer_config(c).vectors)["sequential"] == 64
