"""Directions of attributes, steps along them, and words that mean them."""
import time

import numpy as np
import pytest

from ilm_jax import errors
from ilm_jax.cf import fold_in
from ilm_jax.conversation import attributes, directions, titles, wishes
from ilm_jax.conversation import session as s
from ilm_jax.data import interactions

# Dimension 0 of the factors is "dark", dimension 1 the year; item 7 has no vector.
ITEMS = interactions.Items(
    ids=[str(n) for n in range(101, 108)],
    titles=["Heat", "Alien", "Up", "Big", "Emma", "Jaws", "It"],
    years=[1995, 1979, 2009, 1988, 1996, 1975, None],
    genres=[["Crime"], ["Horror"], ["Comedy"], ["Comedy"], [], ["Horror"], ["Horror"]])
TITLES = titles.Titles(ITEMS)
DARK = [1.0, 1.0, -1.0, -1.0, -1.0, 1.0]
VECTORS = np.zeros((8, 3))
VECTORS[1:7] = np.stack([DARK, (np.array(ITEMS.years[:6]) - 1990) / 10, [1, -1, 1, -1, 1, -1]], 1)
TAGS = [("101", "Dark"), ("102", "dark "), ("106", "dark"), ("103", "cute"), ("104", "cute"),
        ("103", "dogs"), ("107", "dark"), ("999", "dark")]


@pytest.fixture
def ways():
  labels = {**attributes.of_tags(ITEMS, TAGS), **attributes.of_genres(ITEMS),
            **attributes.of_years(ITEMS)}
  return directions.learn(VECTORS, labels, least=2, ridge=1e-3)


def test_labels():
  tags = attributes.of_tags(ITEMS, TAGS)
  assert sorted(tags) == ["cute", "dark", "dogs"]
  assert dict(zip(tags["dark"].row_N.tolist(), tags["dark"].value_N)) == {
      1: 1, 2: 1, 6: 1, 3: 0, 4: 0, 7: 1}
  assert 5 not in attributes.of_genres(ITEMS)["horror"].row_N        # no genres: not known
  assert attributes.of_years(ITEMS)["new"].value_N.tolist() == ITEMS.years[:6]


def test_of_very_many_genres_the_most_common_have_labels(monkeypatch):
  monkeypatch.setattr(attributes, "MOST_GENRES", 2)
  genres = [["b", "C"], ["a", "c"], ["a", "b", "d"], []]
  found = attributes.of_genres(interactions.Items(list("wxyz"), list("wxyz"), [None] * 4, genres))
  assert list(found) == ["a", "b"]            # as common as "c", and first in the alphabet
  assert found["b"].row_N.tolist() == [1, 2, 3] and found["b"].value_N.tolist() == [1, 0, 1]


def test_directions_are_in_deviations_of_the_items_that_have_a_vector(ways):
  assert sorted(ways) == ["comedy", "cute", "dark", "horror", "new"]   # others: one item
  for way_C in ways.values():
    assert (VECTORS[1:7] @ way_C).std() == pytest.approx(1, rel=1e-4)
  assert (VECTORS[[1, 2, 6]] @ ways["dark"]).min() > (VECTORS[[3, 4, 5]] @ ways["dark"]).max()
  assert np.argsort(VECTORS[1:7] @ ways["new"]).tolist() == np.argsort(ITEMS.years[:6]).tolist()


def test_an_attribute_needs_enough_items_with_a_vector():
  """"dark" has four labelled items, three with a vector."""
  labels = attributes.of_tags(ITEMS, TAGS)
  assert "dark" not in directions.learn(VECTORS, labels, least=4, ridge=1.0)
  assert "dark" not in directions.learn(VECTORS, labels, least=3, ridge=1.0)      # two are not dark
  some = {"slow": attributes.Labels(np.array([1, 2, 3]), np.array([0.1, 0.2, 0.3]))}
  assert list(directions.learn(VECTORS, some, least=3, ridge=1.0)) == ["slow"]
  assert not directions.learn(VECTORS, some, least=4, ridge=1.0)
  same = {"slow": attributes.Labels(np.array([1, 2, 3]), np.ones(3))}
  assert not directions.learn(VECTORS, same, least=1, ridge=1.0)


def test_of_unit_vectors_how_many_like_an_item_tells_nothing():
  """Tagged items are longer; their directions are those of the others."""
  rng = np.random.default_rng(0)
  vectors = np.zeros((401, 4))
  vectors[1:] = rng.normal(size=(400, 4)) + [0, 0, 0, 3.0]
  vectors[1:] /= np.linalg.norm(vectors[1:], axis=1, keepdims=True)
  labels = {"x": attributes.Labels(np.arange(1, 401), (vectors[1:, 0] > 0).astype(float))}
  vectors[1:201] *= 5
  ways = [directions.learn(vectors, {"x": attributes.Labels(
      np.arange(1, 401), np.r_[np.ones(200), np.zeros(200)])}, least=5, ridge=0.1, unit=unit)["x"]
      for unit in (False, True)]
  assert abs(ways[0][3]) / np.linalg.norm(ways[0]) > 0.9
  assert abs(ways[1][3]) / np.linalg.norm(ways[1]) < 0.6
  way = directions.learn(vectors, labels, least=5, ridge=0.1, unit=True)["x"]
  assert way[0] / np.linalg.norm(way) > 0.9


def test_critiques_that_lead_from_one_item_to_another():
  labels = {**attributes.of_tags(ITEMS, TAGS), **attributes.of_genres(ITEMS),
            **attributes.of_years(ITEMS)}
  leading = attributes.leading(labels, len(ITEMS), years_apart=5)
  assert leading.critiques(3, 6) == [("cute", -1), ("dark", 1), ("dogs", -1), ("comedy", -1),
                                     ("horror", 1), ("new", -1)]
  assert leading.critiques(6, 2) == []           # four years; both dark horror
  assert leading.critiques(5, 1) == []           # one year; 5 has neither tags nor genres
  assert leading.critiques(5, 6) == [("new", -1)]


def test_a_critique_moves_the_vector_and_nothing_else(ways):
  form = fold_in.Form(VECTORS, reg=1.0, alpha=2.0)
  talk = s.constrain(s.like(s.Session(), "103"), years=(1970, 2000))
  asked_for = s.critique(talk, "Dark", 2)
  before, after = (directions.user_vector(each, form, ITEMS, ways, step=0.1)
                   for each in (talk, asked_for))
  np.testing.assert_array_equal(before, s.user_vector(talk, form, ITEMS))
  # By 0.1 a step and deviation of the item along the direction, in deviations of the user's scores.
  deviation = (VECTORS[1:7] @ before).std()
  np.testing.assert_allclose(VECTORS @ (after - before),
                             0.2 * deviation * VECTORS @ ways["dark"], atol=1e-6)
  np.testing.assert_array_equal(s.allowed(asked_for, ITEMS), s.allowed(talk, ITEMS))
  back = s.critique(asked_for, "dark", -2)
  again = directions.user_vector(back, form, ITEMS, ways, step=0.1)
  np.testing.assert_allclose(again, before, atol=1e-6)


def test_who_likes_nothing_yet_can_critique(ways):
  form, talk = fold_in.Form(VECTORS, reg=1.0, alpha=2.0), s.critique(s.Session(), "dark", 1)
  np.testing.assert_allclose(directions.user_vector(talk, form, ITEMS, ways, 0.1),
                             0.1 * ways["dark"], rtol=1e-6)
  np.testing.assert_allclose(directions.spread(VECTORS, [[0, 0, 0], [1, 0, 0]]), [1, np.std(DARK)])


def test_scores_of_any_model_are_moved_by_the_rule_of_vectors(ways):
  """Scores that are a user's product with the items end where the moved vector takes them."""
  form = fold_in.Form(VECTORS, reg=1.0, alpha=2.0)
  talk = s.critique(s.like(s.Session(), ITEMS.ids[0]), "DARK", 2)
  before, after = (directions.user_vector(each, form, ITEMS, ways, step=0.5)
                   for each in (s.like(s.Session(), ITEMS.ids[0]), talk))
  got = directions.moved(VECTORS @ before, talk, VECTORS, ways, step=0.5)
  np.testing.assert_allclose(got, VECTORS @ after, rtol=1e-5, atol=1e-6)
  assert not np.allclose(got, VECTORS @ before)
  np.testing.assert_array_equal(
      directions.moved(VECTORS @ before, s.Session(), VECTORS, ways, step=0.5),
      np.float32(VECTORS @ before))


def test_labels_that_fit_a_critique_count():
  labels = {**attributes.of_tags(ITEMS, TAGS), **attributes.of_years(ITEMS)}
  known, row_of = attributes.leading(labels, 7), {raw: n for n, raw in enumerate(ITEMS.ids, 1)}
  fit = lambda session: attributes.fitting(session, known, row_of)          # noqa: E731
  talk = s.like(s.Session(), ITEMS.ids[0])
  dark_I1 = known.value_AI1[known.names.index("dark")] == 1
  assert dark_I1.any() and not dark_I1[1:].all()
  np.testing.assert_array_equal(fit(s.critique(talk, "Dark", 2)), 2.0 * dark_I1)
  np.testing.assert_array_equal(fit(s.critique(talk, "dark", -1))[1:], ~dark_I1[1:])
  assert not fit(talk).any() and not fit(s.critique(talk, "unheard of", 1)).any()
  without = s.constrain(s.critique(talk, "dark", 1), without=("dark",))      # holds no more
  assert not fit(without).any()


def test_labels_that_are_all_the_same_and_labels_of_degree():
  labels = {name: attributes.Labels(np.arange(1, len(values) + 1), np.array(values))
            for name, values in (("slow", [1, 1]), ("odd", [0, 0]), ("grim", [-1, 0.2, 0]))}
  known = attributes.leading(labels, 7)

  def fit(name, steps):
    session = s.critique(s.Session(), name, steps)
    return np.flatnonzero(attributes.fitting(session, known, ITEMS.row_of)).tolist()

  assert fit("slow", 1) == [1, 2] and fit("slow", -1) == [3, 4, 5, 6, 7]
  assert fit("odd", 1) == [] and fit("odd", -1) == [1, 2, 3, 4, 5, 6, 7]
  assert fit("grim", 1) == [2, 3] and fit("grim", -1) == [1, 4, 5, 6, 7]


def test_newer_is_newer_than_what_was_shown_or_is_liked():
  known = attributes.leading(attributes.of_years(ITEMS), 7)
  row_of = {raw: n for n, raw in enumerate(ITEMS.ids, 1)}
  year_I = np.array([np.nan if year is None else year for year in ITEMS.years])
  talk = s.like(s.Session(), ITEMS.ids[0])
  newer = attributes.fitting(s.critique(talk, "new", 1), known, row_of)
  np.testing.assert_array_equal(newer[1:], year_I > year_I[0])
  shown = s.add_turn(talk, s.Turn(s.RECOMMENDER, "Try this.", (ITEMS.ids[3],), s.RECOMMEND))
  older = attributes.fitting(s.critique(shown, "new", -1), known, row_of)
  np.testing.assert_array_equal(older[1:], year_I < year_I[3])
  assert newer.any() and older.any()
  back = s.critique(s.critique(shown, "new", 1), "New", -1)       # the last wish holds
  assert [each.steps for each in back.active_critiques] == [-1]
  np.testing.assert_array_equal(attributes.fitting(back, known, row_of), older)
  later = s.add_turn(s.critique(talk, "new", 1), s.Turn(s.RECOMMENDER, "And this.", (
      ITEMS.ids[5],), s.RECOMMEND))           # a list after the critique does not change it
  np.testing.assert_array_equal(attributes.fitting(later, known, row_of), newer)


def test_a_label_that_fits_raises_by_deviations_of_the_scores():
  talk, score_I1 = s.critique(s.Session(), "dark", 1), np.arange(8, dtype=np.float32)
  known = attributes.leading(attributes.of_tags(ITEMS, TAGS), 7)
  got = attributes.raised(score_I1, talk, known, {}, 0.5)
  np.testing.assert_allclose(got - score_I1, 0.5 * score_I1[1:].std() * np.array(
      [0, 1, 1, 0, 0, 0, 1, 1]), rtol=1e-6)


def test_a_million_steps_leave_the_order_of_items_that_fit():
  score_I1 = np.arange(8, dtype=np.float32)
  known = attributes.leading(attributes.of_tags(ITEMS, TAGS), 7)
  talk = s.critique(s.Session(), "dark", 999_999)
  for _ in range(100):
    talk = s.critique(talk, "dark", 999_999)
  got_I1 = attributes.raised(score_I1, talk, known, {}, 4.0)
  assert np.argsort(-got_I1).tolist() == [7, 6, 2, 1, 5, 4, 3, 0]


def test_a_critique_without_a_direction_is_one_line(ways):
  form = fold_in.Form(VECTORS, reg=1.0, alpha=2.0)
  with pytest.raises(errors.UserError, match="'darkly' has no direction, .* 5 attrib.*'dark'$"):
    directions.user_vector(s.critique(s.Session(), "darkly", 1), form, ITEMS, ways, 0.1)


NAMES = ["dark", "scary", "big", "strange", "romance", "horror", "action", "violent", "new",
         "comedy"]


@pytest.mark.parametrize(("text", "critiques"), [
    ("darker", [("dark", 1)]), ("Something darker, please!", [("dark", 1)]),
    ("less violent", [("violent", -1)]), ("too dark", [("dark", -1)]),
    ("not so scary", [("scary", -1)]), ("scarier and bigger", [("scary", 1), ("big", 1)]),
    ("stranger", [("strange", 1)]), ("newer", [("new", 1)]), ("older", [("new", -1)]),
    ("not older", [("new", 1)]), ("more recent", [("new", 1)]),
    ("a bit more romantic", [("romance", 0.5)]), ("much darker but no horror",
                                                  [("dark", 2), ("horror", -1)]),
    ("action filled", [("action", 1)]), ("more comedic", [("comedy", 1)]),
    ("I hate horror", [("horror", -1)]), ("I don't want horror", [("horror", -1)]),
    ("comedy is boring", [("comedy", -1)]), ("I'm tired of horror", [("horror", -1)]),
    ("anything but horror", [("horror", -1)]), ("I do not like horror", [("horror", -1)]),
    ("I like comedy too", [("comedy", 1)]), ("less romance and horror",
                                             [("romance", -1), ("horror", -1)]),
    ("less horror, newer", [("horror", -1), ("new", 1)])])
def test_words_of_critiques(text, critiques):
  assert wishes.read(text, NAMES) == wishes.Wishes(critiques=tuple(critiques))


@pytest.mark.parametrize("text", ["blorbly", "Romantic!", "dark violent", "actor", "er", "ier"])
def test_words_that_mean_no_attribute_are_given_back(text):
  assert wishes.read(text, NAMES) == wishes.Wishes(unread=(text,))


def test_other_words_are_guessed_where_they_are_wished_for():
  heard = []
  def read(text):
    wish = wishes.read(text, NAMES, lambda *forms: heard.append(forms) or {
        "grim": "grim", "quiet": "quiet", "slow moving": "slow moving"}.get(
            forms[2 if len(forms) > 2 else -1], ""))
    return wish.critiques, wish.unread
  assert read("a bit grimmer, but no horror") == ((("grim", 0.5), ("horror", -1.0)), ())
  assert read("less quiet and more slow moving") == ((("quiet", -1.0), ("slow moving", 1.0)), ())
  assert read("something quiet") == ((("quiet", 1.0),), ())
  assert read("too quiet") == ((("quiet", -1.0),), ())
  assert read("quiet") == ((), ("quiet",))             # said, and not asked for
  assert read("more zing") == ((), ("more zing",))
  assert wishes.read("darker", ["horror"]).critiques == (("horror", 1.0),)      # no guess: a rule
  assert heard[0] == ("grimm", "grimme", "grim", "grimmer")
  read("more computer, something slow moving; killer")
  assert heard[-3:] == [("computer",), ("slow moving",), ("kill", "kille", "kil", "killer")]


def test_more_like_a_film_is_a_like():
  got = wishes.read("more like Pride and Prejudice (1995) but darker; not like Up.", NAMES)
  assert got == wishes.Wishes((("dark", 1.0),), ("Pride and Prejudice (1995)",), ("Up",))
  wish = wishes.read("more like heat, but newer", ["new"])
  talk = wishes.applied(s.Session(), wish, ITEMS, TITLES)
  assert talk.liked == ("101",) and talk.critiques == (s.Critique("new", 1.0),)
  with pytest.raises(errors.UserError, match="'Heta' is the title of no item"):
    wishes.applied(s.Session(), wishes.read("less like Heta", NAMES), ITEMS, TITLES)


def test_a_wish_that_turns_round_earlier_ones_holds():
  names, talk = ("horror", "new"), s.Session()
  for text, horror in (("more horror", 1), ("a lot more horror", 3), ("a bit less horror", -0.5),
                       ("less horror", -1.5), ("more horror, less horror", -1)):
    talk = wishes.applied(talk, wishes.read(text, names), ITEMS, TITLES)
    assert sum(each.steps for each in talk.critiques) == horror
  talk = wishes.applied(s.Session(), wishes.read("much newer; older", names), ITEMS, TITLES)
  assert [each.steps for each in talk.critiques] == [2, -1]
  talk = s.constrain(s.critique(s.Session(), "horror", 2), without=("Horror",))
  talk = wishes.applied(talk, wishes.read("less horror", names), ITEMS, TITLES)
  assert [each.steps for each in talk.critiques] == [2, -1]        # the first holds no more


def test_many_wishes_after_many_take_no_quadratic_time():
  talk = s.Session(critiques=(s.Critique("horror", 1),) * 40_000)
  wish = wishes.Wishes(critiques=(("horror", -1.0), ("horror", 1.0)) * 500)
  began = time.process_time()
  talk = wishes.applied(talk, wish, ITEMS, TITLES)
  assert [each.steps for each in talk.critiques[40_000:40_003]] == [-40_001, 2, -2]
  assert time.process_time() - began < 3


def test_nothing_is_said():
  assert wishes.read(" ", NAMES) == wishes.Wishes()
