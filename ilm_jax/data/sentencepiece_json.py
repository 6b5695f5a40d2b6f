"""Converts SentencePiece BPE models (Llama 2, Gemma) to tokenizers of the library `tokenizers`.

SentencePiece merges the two neighbours whose union has the best score; tokenizer.json lists merges
in order. So every way to cut a piece into two known pieces is a merge, ranked by the piece's score.
"""
import tokenizers
from sentencepiece import sentencepiece_model_pb2
from tokenizers import decoders, models, normalizers

from ilm_jax import errors

_SPACE = "\u2581"


def fast(proto: bytes) -> tokenizers.Tokenizer:
  """The same tokenizer, without the ids around a prompt.

  Args:
    proto: bytes of a SentencePiece model.

  Raises:
    UserError: the model is no BPE, or it changes a text before it cuts it: by NFKC, by removing
      extra spaces, or by a space at the start if it also has user-defined symbols.
  """
  model = sentencepiece_model_pb2.ModelProto()
  model.ParseFromString(proto)
  trainer, normalizer = model.trainer_spec, model.normalizer_spec
  if trainer.model_type != trainer.BPE:
    raise errors.UserError("the tokenizer is a SentencePiece model but no BPE, which cannot be "
                           "written as a tokenizer.json: name one with --config.lm.tokenizer, or "
                           "export without the folder hf/")
  kinds = sentencepiece_model_pb2.ModelProto.SentencePiece
  # A tokenizer.json would also add the space at the start of a text after each such symbol.
  starts = normalizer.add_dummy_prefix and any(p.type == kinds.USER_DEFINED for p in model.pieces)
  if normalizer.precompiled_charsmap or normalizer.remove_extra_whitespaces or starts:
    raise errors.UserError("the SentencePiece model changes texts before it cuts them, which "
                           "cannot be written as a tokenizer.json: name one with "
                           "--config.lm.tokenizer, or export without the folder hf/")
  ids = {piece.piece: n for n, piece in enumerate(model.pieces)}
  unknown = next((p.piece for p in model.pieces if p.type == kinds.UNKNOWN), None)
  made = tokenizers.Tokenizer(models.BPE(
      vocab=ids, merges=_joins(model.pieces, ids, kinds.NORMAL), unk_token=unknown, fuse_unk=True,
      byte_fallback=trainer.byte_fallback))
  parts = [normalizers.Prepend(_SPACE)] if normalizer.add_dummy_prefix else []
  made.normalizer = normalizers.Sequence([*parts, normalizers.Replace(" ", _SPACE)])
  made.decoder = decoders.Sequence([
      decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(),
      *([decoders.Strip(" ", 1, 0)] if normalizer.add_dummy_prefix else [])])
  for kind, special in ((kinds.CONTROL, True), (kinds.USER_DEFINED, False)):
    made.add_tokens([tokenizers.AddedToken(p.piece, special=special, normalized=False)
                     for p in model.pieces if p.type == kind])
  return made


def _joins(pieces, ids: dict[str, int], normal: int) -> list[tuple[str, str]]:
  """Pairs of pieces to merge, the best union first; for one union, in order of the parts' ids."""
  usable = {p.piece for p in pieces if p.type == normal}
  ranked = []
  for piece in pieces:
    if piece.type != normal:
      continue
    word = piece.piece
    cuts = [(word[:at], word[at:]) for at in range(1, len(word))]
    ranked += sorted((-piece.score, ids[word], ids[left], ids[right], left, right)
                     for left, right in cuts if left in usable and right in usable)
  return [cut[-2:] for cut in sorted(ranked)]
