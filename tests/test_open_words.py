"""Directions of words that no attribute is called by."""
import numpy as np
import pytest

from ilm_jax.conversation import attributes, open_words

# Items differ in how dark (dimension 0) and how fast they are (1); texts say both and something
# else; item 7 has no vector, item 8 no text.
RNG = np.random.default_rng(0)
FACTORS = np.zeros((9, 3))
FACTORS[1:7] = np.c_[[1, 1, 1, -1, -1, -1], [1, -1, 1, -1, 1, -1], RNG.normal(size=6)]
FACTORS[8] = [1, 1, 0]
TEXTS = np.zeros((9, 3))
TEXTS[1:7] = np.c_[FACTORS[1:7, :2], np.full(6, 0.2)]
TEXTS[7] = [1, 1, 1]
WAYS = {"noir": np.array([1.0, 0, 0]), "cartoon": np.array([-1.0, 0, 0]),
        "chase": np.array([0, 1.0, 0]), attributes.NEW: np.array([0, 0, 9.0])}
WORDS = {"noir": [1, 0, 0], "cartoon": [-1, 0, 0], "chase": [0, 1, 0], "dark": [0.9, 0.1, 0],
         "level": [0, 0, 1], "unlike": [1, 0, 0]}


def vectors(words):
  return np.array([WORDS[word.removesuffix(" film")] for word in words], np.float32)


@pytest.fixture
def encoded():
  return []


@pytest.fixture
def guesser(encoded):
  return open_words.Guesser(FACTORS, TEXTS, WAYS, lambda words: encoded.append(words) or vectors(
      words), "film")


def test_a_word_has_the_direction_of_texts_and_names_near_it(guesser):
  way_C = guesser.of("dark")
  assert (FACTORS[[1, 2, 3]] @ way_C).min() > (FACTORS[[4, 5, 6]] @ way_C).max()
  met_NC = FACTORS[np.any(FACTORS != 0, axis=1)]
  assert (met_NC @ way_C).std() == pytest.approx(1, rel=1e-4)


def test_a_word_is_encoded_once_and_the_year_is_no_name(guesser, encoded):
  assert guesser.of("dark") is guesser.of("dark")
  assert encoded == [["dark", "dark film"], ["noir", "cartoon", "chase"]]


def test_what_says_too_little_is_no_guess(guesser, encoded):
  assert guesser.of("level") is None                  # as near to every text and name
  assert guesser.of("") is None and guesser.of("x" * 101) is None
  one = open_words.Guesser(FACTORS, TEXTS, {"noir": WAYS["noir"]}, vectors, "film")
  assert one.of("dark") is None                       # nothing to agree with


def test_guesses_that_do_not_agree_are_none():
  one, other = np.array([1.0, 0, 0]), np.array([-0.3, 1.0, 0])
  assert open_words.agreed(FACTORS, one, one) is not None
  assert open_words.agreed(FACTORS, one, other) is None
  assert open_words.agreed(FACTORS, one, other, least=-1.0) is not None
  assert open_words.agreed(FACTORS, one, -one) is None
  assert open_words.agreed(FACTORS, one, None) is None
  assert open_words.agreed(FACTORS, one, np.zeros(3)) is None


def test_names_weigh_by_how_far_they_stand_out():
  way_AC = np.eye(4)
  way_C = open_words.of_names(np.array([1.0, 0]), np.array(
      [[0.9, 0], [0.1, 0], [0.1, 0], [0.1, 0]]), way_AC)
  assert way_C[0] > 0 and not way_C[1:].any()
  assert open_words.of_names(np.array([0, 1.0]), np.array([[0.9, 0]] * 4), way_AC) is None
