"""A run of twelve films whose model scores an item by its row: what tests talk to."""
import types

import numpy as np
import pytest

from configs import tiny
from ilm_jax.data import interactions
from ilm_jax.stages import recommender, vectors

TITLES = ["Heat", "Fargo", "Alien", "Aliens", "Up", "Brazil", "Casino", "Seven", "Clerks", "Speed",
          "Gandhi", "Psycho"]
GENRES = [["Crime"], ["Crime"], ["Horror"], ["Horror"], ["Comedy"], ["Comedy"], ["Crime"],
          ["Horror"], ["Comedy"], ["Crime"], ["Comedy"], ["Horror"]]
# What words and genres are near to: crime, horror, comedy. Other words are as near to all.
MEANS = {"crime": [1, 0, 0], "horror": [0, 1, 0], "comedy": [0, 0, 1], "grim": [0.95, 0.3, 0]}
YEARS = [1995, 1996, 1979, 1986, 2009, 1985, 1995, 1995, 1994, 1994, 1982, 1960]


def run(patch: pytest.MonkeyPatch):
  """What a `context.Run` is to those who talk; no model is loaded and nothing is trained."""
  items = interactions.Items([f"i{n}" for n in range(1, 13)], TITLES, YEARS, GENRES)
  log = interactions.Interactions(["u"], 12, np.array([0], np.int32), np.array([1], np.int32),
                                  np.zeros(1, np.int64), np.ones(1, np.float32))
  patch.setattr(recommender.Recommender, "scores", lambda self, histories: (
      np.tile(np.arange(13.0), (len(histories), 1))))
  # The first axis is age, the second is how much of a crime film it is.
  factors = np.array([[0, 0], *([(year - 1990) / 10, genre == ["Crime"]]
                                for year, genre in zip(YEARS, GENRES))], np.float32)
  patch.setattr(vectors, "factors", lambda run: (None, factors))
  text_RW = [[0, 0, 0], *(MEANS[genre.lower()] for genre, in GENRES), [0, 0, 0]]
  return types.SimpleNamespace(
      data=interactions.Data(log, items, ""), config=tiny.get_config(),
      entities=types.SimpleNamespace(vectors={"semantic": np.array(text_RW, np.float32)}),
      sentence_vectors=lambda texts, tokens=0: np.array(
          [MEANS.get(text.removesuffix(" film"), [0.58] * 3) for text in texts], np.float32),
      text_tokenizer=types.SimpleNamespace(encode=lambda text: [0] * (1 + (
          text not in ("a", *MEANS)))))
