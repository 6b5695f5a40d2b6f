"""Retrieval worked by hand, and the ridge floor on data with a known answer."""
import numpy as np
import pytest

from ilm_jax.evaluation import retrieval
from ilm_jax.evaluation import ridge as ridge_lib
from ilm_jax.evaluation.rows import label
from ilm_jax.objectives import phase1
from ilm_jax.runtime import axes
from tests import small_configs

MESH = axes.make_mesh({"data": 8, "fsdp": 1, "tensor": 1})
TWO_QUERIES = retrieval.Space(
    item_IQP=np.array([[[1, 0], [0, 1]], [[0.6, 0.8], [0, -1]], [[0, 1], [0, 1]]], np.float32),
    text_IP=np.array([[0.8, 0.6], [0, 1], [0.6, 0.8]], np.float32))


def test_ranks_by_hand():
  """The best query counts: items to texts [[.8, 1, .8], [.96, .8, 1], [.6, 1, .8]].

  Item 1 ties its own .8 with text 3 and comes first: rank 2. Item 2 is last of its row, item 3
  second. Text 1's column (.8, .96, .6), text 2's (1, .8, 1), text 3's (.8, 1, .8).
  """
  found = retrieval.ranks(TWO_QUERIES, rows=[0, 1, 2], among=[0, 1, 2], block=2)
  np.testing.assert_array_equal(found["item to text"], [2, 3, 2])
  np.testing.assert_array_equal(found["text to item"], [2, 3, 3])


def test_fewer_candidates():
  found = retrieval.ranks(TWO_QUERIES, rows=[1, 2], among=[1, 2])
  np.testing.assert_array_equal(found["item to text"], [2, 2])
  np.testing.assert_array_equal(found["text to item"], [2, 2])


def test_table_has_both_pools_both_directions_and_chance():
  held_I = np.array([False, True, True])
  made = retrieval.table({"mine": TWO_QUERIES}, held_I, vectors=("behavioral",), ks=(1, 2),
                         resamples=10, seed=0, protocol={"step": 7})
  rows = {label(row): row["metrics"] for row in made["rows"]}
  assert list(rows) == ["mine, among all 3 items", "chance, among all 3 items",
                        "mine, among the 2 held-out", "chance, among the 2 held-out"]
  assert rows["mine, among all 3 items"]["item to text R@2"]["value"] == 1 / 2
  assert rows["mine, among the 2 held-out"]["text to item R@2"]["n"] == 2
  assert rows["chance, among all 3 items"]["text to item R@1"]["value"] == 1 / 3
  assert made["protocol"]["step"] == 7 and "trivial" not in made["note"]


def test_the_first_system_is_compared_with_the_others_item_by_item():
  """Item to text `a` ranks 2, 3, 2 and `b` 1, 1, 1: at 1 every item differs, at 2 the second."""
  perfect = retrieval.Space(np.eye(3, dtype=np.float32)[:, None], np.eye(3, dtype=np.float32))
  made = retrieval.table({"a": TWO_QUERIES, "b": perfect}, np.array([True, True, True]),
                         vectors=("behavioral",), ks=(1, 2), resamples=50, seed=0, protocol={})
  row = {label(row): row["metrics"] for row in made["rows"]}["a minus b, among all 3 items"]
  assert row["item to text R@1"] == {"value": -1.0, "lo": -1.0, "hi": -1.0, "n": 3}
  np.testing.assert_allclose(row["item to text R@2"]["value"], -1 / 3)


def test_of_many_held_out_items_some_are_measured_among_all(monkeypatch):
  monkeypatch.setattr(retrieval, "_MEASURED", 1)
  made = retrieval.table({"mine": TWO_QUERIES}, np.array([True] * 3), vectors=("behavioral",),
                         ks=(2,), resamples=1, seed=0, protocol={})
  row = {label(row): row["metrics"] for row in made["rows"]}["mine, among the 3 held-out"]
  assert row["item to text R@2"]["n"] == 1 and made["protocol"]["items"] == 1


def test_of_many_items_the_floor_learns_from_some(monkeypatch):
  seen = []
  monkeypatch.setattr(retrieval.ridge_lib, "choose",
                      lambda x_NC, y_NP, seed: seen.append(x_NC[:, 0].tolist()) or 1.0)
  item_IC = np.arange(8.0)[:, None]
  for most in (7, 3):
    monkeypatch.setattr(retrieval, "_FITTED", most)
    retrieval.ridge_space(item_IC, item_IC, np.arange(8) == 5, seed=0)
  assert seen[0] == [0, 1, 2, 3, 4, 6, 7]
  assert len(seen[1]) == 3 and seen[1] == sorted(seen[1]) and set(seen[1]) < set(seen[0])


def test_semantic_input_is_called_trivial():
  made = retrieval.table({}, np.array([True]), vectors=("behavioral", "semantic"), resamples=1,
                         seed=0, protocol={})
  assert "near trivial" in made["note"] and "behavioral + semantic" in made["title"]


def test_ridge_by_hand():
  """x = -1, 1, 3 becomes (-q, 0, q) with q^2 = 3/2; y = x gives q (4 / 3) / (1 + penalty)."""
  ridge = ridge_lib.fit(np.array([[-1.0], [1], [3]]), np.array([[-1.0], [1], [3]]), 0.5)
  q = np.sqrt(3 / 2)
  np.testing.assert_allclose(ridge.weight_CP, [[q * (4 / 3) / 1.5]])
  np.testing.assert_allclose(ridge.predict(np.array([[3.0]])), [[q * q * (4 / 3) / 1.5]])


def test_ridge_finds_a_linear_text_space_and_never_looks_at_held_out_texts():
  rng = np.random.default_rng(0)
  item_IC = rng.normal(size=(120, 6))
  text_IP = item_IC @ rng.normal(size=(6, 9)) + 5.0
  held_I = np.arange(120) % 4 == 0
  space, _ = retrieval.ridge_space(item_IC, text_IP, held_I, seed=0)
  found = retrieval.ranks(space, np.flatnonzero(held_I), np.arange(120))
  assert np.mean(found["item to text"] == 1) > 0.9 and np.mean(found["text to item"] == 1) > 0.9
  text_IP[held_I] = np.nan
  blind, _ = retrieval.ridge_space(item_IC, text_IP, held_I, seed=0)
  np.testing.assert_array_equal(blind.item_IQP, space.item_IQP)


def test_noise_asks_for_more_regularisation():
  rng = np.random.default_rng(0)
  x_NC = rng.normal(size=(60, 30))
  clean_NP = x_NC[:, :1] @ rng.normal(size=(1, 5))
  noisy_NP = clean_NP + 5 * rng.normal(size=(60, 5))
  clean, noisy = (ridge_lib.choose(x_NC, y, seed=0) for y in (clean_NP, noisy_NP))
  assert clean < noisy


def test_texts_of_an_item_are_in_one_fold():
  """Texts that tell which item they are about, but nothing of its target: to learn them by heart
  pays only where the item is in another fold, too."""
  rng = np.random.default_rng(0)
  item_N = np.repeat(np.arange(40), 6)
  x_NC = rng.normal(size=(40, 30))[item_N] + 0.1 * rng.normal(size=(240, 30))
  y_NP = rng.normal(size=(40, 3))[item_N]
  by_text = ridge_lib.choose(x_NC, y_NP, seed=0)
  by_item = ridge_lib.choose(x_NC, y_NP, seed=0, group_N=item_N)
  assert by_text < 0.1 and by_item >= 10


def test_qformer_space_is_in_order_of_item_rows():
  config = small_configs.qformer(
      vectors={"behavioral": 3}, num_layers=1, cross_every=1, width=8, num_heads=2, mlp_width=12,
      vocab_size=20, max_text=4, num_queries=2, proj_width=4)
  graphdef, trainable = phase1.build_phase1(config, seed=0)
  rng = np.random.default_rng(0)
  frozen = {"vectors": {"behavioral": rng.normal(size=(5, 3)).astype(np.float32)},
            "present": {"behavioral": np.array([False, True, True, True, True])}}
  text = rng.integers(1, 20, size=(5, 4)).astype(np.int32)

  def batch(rows):
    return {"text_entities": np.array(rows, np.int32), "text": text[rows],
            "text_mask": np.ones((2, 4), bool)}

  ordered = retrieval.qformer_space(
      graphdef, trainable["qformer"], frozen, [batch([1, 2]), batch([3, 0])], MESH, 3)
  mixed = retrieval.qformer_space(
      graphdef, trainable["qformer"], frozen, [batch([3, 1]), batch([2, 0])], MESH, 3)
  np.testing.assert_allclose(mixed.item_IQP, ordered.item_IQP, atol=1e-5)
  np.testing.assert_allclose(mixed.text_IP, ordered.text_IP, atol=1e-5)
  np.testing.assert_allclose(np.linalg.norm(mixed.item_IQP, axis=-1), 1, atol=1e-5)
  assert np.abs(mixed.text_IP[0] - mixed.text_IP[1]).max() > 1e-2
  with pytest.raises(ValueError, match="texts of 2 items, expected one for each of 3 items"):
    retrieval.qformer_space(graphdef, trainable["qformer"], frozen, [batch([3, 1])], MESH, 3)
