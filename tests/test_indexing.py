"""Indices: made from training alone, different for every item, the same for the same seed."""
import collections

import numpy as np
import pytest
import scipy.sparse

from ilm_jax import errors
from ilm_jax.data import interactions
from tasks import clustering, indexing

# Two worlds that never meet: items 1..8 and 9..16; item 17 is in no training history.
RANDOM = np.random.default_rng(0)
HISTORIES = [RANDOM.permutation(8)[:5] + 1 + 8 * (u % 2) for u in range(60)]
ITEMS = interactions.Items(ids=[str(i) for i in range(17)], titles=[f"T{i}" for i in range(17)],
                           years=[None] * 17, genres=[[]] * 17)


def codes(kind, seed=0, vectors=None, **sizes):
  return indexing.codes(indexing.Scheme(kind=kind, **sizes), 17, HISTORIES, vectors, seed)


def blobs():
  """17 vectors around four far centres."""
  centres = 10 * np.random.default_rng(1).normal(size=(4, 5))
  return centres[np.arange(17) % 4] + 0.01 * np.random.default_rng(2).normal(size=(17, 5))


@pytest.mark.parametrize("kind, sizes", [
    ("random", {}), ("sequential", {}), ("collaborative", {"clusters": 2, "size": 3}),
    ("semantic", {"levels": 2, "codes": 4})])
def test_every_item_has_its_own_code_and_the_seed_decides(kind, sizes):
  found = codes(kind, vectors=blobs, **sizes)
  assert len(set(found)) == 17 and found == codes(kind, vectors=blobs, **sizes)
  if kind == "random":
    assert sorted(found) == [(1001 + i,) for i in range(17)] and found != codes(kind, seed=1)


def test_sequential_numbers_follow_training_and_what_is_new_stands_behind():
  found = indexing.codes(indexing.Scheme(kind="sequential"), 5, [[4, 2], [2, 5]], None, 0)
  assert found == [(1004,), (1002,), (1005,), (1001,), (1003,)]


def test_clusters_find_the_two_worlds():
  affinity = clustering.co_occurrence(HISTORIES, 17)
  dense = affinity.toarray()
  want = sum(np.outer(h, h) for h in (np.isin(np.arange(1, 18), h) for h in HISTORIES)) * 1.0
  np.fill_diagonal(want, 0)
  np.testing.assert_array_equal(dense, want)
  label = clustering.spectral(affinity[:16, :16], 2, 0)
  assert len(set(label[:8])) == len(set(label[8:])) == 1 and label[0] != label[8]
  first = [code[0] for code in codes("collaborative", clusters=2, size=8)]
  assert len(set(first[:8])) == len(set(first[8:16])) == 1
  assert len({first[0], first[8], first[16]}) == 3       # who meets nobody has a group of its own


def test_no_group_is_larger_than_asked_and_numbers_stay_below_it():
  found = codes("collaborative", clusters=2, size=3)
  groups = collections.Counter(code[:-1] for code in found)
  assert max(groups.values()) <= 3 and max(max(code) for code in found) < 3


def test_iteration_and_dense_eigenvectors_cluster_alike(monkeypatch):
  random = np.random.default_rng(3)
  block = np.kron(np.eye(4), np.ones((30, 30))) * 5
  graph = np.triu(random.poisson(block + 0.05), 1)
  graph = scipy.sparse.csr_array((graph + graph.T).astype(float))
  dense = clustering.spectral(graph, 4, 0)
  monkeypatch.setattr(clustering, "_DENSE", 10)
  sparse = clustering.spectral(graph, 4, 0)
  assert len(set(zip(dense, sparse))) == len(set(dense)) == 4      # one and the same partition
  assert all(len(set(dense[30 * b:30 * b + 30])) == 1 for b in range(4))


def test_alike_items_that_nothing_tells_apart_are_cut_evenly():
  everyone = [np.arange(1, 13)] * 3
  found = indexing.codes(indexing.Scheme(kind="collaborative", clusters=3, size=4), 12, everyone,
                         None, 0)
  assert len(set(found)) == 12


def test_many_items_that_share_no_user_are_cut_evenly(monkeypatch):
  """Too many for one group, and for all eigenvectors: nothing that iteration could find."""
  monkeypatch.setattr(clustering, "_DENSE", 10)
  found = indexing.codes(indexing.Scheme(kind="collaborative", clusters=3, size=20), 62,
                         [np.array([1, 2]), *np.arange(3, 63)[:, None]], None, 0)
  assert len(set(found)) == 62
  assert max(collections.Counter(code[:-1] for code in found).values()) <= 20


def test_semantic_codes_say_which_blob():
  found = codes("semantic", vectors=blobs, levels=1, codes=4)
  assert len({code[0] for code in found}) == 4
  assert all(found[i][0] == found[i + 4][0] for i in range(12))
  assert sorted(code[1] for code in found if code[0] == found[0][0]) == [0, 1, 2, 3, 4]


def test_names_are_spelled_or_made_of_words():
  scheme = indexing.Scheme(kind="semantic", levels=1, codes=4)
  spelled = indexing.names(scheme, ITEMS, HISTORIES, blobs, 0)
  assert spelled[0] == "" and all(name.startswith(" ") and "-" in name for name in spelled[1:])
  worded = indexing.names(
      indexing.Scheme(kind="semantic", levels=1, codes=4, words=True), ITEMS, HISTORIES, blobs, 0)
  assert indexing.words_needed(worded) == 4 + 5      # the second number counts 0..4 behind level 1
  a, b = spelled[1].split("-")
  assert worded[1] == f"<index_{int(a)}><index_{int(b) + 4}>"


def test_a_catalogue_of_words_that_are_not_there_is_refused():
  class Letters:
    def encode(self, text):
      return list(text.encode())

  with pytest.raises(errors.UserError, match="needs lm.new_tokens=17"):
    indexing.report(indexing.names(indexing.Scheme(kind="random", words=True), ITEMS, HISTORIES,
                                   None, 0), Letters())
  found = indexing.report(["", " 1", " 12", " 3"], Letters())
  assert (found["prefixes"], found["longest"]) == (1, 3)


def test_words_apart_belong_to_one_beginning_of_codes():
  assert indexing._apart([(1, 0), (0, 1), (0, 0), (2,)]) == [(1, 5), (0, 4), (0, 3), (2,)]
  scheme = indexing.Scheme(kind="collaborative", clusters=2, size=3, words=True, apart=True)
  named = indexing.names(scheme, ITEMS, HISTORIES, None, 0)
  plain = codes("collaborative", clusters=2, size=3)
  beginnings = {code[:n] for code in plain for n in range(1, len(code) + 1)}
  assert indexing.words_needed(named) == len(beginnings)
