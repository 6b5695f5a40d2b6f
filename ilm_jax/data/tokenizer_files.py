"""Tokenizers from the files that models come with. No TensorFlow.

The model's files say which token ends a text: generation_config.json first, then config.json, then
tokenizer_config.json; a GGUF file says it itself. Only if none does, known names are looked up. If
there are several such tokens, the first ends targets, and each ends a text that a model writes.
"""
import json
import os

import sentencepiece
import tokenizers
from etils import epath
from sentencepiece import sentencepiece_model_pb2
from tokenizers import decoders, models, pre_tokenizers

from ilm_jax import errors, files
from ilm_jax.data.tokenizer import SentencePieceTokenizer, Tokenizer, readable

# Names of the token that ends a text; the first one present is taken. Special tokens go first,
# since Gemma has an HTML tag </s> among its words.
END_NAMES = ("<|im_end|>", "<|eot_id|>", "</s>", "<eos>", "<|endoftext|>", "[SEP]")
_SAY_ENDS = {"generation_config.json": "eos_token_id", "config.json": "eos_token_id",
             "tokenizer_config.json": "eos_token"}
_CONTROL, _USER_DEFINED = 3, 4                   # GGUF's types of tokens
_GREATEST = 1 << 20                              # an id that a small vocabulary may have


def load(path) -> Tokenizer:
  """The tokenizer of a language model; `encode` leaves out its `before` and `after`.

  Args:
    path: a tokenizer.json, a SentencePiece .model, a .gguf, or a folder with a tokenizer.json or
      .model.

  Raises:
    UserError: there is no tokenizer, or it cannot be read.
  """
  path = epath.Path(path)
  if path.is_dir():
    known = ("tokenizer.json", "spiece.model", "tokenizer.model", "sentencepiece.model")
    present = [path / name for name in known if (path / name).exists()]
    if not present:
      raise errors.UserError(f"{path} has none of {', '.join(known)}: put the model's tokenizer "
                             "there, or name it with --config.lm.tokenizer")
    path = present[0]
  if path.suffix == ".gguf":
    return from_gguf(path)
  return from_file(path, wrap=False) if path.suffix == ".json" else from_sentencepiece(path)


def from_sentencepiece(path) -> SentencePieceTokenizer:
  """The tokenizer of a SentencePiece model; prompts end in </s> if it has no <s>, like T5's."""
  try:
    files.refuse_pointer(path)
    proto = epath.Path(path).read_bytes()
    processor = sentencepiece.SentencePieceProcessor(model_proto=proto)
    ids = {processor.id_to_piece(i): i for i in range(processor.vocab_size())}
  except (OSError, RuntimeError, UnicodeDecodeError) as error:
    raise errors.UserError(f"{path} is not a readable SentencePiece model ({error}): fetch it "
                           "again, or give a tokenizer.json") from error
  ends = _stated_ends(path, ids)
  has_bos = processor.bos_id() >= 0
  return SentencePieceTokenizer(proto, add_bos=has_bos, add_eos=not has_bos,
                                eos_id=ends[0] if ends else None, ends=ends)


def from_file(path, wrap: bool = True) -> Tokenizer:
  """The tokenizer of a `tokenizer.json` (WordPiece, BPE or Unigram).

  Added words without a row in the table of the model, by the config.json beside the file, are left
  out: such a word in a text is plain letters.
  """
  with readable(f"{path} is not a readable tokenizer.json",
                "fetch it again, or give the file of a Hugging Face fast tokenizer"):
    files.refuse_pointer(path)
    made = _of_json(tokenizers.Tokenizer.from_file(os.fspath(path)), path, wrap)
    made._backend.decode(made._backend.encode("a").ids)        # a decoder may panic
  return made


def _of_json(backend: tokenizers.Tokenizer, path, wrap: bool) -> Tokenizer:
  _check_greatest(backend.get_vocab(with_added_tokens=True), path)
  backend = _with_rows(backend, path)
  ids = backend.get_vocab(with_added_tokens=True)
  _check_holes(ids, path)
  special = {t.content for t in backend.get_added_tokens_decoder().values() if t.special}
  ends = _stated_ends(path, ids) or tuple(
      ids[name] for names in (special, ids) for name in END_NAMES if name in names)[:1]
  if not ends:
    raise errors.UserError(f"{path} has no token that ends a text, e.g. {END_NAMES}: name it "
                           "as eos_token_id in a generation_config.json beside the file")
  return Tokenizer(backend, eos=ends[0], ends=ends, wrap=wrap)


def _beside(path, name: str) -> dict:
  """The JSON object in another file of the same folder; {} if there is none."""
  return files.json_object(epath.Path(path).parent / name)


def _config_field(path, name: str, file: str = "config.json"):
  """A field of a model's config; with a vision tower, of the language model's part."""
  fields = _beside(path, file)
  inner = fields.get("text_config")
  return fields.get(name, inner.get(name) if isinstance(inner, dict) else None)


def _stated_ends(path, ids: dict[str, int]) -> tuple[int, ...]:
  """The ids that end a text by the files beside a tokenizer; () if no file says it.

  Args:
    path: path of the tokenizer.
    ids: token -> id.

  Raises:
    UserError: a file names only ids that the tokenizer does not have.
  """
  known = set(ids.values())
  for file, field in _SAY_ENDS.items():
    value = _config_field(path, field, file)
    if field == "eos_token":                     # by name, or as an object that holds it
      name = value.get("content") if isinstance(value, dict) else value
      ends: tuple[int, ...] = (ids[name],) if isinstance(name, str) and name in ids else ()
    else:
      stated = value if isinstance(value, list) else [] if value is None else [value]
      ends = tuple(i for i in stated if type(i) is int and i in known)
      if stated and not ends:
        raise errors.UserError(
            f"{epath.Path(path).parent / file}: {field} is {errors.shown(value)}, expected "
            f"ids of {path}, which knows ids 0 to {max(known, default=-1)}: give the model's "
            "tokenizer with --config.lm.tokenizer, or correct the field")
    if ends:
      return ends
  return ()


def _with_rows(backend: tokenizers.Tokenizer, path) -> tokenizers.Tokenizer:
  """The tokenizer without added words whose ids are past the rows of the model's table."""
  rows = _config_field(path, "vocab_size")
  if type(rows) is not int or all(i < rows for i in backend.get_added_tokens_decoder()):
    return backend
  if max(backend.get_vocab(with_added_tokens=False).values(), default=-1) >= rows:
    return backend                               # of another model; check_vocabulary reports it
  fields = json.loads(backend.to_str())
  fields["added_tokens"] = [t for t in fields["added_tokens"] if t["id"] < rows]
  return tokenizers.Tokenizer.from_str(json.dumps(fields))


def _check_greatest(ids: dict[str, int], path) -> None:
  """Raises UserError at an id far beyond the number of words.

  The library lists all unused ids when it writes a tokenizer: 8 GiB for one id of 2^31.
  """
  greatest, most = max(ids.values(), default=0), max(_GREATEST, 4 * len(ids))
  if greatest > most:
    raise errors.UserError(f"{path}: the greatest id is {greatest:,} with {len(ids):,} words, "
                           f"expected at most {most:,}: the file is damaged, get it again")


def _check_holes(ids: dict[str, int], path) -> None:
  """Raises UserError if an added word gets a wrong id: after a hole, the library counts words."""
  if len(set(ids.values())) == max(ids.values(), default=-1) + 1:
    return
  for token in files.parse_json(epath.Path(path).read_text()).get("added_tokens") or ():
    if ids.get(token["content"], token["id"]) != token["id"]:
      raise errors.UserError(
          f"{path}: {token['content']} has the id {token['id']} after a hole in the ids, but the "
          f"tokenizers library gives it {ids[token['content']]}: fill the hole with words")


def from_gguf(path) -> Tokenizer:
  """The tokenizer in the metadata of a GGUF file, as llama.cpp reads it.

  Raises:
    UserError: the file is damaged, or its tokenizer is of an unknown kind.
  """
  from ilm_jax.data import gguf_file  # Only this function needs it; the import is slow.
  reader = gguf_file.read(path)
  with readable(f"{path}: the metadata of its tokenizer are contradictory", "get the file again"):
    return _of_gguf(path, reader)


def _of_gguf(path, reader) -> Tokenizer:
  fields = reader.value
  kind = fields("tokenizer.ggml.model")
  if kind in ("llama", "t5"):
    return _sentencepiece_of_gguf(reader, unigram=kind == "t5")
  style = fields("tokenizer.ggml.pre")
  if kind != "gpt2" or style not in _PRE_TOKENIZERS:
    raise errors.UserError(
        f"{path}: tokenizer model {kind!r} with pre-tokenizer {style!r} is not known: expected "
        f"'llama', 't5', and 'gpt2' with {sorted(_PRE_TOKENIZERS)}. Use a model of these, or its "
        "tokenizer.json")
  tokens, merges = fields("tokenizer.ggml.tokens"), fields("tokenizer.ggml.merges")
  backend = tokenizers.Tokenizer(models.BPE(
      vocab={token: i for i, token in enumerate(tokens)},
      merges=[tuple(merge.split(" ")) for merge in merges], ignore_merges=style == "llama-bpe"))
  backend.pre_tokenizer = _PRE_TOKENIZERS[style]()
  backend.decoder = decoders.ByteLevel()
  types = fields("tokenizer.ggml.token_type")
  for role, special in ((_CONTROL, True), (_USER_DEFINED, False)):
    backend.add_tokens([tokenizers.AddedToken(token, special=special, normalized=False)
                        for token, of in zip(tokens, types, strict=True) if of == role])
  ends = _ends_of_gguf(reader, len(tokens))
  made = Tokenizer(backend, eos=ends[0], ends=ends, wrap=False)
  if fields("tokenizer.ggml.add_bos_token", False):
    made.before = (reader.special("bos", len(tokens)),)
  return made


def _ends_of_gguf(reader, size: int) -> tuple[int, ...]:
  """Ids of the end of a text, and of a turn and a message if a GGUF file has them."""
  more = (reader.special(role, size, None) for role in ("eot", "eom"))
  return (reader.special("eos", size), *(i for i in more if i is not None))


def _sentencepiece_of_gguf(reader, unigram: bool) -> SentencePieceTokenizer:
  """The SentencePiece model whose pieces a GGUF lists; both number the types of pieces alike."""
  fields = reader.value
  proto = sentencepiece_model_pb2.ModelProto()
  for token, score, role in zip(fields("tokenizer.ggml.tokens"), fields("tokenizer.ggml.scores"),
                                fields("tokenizer.ggml.token_type"), strict=True):
    proto.pieces.add(piece=token, score=score, type=role)
  trainer, normalizer = proto.trainer_spec, proto.normalizer_spec
  trainer.model_type = trainer.UNIGRAM if unigram else trainer.BPE
  trainer.byte_fallback = any(p.type == p.BYTE for p in proto.pieces)
  for name in ("bos", "eos", "unk"):
    key = {"unk": "unknown"}.get(name, name)
    at = reader.special(key, len(proto.pieces), -1)
    setattr(trainer, f"{name}_id", at)
    if at >= 0:
      setattr(trainer, f"{name}_piece", proto.pieces[at].piece)
  names = [p.piece for p in proto.pieces]
  if trainer.unk_id < 0 and "<unk>" in names:
    trainer.unk_id, trainer.unk_piece = names.index("<unk>"), "<unk>"
  # SentencePiece needs exactly one unknown piece. Some files call it a control token, and some give
  # its type to padding pieces, which no text may encode to.
  piece_types = sentencepiece_model_pb2.ModelProto.SentencePiece
  for i, piece in enumerate(proto.pieces):
    if i == trainer.unk_id:
      piece.type = piece_types.UNKNOWN
    elif piece.type == piece_types.UNKNOWN:
      piece.type = piece_types.UNUSED
  trainer.vocab_size = len(proto.pieces)
  normalizer.name = "identity"
  normalizer.add_dummy_prefix = bool(fields("tokenizer.ggml.add_space_prefix", True))
  normalizer.remove_extra_whitespaces = bool(
      fields("tokenizer.ggml.remove_extra_whitespaces", False))
  normalizer.precompiled_charsmap = bytes(fields("tokenizer.ggml.precompiled_charsmap", b""))
  ends = _ends_of_gguf(reader, len(names))
  return SentencePieceTokenizer(
      proto.SerializeToString(), eos_id=ends[0], ends=ends,
      add_bos=bool(fields("tokenizer.ggml.add_bos_token", not unigram)),
      add_eos=bool(fields("tokenizer.ggml.add_eos_token", unigram)))


def _smollm():
  return pre_tokenizers.Sequence([
      pre_tokenizers.Digits(individual_digits=True),
      pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])


def _words(digits: str):
  """Cuts a text like Llama 3 and Qwen 2, which differ in how many digits stay together."""
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
