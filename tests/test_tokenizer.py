"""Tokenizers from small files made here, and the real ones where they are already fetched."""
import dataclasses
import json
import pickle

import gguf
import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors

from ilm_jax import errors
from ilm_jax.assets import pinned
from ilm_jax.data import tokenizer, tokenizer_files

# A byte-level vocabulary: "Ġ" is how it writes a space. Ids are positions.
TOKENS = ["<|end|>", "a", "b", "1", "9", "Ġ", "<", ">", "s", "l", "o", "t", "|", "e", "n", "d",
          "ab", "Ġab", "19"]
MERGES = ["a b", "Ġ ab", "1 9"]


def write_gguf(path, style="smollm", keys=("tokens", "merges", "types", "eos"), tokens=TOKENS,
               types=(), eos=0, merges=MERGES, eot=None):
  writer = gguf.GGUFWriter(path, "llama")
  writer.add_tokenizer_model("gpt2")
  writer.add_tokenizer_pre(style)
  if "tokens" in keys:
    writer.add_token_list(tokens)
  writer.add_token_types(list(types) or [3] + [1] * (len(TOKENS) - 1))
  writer.add_token_merges(merges)
  writer.add_eos_token_id(eos)
  if eot is not None:
    writer.add_eot_token_id(eot)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return path


@pytest.fixture(scope="module")
def small(tmp_path_factory):
  return tokenizer_files.from_gguf(write_gguf(tmp_path_factory.mktemp("gguf") / "small.gguf"))


def test_gguf_merges_and_digits(small):
  """"ab" and " ab" merge; "19" does not, since smollm splits every digit off first."""
  assert small.encode("ab ab19") == [16, 17, 3, 4]
  assert small.decode([16, 17, 3, 4, 0]) == "ab ab19"
  assert (small.vocab_size, small.slot_id, small.eos_id) == (19, 19, 0)


def test_user_defined_tokens_of_a_gguf_are_one_id(tmp_path):
  """As llama.cpp and Hugging Face have it: <think> is a word that a text can spell."""
  tokens, types = [*TOKENS, "<ab>", "<ab><ab>"], [3] + [1] * (len(TOKENS) - 1) + [4, 4]
  ours = tokenizer_files.from_gguf(write_gguf(tmp_path / "g.gguf", tokens=tokens, types=types))
  assert ours.encode("ab<ab>ab<ab><ab>") == [16, 19, 16, 20]
  assert ours.decode([16, 19]) == "ab<ab>" and ours.slot_id == 21
  assert ours.encode("<|end|>") == [6, 12, 13, 14, 15, 12, 7]


def test_a_gguf_may_name_a_second_end(tmp_path):
  ours = tokenizer_files.from_gguf(write_gguf(tmp_path / "g.gguf", eos=3, eot=0))
  assert (ours.eos_id, ours.ends) == (3, (3, 0))


@pytest.mark.parametrize("changes", [
    {"eos": 19}, {"types": [3, 1]}, {"merges": ["a z"]}, {"merges": ["a"]}, {"merges": ["a b c"]}])
def test_a_gguf_whose_lists_do_not_fit_together_is_refused(tmp_path, changes):
  with pytest.raises(errors.UserError, match="are contradictory|eos_token_id is 19") as e:
    tokenizer_files.from_gguf(write_gguf(tmp_path / "g.gguf", **changes))
  assert "\n" not in str(e.value)


def test_gpt2_style_merges_digits(tmp_path):
  assert tokenizer_files.from_gguf(write_gguf(tmp_path / "g.gguf", "gpt-2")).encode("19") == [18]


def test_only_templates_make_slots(small):
  assert small.encode("ab<slot><slot> ab") == [16, 19, 19, 17]
  assert 19 not in small.encode(tokenizer.escape("ab<slot>"))
  assert tokenizer.escape("Heat (1995)") == "Heat (1995)"
  assert small.decode([16, 19, 17]) == "ab ab"


def test_special_tokens_in_a_text_are_letters(small):
  assert small.encode("<|end|>") == [6, 12, 13, 14, 15, 12, 7]
  copy = pickle.loads(pickle.dumps(small))
  assert copy.encode("<|end|>") == small.encode("<|end|>")
  assert copy.fingerprint == small.fingerprint


def test_bad_gguf_files(tmp_path):
  (tmp_path / "junk.gguf").write_bytes(b"junk" * 100)
  with pytest.raises(errors.UserError, match=r"junk.gguf is not a readable GGUF"):
    tokenizer_files.from_gguf(tmp_path / "junk.gguf")
  with pytest.raises(errors.UserError, match=r"'other' is not known: .*smollm"):
    tokenizer_files.from_gguf(write_gguf(tmp_path / "style.gguf", "other"))
  with pytest.raises(errors.UserError, match=r"lacks the metadata tokenizer.ggml.tokens"):
    tokenizer_files.from_gguf(write_gguf(tmp_path / "bare.gguf", keys=()))


def write_wordpiece(path):
  """A WordPiece tokenizer that pads and truncates to 4 tokens, as MiniLM's file does to 128."""
  vocab = {t: i for i, t in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "toy", "story", "##s"])}
  backend = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
  backend.normalizer = normalizers.BertNormalizer()
  backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
  backend.post_processor = processors.TemplateProcessing(
      single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
  backend.add_special_tokens(["[PAD]", "[CLS]", "[SEP]"])
  backend.enable_truncation(4)
  backend.enable_padding(length=4)
  backend.save(str(path))
  return path


def test_wordpiece_file(tmp_path):
  words = tokenizer_files.from_file(write_wordpiece(tmp_path / "tokenizer.json"))
  assert words.encode("Toy") == [2, 4, 3]                                # no padding
  assert words.encode("toy story toys story") == [2, 4, 5, 4, 6, 5, 3]   # no truncation
  assert words.encode("") == [2, 3]
  assert words.encode("toy<slot>story") == [2, 4, 7, 5, 3]
  assert (words.eos_id, words.slot_id) == (3, 7)


def test_bad_tokenizer_files(tmp_path):
  (tmp_path / "t.json").write_text("{}")
  with pytest.raises(errors.UserError, match=r"t.json is not a readable tokenizer.json"):
    tokenizer_files.from_file(tmp_path / "t.json")
  write_wordpiece(tmp_path / "t.json")
  text = json.loads((tmp_path / "t.json").read_text())
  text = json.dumps(text).replace("[SEP]", "[OTHER]")
  (tmp_path / "t.json").write_text(text)
  with pytest.raises(errors.UserError, match=r"no token that ends a text"):
    tokenizer_files.from_file(tmp_path / "t.json")


def already_here(name, file):
  """The path of a fetched file; skips the test if it would have to be downloaded."""
  offline = dataclasses.replace(pinned.ASSETS[name], sources=())
  try:
    return pinned.fetch(name, assets={name: offline})[file]
  except errors.UserError:
    pytest.skip(f"{name} is neither cached nor in ILM_ASSETS_DIR")


def test_smollm2_known_strings():
  """Ids as given by the tokenizer that the transformers library builds from the same file."""
  real = tokenizer_files.from_gguf(
      already_here("smollm2-135m-instruct", "SmolLM2-135M-Instruct.Q4_1.gguf"))
  assert real.encode("Hello, world! 1995") == [19556, 28, 905, 17, 216, 33, 41, 41, 37]
  assert real.encode(" Toy Story (1995)") == [25399, 10124, 365, 33, 41, 41, 37, 25]
  text = "Amélie 😀 naïve 北京\n\n  x"
  assert real.encode(text) == [
      8112, 2756, 17011, 40303, 218, 15486, 46494, 13223, 230, 241, 16736, 122, 8866, 1792]
  assert real.decode(real.encode(text)) == text
  assert (real.slot_id, real.eos_id) == (49152, 2)


def test_minilm_known_string():
  real = tokenizer_files.from_file(already_here("minilm-l6", "tokenizer.json"))
  assert real.encode("Toy Story (1995). Animation") == [
      101, 9121, 2466, 1006, 2786, 1007, 1012, 7284, 102]
  assert real.slot_id == 30522
