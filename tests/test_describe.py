"""Vectors between, beyond and in the direction of others; names of entities."""
import re
import types

import numpy as np
import pytest

from ilm_jax import errors
from ilm_jax.cf import activation
from ilm_jax.data import interactions, rows
from ilm_jax.stages import describe


def test_between_has_both_ends_and_what_both_have():
  start, end = {"a": np.array([0.0, 4]), "b": np.ones(1)}, {"a": np.array([2.0, 0])}
  found = describe.between(start, end, 3)
  assert [sorted(v) for v in found] == [["a"]] * 3
  np.testing.assert_allclose([v["a"] for v in found], [[0, 4], [1, 2], [2, 0]])
  with pytest.raises(errors.UserError, match=r"no line from vectors \['b'\] to vectors \['a'\]"):
    describe.between({"b": np.ones(1)}, end, 3)


def test_moved_goes_along_the_kinds_that_the_direction_has():
  there = describe.moved({"v": np.zeros(2), "w": np.ones(1)}, {"v": np.array([2.0, 4])}, 0.5)
  np.testing.assert_allclose(there["v"], [1, 2])
  assert there["w"] == 1


@pytest.fixture
def describer():
  items = interactions.Items(["10", "11", "12", "13"], ["Heat", "Heat", "Up", "Léon: Pro"],
                             [1995, 1986, 2009, 1994], [[]] * 4)
  log = types.SimpleNamespace(user_ids=["7", "9"], rows=rows.EntityRows(4, 2))
  found = object.__new__(describe.Describer)
  found.run = types.SimpleNamespace(data=interactions.Data(log, items, ""))
  return found


@pytest.mark.parametrize(("name", "row"), [
    ("Heat (1986)", 2), ("up", 3), ("item:13", 4), ("user:9", 6), ("Léon: Pro", 4)])
def test_names_of_entities(describer, name, row):
  assert describer.row(name) == row


@pytest.mark.parametrize(("name", "words"), [
    ("Heat", r"several items: say which of item:10 \(Heat \(1995\)\), item:11 \("),
    ("Upp (2009)", r"near it: 'Up \(2009\)'"), ("user:", "none of the 2 users"),
    ("user:8", "'user:8': none of the 2 users of the data has the id '8'$"),
    ("item:15", "none of the 4 items of the data has the id '15'")])
def test_names_of_none_or_of_several(describer, name, words):
  with pytest.raises(errors.UserError, match=words):
    describer.row(name)


@pytest.mark.parametrize(("most", "hint"), [
    (5, "near it: 'Upp (2009)', 'Upp (1986)'. A"), (2, "near it: 'Upp (2009)', 'Upp (1986)'. A"),
    (1, "near it: 'Upp (2009)'. A"), (0, "'Upp (2009'. A name")])
def test_of_many_names_those_that_begin_alike_are_near(describer, monkeypatch, most, hint):
  monkeypatch.setattr(describe, "_COMPARED", most)
  items = interactions.Items(list("abcde"), ["Upp", "Upon", "Heat", "Uphill", "Upp"],
                             [2009, None, None, None, 1986], [[]] * 5)
  describer.run.data = describer.run.data._replace(items=items)
  with pytest.raises(errors.UserError, match=re.escape(hint)):
    describer.row("Upp (2009")


@pytest.mark.parametrize(("wish", "words"), [
    (describe.Wish(()), "needs --items"),
    (describe.Wish(("a",), ("b",), ("c",)), "give one"),
    (describe.Wish(("a",), ("b",), steps=1), "--steps=1: expected 2 or more")])
def test_wishes_that_cannot_be_met(wish, words):
  with pytest.raises(errors.UserError, match=words):
    describe.run(None, wish)


def test_the_direction_of_a_concept_is_of_rows_that_have_a_vector():
  """Items 3 and 4 have no `a`, no item with the concept has `b`, and none at all has `c`."""
  rng = np.random.default_rng(0)
  values, all_of = rng.normal(size=(6, 2)).astype(np.float32), np.arange(6) > 0
  present = {"a": all_of & ~np.isin(np.arange(6), [3, 4]), "b": np.arange(6) > 3,
             "c": np.zeros(6, bool)}
  table = types.SimpleNamespace(
      vectors={n: np.where(has[:, None], values, 0) for n, has in present.items()},
      present=present)
  run = types.SimpleNamespace(entities=table, data=types.SimpleNamespace(items=range(5)),
                              config=types.SimpleNamespace(vectors=("a", "b", "c")))
  describer = describe.Describer(run)
  way = describer.direction([1, 3])
  assert list(way) == ["a"]
  np.testing.assert_allclose(way["a"], activation.between(values[[1]], values[[2, 5]]), rtol=1e-5)
  with pytest.raises(errors.UserError, match="no direction .* training interactions") as caught:
    describer.direction([3])
  assert "\n" not in str(caught.value)
