"""Tokenizers from SentencePiece models and GGUF files: the ids of the original library."""
import io
import pickle

import gguf
import pytest
import sentencepiece
import tokenizers
from sentencepiece import sentencepiece_model_pb2
from tokenizers import decoders, models, pre_tokenizers, trainers

from ilm_jax import errors
from ilm_jax.data import tokenizer, tokenizer_files

SAMPLE = [
    "Heat (1995): a thief's last job.", "Größe, Straße & Übermut", "我喜欢这部电影",
    "映画が好きです", "أحب هذا الفيلم", "🎬🍿 wow!", "1234567 3.14", "two  spaces\tand a tab",
    "  led by two", "x" * 40, "new\nline\x07bell"]
# No emoji and no Arabic: these are what fallbacks and unknowns are for.
CORPUS = [line for n, line in enumerate(SAMPLE) if n not in (4, 5) for _ in range(20)] + [
    "the film the user saw before the last film was a drama about a thief and a job"] * 20


@pytest.fixture(scope="module")
def spm() -> dict[str, bytes]:
  """A Llama-like BPE with byte fallback, and a T5-like unigram, trained on the sample."""
  made = {}
  for kind, own in {
      "bpe": dict(model_type="bpe", byte_fallback=True, normalization_rule_name="identity",
                  remove_extra_whitespaces=False, character_coverage=1.0, vocab_size=400),
      "unigram": dict(model_type="unigram", pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
                      vocab_size=150, character_coverage=1.0)}.items():
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS), model_writer=out, minloglevel=2, hard_vocab_limit=False,
        **own)
    made[kind] = out.getvalue()
  return made


def write_gguf(path, proto: bytes, kind: str):
  """What llama.cpp's converter keeps of a SentencePiece model."""
  model = sentencepiece_model_pb2.ModelProto()
  model.ParseFromString(proto)
  writer = gguf.GGUFWriter(str(path), "llama")
  writer.add_tokenizer_model(kind)
  writer.add_token_list([p.piece.encode() for p in model.pieces])
  writer.add_token_scores([p.score for p in model.pieces])
  writer.add_token_types([p.type for p in model.pieces])
  spec = model.trainer_spec
  writer.add_eos_token_id(spec.eos_id)
  writer.add_unk_token_id(spec.unk_id)
  if spec.bos_id >= 0:
    writer.add_bos_token_id(spec.bos_id)
  writer.add_add_space_prefix(model.normalizer_spec.add_dummy_prefix)
  if kind == "t5":
    writer.add_remove_extra_whitespaces(model.normalizer_spec.remove_extra_whitespaces)
    writer.add_precompiled_charsmap(model.normalizer_spec.precompiled_charsmap)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return path


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_a_sentencepiece_file_gives_its_librarys_ids(tmp_path, spm, kind):
  (tmp_path / "spiece.model").write_bytes(spm[kind])
  ours = tokenizer_files.load(tmp_path)
  theirs = sentencepiece.SentencePieceProcessor(model_proto=spm[kind])
  for text in SAMPLE:
    assert ours.encode(text) == theirs.encode(text)
    assert ours.decode(ours.encode(text)) == theirs.decode(theirs.encode(text))
  assert ours.vocab_size == ours.slot_id == theirs.vocab_size() and ours.eos_id == theirs.eos_id()
  # Llama wants <s> before a prompt, T5 </s> behind it.
  assert (ours.before, ours.after) == (((1,), ()) if kind == "bpe" else ((), (1,)))
  again = pickle.loads(pickle.dumps(ours))
  assert again.encode(SAMPLE[0]) == ours.encode(SAMPLE[0])
  assert again.fingerprint == ours.fingerprint


@pytest.mark.parametrize(("kind", "name"), [("bpe", "llama"), ("unigram", "t5")])
def test_a_gguf_gives_the_ids_of_the_model_it_was_made_from(tmp_path, spm, kind, name):
  ours = tokenizer_files.load(write_gguf(tmp_path / "m.gguf", spm[kind], name))
  theirs = sentencepiece.SentencePieceProcessor(model_proto=spm[kind])
  for text in SAMPLE:
    assert ours.encode(text) == theirs.encode(text), text
    assert ours.decode(ours.encode(text)) == theirs.decode(theirs.encode(text))
  assert (ours.before, ours.after) == (((1,), ()) if kind == "bpe" else ((), (1,)))


def test_a_byte_level_tokenizer_json_gives_its_librarys_ids(tmp_path):
  theirs = tokenizers.Tokenizer(models.BPE())
  theirs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  theirs.decoder = decoders.ByteLevel()
  theirs.train_from_iterator(CORPUS, trainers.BpeTrainer(
      vocab_size=400, special_tokens=["</s>"], show_progress=False,
      initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
  theirs.save(str(tmp_path / "tokenizer.json"))
  ours = tokenizer_files.load(tmp_path)
  for text in SAMPLE:
    assert ours.encode(text) == theirs.encode(text).ids
    assert ours.decode(ours.encode(text)) == text


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_added_words_are_one_id_each_and_never_split(tmp_path, spm, kind):
  (tmp_path / "a.model").write_bytes(spm[kind])
  plain = tokenizer_files.load(tmp_path / "a.model")
  ours = tokenizer.with_new_tokens(plain, [f"<index_{n}>" for n in range(12)])
  first = plain.vocab_size
  assert ours.vocab_size == ours.slot_id == first + 12 and ours.fingerprint != plain.fingerprint
  assert ours.encode("<index_1><index_11>") == [first + 1, first + 11]
  ids = ours.encode("the film <index_3>") + [ours.slot_id]
  assert ids[:-2] == plain.encode("the film ") and ids[-2] == first + 3
  assert ours.decode(ours.encode("<index_1><index_11>")) == "<index_1><index_11>"
  assert ours.encode("a <slot> b").count(ours.slot_id) == 1
  with pytest.raises(errors.UserError, match="must be new and all different"):
    tokenizer.with_new_tokens(ours, ["<index_3>"])
  with pytest.raises(errors.UserError, match="must be new and all different"):
    tokenizer.with_new_tokens(plain, ["<a>", "<a>"])


def test_what_cannot_be_a_tokenizer_is_refused(tmp_path, spm):
  with pytest.raises(errors.UserError, match=r"has none of tokenizer.json, spiece.model"):
    tokenizer_files.load(tmp_path)
  (tmp_path / "tokenizer.model").write_bytes(b"junk")
  with pytest.raises(errors.UserError, match="not a readable SentencePiece model"):
    tokenizer_files.load(tmp_path)
  (tmp_path / "tokenizer.model").write_bytes(spm["bpe"])
  ours = tokenizer_files.load(tmp_path)
  tokenizer.check_vocabulary(ours, ours.vocab_size + 28, "a padded table")
  both = rf"small.gguf has embeddings of 7 words, its tokenizer knows {ours.vocab_size}"
  with pytest.raises(errors.UserError, match=both):
    tokenizer.check_vocabulary(ours, 7, "small.gguf")
