"""A language model's tokenizer, with one token more: the slot. No TensorFlow.

The slot's id is the model's vocabulary size: the first id behind the embedding rows, so no text can
be mistaken for it. Text that spells a special token ("<|im_end|>") is encoded as plain letters; the
only string with a meaning is `SLOT`, which templates write and `escape` keeps out of user data.
"""
import functools
import hashlib
import os

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from ilm_jax import errors

SLOT = "<slot>"
# Names of the token that ends a text, the first one present is taken.
END_NAMES = ("<|im_end|>", "<|eot_id|>", "</s>", "<eos>", "<|endoftext|>", "[SEP]")
_CONTROL = 3                                     # GGUF's token type of special tokens


def escape(text: str) -> str:
  """`text` from user data, unable to make a slot: a film called "<slot>" becomes "< slot>"."""
  return text.replace(SLOT, SLOT.replace("<", "< "))


class Tokenizer:
  """Text to ids and back.

  Attributes:
    vocab_size: size of the model's vocabulary, without the slot.
    slot_id: the id of `SLOT`, equal to `vocab_size`.
    eos_id: the id that ends a target.
    pad_id: 0; batches tell padding by masks, never by id.
  """

  pad_id = 0

  def __init__(self, backend: tokenizers.Tokenizer, *, eos: str):
    """Wraps `backend`; `eos` names the token that ends a text."""
    backend.no_padding()                         # a tokenizer.json may carry both, baked in
    backend.no_truncation()
    self._backend = backend
    self.vocab_size = backend.get_vocab_size(with_added_tokens=True)
    self.slot_id = self.vocab_size
    self.eos_id = backend.token_to_id(eos)
    if self.eos_id is None:
      raise errors.UserError(f"the tokenizer has no token {eos!r} to end a text with")
    self._prefix, self._suffix = _wrapping(backend)

  def encode(self, text: str) -> list[int]:
    """Ids of `text`; `SLOT` becomes slot_id. BERT-like tokenizers add [CLS] and [SEP]."""
    ids = list(self._prefix)
    for number, piece in enumerate(text.split(SLOT)):
      if number:
        ids.append(self.slot_id)
      ids.extend(self._piece(piece))
    ids.extend(self._suffix)
    return ids

  def decode(self, ids) -> str:
    """The text of `ids`, without special tokens and slots."""
    return self._backend.decode([int(i) for i in ids if i != self.slot_id])

  @functools.cached_property
  def fingerprint(self) -> str:
    """sha256 of everything that decides the ids."""
    text = f"{self._backend.to_str()}\n{self.slot_id} {self.eos_id}"
    return hashlib.sha256(text.encode()).hexdigest()

  @functools.cached_property
  def _piece(self):
    """Ids of a text without slots. Templates repeat, hence the cache."""
    self._backend.encode_special_tokens = True   # special tokens spelled in a text are letters

    @functools.lru_cache(maxsize=1 << 16)
    def encode(text: str) -> tuple[int, ...]:
      return tuple(self._backend.encode(text, add_special_tokens=False).ids) if text else ()

    return encode

  def __getstate__(self):
    return {k: v for k, v in self.__dict__.items() if k != "_piece"}


def from_file(path) -> Tokenizer:
  """The tokenizer of a `tokenizer.json` (WordPiece, BPE or Unigram)."""
  try:
    backend = tokenizers.Tokenizer.from_file(os.fspath(path))
  except Exception as error:                     # the library raises bare Exception
    raise errors.UserError(f"{path} is not a readable tokenizer.json ({error}): fetch it again, "
                           "or give the file of a Hugging Face fast tokenizer") from error
  ends = [name for name in END_NAMES if backend.token_to_id(name) is not None]
  if not ends:
    raise errors.UserError(f"{path} has no token that ends a text; known are {END_NAMES}")
  return Tokenizer(backend, eos=ends[0])


def from_gguf(path) -> Tokenizer:
  """The tokenizer kept in the metadata of a GGUF file: byte-level BPE, as llama.cpp reads it."""
  fields = _gguf_fields(path)
  kind, style = fields("tokenizer.ggml.model"), fields("tokenizer.ggml.pre")
  if kind != "gpt2" or style not in _PRE_TOKENIZERS:
    raise errors.UserError(
        f"{path}: tokenizer model {kind!r} with pre-tokenizer {style!r} is not known; known are "
        f"'gpt2' with {sorted(_PRE_TOKENIZERS)}. Use a model of these, or its tokenizer.json")
  tokens, merges = fields("tokenizer.ggml.tokens"), fields("tokenizer.ggml.merges")
  backend = tokenizers.Tokenizer(models.BPE(
      vocab={token: i for i, token in enumerate(tokens)},
      merges=[tuple(merge.split(" ")) for merge in merges]))
  backend.pre_tokenizer = _PRE_TOKENIZERS[style]()
  backend.decoder = decoders.ByteLevel()
  types = fields("tokenizer.ggml.token_type")
  backend.add_special_tokens([
      tokenizers.AddedToken(token, special=True, normalized=False)
      for token, role in zip(tokens, types) if role == _CONTROL])
  return Tokenizer(backend, eos=tokens[fields("tokenizer.ggml.eos_token_id")])


def _smollm():
  return pre_tokenizers.Sequence([
      pre_tokenizers.Digits(individual_digits=True),
      pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])


_PRE_TOKENIZERS = {
    "smollm": _smollm,
    "gpt-2": lambda: pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
}


def _gguf_fields(path):
  """A function from a metadata key to its value."""
  import gguf  # Only this function needs it; the import is slow.
  try:
    reader = gguf.GGUFReader(os.fspath(path))
  except (ValueError, IndexError, OSError, KeyError, UnicodeDecodeError) as error:
    raise errors.UserError(
        f"{path} is not a readable GGUF file ({error}): fetch it again") from error

  def value(key: str):
    if key not in reader.fields:
      raise errors.UserError(f"{path} lacks the metadata {key}: it holds no tokenizer of a known "
                             "kind. Give a GGUF file converted with its tokenizer")
    return reader.fields[key].contents()

  return value


def _wrapping(backend) -> tuple[list[int], list[int]]:
  """The ids that the tokenizer puts before and after a text, e.g. [CLS] and [SEP]."""
  bare = backend.encode("a", add_special_tokens=False).ids
  full = backend.encode("a", add_special_tokens=True).ids
  at = next(i for i in range(len(full)) if full[i:i + len(bare)] == bare)
  return full[:at], full[at + len(bare):]
