"""A language model's tokenizer, with one more token: the slot. No TensorFlow.

The slot's id is the size of the vocabulary, the first id after the embedding rows, so no text can
be mistaken for it. A special token spelled in a text ("<|im_end|>") is encoded as plain letters.
The only string with a meaning is `SLOT`: templates write it, and `escape` keeps it out of user
data.
"""
import contextlib
import copy
import functools
import hashlib
import re

import numpy as np
import sentencepiece
import tokenizers

from ilm_jax import errors
from ilm_jax.data import sentencepiece_json

SLOT = "<slot>"
_CURE = "give the model's own tokenizer"


def escape(text: str) -> str:
  """`text` of user data, changed so that it makes no slot: "<slot>" becomes "< slot>"."""
  return text.replace(SLOT, SLOT.replace("<", "< "))


@contextlib.contextmanager
def readable(what: str, cure: str):
  """Turns all that a tokenizer's library raises in the block, its panics too, into a UserError.

  Args:
    what: begins the message, e.g. "t.json is not a readable tokenizer.json".
    cure: ends it.
  """
  try:
    yield
  except errors.UserError:
    raise
  except BaseException as e:       # a panic of Rust is no Exception
    if not isinstance(e, Exception) and type(e).__name__ != "PanicException":
      raise
    raise errors.UserError(f"{what} ({type(e).__name__}: {' '.join(str(e).split())[:160]}): "
                           f"{cure}") from e


class Tokenizer:
  """Text to ids and back.

  Attributes:
    vocab_size: size of the vocabulary, added words included, without the slot.
    slot_id: the id of `SLOT`, equal to `vocab_size`.
    eos_id: the id that ends a target.
    ends: ids that end a text when a model writes them; `eos_id` is the first.
    pad_id: 0; batches tell padding by masks, never by id.
    before, after: ids that the model expects around a prompt, e.g. [BOS] or, for T5, [EOS].
  """

  pad_id = 0

  def __init__(self, backend: tokenizers.Tokenizer, *, eos: str | int, ends: tuple[int, ...] = (),
               wrap: bool = True):
    """Wraps `backend`.

    Args:
      backend: a tokenizer of the `tokenizers` library.
      eos: name or id of the token that ends a target.
      ends: further ids that end a text.
      wrap: True: `encode` puts `before` and `after` around a text; False: the code that builds
        prompts does.

    Raises:
      UserError: the tokenizer has no token `eos`.
      ValueError: it has no ids for the letter "a".
    """
    backend.no_padding()                         # a tokenizer.json may have switched on both
    backend.no_truncation()
    before, after = _wrapping(backend)
    eos_id = backend.token_to_id(eos) if isinstance(eos, str) else eos
    if eos_id is None:
      raise errors.UserError(f"the tokenizer has no token {eos!r}, expected one that ends a text: "
                             "give the model's own tokenizer")
    # The ids may have holes, so the last id decides the size, not their number.
    size = max(backend.get_vocab(with_added_tokens=True).values()) + 1
    self._set(backend, size, eos_id, before, after, wrap)
    self.ends = (eos_id, *(i for i in ends if i != eos_id))

  def _set(self, backend, size: int, eos_id: int, before, after, wrap: bool, added=()):
    self._backend, self.eos_id, self._added = backend, eos_id, tuple(added)
    self.before, self.after, self._wrap = tuple(before), tuple(after), wrap
    self.vocab_size = self.slot_id = size + len(self._added)
    self._special = {SLOT: self.slot_id, **{word: size + n for n, word in enumerate(self._added)}}
    # Longest first: "<index_1>" must not hide in "<index_10>".
    self._split = re.compile(
        "(" + "|".join(map(re.escape, sorted(self._special, key=len, reverse=True))) + ")")

  def encode(self, text: str) -> list[int]:
    """Ids of `text`; `SLOT` becomes slot_id. BERT-like tokenizers add [CLS] and [SEP]."""
    ids = list(self.before) if self._wrap else []
    for number, piece in enumerate(self._split.split(text)):
      ids.extend((self._special[piece],) if number % 2 else self._piece(piece))
    return ids + (list(self.after) if self._wrap else [])

  def decode(self, ids) -> str:
    """The text of `ids`, without special tokens and slots."""
    first, text, run = self.vocab_size - len(self._added), [], []
    for i in [*map(int, ids), self.slot_id]:
      if i < first:
        run.append(i)
        continue
      text.append(self._text(run) if run else "")
      run = []
      if i < self.slot_id:
        text.append(self._added[i - first])
    return "".join(text)

  def control(self, name: str) -> int | None:
    """The id of a control token such as "<|im_start|>", which no text encodes to; None: unknown."""
    return self._backend.token_to_id(name)

  @functools.cached_property
  def controls(self) -> dict[str, int]:
    """Name -> id of all control tokens, and of other tokens added to the vocabulary."""
    return {t.content: i for i, t in self._backend.get_added_tokens_decoder().items()}

  def spelled(self, i: int) -> str:
    """The name of a token, e.g. "<|im_end|>"; "" if there is none with this id."""
    return self._spelled(i)

  @functools.cached_property
  def fingerprint(self) -> str:
    """sha256 of everything that decides the ids."""
    text = f"{self._identity()}\n{self.slot_id} {self.eos_id}"
    if self._added or not self._wrap:
      text += f" {self._wrap} {self.before} {self.after} {self._added}"
    return hashlib.sha256(text.encode()).hexdigest()

  @functools.cached_property
  def starts_word(self) -> np.ndarray:
    """bool [vocab_size + 1]: whether an id begins a new word; True for added words and the slot."""
    first = self.vocab_size - len(self._added)
    pieces = [self._spelled(i) for i in range(first)]
    return np.array([p.startswith(("\u2581", "\u0120")) for p in pieces]
                    + [True] * (len(self._added) + 1))

  def to_json(self, words: list[str]) -> str:
    """The text of a tokenizer.json with `words` added after the vocabulary and its added words.
    Each gets one id, from `vocab_size` on, wherever a text spells it.

    Raises:
      UserError: no tokenizer.json can express the tokenizer, or it knows one of the words already.
    """
    backend = self._fast()
    first = self.vocab_size - len(self._added)
    for start, more in ((first, self._added), (self.vocab_size, words)):
      backend.add_tokens([tokenizers.AddedToken(w, normalized=False, special=False) for w in more])
      wrong = [w for n, w in enumerate(more) if backend.token_to_id(w) != start + n]
      if wrong:
        raise errors.UserError(f"the tokenizer cannot take the word {wrong[0]!r} with the id "
                               f"{start + list(more).index(wrong[0])}, it has "
                               f"{backend.token_to_id(wrong[0])}: export without the folder hf/")
    if self.before:
      names = [backend.id_to_token(i) for i in self.before]
      backend.post_processor = tokenizers.processors.TemplateProcessing(
          single=[*names, "$A"], pair=[*names, "$A", "$B"],
          special_tokens=list(zip(names, self.before)))
    return backend.to_str()

  # The methods that differ between libraries.

  def _fast(self) -> tokenizers.Tokenizer:
    """A copy as a tokenizer of the library `tokenizers`, without added words."""
    return tokenizers.Tokenizer.from_str(self._backend.to_str())

  def spells(self, i: int) -> bool:
    """Whether a text can encode to this id: False for special tokens and unused ids."""
    token = self._backend.get_added_tokens_decoder().get(i)
    return bool(self._spelled(i)) and not (token and token.special)

  def _identity(self) -> str:
    return self._backend.to_str()

  def _spelled(self, i: int) -> str:
    return self._backend.id_to_token(i) or ""

  def _text(self, ids: list[int]) -> str:
    with readable(f"the tokenizer cannot spell the ids {errors.shown(ids)}", _CURE):
      return self._backend.decode(ids)

  def _prepare(self):
    self._backend.encode_special_tokens = True   # special tokens spelled in a text are letters

  def _ids(self, text: str) -> list[int]:
    with readable(f"the tokenizer cannot read the text {errors.shown(text)}", _CURE):
      return self._backend.encode(text, add_special_tokens=False).ids

  @functools.cached_property
  def _piece(self):
    """Ids of a text without slots. Templates repeat, hence the cache."""
    self._prepare()

    @functools.lru_cache(maxsize=1 << 16)
    def encode(text: str) -> tuple[int, ...]:
      return tuple(self._ids(text)) if text else ()

    return encode

  def __getstate__(self):
    return {k: v for k, v in self.__dict__.items() if k != "_piece"}


class SentencePieceTokenizer(Tokenizer):
  """A tokenizer of a SentencePiece model (T5, Llama 2, Gemma)."""

  def __init__(self, proto: bytes, *, add_bos: bool = False, add_eos: bool = False,
               eos_id: int | None = None, ends: tuple[int, ...] = ()):
    """Wraps the bytes of a model file; add_bos, add_eos: whether these go around a prompt."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=proto)
    eos_id = processor.eos_id() if eos_id is None else eos_id
    if eos_id < 0:
      raise errors.UserError("the SentencePiece model has no </s>, expected one that ends a text: "
                             "give the model's own tokenizer")
    add_bos = add_bos and processor.bos_id() >= 0
    self._set(proto, processor.vocab_size(), eos_id, [processor.bos_id()] * add_bos,
              [eos_id] * add_eos, wrap=False)
    self.ends = (eos_id, *(i for i in ends if i != eos_id))

  @functools.cached_property
  def _processor(self):
    return sentencepiece.SentencePieceProcessor(model_proto=self._backend)

  def _fast(self) -> tokenizers.Tokenizer:
    return sentencepiece_json.fast(self._backend)

  def control(self, name: str) -> int | None:
    token = self._processor.piece_to_id(name)
    return token if self._processor.id_to_piece(token) == name else None

  @functools.cached_property
  def controls(self) -> dict[str, int]:
    of = self._processor
    return {of.id_to_piece(i): i for i in range(of.vocab_size()) if of.is_control(i)}

  def spells(self, i: int) -> bool:
    of = self._processor
    return not (of.is_control(i) or of.is_unused(i) or of.is_unknown(i))

  def _identity(self) -> str:
    return hashlib.sha256(self._backend).hexdigest()

  def _spelled(self, i: int) -> str:
    return self._processor.id_to_piece(i)

  def _text(self, ids: list[int]) -> str:
    return self._processor.decode(ids)

  def _prepare(self):
    pass                                         # control symbols are never found in a text

  def _ids(self, text: str) -> list[int]:
    return self._processor.encode(text)

  def __getstate__(self):
    return {k: v for k, v in super().__getstate__().items() if k != "_processor"}


def with_new_tokens(tokenizer: Tokenizer, words: list[str]) -> Tokenizer:
  """The tokenizer with `words` after its vocabulary, in order; each is one id and never split.

  Raises:
    UserError: a word is empty, known already, or comes twice.
  """
  taken = [w for w in words if not w or SLOT in w or len(tokenizer.encode(w)) == 1]
  if taken or len(set(words)) < len(words):
    raise errors.UserError(f"words to add must be new and all different, found {taken or words}: "
                           "choose others, e.g. <index_0>")
  new = copy.copy(tokenizer)
  for derived in ("fingerprint", "starts_word"):
    new.__dict__.pop(derived, None)
  size = tokenizer.vocab_size - len(tokenizer._added)
  new._set(tokenizer._backend, size, tokenizer.eos_id, tokenizer.before, tokenizer.after,
           tokenizer._wrap, tokenizer._added + tuple(words))
  return new


def check_vocabulary(tokenizer: Tokenizer, rows: int, source) -> None:
  """Raises UserError if a text can encode to an id without a row in a model's embedding table.

  Special tokens may have ids past the table, e.g. Gemma 3's for images: no text encodes to them.
  """
  first = tokenizer.vocab_size - len(tokenizer._added)
  beyond = [i for i in range(rows, tokenizer.vocab_size) if i >= first or tokenizer.spells(i)]
  if beyond:
    words = ", ".join(w for w in map(tokenizer.decode, ([i] for i in beyond[:3])) if w)
    raise errors.UserError(
        f"{source} has embeddings of {rows} words, its tokenizer knows {tokenizer.vocab_size}, "
        f"e.g. {words:.60} without a row: it is the tokenizer of another model; name the right "
        "one with --config.lm.tokenizer")


def _wrapping(backend) -> tuple[list[int], list[int]]:
  """The ids that the tokenizer puts before and after a text, e.g. [CLS] and [SEP]."""
  bare = backend.encode("a", add_special_tokens=False).ids
  full = backend.encode("a", add_special_tokens=True).ids
  at = next((i for i in range(len(full)) if full[i:i + len(bare)] == bare), None)
  if at is None or not bare:
    raise ValueError("it has no ids for the letter 'a'")
  return full[:at], full[at + len(bare):]
