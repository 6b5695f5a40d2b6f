"""T5X checkpoints as T5X wrote them, in both layouts, and their gin files."""
import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ilm_jax import errors
from ilm_jax.decode import generate, prompt
from ilm_jax.models import decoder, language_model, t5
from ilm_jax.weights import t5x, t5x_gin

FIXTURES = pathlib.Path(__file__).parents[2] / "shared" / "fixtures"
needs_fixtures = pytest.mark.skipif(
    not FIXTURES.exists(), reason=f"needs the T5X checkpoints of {FIXTURES}")
GIN = """
# A model like those T5X ships.
from __gin__ import dynamic_registration
include 'sizes.gin'
include 'somewhere/of/theirs.gin'
NUM_HEADS = 2
network.Transformer.config = @network.T5Config()
network.T5Config:
  vocab_size = 64
  emb_dim = 16
  num_heads = %NUM_HEADS
  num_encoder_layers = %LAYERS
  num_decoder_layers = %LAYERS
  head_dim = 6
  mlp_dim = 20
  mlp_activations = ('gelu', 'linear')
  logits_via_embedding = False
"""
CASES = [(n, layout) for n in ("t5x_tiny", "t5x_tiny_scan") for layout in ("legacy", "orbax")]


def gin(folder, layers: int) -> pathlib.Path:
  (folder / "sizes.gin").write_text(f"LAYERS = {layers}\n")
  (folder / "model.gin").write_text(GIN)
  return folder / "model.gin"


def loaded(folder, name, layout):
  layers = 3 if name.endswith("scan") else 2
  return t5x.load(FIXTURES / name / layout, gin(folder, layers))


@needs_fixtures
@pytest.mark.parametrize("name, layout", CASES)
def test_equals_t5x(tmp_path, name, layout):
  """Encoder, logits, loss and greedy text as T5X computed them."""
  config, params = loaded(tmp_path, name, layout)
  assert config.bias_per_layer == name.endswith("scan")
  assert t5x.is_encoder_decoder(FIXTURES / name / layout, gin(tmp_path, config.num_layers))
  model = language_model.bind(config, jax.tree.map(jnp.asarray, params))
  want = np.load(FIXTURES / name / "reference.npz")
  asked, targets = want["encoder_input_tokens"], want["decoder_target_tokens"]
  position = jnp.broadcast_to(jnp.arange(asked.shape[1]), asked.shape)
  segment, real = jnp.asarray(asked > 0, int), targets > 0
  encoded = model.encode(model.embed(asked), position, segment)
  np.testing.assert_allclose(np.asarray(encoded)[asked > 0], want["encoded"][asked > 0], atol=1e-4)
  batch = {"position": position, "segment": segment, "targets": jnp.asarray(targets),
           "target_position": jnp.broadcast_to(jnp.arange(targets.shape[1]), targets.shape),
           "target_segment": jnp.asarray(real, int)}
  hidden = model.target_hidden(model.embed(asked), batch)
  assert np.abs(want["logits"]).max() > 5
  np.testing.assert_allclose(np.asarray(model.logits(hidden))[real], want["logits"][real],
                             atol=1e-4)
  nll, _ = model.token_nll(hidden, jnp.asarray(targets))
  np.testing.assert_allclose(np.sum(np.where(real, nll, 0)), want["loss"], rtol=1e-5)
  tokens = want["greedy_tokens"][:, 0]
  said, _ = generate.generate(
      nnx.split(model)[0], params,
      prompt.Prompt(model.embed(asked), position, asked > 0), max_new=tokens.shape[1], eos_id=1)
  ended = np.cumsum(tokens == 1, axis=1) - (tokens == 1) > 0
  np.testing.assert_array_equal(np.where(ended, 1, tokens), said)


@needs_fixtures
def test_arrays_that_name_a_bucket_of_their_makers_are_found_beside_the_file(tmp_path):
  from flax import serialization
  shutil.copytree(FIXTURES / "t5x_tiny" / "legacy" / "checkpoint_1", tmp_path / "checkpoint_7")
  file = tmp_path / "checkpoint_7" / "checkpoint"
  tree = serialization.msgpack_restore(file.read_bytes())

  def elsewhere(node):
    for value in node.values():
      if isinstance(value, dict) and "driver" in value:
        name = value["kvstore"]["path"]
        value["kvstore"] = {"driver": "gs", "bucket": "t5x-dummy-bucket", "path": f"far/{name}"}
      elif isinstance(value, dict):
        elsewhere(value)

  elsewhere(tree["optimizer"]["target"])
  file.write_bytes(serialization.msgpack_serialize(tree))
  _, got = t5x.load(tmp_path, gin(tmp_path, 2))
  _, want = loaded(tmp_path, "t5x_tiny", "legacy")
  jax.tree.map(np.testing.assert_array_equal, got, want)


@needs_fixtures
def test_another_architecture_is_refused_with_both_sides(tmp_path):
  with pytest.raises(errors.UserError, match=r"left over.*layers_1"):
    t5x.load(FIXTURES / "t5x_tiny" / "legacy", gin(tmp_path, 1))
  with pytest.raises(errors.UserError, match=r"missing.*layers_2"):
    t5x.load(FIXTURES / "t5x_tiny" / "orbax", gin(tmp_path, 3))
  narrow = gin(tmp_path, 2)
  narrow.write_text(GIN.replace("mlp_dim = 20", "mlp_dim = 21"))
  with pytest.raises(errors.UserError, match=r"wi_0/kernel has shape \(16, 20\), expected \(16"):
    t5x.load(FIXTURES / "t5x_tiny" / "orbax", narrow)


@needs_fixtures
def test_damage_is_refused(tmp_path):
  shutil.copytree(FIXTURES / "t5x_tiny", tmp_path / "c")
  (tmp_path / "c/legacy/checkpoint_1/checkpoint").write_bytes(b"\x93junk")
  with pytest.raises(errors.UserError, match="not a readable T5X checkpoint"):
    t5x.load(tmp_path / "c/legacy", gin(tmp_path, 2))
  shutil.rmtree(tmp_path / "c/orbax/checkpoint_1/state/d")
  with pytest.raises(errors.UserError, match="cannot be read"):
    t5x.load(tmp_path / "c/orbax", gin(tmp_path, 2))


def test_a_folder_without_a_checkpoint_is_refused(tmp_path):
  with pytest.raises(errors.UserError, match=r"no checkpoint found: expected a T5X checkpoint"):
    t5x.load(tmp_path)
  (tmp_path / "checkpoint").write_bytes(b"")
  with pytest.raises(errors.UserError, match=r"no model.gin.*--config.lm.gin_file"):
    t5x.load(tmp_path)


def test_gin_macros_includes_and_what_is_missing(tmp_path):
  fields = t5x_gin.read(gin(tmp_path, 5))
  assert fields["num_heads"] == 2 and fields["num_encoder_layers"] == 5
  assert fields["mlp_activations"] == ("gelu", "linear")
  (tmp_path / "a.gin").write_text("network.T5Config.vocab_size = 8\n")
  with pytest.raises(errors.UserError, match=r"has no emb_dim, num_heads.*found \['vocab_size'\]"):
    t5x_gin.read(tmp_path / "a.gin")
  (tmp_path / "b.gin").write_text(GIN.replace("NUM_HEADS = 2\n", ""))
  with pytest.raises(errors.UserError, match="macro %NUM_HEADS is bound nowhere"):
    t5x_gin.read(tmp_path / "b.gin")
  (tmp_path / "c.gin").write_text("network.T5Config.vocab_size = = 8\n")
  with pytest.raises(errors.UserError, match=r"c.gin: not a readable gin file"):
    t5x_gin.read(tmp_path / "c.gin")


def test_fields_that_a_reader_does_not_need_may_be_unbound(tmp_path):
  """T5X's published gin files leave dropout to the run's file."""
  (tmp_path / "base.gin").write_text(
      "DROPOUT_RATE = %gin.REQUIRED\nLAYERS = 4\n" + GIN.replace("include", "#").replace(
          "  logits_via_embedding", "  dropout_rate = %DROPOUT_RATE\n  dtype = %NOWHERE\n"
          "  logits_via_embedding"))
  assert t5x_gin.read(tmp_path / "base.gin")["num_decoder_layers"] == 4


@pytest.mark.parametrize("change, words", [
    (("emb_dim = 16", "emb_dim = %gin.REQUIRED"), "field emb_dim: %gin.REQUIRED: bind it"),
    (("emb_dim = 16", "emb_dim = %A\nA = %B\nB = %A"), "field emb_dim: macro %A is bound to"),
    (("num_heads = %NUM_HEADS", "num_heads = 0"), "num_heads is 0, expected a whole number"),
    (("vocab_size = 64", "vocab_size = 'a'"), "vocab_size is 'a', expected a whole number"),
    (("num_encoder_layers = 1", f"num_encoder_layers = {1 << 31}"), "number from 1 to 10000"),
    (("mlp_activations = ('gelu', 'linear')", "mlp_activations = 3"), "mlp_activations is 3"),
    (("include 'sizes.gin'", "include 'model.gin'"), "includes itself"),
    (("vocab_size = 64", f"vocab_size = {'(' * 5000}"), "not a readable gin file"),
    (("# A model", "\xff"), "not a readable gin file"),
    (("head_dim = 6", "head_dim = 6\n  scale_attn_logits = True"), "scale_attn_logits is True"),
])
def test_gin_files_that_say_no_architecture_are_refused(tmp_path, change, words):
  text = GIN.replace("include 'somewhere/of/theirs.gin'", "").replace("%LAYERS", "1")
  assert change[0] in text
  (tmp_path / "sizes.gin").write_text("")
  (tmp_path / "model.gin").write_bytes(text.replace(*change).encode("latin-1"))
  with pytest.raises(errors.UserError, match=words) as caught:
    t5x_gin.read(tmp_path / "model.gin")
  assert "model.gin" in str(caught.value) and "\n" not in str(caught.value)


def inline(folder, flat: dict) -> None:
  """Writes a checkpoint in the msgpack layout, arrays inside the file."""
  from flax import serialization
  tree: dict = {}
  for name, value in flat.items():
    node = tree
    *path, last = name.split("/")
    for key in path:
      node = node.setdefault(key, {})
    node[last] = value
  (folder / "checkpoint").write_bytes(serialization.msgpack_serialize(
      {"version": 3, "optimizer": {"target": tree, "state": {}}}))


def test_the_checkpoint_of_another_model_is_refused_with_both_sides(tmp_path):
  gin(tmp_path, 2)
  inline(tmp_path, {"bias": np.ones(4, np.float32), "kernel": np.ones((4, 4), np.float32)})
  with pytest.raises(errors.UserError, match=r"missing: decoder/.*2 left over.*bias, kernel"):
    t5x.load(tmp_path)
  (tmp_path / "checkpoint").write_text("version https://git-lfs.github.com/spec/v1\n")
  with pytest.raises(errors.UserError, match="checkpoint is a git-lfs pointer"):
    t5x.load(tmp_path)
  # Stacked layers, more than the gin file says, and along an axis that the array lacks.
  scale = "decoder/decoder/pre_mlp_layer_norm/scale"
  inline(tmp_path, {scale: np.ones((4, 9), np.float32)})
  with pytest.raises(errors.UserError, match=rf"{scale} has shape \(4, 9\), expected 2 layers"):
    t5x.load(tmp_path)
  inline(tmp_path, {scale: np.ones(4, np.float32)})
  with pytest.raises(errors.UserError, match=rf"{scale} has shape \(4,\), expected 2 layers"):
    t5x.load(tmp_path)


@pytest.mark.parametrize("leaf", [
    {"driver": "zarr"}, {"driver": "zarr", "kvstore": {"path": 3}}, "text",
    {"driver": "zarr", "kvstore": {"driver": "file", "path": "../.."}},
    {"driver": "zarr", "kvstore": {"driver": "file", "path": ""}}])
def test_leaves_that_are_no_array_beside_the_file_are_refused(tmp_path, leaf):
  gin(tmp_path, 1)
  inline(tmp_path, {"decoder/logits_dense/kernel": leaf})
  with pytest.raises(errors.UserError, match=r"decoder/logits_dense/kernel") as caught:
    t5x.load(tmp_path)
  assert "\n" not in str(caught.value)


def test_orbax_names_stay_inside_the_checkpoint(tmp_path):
  gin(tmp_path, 1)
  state = tmp_path / "state"
  state.mkdir()
  for names, words in ((["target", "/../../elsewhere"], "elsewhere"), ([3], "not a readable Orbax"),
                       (["target"] * 2000, "cannot be read")):
    keys = [{"key": name} for name in names]
    (state / "_METADATA").write_text(json.dumps({"tree_metadata": {"a": {"key_metadata": keys}}}))
    with pytest.raises(errors.UserError, match=words):
      t5x.load(tmp_path)
  for damaged in ("[]", "[" * 100_000):
    (state / "_METADATA").write_text(damaged)
    with pytest.raises(errors.UserError, match="not a readable Orbax checkpoint"):
      t5x.load(tmp_path)


def test_a_decoder_only_checkpoint_round_trips(tmp_path):
  """Written by the names of T5X's decoder-only example, heads joined, in the inline layout."""
  config = decoder.DecoderConfig(
      num_layers=2, width=16, num_heads=2, num_kv_heads=2, head_dim=6, mlp_width=20, vocab_size=64,
      rope_base=0.0, scale=1.0, relative_buckets=32, activation="gelu_tanh", tied=False,
      norm_eps=1e-6)
  ours = jax.tree.map(np.asarray, language_model.init(config, 3))
  names = {"attention_norm": "pre_self_attention_layer_norm/scale", "up": "mlp/wi_1/kernel",
           "mlp_norm": "pre_mlp_layer_norm/scale", "gate": "mlp/wi_0/kernel",
           "down": "mlp/wo/kernel"}
  names |= {k: f"self_attention/{k}/kernel" for k in ("query", "key", "value", "out")}
  flat = {"decoder/token_embedder/embedding": ours["embedding"],
          "decoder/logits_dense/kernel": ours["head"],
          "decoder/decoder_norm/scale": ours["final_norm"],
          "decoder/relpos_bias/rel_embedding": ours["relative_bias"].T}
  flat |= {f"decoder/layers_{n}/{name}": ours["layers"][k][n]
           for n in range(2) for k, name in names.items()}
  inline(tmp_path, flat)
  text = GIN.replace("T5Config", "TransformerConfig").replace(
      "  num_encoder_layers = %LAYERS\n  num_decoder_layers = %LAYERS\n", "  num_layers = 2\n")
  (tmp_path / "model.gin").write_text(text)
  got_config, got = t5x.load(tmp_path)
  assert got_config == config and not isinstance(got_config, t5.T5Config)
  assert not t5x.is_encoder_decoder(tmp_path)
  jax.tree.map(np.testing.assert_array_equal, got, ours)
