"""benchmarks/redial.py on a handful of made-up dialogs."""
import argparse
import contextlib
import dataclasses
import json
import types

import numpy as np
import pytest

from benchmarks import redial as benchmark
from benchmarks import redial_run, redial_tables
from ilm_jax import errors
from ilm_jax.config import reading
from ilm_jax.conversation import instances

FILMS = ["Heat (1995)", "Alien (1979)", "Emma (1996)", "Fargo (1996)", "Jaws (1975)"]


def dialog(number, *turns):
  """Turns are (0 seeker or 1 recommender, ids of films, from 1; 9 is not on MovieLens)."""
  names = {str(n): name for n, name in enumerate(FILMS, 1)} | {"9": "Dune (2021)"}
  return {"conversationId": str(number), "initiatorWorkerId": 0, "respondentWorkerId": 1,
          "movieMentions": names,
          "messages": [{"senderWorkerId": side, "text": " and ".join(f"@{n}" for n in films)}
                       for side, films in turns]}


@pytest.fixture
def material(tmp_path):
  (tmp_path / "movies.csv").write_text("movieId,title,genres\n" + "".join(
      f"{100 + n},{name},Drama\n" for n, name in enumerate(FILMS, 1)))
  likes = {1: [1, 2], 2: [1, 2], 3: [1, 2, 5], 4: [3, 4], 5: [3, 4], 6: [4]}
  (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + "".join(
      f"{user},{100 + film},4.0,7\n" for user, films in likes.items() for film in films)
      + "1,105,1.0,7\n")
  (tmp_path / "valid.jsonl").write_text(json.dumps(dialog(1, (0, [1]), (1, [9]), (1, [2]))) + "\n")
  tested = (dialog(2, (0, [1]), (1, [2]), (1, [1]), (0, [3]), (1, [4, 9])),
            dialog(3, (0, []), (1, [5])))
  (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in tested))
  return benchmark.Material(argparse.Namespace(redial=tmp_path, movielens=tmp_path))


def config(seed):
  return reading.load("configs/redial_ml_small.py", {"seed": seed})


def ranks(material, name, setting, joined=False, fresh=True):
  got, of_dialog = benchmark.ranked(material, name, setting, "test", joined, fresh)
  return [each.tolist() for each in got], of_dialog.tolist()


def test_what_is_known(material):
  assert material.films.titles[5:] == ["Dune"] and material.row_of["9"] == 6
  np.testing.assert_array_equal(material.popular_I1[1:], [3, 3, 2, 3, 1, 0])     # 4.0, not 1.0
  np.testing.assert_array_equal(material.discussed_I1[1:], [1, 1, 0, 0, 0, 1])
  turns = material.turns("test", False)[0].turns[:4]
  assert material.liked(turns, "seeker").tolist() == [1, 3]
  assert material.liked(turns, "both").tolist() == [1, 2, 3]


def test_popularity_with_and_without_what_was_named(material):
  # By likes: 1 2 4 | 3 | 5 | 6. Fresh: of (2), (4, 9), (5), behind 1; behind 1 2 3; behind none.
  assert ranks(material, "popularity, MovieLens", {}) == ([[1], [1, 3], [5]], [0, 0, 1])
  got, _ = ranks(material, "popularity, MovieLens", {}, fresh=False)
  assert got == [[2], [1], [3, 6], [5]]
  # Joined, the two messages are one turn, and 1 and 2 its targets.
  got, of_dialog = ranks(material, "popularity, MovieLens", {}, joined=True, fresh=False)
  assert got == [[2, 1], [3, 6], [5]] and of_dialog == [0, 0, 1]


def test_ties_go_by_popularity(material):
  """Named in one dialog each: 1, 2 and 9; MovieLens orders them and the rest."""
  got, _ = ranks(material, benchmark.REFERENCE, {}, fresh=False)
  assert got == [[2], [1], [4, 3], [6]]


@pytest.mark.parametrize(("name", "setting"), [
    ("item-kNN, MovieLens", {"side": "seeker", "neighbours": 3, "shrinkage": 1.0}),
    ("fold-in", {"side": "seeker", "reg": 0.1, "alpha": 10.0})])
def test_films_that_go_together_come_first(material, name, setting):
  """Who likes 1 likes 2, who likes 3 likes 4; 9 is not on MovieLens and comes last."""
  got, _ = ranks(material, name, setting)
  assert got[:2] == [[1], [1, 3]]


def test_text_reads_the_end_of_the_context_with_titles(material):
  """An encoder that knows the letters: the dialog's last words find the film of that title."""
  read = []

  def encoder(texts):
    read.extend(texts)
    return np.array([[text.count(c) for c in "abcdefghijklmnopqrstuvwxyz"] for text in texts]) / 9

  material.__dict__["encoder"] = encoder
  material.__dict__["item_text_I1W"] = np.concatenate([np.zeros((1, 26)), encoder(FILMS + ["x"])])
  ranks(material, "text", {"words": 3}, fresh=False)
  assert set(read[6:]) == {"Heat (1995)", "(1995) Alien (1979)", "(1995) Emma (1996)", ""}


@pytest.mark.parametrize("name, setting", [
    (benchmark.DIALOGS, {"side": "both", "neighbours": 3, "shrinkage": 1.0}),
    (benchmark.BOTH, {"side": "both", "reg": 0.1, "alpha": 10.0, "dialogs": 3})])
def test_what_learns_from_validation_dialogs_is_chosen_on_others(material, name, setting):
  """Only another dialog may say that 5 follows 3: nobody on MovieLens likes both."""
  talk, = material.turns("valid", True)
  other = dataclasses.replace(talk, turns=(
      dataclasses.replace(talk.turns[0], items=("3",)),
      dataclasses.replace(talk.turns[1], items=("5",))))
  places = []
  for talks in ([other, talk], [other, other]):
    material.talks["valid"], material._made = talks, {}
    material.named = [material.rows(i for turn in t.turns for i in turn.items) for t in talks]
    ranks, of_dialog = benchmark.ranked(material, name, setting, "valid", True, True)
    places.append(int(ranks[of_dialog.tolist().index(0)][0]))
  assert places[1] == 1 < places[0]


def test_the_table(material):
  rows = benchmark.measure(material, (benchmark.COPY, benchmark.REFERENCE, "popularity, MovieLens"))
  shown = redial_tables.table(rows, [benchmark.REFERENCE, "of no row"])
  assert "By turns, all: 3 instances, 5 targets" in shown
  assert "By messages, fresh: 3 instances, 4 targets" in shown
  assert "| naive copy | 0.000 [0.000, 0.000] |" in shown.partition("By turns, fresh")[2]
  copied = next(row for row in rows if row["name"] == "naive copy" and row["targets"] == "all")
  assert copied["metrics"]["R@1"]["value"] == pytest.approx(0.5 / 3)
  assert f"minus that of {benchmark.REFERENCE}" in shown and "of no row" not in shown


def test_runs_of_a_config_are_averaged_for_each_instance(monkeypatch):
  made = {"a": [[1], [20]], "b": [[20], [20]]}          # by instance; R@10 .5 and 0

  class Trained:
    def __init__(self, workdir):
      self.of, self.run = made[workdir], types.SimpleNamespace(
          workdir=workdir, config=config("ab".index(workdir)))

    def ranks(self, talks, name, factors):
      better = 1 if name == redial_run.ADDED and factors == 2 else 20
      return [np.minimum(rank_T, better) for rank_T in self.of], np.array([0, 1])

  monkeypatch.setattr(redial_run, "Trained", Trained)
  rows = redial_run.rows(["a", "b"], {}, [1.0, 2.0], False)
  assert {row["name"]: (row["metrics"]["R@10"]["value"], row["seeds"]) for row in rows} == {
      redial_run.ILM: (0.25, [0.5, 0.0]), f"{redial_run.ADDED} x 1": (0.25, [0.5, 0.0]),
      f"{redial_run.ADDED} x 2": (1.0, [1.0, 1.0]), redial_run.FOLDED: (0.25, [0.5, 0.0])}
  assert "| ILM | 0.250 " in redial_tables.table(rows, ())


@pytest.mark.parametrize(("seed", "steps", "says"), [
    (1, 7, r"runs/1 has other settings than runs/0 \(phase2.steps: .* -> 7\)"),
    (0, None, r"two runs with the same seed \(seeds: 0, 0\)"), (1, None, "")])
def test_only_seeds_are_averaged(seed, steps, says):
  one, other = config(0), config(seed)
  if steps:
    other.phase2.steps = steps
  runs = [types.SimpleNamespace(workdir=f"runs/{n}", config=c) for n, c in enumerate((one, other))]
  with pytest.raises(errors.UserError, match=says) if says else contextlib.nullcontext():
    redial_run.check_seeds(runs)


def test_the_factorisation_alone_breaks_ties_by_popularity():
  model = object.__new__(redial_run.Trained)
  model.run = types.SimpleNamespace(data=types.SimpleNamespace(
      log=types.SimpleNamespace(train_counts=np.array([0, 2, 7, 7]))))
  score_NI = model._behind(np.array([[0, 1.0, 0, 0], [0, 0.0, 0, 1e-3]]))
  np.testing.assert_array_equal(np.argsort(-score_NI[:, 1:], kind="stable") + 1,
                                [[1, 2, 3], [3, 2, 1]])


def test_a_run_finds_what_its_catalogue_has_and_was_not_named():
  """Rows 1 to 3 are the run's; film d is a second id of film a, film x no film of the run."""
  row_of = {"a": 1, "b": 2, "c": 3, "d": 1, "x": 9}
  every = [instances.Instance(0, 1, ("b", "x", "c"), ("a",)),
           instances.Instance(0, 3, ("d",), ("a",)),
           instances.Instance(1, 1, ("x",), ()), instances.Instance(1, 3, ("a",), ("x",))]
  asked = redial_run.to_find(every, row_of, 3)
  assert asked == [[2, 3], [], [], [1]]
  score_NI = np.array([[-np.inf, -np.inf, 1.0, 2.0], [-np.inf, 1.0, 5.0, 4.0]])
  ranks = redial_run.placed(every, row_of, asked, score_NI)
  inf = float("inf")
  assert [list(rank_T) for rank_T in ranks] == [[2, inf, 1], [inf], [inf], [3]]
