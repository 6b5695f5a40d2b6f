"""Shared by the benchmarks of conversation: factors, sentence vectors, cells of their tables."""
import functools

import numpy as np

from ilm_jax.assets import pinned
from ilm_jax.cf import fold_in, ials
from ilm_jax.data import tokenizer_files
from ilm_jax.evaluation import paired
from ilm_jax.models import bert
from ilm_jax.weights import safetensors

LIKED = 3.5              # least rating that counts as a like
WIDTH = 64               # of iALS
BOOTSTRAP = paired.Bootstrap(resamples=1000, seed=0)


class Material:
  """A cache of things that are computed at their first use."""

  def __init__(self):
    self._made = {}

  def once(self, key, make):
    """The result of `make`, which is called at the first use of `key`."""
    if key not in self._made:
      self._made[key] = make()
    return self._made[key]

  def factorised(self, histories, num_items: int, reg: float, alpha: float, of=()
                 ) -> fold_in.Form:
    """Item factors of histories; `of`: which these are, where there are several."""
    return self.once(("factors", reg, alpha, of), lambda: fold_in.Form(ials.ials(
        histories, num_items, WIDTH, reg=reg, alpha=alpha, iterations=10, seed=0)[1], reg, alpha))

  @functools.cached_property
  def encoder(self):
    """texts -> [N, W] sentence vectors, by MiniLM."""
    folder = pinned.fetch("minilm-l6")["model.safetensors"].parent
    config, params = safetensors.load_bert(folder)
    return functools.partial(bert.sentence_vectors, config, params,
                             tokenizer_files.from_file(folder / "tokenizer.json"))

  def encoded(self, texts: list[str]) -> np.ndarray:
    """[N, W]: sentence vectors; each text is encoded only once."""
    if new := sorted({("text", text) for text in texts} - self._made.keys()):
      self._made.update(zip(new, self.encoder([text for _, text in new])))
    return np.stack([self._made["text", text] for text in texts])


def header(names) -> list[str]:
  """The first two lines of a table in Markdown."""
  return ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]


def cell(estimate: dict) -> str:
  """Value and interval."""
  return "{value:.3f} [{lo:.3f}, {hi:.3f}]".format(**estimate)
