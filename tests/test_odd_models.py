"""Files of models with values of another kind than usual: one line, no traceback, little memory.

Found by reading the code; benchmarks/garbage has damage drawn at random.
"""
import json
import re
import time
import tracemalloc

import msgpack
import numpy as np
import pytest

from benchmarks.garbage import gguf_file, texts, weights
from ilm_jax import errors
from ilm_jax.data import chat_files, chat_template, tokenizer, tokenizer_files
from ilm_jax.weights import gguf as gguf_weights
from ilm_jax.weights import hf, safetensors, t5x, t5x_gin, torch_zip

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


# Weights in Hugging Face's layout.

def of_config(folder, **changed):
  for name, data in weights._hugging_face()[0].items():
    (folder / name).write_bytes(data)
  (folder / "config.json").write_text(json.dumps({**weights._LLAMA, **changed}))
  return folder


T5 = {"model_type": "t5", "num_layers": 1, "d_model": 8, "num_heads": 2, "d_kv": 4, "d_ff": 12,
      "vocab_size": 20, "relative_attention_num_buckets": 32}


@pytest.mark.parametrize("fields", [
    *({name: None, "head_dim": 4} for name in (
        "hidden_size", "vocab_size", "intermediate_size", "num_hidden_layers")),
    *({**T5, name: None} for name in ("d_model", "d_kv", "d_ff", "num_heads", "vocab_size",
                                      "relative_attention_num_buckets")),
    {**T5, "relative_attention_num_buckets": "32"}, {**T5, "relative_attention_max_distance": "x"},
    {**T5, "decoder_start_token_id": "x"}, {**T5, "decoder_start_token_id": 20}])
def test_sizes_in_config_json_that_are_no_numbers(tmp_path, fields):
  with pytest.raises(errors.UserError, match=r"config.json: (\w+) is .*, expected"):
    hf.read_config(of_config(tmp_path, **fields))


def test_sizes_that_may_be_null(tmp_path):
  of_config(tmp_path, head_dim=None, num_key_value_heads=None)
  config = hf.read_config(tmp_path)
  assert (config.head_dim, config.num_kv_heads) == (4, 2)
  config = hf.read_config(of_config(tmp_path, **T5, num_decoder_layers=None))
  assert (config.num_layers, config.start_id) == (1, 0)


@pytest.mark.parametrize("width", [1, 3])
def test_heads_of_odd_width(tmp_path, width):
  with pytest.raises(errors.UserError, match=f"config.json: heads have {width} channels"):
    hf.read_config(of_config(tmp_path, model_type="cohere", head_dim=width))
  heads = {f"blk.0.attn_{part}.weight": (4 * width, 32) for part in "qkv"}
  path = gguf(tmp_path, {"llama.attention.key_length": width},
              {**heads, "blk.0.attn_output.weight": (32, 4 * width)})
  with pytest.raises(errors.UserError, match=f"key_length is {width}, expected an even"):
    gguf_weights.load(path)


def test_a_shape_of_very_many_axes(tmp_path):
  header = (b'{"a":{"dtype":"F32","shape":[' + b",".join([b"9"] * 400_000)
            + b'],"data_offsets":[0,0]}}')
  of_config(tmp_path)
  (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
  began = time.process_time()
  with pytest.raises(errors.UserError, match="tensor a of shape"):
    hf.load(tmp_path)
  assert time.process_time() - began < 2


# GGUF and PyTorch.

def test_a_gguf_without_words(tmp_path):
  with pytest.raises(errors.UserError, match="the number of words is 0"):
    gguf_weights.load(gguf(tmp_path, shapes={"token_embd.weight": (0, 32)}))


def test_a_long_rope_takes_no_memory(tmp_path):
  path = gguf(tmp_path, {"llama.attention.key_length": 2 ** 27}, {"rope_freqs.weight": (4,)})
  tracemalloc.start()
  with pytest.raises(errors.UserError, match="rope_freqs.weight is not that"):
    gguf_weights.load(path)
  most = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert most < 48 << 20


@pytest.mark.parametrize("shape, stride", [
    ((1, 4), (2 ** 70, 1)), ((1, 4), (2 ** 62, 1)), ((0, 2 ** 70), (1, 1)),
    ((0, 2 ** 39, 2 ** 39), (1, 1, 1))])
def test_strides_beyond_any_array(tmp_path, monkeypatch, shape, stride):
  (tmp_path / "q.pth").write_bytes(weights.torch_zip({"a": np.ones((1, 4), np.float32)}))
  whole = torch_zip.TorchFile(tmp_path / "q.pth")
  assert whole.read("a").shape == (1, 4)
  monkeypatch.setattr(torch_zip, "_tensor", lambda storage, offset, *_: torch_zip.Tensor(
      storage[1], storage[0], offset, shape, stride))
  with pytest.raises(errors.UserError, match="q.pth: tensor a of shape"):
    torch_zip.TorchFile(tmp_path / "q.pth").read("a")


# T5X.

def t5x_folder(folder, number: int = 0, database: bool = False, **files):
  """A folder with a valid T5X checkpoint, and files with other contents."""
  made = (weights._t5x_tensorstore if database else weights._t5x_msgpack)()[number]
  for name, data in {**made, **files}.items():
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
  return folder


def gin(more: str) -> bytes:
  return (weights._GIN + more).encode()


DOUBLED = "".join(f"M{n} = (%M{n + 1}, %M{n + 1})\n" for n in range(40)) + "M40 = 1\n"
DEEP = "".join(f"M{n} = (%M{n + 1},)\n" for n in range(1500)) + "M1500 = 1\n"


@pytest.mark.parametrize("more, why", [
    ("A = (%A, 1)\n", "macro %A is bound to itself"), ("A = %B\nB = [%A]\n", "bound to itself"),
    ("A = %M0\n" + DOUBLED, "mlp_activations is "), ("A = %M0\n" + DEEP, "100 deep")])
def test_macros_that_never_end(tmp_path, more, why):
  (tmp_path / "m.gin").write_bytes(gin("network.T5Config.mlp_activations = %A\n" + more))
  began = time.process_time()
  with pytest.raises(errors.UserError, match=why):
    t5x_gin.read(tmp_path / "m.gin")
  assert time.process_time() - began < 2


@pytest.mark.parametrize("value", ["'x'", "1.5", "None", "(1,)", "-1", "0x" + "f" * 5000])
def test_an_axis_of_layers_that_is_none(tmp_path, value):
  (tmp_path / "m.gin").write_bytes(gin(f"network.T5Config.param_scan_axis = {value}\n"))
  with pytest.raises(errors.UserError, match="param_scan_axis is"):
    t5x_gin.read(tmp_path / "m.gin")


@pytest.mark.parametrize("target", [{b"x": 1}, {1: 1}, {"a": {1: 1}}, [[5, 1]]])
def test_keys_in_msgpack_that_are_no_texts(tmp_path, target):
  data = msgpack.packb({"optimizer": {"target": target}})
  with pytest.raises(errors.UserError, match="is a key in it, expected a text"):
    t5x.load(t5x_folder(tmp_path, checkpoint=data))


@pytest.mark.parametrize("key", [(), ("target", []), ("target", {}), ("target", "\ud800"),
                                 ("target", ["target"])])
def test_keys_of_orbax_that_are_no_texts(tmp_path, key):
  keys = {"tree_metadata": {"x": {"key_metadata": [{"key": part} for part in key]}}}
  t5x_folder(tmp_path, database=True)
  (tmp_path / "state" / "_METADATA").write_text(json.dumps(keys))
  with pytest.raises(errors.UserError, match="_METADATA: not a readable Orbax checkpoint"):
    t5x.load(tmp_path)


def test_a_chunk_that_is_far_larger_than_its_array(tmp_path):
  t5x_folder(tmp_path, database=True)
  array = tmp_path / "state" / "target.decoder.decoder_norm.scale"
  fields = json.loads((array / ".zarray").read_bytes())
  (array / ".zarray").write_text(json.dumps({**fields, "chunks": [10 ** 8], "fill_value": None,
                                             "compressor": {"id": "zlib", "level": 9}}))
  with pytest.raises(errors.UserError, match="its chunks of .100000000,. are larger"):
    t5x.load(tmp_path)


def test_a_bert_config_that_claims_many_layers_is_refused_soon(tmp_path):
  """The garbage campaign's only input that hung: to trace 256 layers took minutes."""
  for name, data in weights._bert()[0].items():
    (tmp_path / name).write_bytes(data)
  claimed = json.loads((tmp_path / "config.json").read_text()) | {"num_hidden_layers": 256}
  (tmp_path / "config.json").write_text(json.dumps(claimed))
  began = time.process_time()
  with pytest.raises(errors.UserError, match="4080 tensor.s. missing"):
    safetensors.load_bert(tmp_path)
  assert time.process_time() - began < 2


@pytest.mark.parametrize("greatest", [2**31, 90_071_991, 2**20 + 1])
def test_a_vocabulary_with_an_id_far_beyond_its_words(tmp_path, greatest):
  """The library listed all ids that no word has, 8 GiB at 2^31: 44 of 100,000 inputs."""
  path = tmp_path / "tokenizer.json"
  made = json.loads(texts._tokenizer_json()[1]["tokenizer.json"])
  made["model"]["vocab"]["two"] = greatest
  path.write_text(json.dumps(made))
  with pytest.raises(errors.UserError, match=f"the greatest id is {greatest:,} with"):
    tokenizer_files.load(tmp_path)
  made["model"]["vocab"]["two"] = 2**20
  path.write_text(json.dumps(made))
  assert tokenizer_files.load(tmp_path).vocab_size == 2**20 + 1
