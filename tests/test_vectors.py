"""Who has a behavioral vector, and what it is standardised over."""
import collections
import json
import types

import jax
import ml_collections
import numpy as np
import pytest

from ilm_jax import errors
from ilm_jax.cf import ials
from ilm_jax.data import arrays, entities, interactions, splits
from ilm_jax.runtime import axes
from ilm_jax.stages import vectors

RNG = np.random.default_rng(0)
FACTORS = (RNG.normal(size=(3, 2)).astype(np.float32), RNG.normal(size=(5, 2)).astype(np.float32))
DATA = collections.namedtuple("Data", "log items fingerprint")
ITEMS = interactions.Items(list("abcd"), list("ABCD"), [None] * 4, [[] for _ in "abcd"])


def made(tmp_path, monkeypatch, part_N) -> entities.EntityTable:
  """The table of three users and four items, two interactions a user."""
  log = interactions.Interactions(
      list("uvw"), 4, np.array([0, 0, 1, 1, 2, 2], np.int32),
      np.array([1, 2, 3, 2, 4, 1], np.int32), np.arange(6), np.ones(6, np.float32),
      np.array(part_N, np.int8))
  config = ml_collections.ConfigDict({
      "seed": 0, "vectors": ("behavioral", "sequential", "semantic"), "text_encoder": {"asset": ""},
      "cf": {"width": 2, "members": 2, "dialogs": 0, "sequential": "transitions", "sasrec": {},
             "transition_width": 2, "transition_window": 2},
      "phase2": {"head": {"distil": 0.0}}})
  monkeypatch.setattr(vectors, "factorise", lambda config, log, mesh, of_dialogs: FACTORS)
  vectors.run(types.SimpleNamespace(
      data=DATA(log, ITEMS, "data"), workdir=tmp_path, config=config, mesh=None,
      sentence_vectors=lambda texts: np.ones((len(texts), 3), np.float32)))
  return entities.load(tmp_path / "entities")


def test_where_all_were_trained_on_nothing_is_absent(tmp_path, monkeypatch):
  """Bit for bit the standardisation over all rows."""
  table = made(tmp_path, monkeypatch, [splits.TRAIN] * 6)
  users, items = FACTORS[0], FACTORS[1][1:]
  for part, rows in ((items, slice(1, 5)), (users, slice(5, 8))):
    np.testing.assert_array_equal(
        table.vectors["behavioral"][rows], (part - part.mean(axis=0)) / part.std(axis=0))
  assert table.present["behavioral"].tolist() == [False] + [True] * 7


def test_without_training_there_is_no_behavioral_vector(tmp_path, monkeypatch):
  """Item 4 and user 2 (w) have none; the others are standardised among themselves."""
  table = made(tmp_path, monkeypatch, [splits.TRAIN] * 4 + [splits.NONE, splits.TEST])
  for name in ("behavioral", "sequential"):
    assert table.present[name].tolist() == [0, 1, 1, 1, 0, 1, 1, 0]
    assert not table.vectors[name][[0, 4, 7]].any()
  assert not table.members[[0, 4, 7]].any() and not np.isin(table.members, [4, 7]).any()
  assert table.present["semantic"].tolist() == [0, 1, 1, 1, 1, 0, 0, 0]
  vectors_RC = table.vectors["behavioral"]
  for rows in ([1, 2, 3], [5, 6]):
    np.testing.assert_allclose(vectors_RC[rows].mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(vectors_RC[rows].std(axis=0), 1, rtol=1e-5)


@pytest.mark.parametrize("met", [[False] * 3, [True, False, False]])
def test_too_few_to_standardise_are_zero(met):
  assert not vectors.standardised(FACTORS[0], np.array(met)).any()


def run_with_dialogs(tmp_path, dialogs):
  """A run of three users and five items, of which nobody of the log met 4 and 5."""
  log = interactions.Interactions(
      list("uvw"), 5, np.array([0, 0, 1, 2, 2], np.int32), np.array([1, 2, 3, 2, 1], np.int32),
      np.arange(5), np.ones(5, np.float32), np.full(5, splits.TRAIN, np.int8))
  items = interactions.Items(list("abcde"), list("ABCDE"), [None] * 5, [[] for _ in "abcde"])
  config = ml_collections.ConfigDict({
      "seed": 0, "vectors": ("behavioral",), "text_encoder": {"asset": ""},
      "tasks": {"dialogs": str(tmp_path / "talks.jsonl")},
      "cf": {"width": 4, "members": 0, "dialogs": dialogs, "sequential": "transitions",
             "sasrec": {}, "reg": 0.1, "alpha": 2.0, "iterations": 8, "stream": False,
             "solver": "cholesky", "cg_steps": 3, "dtype": "float32"},
      "phase2": {"head": {"distil": 0.0}}})
  return types.SimpleNamespace(
      data=DATA(log, items, "data"), workdir=tmp_path, config=config,
      mesh=axes.make_mesh({"data": 1, "fsdp": 1}, jax.devices()[:1]),
      sentence_vectors=lambda texts: np.ones((len(texts), 3), np.float32))


def talks(tmp_path, *named):
  """A file of dialogs in which the user names items, and one more dialog, for test."""
  lines = [{"turns": [{"role": "user", "text": "Hi.", "items": list(items)}]}
           for items in (*named, "ae")]
  (tmp_path / "talks.jsonl").write_text("\n".join(map(json.dumps, lines)))


def test_factors_of_other_settings_than_the_table_are_refused_and_made_again(tmp_path):
  """Stage cf was stopped under other settings, after the factors and before the table."""
  (tmp_path / "talks.jsonl").write_text("")
  run = run_with_dialogs(tmp_path, 0)
  vectors.run(run)
  mine, at = vectors.factors(run)[1], tmp_path / "factors.npz"
  run.config.cf.reg = 9.0
  run.sentence_vectors = lambda texts: 1 / 0
  with pytest.raises(ZeroDivisionError):
    vectors.run(run)
  run.config.cf.reg = 0.1
  with pytest.raises(errors.UserError, match="factors.npz was made with other settings than ent"):
    vectors.factors(run)
  vectors.run(run)
  np.testing.assert_array_equal(vectors.factors(run)[1], mine)
  before = at.stat().st_mtime_ns
  vectors.run(run)
  assert at.stat().st_mtime_ns == before
  at.write_bytes(at.read_bytes()[:-9])          # damaged
  vectors.run(run)
  np.testing.assert_array_equal(vectors.factors(run)[1], mine)


def test_factors_of_before_say_nothing_of_their_settings(tmp_path):
  (tmp_path / "talks.jsonl").write_text("")
  run = run_with_dialogs(tmp_path, 0)
  vectors.run(run)
  stored = arrays.load_file(tmp_path / "factors.npz", "")
  arrays.save_file(tmp_path / "factors.npz", {n: stored[n] for n in ("user_UC", "item_I1C")})
  assert vectors.factors(run)[0].shape == (3, 4)


def test_a_dialog_counts_as_users_who_like_what_it_names(tmp_path):
  """Twice each: the factors are those of a log with these users, who get no row; item 4 has a
  vector now, and a dialog of the test part changes nothing."""
  talks(tmp_path, "cd", "ad")
  run = run_with_dialogs(tmp_path, 2)
  vectors.run(run)
  user_UC, item_I1C = vectors.factors(run)
  both = [[1, 2], [3], [2, 1], [3, 4], [1, 4], [3, 4], [1, 4]]
  more_UC, more_I1C = ials.ials([np.array(h) for h in both], 5, 4, reg=0.1, alpha=2.0,
                                iterations=8, seed=0)
  np.testing.assert_allclose(item_I1C, more_I1C, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(user_UC, more_UC[:3], rtol=1e-4, atol=1e-5)
  table = entities.load(tmp_path / "entities")
  assert table.present["behavioral"].tolist() == [0, 1, 1, 1, 1, 0, 1, 1, 1]


@pytest.mark.parametrize("named, same", [(("cd", "ad"), True), (("cd", "bd"), False)])
def test_other_dialogs_make_other_vectors(tmp_path, named, same):
  talks(tmp_path, "cd", "ad")
  run = run_with_dialogs(tmp_path, 1)
  vectors.run(run)
  before = (tmp_path / "factors.npz").read_bytes()
  talks(tmp_path, *named)
  vectors.run(run)
  assert ((tmp_path / "factors.npz").read_bytes() == before) == same
