"""Models from folders: what is there, what is refused, and what loading may change."""
import dataclasses
import json
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from jax.sharding import AxisType

from ilm_jax import errors
from ilm_jax.models import decoder, language_model, products, t5
from ilm_jax.runtime import axes
from ilm_jax.weights import hf, int8, load, own

CONFIG = decoder.DecoderConfig(num_layers=2, width=16, num_heads=4, num_kv_heads=2, head_dim=4,
                               mlp_width=24, vocab_size=30, tied=False)
HF = {"model_type": "llama", "num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 4,
      "num_key_value_heads": 2, "intermediate_size": 24, "vocab_size": 30, "rms_norm_eps": 1e-5,
      "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": False}


def mesh(*sizes):
  return jax.make_mesh(sizes, axes.MESH_AXES, axis_types=(AxisType.Auto,) * 3,
                       devices=jax.devices()[:int(np.prod(sizes))])


def hugging_face(folder, shards=1, **changes):
  """A Llama folder of `CONFIG`, its parameters, in one file or in shards with an index."""
  ours = jax.tree.map(np.asarray, language_model.init(CONFIG, 1))
  layers = ours["layers"]
  tensors = {"model.embed_tokens.weight": ours["embedding"], "lm_head.weight": ours["head"].T,
             "model.norm.weight": ours["final_norm"]}
  names = {"query": "self_attn.q_proj", "key": "self_attn.k_proj", "value": "self_attn.v_proj",
           "out": "self_attn.o_proj", "gate": "mlp.gate_proj", "up": "mlp.up_proj",
           "down": "mlp.down_proj"}
  for n in range(2):
    for k, name in names.items():
      tensors[f"model.layers.{n}.{name}.weight"] = layers[k][n].T
    tensors[f"model.layers.{n}.input_layernorm.weight"] = layers["attention_norm"][n]
    tensors[f"model.layers.{n}.post_attention_layernorm.weight"] = layers["mlp_norm"][n]
  (folder / "config.json").write_text(json.dumps({**HF, **changes}))
  keys = sorted(tensors)
  parts = {f"model-{s}.safetensors" if shards > 1 else "model.safetensors": keys[s::shards]
           for s in range(shards)}
  for file, part in parts.items():
    safetensors.numpy.save_file({k: np.ascontiguousarray(tensors[k]) for k in part}, folder / file)
  if shards > 1:
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {k: file for file, part in parts.items() for k in part}}))
  return ours


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("on", [None, (2, 2, 2)])
def test_every_tensor_finds_its_place(tmp_path, shards, on):
  """And on a mesh it lies as axes.PARAMETER_AXES says."""
  want = hugging_face(tmp_path, shards)
  where = on and mesh(*on)
  config, got = load.language_model(tmp_path, mesh=where)
  assert config == CONFIG
  jax.tree.map(np.testing.assert_array_equal, got, want)
  if where:
    shardings = axes.param_sharding(where, language_model.abstract_params(config))
    assert all(jax.tree.leaves(jax.tree.map(
        lambda x, s: x.sharding.is_equivalent_to(s, x.ndim), got, shardings)))
    assert not got["layers"]["up"].sharding.is_fully_replicated


def refused(folder, **how) -> str:
  with pytest.raises(errors.UserError) as caught:
    load.language_model(folder, **how)
  assert "\n" not in str(caught.value) and str(folder) in str(caught.value)
  return str(caught.value)


def test_bad_folders_are_refused(tmp_path):
  assert "no language model found" in refused(tmp_path)
  hugging_face(tmp_path, 2)
  file = tmp_path / "model-1.safetensors"
  whole = file.read_bytes()
  file.write_bytes(whole[:-10])
  assert "model-1.safetensors: not a readable safetensors file" in refused(tmp_path)
  file.unlink()
  assert "model-1.safetensors: not a readable safetensors file" in refused(tmp_path)
  file.write_bytes(whole)
  (tmp_path / "model.safetensors.index.json").write_text("{")
  assert "not a readable index" in refused(tmp_path)
  (tmp_path / "config.json").write_text("[")
  (tmp_path / "model.safetensors.index.json").unlink()
  (tmp_path / "model.safetensors").write_bytes(whole)
  assert "no readable config" in refused(tmp_path)


@pytest.mark.parametrize("changes, words", [
    ({"model_type": "bloom"}, "model_type is 'bloom', expected one of cohere, gemma"),
    ({"attention_bias": True}, "attention_bias is True, expected False"),
    ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "rope type is 'yarn'"),
    ({"model_type": ["llama"]}, "model_type is .*, expected one of"),
    ({"model_type": "gemma3", "text_config": 3}, "model_type is 'gemma3', expected one of"),
    ({"hidden_act": "xielu"}, "hidden_act is 'xielu'"),
    ({"hidden_size": None}, "hidden_size is None, expected a whole number from 1"),
    ({"num_hidden_layers": 1}, "left over.*model.layers.1"),
    ({"num_hidden_layers": 3}, "missing.*model.layers.2"),
    ({"intermediate_size": 25}, r"shape \(24, 16\), expected \(25, 16\)"),
])
def test_configs_that_do_not_fit_are_refused(tmp_path, changes, words):
  hugging_face(tmp_path, **changes)
  assert re.search(words, refused(tmp_path))


@pytest.mark.parametrize("config", [CONFIG, t5.T5Config(
    num_layers=2, num_encoder_layers=1, width=16, num_heads=2, head_dim=4, mlp_width=24,
    vocab_size=30), dataclasses.replace(CONFIG, local_layers=(True, False), window=3)])
def test_our_own_layout_round_trips(tmp_path, config):
  want = language_model.init(config, 0)
  own.save(tmp_path / "m", config, want)
  got_config, got = load.language_model(tmp_path / "m", mesh=mesh(1, 2, 2))
  assert got_config == config
  assert load.encodes(tmp_path / "m") == isinstance(config, t5.T5Config)
  jax.tree.map(np.testing.assert_array_equal, got, want)
  with pytest.raises(errors.UserError, match="holds a model already"):
    own.save(tmp_path / "m", config, want)
  described = json.loads((tmp_path / "m" / "model.json").read_text())
  (tmp_path / "m" / "model.json").write_text(json.dumps({**described, "mlp_width": 25}))
  assert "is not the model of model.json" in refused(tmp_path / "m")


@pytest.mark.parametrize("field, value", [
    ("num_layers", 1 << 31), ("num_layers", 0), ("num_heads", 0), ("head_dim", -4), ("width", "16"),
    ("mlp_width", 2.5), ("vocab_size", None), ("num_kv_heads", 3), ("local_layers", 3),
    ("local_layers", [True]), ("rope_scaling", 3), ("rope_base", "far"), ("kind", ["t5"])])
def test_a_description_that_fits_no_model_is_refused(tmp_path, field, value):
  own.save(tmp_path / "m", CONFIG, language_model.init(CONFIG, 0))
  path = tmp_path / "m" / "model.json"
  path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
  assert "model.json" in refused(tmp_path / "m")
  path.write_text("[" * 100_000)
  assert "not a readable description" in refused(tmp_path / "m")


@pytest.mark.parametrize("config", [
    CONFIG, dataclasses.replace(CONFIG, tied=True, gated=False),
    t5.T5Config(num_layers=2, num_encoder_layers=1, width=16, num_heads=2, head_dim=4, mlp_width=24,
                vocab_size=30)])
def test_int8_is_the_rounded_model(config):
  """Half a step off at most, and the int8 forward is that of the weights it stands for."""
  params = language_model.init(config, 4)
  small, tree = int8.quantise(config, params)
  want = language_model.abstract_params(small)
  assert jax.tree.map(lambda x: (x.shape, x.dtype), tree) == jax.tree.map(
      lambda x: (x.shape, x.dtype), want)

  def widen(ints, wide):
    found = {}
    for name, value in wide.items():
      if isinstance(value, dict):
        found[name] = widen(ints[name], value)
      elif f"{name}_scale" in ints:
        axis = {"embedding": -1, "head": 0}.get(name, -2)
        scale = jnp.expand_dims(ints[f"{name}_scale"], axis)
        found[name] = ints[name] * scale
        assert (jnp.abs(found[name] - value) <= 0.5001 * scale).all()
      else:
        found[name] = value
    return found

  wide = widen(tree, params)
  tokens = jnp.array([[3, 9, 29, 4]])
  batch = {"position": jnp.arange(4)[None], "segment": jnp.ones((1, 4), int),
           "prefix": jnp.zeros((1, 4), bool), "target_at": jnp.arange(4)[None], "targets": tokens,
           "target_position": jnp.arange(4)[None], "target_segment": jnp.ones((1, 4), int)}

  def logits(config, params):
    model = language_model.bind(config, params)
    return model.logits(model.target_hidden(model.embed(tokens), batch))

  np.testing.assert_allclose(logits(small, tree), logits(config, wide), atol=2e-4)
  assert np.abs(logits(small, tree) - logits(config, params)).max() > 1e-4


def test_int8_from_a_folder_is_rounded_as_it_is_read(tmp_path, monkeypatch):
  hugging_face(tmp_path)
  want = int8.quantise(*load.language_model(tmp_path))[1]
  monkeypatch.setattr(int8, "quantise", None)        # needs the whole model in float32
  config, params = load.language_model(tmp_path, dtype="int8", mesh=mesh(1, 1, 1))
  assert config.int8 and params["layers"]["up"].dtype == jnp.int8
  jax.tree.map(np.testing.assert_array_equal, params, want)


@pytest.mark.parametrize("at", [0, 999_999, 1_999_999])
def test_models_of_equal_sizes_have_other_fingerprints(tmp_path, at):
  """A fine-tuned model differs in all blocks; a bit at the ends is enough."""
  weights = np.zeros(2_000_000, np.uint8)
  (tmp_path / "model").write_bytes(weights.tobytes())
  before = load.fingerprint(tmp_path)
  weights[at:at + 40_000] = 1
  (tmp_path / "model").write_bytes(weights.tobytes())
  assert load.fingerprint(tmp_path) != before


def test_added_words_follow_the_tokenizers(tmp_path):
  """A table of 30 rows, a tokenizer of 28: two rows are cut off, new words start near the mean."""
  want = hugging_face(tmp_path)
  config, params = load.language_model(tmp_path, new_tokens=3, vocabulary=28)
  assert (config.vocab_size, config.new_tokens) == (28, 3)
  assert jax.tree.map(lambda x: x.shape, params) == jax.tree.map(
      lambda x: x.shape, language_model.abstract_params(config))
  np.testing.assert_array_equal(params["embedding"], want["embedding"][:28])
  np.testing.assert_array_equal(params["head"], want["head"][:, :28])
  off = params["new_embedding"] - want["embedding"][:28].mean(0)[None]
  assert 0 < jnp.abs(off).max() < want["embedding"].std()
  with pytest.raises(errors.UserError, match="tokenizer of another model"):
    load.language_model(tmp_path, new_tokens=3, vocabulary=31)


def test_bfloat16_keeps_norms_wide(tmp_path):
  hugging_face(tmp_path)
  _, params = hf.load(tmp_path, "bfloat16")
  assert params["layers"]["up"].dtype == jnp.bfloat16
  assert params["layers"]["mlp_norm"].dtype == np.float32


def test_whole_words_say_nothing_at_first_and_suit_a_t5_alone(tmp_path):
  config = t5.T5Config(num_layers=1, num_encoder_layers=1, width=8, num_heads=2, head_dim=4,
                       mlp_width=8, vocab_size=9)
  before = language_model.init(config, 0)
  after_config, after = load.adapt(config, before, whole_words=5, remat="full")
  assert (after_config.whole_words, after_config.remat) == (5, "full")
  batch = {"tokens": np.array([[3, 4]]), "word": np.array([[1, 2]])}
  model = language_model.bind(after_config, after)
  np.testing.assert_array_equal(language_model.embed_prompt(model, batch),
                                language_model.bind(config, before).embed(batch["tokens"]))
  moved = {**after, "whole_word": np.arange(40, dtype=np.float32).reshape(5, 8)}
  got = language_model.embed_prompt(language_model.bind(after_config, moved), batch)
  np.testing.assert_allclose(got - model.embed(batch["tokens"]), moved["whole_word"][None, 1:3])
  with pytest.raises(errors.UserError, match="whole_words=.* with a decoder"):
    load.adapt(CONFIG, {}, whole_words=5)
  with pytest.raises(errors.UserError, match="prefix_lm=True with a T5"):
    load.adapt(config, {}, prefix_lm=True)
  assert load.adapt(CONFIG, {}, prefix_lm=True)[0].prefix_lm


def test_low_rank_updates_say_nothing_at_first_and_are_those_of_merged_kernels():
  before = language_model.init(CONFIG, 0)
  config, after = load.adapt(CONFIG, before, lora_rank=3, seed=1)
  assert config.lora_rank == 3
  frozen, trained = language_model.split_trained(after, "lora")
  assert trained.keys() == {"lora"} and frozen.keys() == before.keys()
  embeds = np.random.default_rng(0).normal(size=(1, 4, CONFIG.width)).astype(np.float32)

  def hidden(config, params):
    place = np.arange(4)[None]
    return language_model.bind(config, params).hidden(embeds, place, np.ones_like(place))

  np.testing.assert_array_equal(hidden(config, after), hidden(CONFIG, before))
  rng, merged = np.random.default_rng(1), dict(before["layers"])
  lora = {name: np.asarray(x) if name.endswith("_a") else rng.normal(size=x.shape, scale=0.1)
          for name, x in after["lora"].items()}
  for name in ("query", "key", "value", "out", "gate", "up", "down"):
    merged[name] = merged[name] + lora[f"{name}_lora_a"] @ lora[f"{name}_lora_b"]
  moved = hidden(config, {**after, "lora": jax.tree.map(jnp.float32, lora)})
  np.testing.assert_allclose(moved, hidden(CONFIG, {**before, "layers": merged}), atol=2e-4)
  assert np.abs(moved - hidden(CONFIG, before)).max() > 0.05
  with pytest.raises(errors.UserError, match="lora_rank=2 with a T5"):
    load.adapt(t5.T5Config(num_layers=1, num_encoder_layers=1, width=8, num_heads=2, head_dim=4,
                           mlp_width=8, vocab_size=9), {}, lora_rank=2)


def test_frozen_kernels_are_packed_on_a_cpu_alone():
  of_tpu = types.SimpleNamespace(devices=np.array([types.SimpleNamespace(platform="tpu")]),
                                 is_multi_process=False)
  config = decoder.DecoderConfig(num_layers=1, width=4, num_heads=1, num_kv_heads=1, head_dim=4,
                                 mlp_width=4, vocab_size=4)
  params = {"layers": {"up": jnp.ones((1, 4, 4), jnp.bfloat16)}}
  for where, frozen, packed in ((mesh(1, 1, 1), True, True), (mesh(1, 1, 1), False, False),
                                (of_tpu, True, False), (None, True, False)):
    up = load.adapt(config, params, where, frozen=frozen).params["layers"]["up"]
    assert up.dtype == (jnp.uint16 if packed else jnp.bfloat16)


def test_a_packed_model_is_saved_as_it_was(tmp_path):
  wide = dataclasses.replace(CONFIG, dtype="bfloat16")
  params = language_model.init(wide, 0)
  own.save(tmp_path / "m", wide, products.packed(params))
  jax.tree.map(np.testing.assert_array_equal, own.load(tmp_path / "m", "bfloat16")[1], params)
