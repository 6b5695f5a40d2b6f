"""Tokenizers from the files that models come with. No TensorFlow."""
import os

import sentencepiece
import tokenizers
from etils import epath
from sentencepiece import sentencepiece_model_pb2
from tokenizers import decoders, models, pre_tokenizers

from ilm_jax import errors
from ilm_jax.data.tokenizer import SentencePieceTokenizer, Tokenizer

# Names of the token that ends a text, the first one present is taken.
END_NAMES = ("<|im_end|>", "<|eot_id|>", "</s>", "<eos>", "<|endoftext|>", "[SEP]")
_CONTROL = 3                                     # GGUF's token type of special tokens


def load(path) -> Tokenizer:
  """The tokenizer of a language model; its `before` and `after` are left to whoever makes prompts.

  Args:
    path: a tokenizer.json, a SentencePiece .model, a .gguf, or a folder with one of these.

  Raises:
    UserError: none is there, or it cannot be read.
  """
  path = epath.Path(path)
  if path.is_dir():
    known = ("tokenizer.json", "spiece.model", "tokenizer.model", "sentencepiece.model")
    found = [path / name for name in known if (path / name).exists()]
    if not found:
      raise errors.UserError(f"{path} has none of {', '.join(known)}: put the model's tokenizer "
                             "there, or name it with --config.lm.tokenizer")
    path = found[0]
  if path.suffix == ".gguf":
    return from_gguf(path)
  return from_file(path, wrap=False) if path.suffix == ".json" else from_sentencepiece(path)


def from_sentencepiece(path) -> SentencePieceTokenizer:
  """The tokenizer of a SentencePiece model. Prompts end in </s> where it has no <s>, as T5's."""
  try:
    proto = epath.Path(path).read_bytes()
    has_bos = sentencepiece.SentencePieceProcessor(model_proto=proto).bos_id() >= 0
  except (OSError, RuntimeError) as error:
    raise errors.UserError(f"{path} is not a readable SentencePiece model ({error}): fetch it "
                           "again, or give a tokenizer.json") from error
  return SentencePieceTokenizer(proto, add_bos=has_bos, add_eos=not has_bos)


def from_file(path, wrap: bool = True) -> Tokenizer:
  """The tokenizer of a `tokenizer.json` (WordPiece, BPE or Unigram)."""
  try:
    backend = tokenizers.Tokenizer.from_file(os.fspath(path))
  except Exception as error:                     # the library raises bare Exception
    raise errors.UserError(f"{path} is not a readable tokenizer.json ({error}): fetch it again, "
                           "or give the file of a Hugging Face fast tokenizer") from error
  ends = [name for name in END_NAMES if backend.token_to_id(name) is not None]
  if not ends:
    raise errors.UserError(f"{path} has no token that ends a text; known are {END_NAMES}")
  return Tokenizer(backend, eos=ends[0], wrap=wrap)


def from_gguf(path) -> Tokenizer:
  """The tokenizer kept in the metadata of a GGUF file, as llama.cpp reads it."""
  from ilm_jax.data import gguf_file  # Only this function needs it; the import is slow.
  fields = gguf_file.read(path).value
  kind = fields("tokenizer.ggml.model")
  if kind in ("llama", "t5"):
    return _sentencepiece_of_gguf(fields, unigram=kind == "t5")
  style = fields("tokenizer.ggml.pre")
  if kind != "gpt2" or style not in _PRE_TOKENIZERS:
    raise errors.UserError(
        f"{path}: tokenizer model {kind!r} with pre-tokenizer {style!r} is not known; known are "
        f"'llama', 't5', and 'gpt2' with {sorted(_PRE_TOKENIZERS)}. Use a model of these, or its "
        "tokenizer.json")
  tokens, merges = fields("tokenizer.ggml.tokens"), fields("tokenizer.ggml.merges")
  backend = tokenizers.Tokenizer(models.BPE(
      vocab={token: i for i, token in enumerate(tokens)},
      merges=[tuple(merge.split(" ")) for merge in merges], ignore_merges=style == "llama-bpe"))
  backend.pre_tokenizer = _PRE_TOKENIZERS[style]()
  backend.decoder = decoders.ByteLevel()
  types = fields("tokenizer.ggml.token_type")
  backend.add_special_tokens([
      tokenizers.AddedToken(token, special=True, normalized=False)
      for token, role in zip(tokens, types) if role == _CONTROL])
  made = Tokenizer(backend, eos=tokens[fields("tokenizer.ggml.eos_token_id")], wrap=False)
  if fields("tokenizer.ggml.add_bos_token", False):
    made.before = (fields("tokenizer.ggml.bos_token_id"),)
  return made


def _sentencepiece_of_gguf(fields, unigram: bool) -> SentencePieceTokenizer:
  """The SentencePiece model whose pieces a GGUF lists, with SentencePiece's numbers of types."""
  proto = sentencepiece_model_pb2.ModelProto()
  for token, score, role in zip(fields("tokenizer.ggml.tokens"), fields("tokenizer.ggml.scores"),
                                fields("tokenizer.ggml.token_type")):
    proto.pieces.add(piece=token, score=score, type=role)
  trainer, normalizer = proto.trainer_spec, proto.normalizer_spec
  trainer.model_type = trainer.UNIGRAM if unigram else trainer.BPE
  trainer.byte_fallback = any(p.type == p.BYTE for p in proto.pieces)
  for name in ("bos", "eos", "unk"):
    key = {"unk": "unknown"}.get(name, name)
    at = fields(f"tokenizer.ggml.{key}_token_id", -1)
    setattr(trainer, f"{name}_id", at)
    if at >= 0:
      setattr(trainer, f"{name}_piece", proto.pieces[at].piece)
  names = [p.piece for p in proto.pieces]
  if trainer.unk_id < 0 and "<unk>" in names:
    trainer.unk_id, trainer.unk_piece = names.index("<unk>"), "<unk>"
  if trainer.unk_id >= 0:        # some files call it a control token; SentencePiece wants one
    proto.pieces[trainer.unk_id].type = sentencepiece_model_pb2.ModelProto.SentencePiece.UNKNOWN
  trainer.vocab_size = len(proto.pieces)
  normalizer.name = "identity"
  normalizer.add_dummy_prefix = bool(fields("tokenizer.ggml.add_space_prefix", True))
  normalizer.remove_extra_whitespaces = bool(
      fields("tokenizer.ggml.remove_extra_whitespaces", False))
  normalizer.precompiled_charsmap = bytes(fields("tokenizer.ggml.precompiled_charsmap", b""))
  return SentencePieceTokenizer(
      proto.SerializeToString(), eos_id=fields("tokenizer.ggml.eos_token_id"),
      add_bos=bool(fields("tokenizer.ggml.add_bos_token", not unigram)),
      add_eos=bool(fields("tokenizer.ggml.add_eos_token", unigram)))


def _smollm():
  return pre_tokenizers.Sequence([
      pre_tokenizers.Digits(individual_digits=True),
      pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])


def _words(digits: str):
  """Cuts a text as Llama 3 and Qwen 2 do; they differ in how many digits stay together."""
  pattern = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|" + digits +
             r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
  return lambda: pre_tokenizers.Sequence([
      pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated"),
      pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


_PRE_TOKENIZERS = {
    "smollm": _smollm,
    "llama-bpe": _words(r"\p{N}{1,3}"),
    "qwen2": _words(r"\p{N}"),
    "gpt-2": lambda: pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
}
