"""benchmarks/critiques.py on a made-up log and made-up raters."""
import argparse
import types

import numpy as np
import pytest

from benchmarks import conversations, critique_gamma, critique_guesses, critiques
from ilm_jax.data import splits


@pytest.fixture
def material(tmp_path, monkeypatch):
  """Films 1-10 comedies, 11-20 horror, odd ones "slow"; 24 users like mostly one genre."""
  monkeypatch.setattr(conversations, "WIDTH", 6)
  monkeypatch.setattr(critiques, "NEIGHBOURS", 12)
  monkeypatch.setattr(critiques, "FORMS", {"reg": (0.5,), "alpha": (5.0,)})
  rng = np.random.default_rng(0)
  (tmp_path / "movies.csv").write_text("movieId,title,genres\n" + "".join(
      f"{n},Film {n} ({1970 + n}),{'Comedy' if n <= 10 else 'Horror'}\n" for n in range(1, 22)))
  lines = []
  for user in range(1, 25):
    mostly = rng.permutation(np.arange(1, 11) if user % 2 else np.arange(11, 21))[:7]
    other = rng.permutation(np.arange(11, 21) if user % 2 else np.arange(1, 11))[:2]
    lines += [f"{user},{film},4.0,{time}\n" for time, film in enumerate([*mostly, *other])]
    lines.append(f"{user},21,1.0,99\n")
  (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + "".join(lines))
  (tmp_path / "tags.csv").write_text("userId,movieId,tag,timestamp\n" + "".join(
      f"{100 + n},{n},{'Slow' if n % 2 else 'fast'},1\n" for n in range(1, 21)) + "1,2,slow,1\n")
  return critiques.Material(argparse.Namespace(movielens=tmp_path))


def test_what_is_known(material):
  assert not material.met_I1[[0, 21]].any() and material.met_I1[1:21].all()      # 1.0 is no like
  assert sorted(material.ways(1.0, False)) == ["comedy", "fast", "horror", "new", "slow"]
  assert [material.kind(name) for name in ("new", "comedy", "slow")] == ["year", "genre", "tag"]


def test_words_are_true_and_not_the_users_alone(material):
  every, _ = critiques.cases(material, splits.TEST)
  assert every
  for case in every:
    assert case["shown"] not in case["before"] and case["shown"] != case["target"]
    assert case["may_I1"][case["target"]] and not case["may_I1"][case["shown"]]
  row_2 = material.films.ids.index("2") + 1
  user_1 = material.log.user_ids.index("1")
  assert not critiques.others_say(material, user_1, row_2, "slow")
  assert critiques.others_say(material, user_1, row_2, "fast")
  assert critiques.others_say(material, user_1, row_2, "comedy")


def test_critiques_that_lead_to_the_target_help_and_their_opposites_do_not(material):
  every, _ = critiques.cases(material, splits.TEST)
  every = [case for case in every if case["name"] in ("comedy", "horror")]
  got = critiques.ranks(material, every, {"ridge": 0.1, "unit": False, "step": 1.0})
  assert got[critiques.AFTER].mean() < got[critiques.BEFORE].mean() < got[critiques.OPPOSITE].mean()
  assert (got[critiques.FILTER] <= got[critiques.BEFORE]).all()
  still = critiques.ranks(material, every, {"ridge": 0.1, "unit": False, "step": 0.0})
  for name in (critiques.AFTER, critiques.OPPOSITE, critiques.DRAWN):
    np.testing.assert_array_equal(still[name], got[critiques.BEFORE])
  assert "after the critique, minus before" in critiques.success_tables(
      material, {"ridge": 0.1, "unit": False, "step": 1.0})


def test_tags_that_are_guessed_stand_beside_their_own_direction(material, monkeypatch):
  """Both sides guess the tags' own directions; of "odd" one side guesses nothing."""
  own = material.ways(0.1, False)
  monkeypatch.setattr(critique_gamma, "guesser", lambda *of: {
      "slow": (own["slow"],) * 2, "fast": (own["fast"],) * 2, "odd": (own["fast"], None)}.get)
  sortings = types.SimpleNamespace(attributes=["slow", "odd"])
  assert list(critique_gamma.guess(material, sortings, {"agree": 0.5}, "both")) == ["slow"]
  head, *rows = critique_guesses.success_table(material, sortings).splitlines()
  assert head == ("2 of 2 tags are guessed; correlation with the tag's direction: 1.00 on average, "
                  "1.00 of them above 0")
  values = {row.split(" | ")[0]: row.split(" | ")[1:] for row in rows if ", step 0.75" in row}
  assert values["| guessed, step 0.75"] == values["| the tag's direction, step 0.75"]


@pytest.fixture
def sorted_pairs():
  """40 films, each pair ordered by number, by 10 raters."""
  rng, folds = np.random.default_rng(0), np.arange(41) % critique_gamma.FOLDS
  low_P, high_P = np.sort(rng.integers(1, 41, (3000, 2)), axis=1).T
  pairs_P3 = np.c_[low_P, high_P, rng.integers(0, 10, 3000)][low_P < high_P]
  return pairs_P3, types.SimpleNamespace(fold_of_film=folds, fold_of_rater=np.arange(10) % 5)


def test_directions_from_raters_know_nothing_of_the_pairs_films(sorted_pairs):
  """Where films have nothing in common, what was learnt of others orders no pair."""
  pairs_P3, sortings = sorted_pairs
  low_P, high_P = critique_gamma.held_out(sortings, pairs_P3, np.eye(41), 1.0)
  np.testing.assert_array_equal(low_P, high_P)


def test_directions_from_raters_order_films_by_what_they_share(sorted_pairs):
  pairs_P3, sortings = sorted_pairs
  vectors = np.c_[np.arange(41) / 40, np.random.default_rng(1).normal(size=41)]
  low_P, high_P = critique_gamma.held_out(sortings, pairs_P3, vectors, 0.1)
  assert (high_P > low_P).mean() > 0.9
