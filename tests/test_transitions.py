"""What follows what, and what goes together: against dense arithmetic on small logs."""
import types

import numpy as np
import pytest

from configs import base
from ilm_jax import errors
from ilm_jax.baselines import neighbours
from ilm_jax.cf import cooccurrence, transitions
from ilm_jax.config import settings
from ilm_jax.data import arrays, entities
from ilm_jax.stages import context

HISTORIES = [np.array([1, 2, 3, 1]), np.array([2, 3]), np.array([4]), np.zeros(0, int),
             np.array([5, 2, 3])]


def test_vectors_factorise_what_follows_what():
  """With all dimensions U S V^T is the matrix of positive mutual information, made by loops."""
  count = np.zeros((5, 5))
  for history in HISTORIES:
    for at, item in enumerate(history):
      for far in (1, 2):
        if at + far < len(history):
          count[item - 1, history[at + far] - 1] += 1 / far
  with np.errstate(divide="ignore", invalid="ignore"):
    mutual = np.log(count * count.sum() / (count.sum(1, keepdims=True) * count.sum(0)))
  mutual = np.where(count > 0, np.maximum(mutual, 0), 0)
  item_I1C, user_UC = transitions.vectors(HISTORIES, 5, 8, window=2, seed=0)
  assert item_I1C.shape == (6, 8) and not item_I1C[0].any()
  left, right = item_I1C[1:, :4], item_I1C[1:, 4:]
  size = np.linalg.svd(mutual)[1]
  assert size[4] < 1e-9                                # four dimensions hold all of it
  np.testing.assert_allclose(left @ right.T, mutual, atol=1e-5)
  np.testing.assert_allclose(np.sum(left ** 2, axis=0), size[:4], rtol=1e-5)
  np.testing.assert_allclose(user_UC[0], item_I1C[[3, 1]].mean(axis=0), rtol=1e-6)
  assert not user_UC[3].any()


def test_a_small_catalogue_leaves_dimensions_empty_and_the_seed_changes_nothing():
  wide, _ = transitions.vectors(HISTORIES, 5, 20, window=2, seed=0)
  assert wide.shape == (6, 20) and not wide[:, 4:10].any() and not wide[:, 14:].any()
  again, _ = transitions.vectors(HISTORIES, 5, 20, window=2, seed=7)
  np.testing.assert_allclose(again, wide, atol=1e-5)   # signs are fixed
  for histories in ([np.array([1]), np.array([2])], [np.array([1, 2])]):   # no order, no surprise
    nothing, _ = transitions.vectors(histories, 3, 4, window=3, seed=0)
    assert not nothing.any()


def test_order_is_what_they_know():
  """1 is followed by 2 alone, 3 by 4: who leads is told from who follows."""
  item, _ = transitions.vectors([np.array([1, 2])] * 3 + [np.array([3, 4])] * 2, 4, 6, window=1,
                                seed=0)
  score = item[1:, :3] @ item[1:, 3:].T
  assert score[0].argmax() == 1 and score[2].argmax() == 3
  assert score[0, 1] > 0.1 and abs(score[1, 0]) < 1e-6
  assert not item[:, 2].any() and not item[:, 5].any()      # two pairs: two dimensions, no noise


def test_members_are_neighbours_and_last_items():
  """Items 2 and 3 go together thrice, 1 with each of them once; 4 with nobody, 5 with 2 and 3."""
  table = cooccurrence.members(HISTORIES, 5, 2)
  similar = {(a, b): n / (np.sqrt(x * y) + 10) for (a, b, n, x, y) in
             ((2, 3, 3, 3, 3), (1, 2, 1, 1, 3), (5, 2, 1, 1, 3))}
  assert similar[2, 3] > similar[1, 2]
  np.testing.assert_array_equal(table[:6], [[0, 0], [2, 3], [3, 1], [2, 1], [0, 0], [2, 3]])
  np.testing.assert_array_equal(table[6:], [[1, 3], [3, 2], [4, 0], [0, 0], [3, 2]])
  again = cooccurrence.members([np.array([2, 1, 2])], 2, 3)
  np.testing.assert_array_equal(again[3], [2, 1, 0])        # each once
  assert table.dtype == np.int32


def test_nearest_keeps_what_item_knn_sums():
  near = cooccurrence.nearest(HISTORIES, 5, 1).toarray()
  assert (np.count_nonzero(near, axis=1) <= 1).all() and near[0, 1] > 0 and near[0, 2] == 0
  score = neighbours.item_knn(HISTORIES, 5, [np.array([1])], neighbours=1)
  np.testing.assert_allclose(score[0, 1:], near[:, 0])


@pytest.mark.parametrize("products", [1, 40])
def test_nearest_items_of_blocks_are_those_of_one_block(monkeypatch, products):
  """Bit by bit, with many equal similarities, and items 31 and 32 that nobody has."""
  random = np.random.default_rng(0)
  histories = [*HISTORIES, *(random.integers(1, 31, size) for size in random.integers(0, 9, 40))]
  whole = cooccurrence.nearest(histories, 32, 3)
  monkeypatch.setattr(cooccurrence, "_PRODUCTS", products)
  blocks = cooccurrence.nearest(histories, 32, 3)
  assert blocks.shape == whole.shape == (32, 32)
  for name in ("data", "indices", "indptr"):
    np.testing.assert_array_equal(getattr(blocks, name), getattr(whole, name))


def test_blocks_have_as_many_items_as_their_pairs_allow(monkeypatch):
  monkeypatch.setattr(cooccurrence, "_PRODUCTS", 10)
  assert cooccurrence._starts(np.array([4, 6, 1, 30, 2, 0, 8, 1])) == [0, 2, 3, 4, 7]
  assert cooccurrence._starts(np.zeros(0)) == [0]


def test_a_table_keeps_its_members_and_none_changes_nothing(tmp_path):
  behavioral = (np.ones((6, 3), np.float32), np.ones((5, 3), np.float32))
  plain = entities.make(5, 5, behavioral=behavioral)
  with_members = entities.make(5, 5, cooccurrence.members(HISTORIES, 5, 2), behavioral=behavioral)
  assert plain.members is None and plain.fingerprint != with_members.fingerprint
  # Of a table as it was made before there were members.
  assert plain.fingerprint == arrays.fingerprint({
      "num_items": np.int32(5), "vectors/behavioral": plain.vectors["behavioral"],
      "present/behavioral": plain.present["behavioral"]})
  for table in (plain, with_members):
    folder = tmp_path / table.fingerprint[:8]
    table.save(folder, {})
    again = entities.load(folder)
    assert again.fingerprint == table.fingerprint
    np.testing.assert_array_equal(again.members, table.members)


def test_what_is_not_used_decides_no_entity_table():
  c = base.get_config()
  names = set(settings.of_entities(c))
  assert "cf.width" in names and not any("transition" in n or "members" in n for n in names)
  with c.unlocked():
    c.vectors, c.cf.members = ("behavioral", "sequential"), 4
  more = set(settings.of_entities(c)) - names
  assert more == {"vectors", "cf.members", "cf.transition_width", "cf.transition_window"}


def test_a_table_made_before_the_config_asked_for_more_is_refused(tmp_path, monkeypatch):
  log = types.SimpleNamespace(fingerprint="d")
  table = entities.make(5, 5, behavioral=(np.ones((6, 3), np.float32), np.ones((5, 3), np.float32)))
  table.save(tmp_path / "entities", {"data": "d"})
  c = base.get_config()
  c.vectors, c.cf.members, c.qformer.members = ("behavioral", "sequential"), 2, 2
  run = context.Run(c, tmp_path, devices=False)
  monkeypatch.setitem(run.__dict__, "data", log)
  with pytest.raises(errors.UserError, match="no vectors 'sequential', no 2 members of an entity"):
    _ = run.entities
