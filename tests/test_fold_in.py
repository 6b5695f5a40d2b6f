"""Users who were not in the log: their vectors are those that training would have given them."""
import dataclasses
import types

import numpy as np
import pytest

from ilm_jax.cf import cooccurrence, fold_in, ials, transitions
from ilm_jax.data import entities, interactions, splits
from ilm_jax.stages import newcomers, vectors

ITEMS, WIDTH = 40, 6
RNG = np.random.default_rng(3)
# The last two met nothing, and one thing twice.
HISTORIES = [RNG.permutation(ITEMS)[:n] + 1 for n in RNG.integers(2, 20, 30)] + [
    np.zeros(0, int), np.array([4, 9, 4])]


@pytest.fixture(scope="module")
def factors():
  return ials.ials(HISTORIES, ITEMS, WIDTH, reg=0.7, alpha=2.5, iterations=3, seed=1)


def test_a_trained_user_s_history_gives_the_trained_row(factors):
  user_UC, item_I1C = factors
  got_UC = fold_in.Form(item_I1C, reg=0.7, alpha=2.5).users(HISTORIES)
  assert got_UC.dtype == np.float32 and np.abs(user_UC).max() > 0.1
  np.testing.assert_allclose(got_UC, user_UC, rtol=1e-3, atol=2e-5)
  np.testing.assert_array_equal(got_UC[30], 0)


def test_the_row_is_the_minimum_of_the_loss(factors):
  """By the formula of ials.py, written out: no step away from the row lowers it."""
  item_IC = factors[1][1:].astype(float)
  row_C = fold_in.Form(factors[1], reg=0.7, alpha=2.5).users([[3, 8, 20]])[0].astype(float)
  met_I = np.isin(np.arange(ITEMS) + 1, [3, 8, 20]).astype(float)

  def loss(x_C):
    return ((1 + 2.5 * met_I) * (met_I - item_IC @ x_C) ** 2).sum() + 0.7 * x_C @ x_C

  for step_C in 0.05 * np.r_[np.eye(WIDTH), -np.eye(WIDTH)]:
    assert loss(row_C + step_C) > loss(row_C)


def test_fitted_is_the_standardisation_that_the_table_had():
  known_UC, new_NC = RNG.normal(2, 3, (50, 4)), RNG.normal(size=(3, 4))
  known_UC[:, 2] = 5.0                                  # no spread: the table has zeros there
  fitted = fold_in.Fitted.of(known_UC, vectors.standardised(known_UC))
  np.testing.assert_allclose(fitted(known_UC), vectors.standardised(known_UC), atol=1e-5)
  want_NC = (new_NC - known_UC.mean(axis=0)) / np.where(np.arange(4) == 2, 1, known_UC.std(axis=0))
  want_NC[:, 2] = 0
  np.testing.assert_allclose(fitted(new_NC), want_NC, atol=1e-5)


@pytest.fixture(scope="module")
def run(factors):
  """What a run has after stage cf, with all that a user can have there."""
  user_UC, item_I1C = factors
  forward_I1C, forward_UC = transitions.vectors(HISTORIES, ITEMS, 8, window=3, seed=0)
  for item in (item_I1C := item_I1C.copy(), forward_I1C):
    item[1:] = vectors.standardised(item[1:])
  table = entities.make(
      ITEMS, len(HISTORIES), cooccurrence.members(HISTORIES, ITEMS, 4),
      behavioral=(item_I1C, vectors.standardised(user_UC)),
      sequential=(forward_I1C, vectors.standardised(forward_UC)),
      semantic=(RNG.normal(size=(ITEMS + 1, 5)).astype(np.float32), None))
  items = interactions.Items([str(i) for i in range(ITEMS)], [f"Film {i}" for i in range(ITEMS)],
                             [None] * ITEMS, [[]] * ITEMS)
  lengths = [len(h) for h in HISTORIES]
  log = interactions.Interactions(
      [str(u) for u in range(len(HISTORIES))], ITEMS,
      np.repeat(np.arange(len(HISTORIES)), lengths).astype(np.int32),
      np.concatenate(HISTORIES).astype(np.int32), np.zeros(sum(lengths), np.int64),
      np.ones(sum(lengths), np.float32), np.full(sum(lengths), splits.TRAIN, np.int8))
  config = types.SimpleNamespace(
      vectors=("behavioral", "semantic", "sequential"), seed=0,
      cf=types.SimpleNamespace(reg=0.7, alpha=2.5, transition_window=3, sequential="transitions"),
      qformer=types.SimpleNamespace(members=3))
  return types.SimpleNamespace(config=config, entities=table, factors=factors,
                               data=interactions.Data(log, items, ""))


def test_a_user_of_the_log_folded_in_is_its_row_of_the_table(run, monkeypatch):
  """Behavioral, sequential and members; no semantic vector, as users have none."""
  monkeypatch.setattr(vectors, "factors", lambda run: run.factors)
  newcomer = newcomers.Users(run)
  known = [u for u, history in enumerate(HISTORIES) if len(history)]
  made = newcomer.vectors([HISTORIES[u] for u in known])
  table = run.entities
  for name in ("behavioral", "sequential"):
    want_UC = table.vectors[name][table.rows.users][known]
    np.testing.assert_allclose([user[name] for user in made], want_UC, rtol=1e-3, atol=2e-4)
  assert all(set(user) == {"behavioral", "sequential"} for user in made)
  np.testing.assert_array_equal(newcomer.members([HISTORIES[u] for u in known]),
                                table.members[table.rows.users][known, :3])


def test_items_that_training_never_met_add_nothing(run, monkeypatch):
  """A user who likes nothing else has neither vector, as the entity table would have it."""
  monkeypatch.setattr(vectors, "factors", lambda run: run.factors)
  log = run.data.log
  part_N = np.where(np.isin(log.item_N, [5, 6]), splits.NONE, log.part_N).astype(np.int8)
  has = lambda *rows: {name: of & ~np.isin(np.arange(len(of)), lacking)  # noqa: E731
                       for (name, of), lacking in zip(run.entities.present.items(), rows)}
  assert list(run.entities.present)[:2] == ["behavioral", "sequential"]

  def made(present):
    changed = types.SimpleNamespace(**vars(run) | {
        "data": run.data._replace(log=dataclasses.replace(log, part_N=part_N)),
        "entities": dataclasses.replace(run.entities, present=present)})
    return newcomers.Users(changed).vectors([[3, 5, 8, 6], [3, 8], [5, 6]])

  mixed, met, unmet = made(has([5, 6], [5, 6]))
  assert unmet == {} and set(met) == {"behavioral", "sequential"}
  for name in met:
    np.testing.assert_array_equal(mixed[name], met[name])
  # Dialogs like item 5: it has a vector of the factorisation, and no other.
  assert set(made(has([6], [5, 6]))[2]) == {"behavioral"}


def test_a_config_without_members_gives_none(run, monkeypatch):
  monkeypatch.setattr(vectors, "factors", lambda run: run.factors)
  monkeypatch.setattr(run.config.qformer, "members", 0)
  assert newcomers.Users(run).members(HISTORIES) is None


def test_a_new_item_has_the_vector_of_its_text_alone():
  run = types.SimpleNamespace(
      config=types.SimpleNamespace(vectors=("behavioral", "semantic")),
      sentence_vectors=lambda texts: [[len(text), 0.5] for text in texts])
  made, = newcomers.items(run, ["Heat 2 (2027)"])
  assert list(made) == ["semantic"] and made["semantic"].tolist() == [13, 0.5]
  assert made["semantic"].dtype == np.float32
  run.config.vectors = ("behavioral",)
  assert newcomers.items(run, ["Heat 2 (2027)"]) == [{}]
