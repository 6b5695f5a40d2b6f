"""What all tasks are made from: one data set, two vocabularies, the config. Read once."""
import dataclasses
import functools
import hashlib

import numpy as np

from ilm_jax.data import interactions as interactions_lib
from ilm_jax.data import splits
from ilm_jax.data import tokenizer as tokenizer_lib
from tasks import indexing, vocabulary


@dataclasses.dataclass(frozen=True, kw_only=True)
class Material:
  """The arrays, the words and the numbers that decide the examples."""
  interactions: interactions_lib.Interactions
  items: interactions_lib.Items
  fingerprint: str                           # of the data
  lm: vocabulary.SlotVocabulary              # of the language model
  text: vocabulary.SlotVocabulary            # of the Q-Former
  history: int                               # items of history in a prompt, at most
  draws: int                                 # templates asked per training interaction
  max_train_examples: int                    # 0: all
  heldout_fraction: float                    # of the items: their text is not trained on
  seed: int

  @property
  def rows(self) -> int:
    """Rows of the entity table."""
    return 1 + self.interactions.num_items + self.interactions.num_users

  def user_row(self, user):
    return 1 + self.interactions.num_items + user

  @functools.cached_property
  def names(self) -> list[str]:
    """The title index by item row; row 0 is empty."""
    names = indexing.titles(self.items)
    indexing.check_distinct(names, self.lm.tokenizer)
    return names

  @property
  def split(self) -> splits.Split:
    return self.interactions.split

  @functools.cached_property
  def item_splits(self) -> dict[str, np.ndarray]:
    """Item rows by split: held-out items are never trained on; every fourth is for validation."""
    held = interactions_lib.heldout_items(self.items, self.heldout_fraction, self.seed)
    rows = np.arange(1, self.interactions.num_items + 1, dtype=np.int32)
    test = rows[held[1:]]
    valid = np.arange(len(test)) % 4 == 3
    return {"train": rows[~held[1:]], "validation": test[valid], "test": test[~valid]}

  def rng(self, name: str) -> np.random.Generator:
    """Random numbers of the task `name`, independent of all other tasks."""
    digest = hashlib.sha256(f"{self.seed}/{name}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))

  def subsample(self, name: str, count: int) -> np.ndarray:
    """Which of `count` training examples the task `name` keeps, in order."""
    if not self.max_train_examples or count <= self.max_train_examples:
      return np.arange(count)
    return np.sort(self.rng(f"{name}/subsample").permutation(count)[:self.max_train_examples])


def read(data_folder, lm_tokenizer: tokenizer_lib.Tokenizer,
         text_tokenizer: tokenizer_lib.Tokenizer, config) -> Material:
  """The material in a workdir's data folder, for a config."""
  interactions, items, fingerprint = interactions_lib.load(data_folder)
  return Material(
      interactions=interactions, items=items, fingerprint=fingerprint,
      lm=vocabulary.SlotVocabulary(lm_tokenizer), text=vocabulary.SlotVocabulary(text_tokenizer),
      history=config.tasks.history, draws=config.tasks.draws,
      max_train_examples=config.tasks.max_train_examples,
      heldout_fraction=config.data.heldout_fraction, seed=config.seed)
