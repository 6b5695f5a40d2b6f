"""Files of models with values of another kind than usual: one line, no traceback, little memory.

Found by reading the code; benchmarks/garbage has damage drawn at random.
"""
import json
import re

import pytest

from benchmarks.garbage import gguf_file, texts, weights
from ilm_jax import errors
from ilm_jax.data import chat_files, chat_template, tokenizer, tokenizer_files

# Tokenizers.

def tokenizer_json(folder, number: int, **changed):
  """A folder with a valid tokenizer.json whose top fields are changed."""
  for name, data in texts._tokenizer_json()[number].items():
    (folder / name).write_bytes(data)
  fields = json.loads((folder / "tokenizer.json").read_bytes())
  (folder / "tokenizer.json").write_text(json.dumps({**fields, **changed}))
  return folder


FEW = {"model": {"type": "BPE", "vocab": {"</s>": 0, "b": 1}, "merges": []}, "added_tokens": [],
       "pre_tokenizer": None}
ONE = {**FEW, "model": {**FEW["model"], "vocab": {"</s>": 0, "a": 1}}}


@pytest.mark.parametrize("number, changed", [
    (0, {**ONE, "decoder": {"type": "Strip", "content": "a", "start": 1, "stop": 1}}),
    (0, {**ONE, "decoder": {"type": "Sequence", "decoders": [
        {"type": "Fuse"}, {"type": "Strip", "content": "a", "start": 5, "stop": 5}]}}),
    (2, {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}}),
    (2, {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "BAAAAP////8A"}}),
    (0, {"normalizer": {"type": "Replace", "pattern": {"String": "a"}, "content": ""}}),
    (2, {"model": {"type": "Unigram", "vocab": [["</s>", 0.0]], "unk_id": None}}), (0, FEW)])
def test_a_tokenizer_at_which_its_library_fails(tmp_path, number, changed):
  with pytest.raises(errors.UserError, match="tokenizer.json is not a readable tokenizer.json"):
    tokenizer_files.load(tokenizer_json(tmp_path, number, **changed))


def test_a_tokenizer_that_fails_later_gives_one_line(tmp_path):
  strip = {"type": "Strip", "content": "b", "start": 1, "stop": 1}
  few = {**ONE, "model": {**FEW["model"], "vocab": {"</s>": 0, "a": 1, "b": 2}}, "decoder": strip}
  made = tokenizer_files.load(tokenizer_json(tmp_path, 0, **few))
  with pytest.raises(errors.UserError, match="cannot spell the ids"):
    made.decode([2])
  unknown = {"type": "Unigram", "vocab": [["</s>", 0.0], ["a", -1.0], ["\u2581", -1.0]],
             "unk_id": None}
  made = tokenizer_files.load(tokenizer_json(tmp_path, 2, model=unknown))
  with pytest.raises(errors.UserError, match="cannot read the text 'é'"):
    made.encode("é")


def gguf(path, change=None, shapes=None, **fields):
  """The path of a GGUF file; of `shapes`, other shapes than usual and further tensors."""
  wide, words = 32, weights._words()
  tensors = {"token_embd.weight": (len(words), wide), "output_norm.weight": (wide,), **{
      f"blk.0.{name}.weight": (wide, wide) for name in (
          "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")},
      "blk.0.attn_norm.weight": (wide,), "blk.0.ffn_norm.weight": (wide,), **(shapes or {})}
  return gguf_file.write(path / "m.gguf", weights._random(tensors), {
      "block_count": 1, "embedding_length": wide, "feed_forward_length": wide, "head_count": 4,
      "head_count_kv": 4, "layer_norm_rms_eps": 1e-5, "tokenizer_model": "gpt2",
      "tokenizer_pre": "smollm", "token_list": words, "token_types": [3] + [1] * (len(words) - 1),
      "token_merges": ["a b"], "eos_token_id": 0, "chat_template": "{{ messages[0].content }}",
      **fields}, change=change)


@pytest.mark.parametrize("value", [-2, 20, 2 ** 40, "x", 1.5, [1]])
@pytest.mark.parametrize("role", ["bos", "eos", "eot"])
def test_special_words_of_gguf_are_ids(tmp_path, role, value):
  path = gguf(tmp_path, {f"tokenizer.ggml.{role}_token_id": value,
                         "tokenizer.ggml.add_bos_token": True})
  with pytest.raises(errors.UserError, match=f"{role}_token_id is .* from 0 to 19"):
    tokenizer_files.load(path)


def test_special_words_of_gguf_may_be_none(tmp_path):
  path = gguf(tmp_path, {"tokenizer.ggml.bos_token_id": 2 ** 32 - 1,
                         "tokenizer.ggml.eot_token_id": -1})
  made = tokenizer_files.load(path)
  assert made.ends == (0,) and chat_files.of_tokenizer(path, made)[1] == {
      "eos_token": "<|im_end|>"}
  path = gguf(tmp_path, {"tokenizer.ggml.bos_token_id": "x"})
  with pytest.raises(errors.UserError, match="bos_token_id is 'x'"):
    chat_files.of_tokenizer(path, tokenizer_files.load(path))


# Chat templates.

def chat(folder, source: str, **fields):
  """The ids of a short conversation by a template and fields of tokenizer_config.json."""
  (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": source, **fields}))
  said = [chat_template.Said("user", "Hi"), chat_template.Said("assistant", "Heat"),
          chat_template.Said("user", "No")]
  return chat_template.load("auto", folder, texts._words(tokenizer)).encode("Films.", said)


WHOLE = texts._TEMPLATES[0]
IN_PIECES = ("{% for m in messages %}{% if not (loop.last and m.role == 'assistant') %}"
             "{{ m.content }}<|im_end|>{% endif %}{% endfor %}",
             "{% if messages|length > 2 %}{% for m in messages %}{{ m.content }}<|im_end|>"
             "{% endfor %}{% endif %}")
OWN_MARKS = tuple("{{ '\ue000' + " + mark + " + '\ue001' }}" + WHOLE
                  for mark in ("'99'", "'1' * 5000", "'٣'"))


@pytest.mark.parametrize("source, why", [
    (WHOLE + "\ud800", "chat_template is"), ("{{ '\\ud800' }}" + WHOLE, "surrogates not allowed"),
    *((source, "once, in order|than behind its prompt")
      for source in (*IN_PIECES, *OWN_MARKS))])
def test_chat_templates_that_write_what_is_no_conversation(tmp_path, source, why):
  with pytest.raises(errors.UserError, match=f"(?s){re.escape(str(tmp_path))}.*({why})"):
    chat(tmp_path, source)


@pytest.mark.parametrize("value", ["\ud800", 5, [1], {"content": [[]]}])
def test_names_of_tokens_that_are_no_texts(tmp_path, value):
  with pytest.raises(errors.UserError, match="bos_token is"):
    chat(tmp_path, "{{ bos_token }}" + WHOLE, bos_token=value)
  assert chat(tmp_path, WHOLE, bos_token=None, eos_token={"content": "</s>"}).replies
