"""What all tasks are made from: one data set, two vocabularies, the config. Read once."""
import dataclasses
import functools
import hashlib
from collections.abc import Callable

import numpy as np
from etils import epath

from ilm_jax import elm, errors
from ilm_jax.config import names
from ilm_jax.data import chat_template, splits, targets
from ilm_jax.data import interactions as interactions_lib
from ilm_jax.data import rows as rows_lib
from ilm_jax.data import tokenizer as tokenizer_lib
from ilm_jax.tasks import clustering, indexing, vocabulary


@dataclasses.dataclass(frozen=True, kw_only=True)
class Material:
  """The data, vocabularies and settings that determine the examples."""
  interactions: interactions_lib.Interactions
  items: interactions_lib.Items
  fingerprint: str                           # of the data
  lm: vocabulary.SlotVocabulary              # of the language model
  text: vocabulary.SlotVocabulary            # of the Q-Former
  history: int                               # items of history in a prompt, at most
  draws: int                                 # templates drawn per training interaction
  max_train_examples: int                    # 0: all
  prompt_targets: int                        # test targets prepared with every template; 0: all
  eval_targets: int                          # of a ranking task, validation and test; 0: all
  heldout_fraction: float                    # of the items: their text is not trained on
  seed: int
  scheme: indexing.Scheme = dataclasses.field(default_factory=indexing.Scheme)
  as_text: bool = False                      # prompts name entities instead of showing slots
  prompts: str = ""                          # a user's prompt.txt; "": our own templates
  module: str = ""                           # of a user's tasks
  dataset: str = ""                          # what prompt.txt's {dataset} stands for
  sentence_vectors: Callable | None = None   # texts -> [N, W], for semantic indices
  words: elm.Words = elm.DOMAINS["item"]     # what prompts call items and users
  written: tuple[str, ...] = ()              # tasks whose answers a teacher writes
  answer: Callable[[targets.Request], targets.Answer | None] | None = None   # its answers
  conversations: tuple[str, ...] = ()        # those tasks that learn from dialogs and are trained
  chats: Callable[[], chat_template.Chat] | None = None   # loads the model's chat template
  dialogs: str = ""                          # where conversations come from; "": there are none
  dialogs_folder: str = ""                   # of the synthetic ones
  dialog_tokens: int = 0                     # of an example at most; 0: any number
  one_reply: bool = False                    # the language model can learn one reply per example
  max_items: int = 0                         # training items per task that a teacher writes; 0: all
  max_heldout: int = 0                       # held-out items per such task; 0: all

  @property
  def rows(self) -> rows_lib.EntityRows:
    """Where items and users stand in the entity table."""
    return self.interactions.rows

  @functools.cached_property
  def names(self) -> list[str]:
    """The index by item row, with its leading space; row 0 is empty."""
    return indexing.names(
        self.scheme, self.items, self.train_histories, self._text_vectors, self.seed)

  @functools.cached_property
  def train_histories(self) -> list[np.ndarray]:
    """For each user, the item rows of the training part, in time order."""
    return interactions_lib.train_histories(self.interactions)

  @functools.cached_property
  def co_occurrence(self) -> tuple:
    """([I, I] users of the training part who have both items, sparse; [I] users of each)."""
    users_I = np.bincount(np.concatenate([np.unique(h) for h in self.train_histories]),
                          minlength=len(self.items) + 1)[1:]
    return clustering.co_occurrence(self.train_histories, len(self.items)), users_I

  @functools.cached_property
  def full_titles(self) -> list[str]:
    """Title and year by item row; row 0 is empty. Items that share one are twins."""
    return ["", *(interactions_lib.full_title(self.items, row + 1)
                  for row in range(len(self.items)))]

  @functools.cached_property
  def index_report(self) -> dict:
    """Sizes of the catalogue; see `indexing.report`, which also checks it."""
    return indexing.report(self.names, self.lm.tokenizer)

  @functools.cached_property
  def mentions(self) -> list[str]:
    """The name by entity row, for prompts that name entities; row 0 is empty."""
    users = [f" user_{n}" for n in range(1, self.interactions.num_users + 1)]
    return [*self.names, *users]

  @functools.cached_property
  def chat(self) -> chat_template.Chat:
    """The language model's chat template."""
    if self.chats is None:
      raise errors.UserError("conversations need the language model's chat template: give chats= "
                             "where tasks are registered")
    return self.chats()

  def _text_vectors(self) -> np.ndarray:
    if self.sentence_vectors is None:
      raise errors.UserError("semantic indices need sentence vectors: none were given")
    return self.sentence_vectors([interactions_lib.item_text(self.items, row + 1)
                                  for row in range(len(self.items))])

  @property
  def split(self) -> splits.Split:
    return self.interactions.split

  @functools.cached_property
  def item_splits(self) -> dict[str, np.ndarray]:
    """Item rows by split: held-out items are never trained on; every fourth is for validation."""
    held = interactions_lib.heldout_items(self.items, self.heldout_fraction, self.seed)
    rows = np.r_[self.rows.items].astype(np.int32)
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
         text_tokenizer: tokenizer_lib.Tokenizer, config, sentence_vectors=None,
         answer=None, chats=None) -> Material:
  """The material in a workdir's data folder, for a config.

  Only semantic indices need `sentence_vectors` (texts -> [N, W]), only the tasks of `elm.written`
  need `answer` (request -> a teacher's text), only conversations need `chats` (() -> the chat
  template).
  """
  c = config.tasks
  interactions, items, fingerprint = interactions_lib.load(data_folder)
  return Material(
      interactions=interactions, items=items, fingerprint=fingerprint,
      lm=vocabulary.SlotVocabulary(lm_tokenizer), text=vocabulary.SlotVocabulary(text_tokenizer),
      history=c.history, draws=c.draws,
      max_train_examples=c.max_train_examples, prompt_targets=c.prompt_targets,
      eval_targets=c.eval_targets,
      heldout_fraction=config.data.heldout_fraction, seed=config.seed,
      scheme=indexing.Scheme(kind=c.index, words=c.index_words, apart=c.index_apart,
                             clusters=c.index_clusters,
                             size=c.index_size, levels=c.index_levels, codes=c.index_codes),
      as_text=c.entities == "names", prompts=c.prompts, module=c.module, dataset=config.data.name,
      sentence_vectors=sentence_vectors, words=elm.words(config.data),
      written=elm.written(config), answer=answer, chats=chats, dialogs=c.dialogs,
      conversations=tuple(task for task in (*names.CONVERSATIONS, *names.REDIAL)
                          if c.mixture.get(task, 0)),
      dialogs_folder=str(epath.Path(data_folder).parent / "dialogs"),
      dialog_tokens=c.dialog_tokens,
      # A reply inside the prompt cannot be learned if the prompt ends in its own token (T5) or
      # attends to all of itself.
      one_reply=bool(lm_tokenizer.after) or config.lm.prefix_lm, max_items=config.targets.max_items,
      max_heldout=config.targets.max_heldout)
