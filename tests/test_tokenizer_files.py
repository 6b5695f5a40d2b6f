"""Tokenizers from SentencePiece models and GGUF files: the ids of the original library."""
import io
import json
import pickle
import random

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


CHARS = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}


def folder_of(path, specials=(), words=(), vocab=CHARS, **beside):
  """A byte-level tokenizer of letters, its special tokens and added words; files beside it."""
  backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=[]))
  backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  backend.decoder = decoders.ByteLevel()
  backend.add_special_tokens(list(specials))
  backend.add_tokens(list(words))
  path.mkdir(exist_ok=True)
  backend.save(str(path / "tokenizer.json"))
  for name, value in beside.items():
    (path / f"{name}.json").write_text(json.dumps(value))
  return path


CHAT = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


@pytest.mark.parametrize("specials, beside, ends", [
    (CHAT, {}, (258,)),                                      # by its name, where no file says it
    (CHAT, {"config": {"eos_token_id": 256}}, (256,)),       # a base model
    (CHAT, {"generation_config": {"eos_token_id": [258, 256]}, "config": {"eos_token_id": 256}},
     (258, 256)),                                            # the first ends targets
    (CHAT, {"generation_config": {}, "config": {"eos_token_id": None},
            "tokenizer_config": {"eos_token": "<|endoftext|>"}}, (256,)),
    (CHAT, {"tokenizer_config": {"eos_token": {"content": "<|im_start|>"}}}, (257,)),
    (CHAT, {"tokenizer_config": {"eos_token": "<absent>"}, "config": []}, (258,)),
    (CHAT, {"generation_config": {"eos_token_id": []}, "config": {"eos_token_id": 256}}, (256,)),
    (CHAT, {"config": {"text_config": {"eos_token_id": [256, 9999]}}}, (256,)),
    (["<EOS_TOKEN>"], {"config": {"eos_token_id": 256}}, (256,)),     # Cohere's, a name of its own
])
def test_the_models_files_say_what_ends_a_text(tmp_path, specials, beside, ends):
  ours = tokenizer_files.load(folder_of(tmp_path / "m", specials, **beside))
  assert (ours.eos_id, ours.ends) == (ends[0], ends)
  added = tokenizer.with_new_tokens(ours, ["<index_0>"])
  assert pickle.loads(pickle.dumps(added)).ends == ends


@pytest.mark.parametrize("value", [9999, -1, "<|endoftext|>", [True], [1.0]])
def test_an_end_that_the_tokenizer_does_not_know_is_refused(tmp_path, value):
  folder = folder_of(tmp_path / "m", CHAT, config={"eos_token_id": value})
  with pytest.raises(errors.UserError, match=r"config.json: eos_token_id is .*knows ids 0 to 258"):
    tokenizer_files.load(folder)
  (folder / "config.json").write_text("[" * 100_000)
  with pytest.raises(errors.UserError, match=r"config.json: not readable JSON"):
    tokenizer_files.load(folder)


def test_an_html_tag_ends_no_text(tmp_path):
  """Gemma has the tag </s> among its words; its end is the special token <eos>."""
  ours = tokenizer_files.load(folder_of(tmp_path / "m", ["<eos>", "<bos>"], ["<s>", "</s>"]))
  assert ours.eos_id == 256


def test_a_sentencepiece_model_ends_as_the_files_beside_it_say(tmp_path, spm):
  (tmp_path / "tokenizer.model").write_bytes(spm["bpe"])
  (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": [7, 2]}))
  ours = tokenizer_files.load(tmp_path)
  assert (ours.eos_id, ours.ends) == (7, (7, 2))
  (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": ours.vocab_size}))
  with pytest.raises(errors.UserError, match=r"config.json: eos_token_id is .*tokenizer.model"):
    tokenizer_files.load(tmp_path)


def test_ids_with_a_hole_keep_their_places(tmp_path):
  """The slot follows the largest id, not the number of words."""
  vocab = {c: i if i < 200 else i + 40 for c, i in CHARS.items()} | {"</s>": 300}
  ours = tokenizer_files.load(folder_of(tmp_path / "m", vocab=vocab))
  assert ours.vocab_size == ours.slot_id == 301 and ours.eos_id == 300
  assert ours.decode(ours.encode("a\xffb<slot>")) == "a\xffb"
  assert len(ours.starts_word) == ours.vocab_size + 1


def test_added_words_behind_a_hole_are_refused(tmp_path):
  """The library counts words where it should read ids: it would give them other words' ids."""
  path = folder_of(tmp_path / "m", CHAT) / "tokenizer.json"
  fields = json.loads(path.read_text())
  del fields["model"]["vocab"]["!"]
  path.write_text(json.dumps(fields))
  with pytest.raises(errors.UserError, match=r"<\|endoftext\|> has the id 256.*gives it 255"):
    tokenizer_files.load(path)


def test_added_words_without_a_row_are_unknown(tmp_path):
  """Gemma 3's file is one for all sizes: the text-only models lack the row of its last word."""
  folder = folder_of(tmp_path / "m", [*CHAT, "<image>"], ["<pic>"])
  ours = tokenizer_files.load(folder)
  assert ours.encode("<pic>") == [260]
  with pytest.raises(errors.UserError, match=r"of 259 words.* knows 261, e.g. <pic>"):
    tokenizer.check_vocabulary(ours, 259, "rows of 259")
  tokenizer.check_vocabulary(tokenizer_files.load(folder_of(tmp_path / "n", [*CHAT, "<image>"])),
                             259, "no text spells a special token")
  (folder / "config.json").write_text(json.dumps({"text_config": {"vocab_size": 259}}))
  short = tokenizer_files.load(folder)
  assert short.vocab_size == short.slot_id == 259
  assert short.encode("<pic>") == [CHARS[c] for c in "<pic>"]
  tokenizer.check_vocabulary(short, 259, "rows of 259")
  # Where words of the vocabulary itself lack rows, it is another model's.
  (folder / "config.json").write_text(json.dumps({"vocab_size": 200}))
  with pytest.raises(errors.UserError, match=r"tokenizer of another model"):
    tokenizer.check_vocabulary(tokenizer_files.load(folder), 200, "small")


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer.model", "m.gguf"])
def test_a_pointer_of_git_lfs_is_named(tmp_path, name):
  (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:5\n")
  with pytest.raises(errors.UserError, match=rf"{name} is a git-lfs pointer"):
    tokenizer_files.load(tmp_path / name)


def test_a_second_unknown_piece_of_a_gguf_is_never_said(tmp_path, spm):
  """llama.cpp's converter once gave padding pieces the type of <unk>: Phi-3 has 53 of them."""
  model = sentencepiece_model_pb2.ModelProto()
  model.ParseFromString(spm["bpe"])
  for n in range(2):
    model.pieces.add(piece=f"[PAD{n}]", score=-1000.0, type=model.pieces[0].UNKNOWN)
  path = write_gguf(tmp_path / "m.gguf", model.SerializeToString(), "llama")
  theirs = sentencepiece.SentencePieceProcessor(model_proto=spm["bpe"])
  ours = tokenizer_files.load(path)
  assert ours.vocab_size == theirs.vocab_size() + 2
  for text in (*SAMPLE, "[PAD0]"):
    assert ours.encode(text) == theirs.encode(text)


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


@pytest.mark.parametrize("prefix", [True, False])
def test_a_sentencepiece_bpe_is_the_same_as_a_tokenizer_json(tmp_path, prefix):
  words = "the film of a war is darker than films of the sea and funnier than the rest".split()
  texts = [" ".join(random.Random(n).choices(words, k=9)) for n in range(200)]
  sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(texts), model_prefix=str(tmp_path / "m"), model_type="bpe",
      vocab_size=330, byte_fallback=True, add_dummy_prefix=prefix, remove_extra_whitespaces=False,
      normalization_rule_name="identity", minloglevel=2,
      user_defined_symbols=[] if prefix else ["<turn>"], hard_vocab_limit=False)
  ours = tokenizer_files.from_sentencepiece(tmp_path / "m.model")
  fast = tokenizers.Tokenizer.from_str(ours.to_json(["<item_1_0>", "<item_1_1>"]))
  for text in (*texts[:50], "a  war", "zebra ünd\n", " <turn>sea", "darkerfilm 12"):
    want = [*ours.before, *ours.encode(text)]
    assert fast.encode(text).ids == want, text
    assert fast.decode(want) == ours.decode(want)
  added = [ours.vocab_size, ours.vocab_size + 1]
  assert fast.encode("sea<item_1_0><item_1_1>").ids == [
      *ours.before, *ours.encode("sea"), *added]
  with pytest.raises(errors.UserError, match="SentencePiece model but no BPE"):
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_prefix=str(tmp_path / "u"), vocab_size=40,
        minloglevel=2, hard_vocab_limit=False)
    tokenizer_files.from_sentencepiece(tmp_path / "u.model").to_json([])
