"""Hugging Face folders: published configs by their sizes, name maps, damage told in one line."""
import json
import math

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from ilm_jax import errors
from ilm_jax.models import attention, language_model, t5
from ilm_jax.weights import hf, hf_decoders, hf_t5

FAMILIES = {**hf_decoders.FAMILIES, **hf_t5.FAMILIES}
LLAMA3 = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 8192}
# As published, without the fields that say nothing of the numbers; and the published sizes.
PUBLISHED = {
    "llama-2-7b": (6_738_415_616, {
        "model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008,
        "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32,
        "rms_norm_eps": 1e-5, "rope_scaling": None, "vocab_size": 32000, "hidden_act": "silu",
        "tie_word_embeddings": False}),
    "llama-3.2-1b": (1_235_814_400, {
        "model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192, "head_dim": 64,
        "num_attention_heads": 32, "num_hidden_layers": 16, "num_key_value_heads": 8,
        "rms_norm_eps": 1e-5, "rope_scaling": LLAMA3, "rope_theta": 500000.0, "vocab_size": 128256,
        "hidden_act": "silu", "tie_word_embeddings": True, "attention_bias": False}),
    "mistral-7b-v0.1": (7_241_732_096, {
        "model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336,
        "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "sliding_window": 4096, "vocab_size": 32000,
        "hidden_act": "silu", "tie_word_embeddings": False}),
    "qwen2.5-0.5b": (494_032_768, {
        "model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864,
        "num_attention_heads": 14, "num_hidden_layers": 24, "num_key_value_heads": 2,
        "rms_norm_eps": 1e-6, "rope_theta": 1e6, "sliding_window": 32768, "max_window_layers": 24,
        "use_sliding_window": False, "vocab_size": 151936, "hidden_act": "silu",
        "tie_word_embeddings": True}),
    "qwen3-0.6b": (596_049_920, {
        "model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072, "head_dim": 128,
        "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8,
        "rms_norm_eps": 1e-6, "rope_theta": 1e6, "rope_scaling": None, "sliding_window": None,
        "use_sliding_window": False, "vocab_size": 151936, "hidden_act": "silu",
        "tie_word_embeddings": True, "attention_bias": False}),
    "gemma-2b": (2_506_172_416, {
        "model_type": "gemma", "hidden_size": 2048, "intermediate_size": 16384, "head_dim": 256,
        "num_attention_heads": 8, "num_hidden_layers": 18, "num_key_value_heads": 1,
        "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "vocab_size": 256000, "hidden_act": "gelu"}),
    "gemma-2-2b": (2_614_341_888, {
        "model_type": "gemma2", "hidden_size": 2304, "intermediate_size": 9216, "head_dim": 256,
        "num_attention_heads": 8, "num_hidden_layers": 26, "num_key_value_heads": 4,
        "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "sliding_window": 4096, "vocab_size": 256000,
        "query_pre_attn_scalar": 256, "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0, "hidden_activation": "gelu_pytorch_tanh"}),
    "gemma-3-1b": (999_885_952, {
        "model_type": "gemma3_text", "hidden_size": 1152, "intermediate_size": 6912,
        "head_dim": 256, "num_attention_heads": 4, "num_hidden_layers": 26,
        "num_key_value_heads": 1, "rms_norm_eps": 1e-6, "rope_theta": 1000000,
        "rope_local_base_freq": 10000, "sliding_window": 512, "sliding_window_pattern": 6,
        "vocab_size": 262144, "query_pre_attn_scalar": 256}),
    "gemma-3-4b, its language model": (3_880_263_168, {
        "model_type": "gemma3", "text_config": {
            "model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240,
            "num_hidden_layers": 34, "sliding_window": 1024,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"}}}),
    "command-r": (34_980_831_232, {
        "model_type": "cohere", "hidden_size": 8192, "intermediate_size": 22528,
        "num_attention_heads": 64, "num_hidden_layers": 40, "num_key_value_heads": 64,
        "layer_norm_eps": 1e-5, "rope_theta": 8e6, "vocab_size": 256000, "hidden_act": "silu",
        "logit_scale": 0.0625, "use_qk_norm": False, "attention_bias": False}),
    "t5-small": (60_506_624, {
        "model_type": "t5", "d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6,
        "num_heads": 8, "relative_attention_num_buckets": 32, "vocab_size": 32128}),
    "flan-t5-small": (76_961_152, {
        "model_type": "t5", "d_model": 512, "d_kv": 64, "d_ff": 1024, "num_layers": 8,
        "num_decoder_layers": 8, "num_heads": 6, "relative_attention_num_buckets": 32,
        "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "vocab_size": 32128}),
}


def config_of(fields: dict):
  """The config of a folder without weights."""
  fields = fields.get("text_config", fields)
  family = FAMILIES[fields["model_type"]]
  return family[0]({**fields, "has_head": not fields.get("tie_word_embeddings", True)}, "float32")


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_have_their_published_sizes(name):
  """And the name map of each is complete: every layer of every parameter has a name."""
  size, fields = PUBLISHED[name]
  config = config_of(fields)
  abstract = language_model.abstract_params(config)
  assert sum(math.prod(x.shape) for x in jax.tree.leaves(abstract)) == size
  kind = "gemma3_text" if name.startswith("gemma-3") else fields["model_type"]
  places, _ = FAMILIES[kind][1](config, frozenset())
  filled = {(p.path, p.layer) for p in places.values()}
  assert len(filled) == len(places)
  assert {p for p, _ in filled} == {
      tuple(k.key for k in path) for path, _ in jax.tree_util.tree_leaves_with_path(abstract)}


def test_published_configs_say_what_their_papers_say():
  found = {name: config_of(fields) for name, (_, fields) in PUBLISHED.items()}
  assert found["llama-3.2-1b"].rope_scaling == attention.RopeScaling(32.0, 1.0, 4.0, 8192)
  assert found["llama-2-7b"].rope_scaling is None and not found["llama-2-7b"].tied
  assert found["qwen2.5-0.5b"].qkv_bias and found["qwen2.5-0.5b"].local_layers == ()
  assert found["mistral-7b-v0.1"].local_layers == (True,) * 32
  assert found["gemma-2-2b"].local_layers == (True, False) * 13
  assert (found["gemma-2-2b"].softcap, found["gemma-2-2b"].logit_softcap) == (50, 30)
  large = found["gemma-3-4b, its language model"]
  assert large.local_layers[:7] == (True,) * 5 + (False, True) and sum(large.local_layers) == 29
  assert (large.rope_base, large.local_rope_base, large.window) == (1e6, 1e4, 1024)
  assert large.rope_scaling == attention.RopeScaling(8.0) and large.head_dim == 256
  assert found["gemma-2b"].activation == "gelu_tanh" and found["gemma-2b"].embed_scale == 2048 ** .5
  assert found["command-r"].parallel and found["command-r"].norm == "layer"
  assert isinstance(found["t5-small"], t5.T5Config) and found["t5-small"].tied
  assert found["t5-small"].logit_scale == 512 ** -0.5 and found["flan-t5-small"].logit_scale == 1


def test_old_and_new_rope_fields_mean_the_same():
  _, fields = PUBLISHED["llama-3.2-1b"]
  new = {k: v for k, v in fields.items() if not k.startswith("rope")}
  new["rope_parameters"] = {**LLAMA3, "rope_theta": 500000.0}
  assert config_of(new) == config_of(fields)
  _, fields = PUBLISHED["gemma-3-4b, its language model"]
  text = fields["text_config"]
  new = {k: v for k, v in text.items() if not k.startswith("rope")}
  new["rope_parameters"] = {
      "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
      "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}
  assert config_of(new) == config_of(text)


@pytest.mark.parametrize("name, changes, words", [
    ("llama-2-7b", {"attention_bias": True}, "attention_bias is True"),
    ("llama-2-7b", {"mlp_bias": True}, "mlp_bias is True"),
    ("llama-2-7b", {"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
    ("llama-2-7b", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "'dynamic', expected one"),
    ("qwen2.5-0.5b", {"use_sliding_window": True}, "use_sliding_window is True"),
    ("qwen3-0.6b", {"attention_bias": True}, "attention_bias is True"),
    ("gemma-3-1b", {"use_bidirectional_attention": True}, "use_bidirectional_attention is True"),
    ("gemma-3-1b", {"rope_parameters": {"sliding_attention": {"rope_type": "linear"}}},
     "rope type of sliding_attention is 'linear'"),
    ("command-r", {"use_qk_norm": True}, "use_qk_norm is True"),
    ("t5-small", {"feed_forward_proj": "gated-tanh"}, "feed_forward_proj is 'tanh'"),
])
def test_what_would_change_the_numbers_is_refused(name, changes, words):
  with pytest.raises(ValueError, match=words):
    config_of({**PUBLISHED[name][1], **changes})


# A Gemma 3 of two layers as it lies beside a vision tower.
TINY = {"model_type": "gemma3_text", "hidden_size": 8, "intermediate_size": 12, "head_dim": 4,
        "num_attention_heads": 2, "num_key_value_heads": 1, "num_hidden_layers": 2,
        "vocab_size": 10, "query_pre_attn_scalar": 4, "sliding_window": 3}


def tiny(root="model.") -> dict[str, np.ndarray]:
  rng = np.random.default_rng(0)
  shapes = {f"{root}embed_tokens.weight": (10, 8), f"{root}norm.weight": (8,)}
  for n in range(2):
    shapes |= {f"{root}layers.{n}.{name}.weight": shape for name, shape in {
        "self_attn.q_proj": (8, 8), "self_attn.k_proj": (4, 8), "self_attn.v_proj": (4, 8),
        "self_attn.o_proj": (8, 8), "self_attn.q_norm": (4,), "self_attn.k_norm": (4,),
        "mlp.gate_proj": (12, 8), "mlp.up_proj": (12, 8), "mlp.down_proj": (8, 12),
        "input_layernorm": (8,), "post_attention_layernorm": (8,),
        "pre_feedforward_layernorm": (8,), "post_feedforward_layernorm": (8,)}.items()}
  return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def write(folder, tensors, fields=TINY):
  folder.mkdir(exist_ok=True)
  (folder / "config.json").write_text(json.dumps(fields))
  safetensors.numpy.save_file(tensors, folder / "model.safetensors")
  return folder


@pytest.mark.parametrize("root, fields", [
    ("model.", TINY), ("language_model.model.", {"model_type": "gemma3", "text_config": TINY}),
    ("model.language_model.", {"model_type": "gemma3", "text_config": TINY})])
def test_gemma3_alone_and_beside_a_vision_tower(tmp_path, root, fields):
  named = tiny(root)
  beside = {} if root == "model." else {"vision_tower.conv.weight": np.ones((3, 3), np.float32)}
  config, params = hf.load(write(tmp_path / "m", named | beside, fields))
  assert config.qk_norm and config == hf.read_config(tmp_path / "m")
  layers = params["layers"]
  np.testing.assert_array_equal(layers["down"][1], named[f"{root}layers.1.mlp.down_proj.weight"].T)
  np.testing.assert_array_equal(
      layers["mlp_post_norm"][1], 1 + named[f"{root}layers.1.post_feedforward_layernorm.weight"])
  np.testing.assert_array_equal(params["final_norm"], 1 + named[f"{root}norm.weight"])


@pytest.mark.parametrize("stored", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_every_stored_dtype_is_read(tmp_path, stored):
  named = {k: v.astype(stored) for k, v in tiny().items()}
  _, params = hf.load(write(tmp_path / "m", named), "bfloat16")
  assert params["layers"]["up"].dtype == jnp.bfloat16
  np.testing.assert_array_equal(
      params["layers"]["up"][0],
      named["model.layers.0.mlp.up_proj.weight"].T.astype(np.float32).astype(jnp.bfloat16))
  assert params["layers"]["attention_norm"].dtype == np.float32
  np.testing.assert_array_equal(
      params["layers"]["attention_norm"][0],
      1 + named["model.layers.0.input_layernorm.weight"].astype(np.float32))


def refused(folder) -> str:
  with pytest.raises(errors.UserError) as caught:
    hf.load(folder)
  assert "\n" not in str(caught.value) and str(folder) in str(caught.value)
  return str(caught.value)


def test_missing_and_left_over_are_named_together(tmp_path):
  named = tiny()
  named["model.layers.0.mlp.up.weight"] = named.pop("model.layers.0.mlp.up_proj.weight")
  named["model.norm.weight"] = np.zeros(9, np.float32)
  told = refused(write(tmp_path / "m", named))
  assert "1 tensor(s) missing: model.layers.0.mlp.up_proj.weight" in told
  assert "1 left over that the model has no place for: model.layers.0.mlp.up.weight" in told
  assert "model.norm.weight has shape (9,), expected (8,)" in told


def test_known_extras_are_ignored(tmp_path):
  """The tied head, and rotary buffers of old files."""
  named = tiny()
  extras = {"lm_head.weight": named["model.embed_tokens.weight"],
            "model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(2, np.float32)}
  _, params = hf.load(write(tmp_path / "m", named | extras))
  assert "head" not in params


def test_integers_are_no_weights(tmp_path):
  named = tiny() | {"model.layers.0.mlp.up_proj.weight": np.ones((12, 8), np.int32)}
  told = refused(write(tmp_path / "m", named))
  assert "model.layers.0.mlp.up_proj.weight has dtype I32" in told and "unquantised" in told


@pytest.mark.parametrize("keep", [0.99, 0.5, 0.1, 0.001])
def test_a_truncated_file_is_refused(tmp_path, keep):
  path = write(tmp_path / "m", tiny()) / "model.safetensors"
  path.write_bytes(path.read_bytes()[:int(keep * path.stat().st_size)])
  assert "model.safetensors: not a readable safetensors file" in refused(tmp_path / "m")


@pytest.mark.parametrize("header", [
    b"[]", b"not json", b'{"a": {}}', b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}',
    b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}',
    b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}',
    b'{"a": {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]}}',
    b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0.0, 4.0]}}',
    b'{"a": {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]}}',
    b'{"a": {"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]}}'])
def test_a_damaged_header_is_refused(tmp_path, header):
  path = write(tmp_path / "m", tiny()) / "model.safetensors"
  path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
  assert "model.safetensors: not a readable safetensors file" in refused(tmp_path / "m")


@pytest.mark.parametrize("root, head", [
    ("language_model.model.", "language_model.lm_head.weight"),
    ("model.language_model.", "lm_head.weight")])
def test_the_head_beside_a_vision_tower_is_its_own_where_the_top_says_so(tmp_path, root, head):
  """transformers decides by the top level; what text_config says of ties is not looked at."""
  named = tiny(root) | {head: np.random.default_rng(1).normal(size=(10, 8)).astype(np.float32)}
  fields = {"model_type": "gemma3", "tie_word_embeddings": False,
            "text_config": {**TINY, "tie_word_embeddings": True}}
  config, params = hf.load(write(tmp_path / "m", named, fields))
  assert not config.tied
  np.testing.assert_array_equal(params["head"], named[head].T)
  del named[head]
  assert "missing: lm_head.weight" in refused(write(tmp_path / "m", named, fields))
  fields["text_config"]["tie_word_embeddings"] = False
  del fields["tie_word_embeddings"]
  assert hf.load(write(tmp_path / "m", named, fields))[0].tied


def test_gemma3_does_not_cap_its_scores():
  """The field is in its config class; transformers' Gemma 3 reads it nowhere."""
  assert config_of({**PUBLISHED["gemma-3-1b"][1], "attn_logit_softcapping": 50.0}).softcap == 0


def test_a_single_file_goes_before_an_index(tmp_path):
  """As in transformers: save_pretrained over an older save leaves its index and shards there."""
  folder, named = write(tmp_path / "m", tiny()), tiny()
  old = {name: tensor + 1 for name, tensor in named.items()}
  safetensors.numpy.save_file(old, folder / "model-1.safetensors")
  (folder / "model.safetensors.index.json").write_text(
      json.dumps({"weight_map": dict.fromkeys(named, "model-1.safetensors")}))
  _, params = hf.load(folder)
  np.testing.assert_array_equal(params["embedding"], named["model.embed_tokens.weight"])


def test_what_lies_there_in_place_of_safetensors_is_named(tmp_path):
  folder = write(tmp_path / "m", tiny())
  (folder / "model.safetensors").unlink()
  assert "no weights: get model.safetensors" in refused(folder)
  (folder / "pytorch_model.bin").write_bytes(b"")
  told = refused(folder)
  assert "found pytorch_model.bin" in told and "save_pretrained" in told
  (folder / "pytorch_model.bin").rename(folder / "model-00001-of-2.safetensors")
  assert "found model-00001-of-2.safetensors: get model.safetensors.index.json" in refused(folder)
  (folder / "model.safetensors").write_text(
      "version https://git-lfs.github.com/spec/v1\noid sha256:52ad\nsize 8792578462\n")
  assert "model.safetensors is a git-lfs pointer" in refused(folder)


@pytest.mark.parametrize("file", ["../m2/model.safetensors", "/etc/passwd", "..", "a/b", 3, None])
def test_an_index_names_files_of_its_folder(tmp_path, file):
  folder = write(tmp_path / "m", tiny())
  (folder / "model.safetensors").rename(tmp_path / "elsewhere")
  (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": file}}))
  told = refused(folder)
  assert "not a readable index of shards" in told and repr(file) in told


@pytest.mark.parametrize("changes, words", [
    ({"num_hidden_layers": 1 << 31}, "num_hidden_layers is 2147483648, expected a whole number"),
    ({"num_attention_heads": 0}, "num_attention_heads is 0, expected a whole number"),
    ({"hidden_size": 10 ** 400}, "hidden_size is 1000"),
    ({"head_dim": 2.5}, "head_dim is 2.5, expected a whole number"),
    ({"vocab_size": -1}, "vocab_size is -1, expected a whole number"),
    ({"query_pre_attn_scalar": 0}, "query_pre_attn_scalar is 0"),
    ({"query_pre_attn_scalar": -4}, "query_pre_attn_scalar is -4"),
    ({"sliding_window": 1e400}, "sliding_window"),
    ({"rope_scaling": "linear"}, "config.json"), ({"rope_parameters": [1]}, "config.json"),
    ({"layer_types": 3}, "config.json"), ({"layer_types": ["sliding_attention"]}, "layer_types"),
    ({"sliding_window_pattern": -1}, "sliding_window_pattern"),
    ({"num_key_value_heads": 3}, "num_key_value_heads is 3")])
def test_sizes_that_no_model_has_are_refused_at_once(tmp_path, changes, words):
  assert words in refused(write(tmp_path / "m", tiny(), {**TINY, **changes}))


def test_json_too_deep_to_read_is_refused(tmp_path):
  folder, deep = write(tmp_path / "m", tiny()), "[" * 100_000
  (folder / "config.json").write_text(deep)
  assert "no readable config" in refused(folder)
  write(folder, tiny())
  (folder / "model.safetensors").write_bytes(
      len(deep).to_bytes(8, "little") + deep.encode())
  assert "not a readable safetensors file" in refused(folder)
  (folder / "model.safetensors").unlink()
  (folder / "model.safetensors.index.json").write_text(deep)
  assert "not a readable index of shards" in refused(folder)


def test_a_missing_shard_and_an_index_without_files_are_named(tmp_path):
  folder, named = write(tmp_path / "m", tiny()), tiny()
  (folder / "model.safetensors").rename(folder / "model-1.safetensors")
  index = folder / "model.safetensors.index.json"
  index.write_text(json.dumps({"weight_map": {
      **dict.fromkeys(named, "model-1.safetensors"), "model.norm.weight": "model-2.safetensors"}}))
  assert "model-2.safetensors: not a readable safetensors file (FileNotFound" in refused(folder)
  for damaged in ("[]", '{"weight_map": []}', "{}", "{"):
    index.write_text(damaged)
    assert "not a readable index of shards" in refused(folder)
