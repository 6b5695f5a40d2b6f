"""GGUF: complete name maps, damage told in one line, and the rotary trap on the real weights."""
import gguf
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.precision import PARAGRAPH
from ilm_jax import errors
from ilm_jax.assets import pinned
from ilm_jax.data import tokenizer_files
from ilm_jax.models import decoder, language_model
from ilm_jax.weights import gguf as reader
from ilm_jax.weights import stream

HEADS, GROUPS, HEAD_DIM, WIDTH, MLP, VOCAB, LAYERS = 6, 2, 4, 32, 64, 40, 2



def tensors() -> dict[str, np.ndarray]:
  """Random tensors of a tiny decoder under GGUF's names, [out, in]."""
  rng = np.random.default_rng(0)
  shapes = {"token_embd.weight": (VOCAB, WIDTH), "output_norm.weight": (WIDTH,)}
  for n in range(LAYERS):
    shapes |= {f"blk.{n}.{name}.weight": shape for name, shape in {
        "attn_norm": (WIDTH,), "ffn_norm": (WIDTH,), "attn_q": (HEADS * HEAD_DIM, WIDTH),
        "attn_k": (GROUPS * HEAD_DIM, WIDTH), "attn_v": (GROUPS * HEAD_DIM, WIDTH),
        "attn_output": (WIDTH, HEADS * HEAD_DIM), "ffn_gate": (MLP, WIDTH),
        "ffn_up": (MLP, WIDTH), "ffn_down": (WIDTH, MLP)}.items()}
  return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def write(path, named, *, architecture="llama", scaling=None, quantise=()):
  writer = gguf.GGUFWriter(path, architecture)
  writer.add_block_count(LAYERS)
  writer.add_embedding_length(WIDTH)
  writer.add_feed_forward_length(MLP)
  writer.add_head_count(HEADS)
  writer.add_head_count_kv(GROUPS)
  writer.add_key_length(HEAD_DIM)
  writer.add_rope_dimension_count(HEAD_DIM)
  writer.add_rope_freq_base(77.0)
  writer.add_layer_norm_rms_eps(1e-5)
  if scaling:
    writer.add_rope_scaling_type(scaling)
  for name, tensor in named.items():
    if name in quantise:
      kind = gguf.GGMLQuantizationType.Q8_0
      writer.add_tensor(name, gguf.quants.quantize(tensor, kind), raw_dtype=kind)
    else:
      writer.add_tensor(name, tensor)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return path


def test_every_tensor_finds_its_place(tmp_path):
  named = tensors()
  config, params = reader.load(write(tmp_path / "m.gguf", named))
  assert config == decoder.DecoderConfig(
      num_layers=LAYERS, width=WIDTH, num_heads=HEADS, num_kv_heads=GROUPS, head_dim=HEAD_DIM,
      mlp_width=MLP, vocab_size=VOCAB, rope_base=77.0, norm_eps=config.norm_eps)
  assert config.norm_eps == pytest.approx(1e-5)
  assert jax.tree.map(np.shape, params) == jax.tree.map(
      lambda x: x.shape, language_model.abstract_params(config))
  layers = params["layers"]
  np.testing.assert_array_equal(layers["down"][1], named["blk.1.ffn_down.weight"].T)
  np.testing.assert_array_equal(layers["value"][0], named["blk.0.attn_v.weight"].T)
  # Rows 0 2 1 3 of each head: interleaved (0, 1), (2, 3) become half-split (0, 2), (1, 3).
  rows = [4 * head + channel for head in range(GROUPS) for channel in (0, 2, 1, 3)]
  np.testing.assert_array_equal(layers["key"][1], named["blk.1.attn_k.weight"][rows].T)


def test_half_split_rotation_equals_interleaved_rotation():
  """Turning pairs (2j, 2j+1) of the stored rows = turning (j, j+K/2) of ours, up to order."""
  rows = np.random.default_rng(1).normal(size=(8, 5))
  order = stream.half_split(8).read(np.arange(8.0)[:, None])[0].astype(int)
  angle = 2.0 * 10.0 ** (-np.arange(4) / 4)
  pairs = rows.reshape(4, 2, 5)
  cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
  turned = np.stack([pairs[:, 0] * cos - pairs[:, 1] * sin,
                     pairs[:, 1] * cos + pairs[:, 0] * sin], axis=1).reshape(8, 5)
  a, b = np.split(stream.half_split(8).read(rows).T, 2)
  np.testing.assert_allclose(np.concatenate([a * cos - b * sin, b * cos + a * sin]),
                             turned[order])


def test_an_own_head_and_quantised_tensors(tmp_path):
  named = tensors()
  named["output.weight"] = np.ones((VOCAB, WIDTH), np.float32) * np.arange(VOCAB)[:, None]
  path = write(tmp_path / "m.gguf", {k: v.astype(np.float32) for k, v in named.items()},
               quantise=("blk.0.ffn_up.weight",))
  config, params = reader.load(path, "bfloat16")
  assert not config.tied and params["head"].shape == (WIDTH, VOCAB)
  assert float(params["head"][3, 7]) == 7.0
  up = params["layers"]["up"][0].astype(np.float32)
  np.testing.assert_allclose(up, named["blk.0.ffn_up.weight"].T, atol=0.05)


def refused(path) -> str:
  with pytest.raises(errors.UserError) as caught:
    reader.load(path)
  assert "\n" not in str(caught.value) and str(path) in str(caught.value)
  return str(caught.value)


def test_a_missing_tensor_is_named(tmp_path):
  named = tensors()
  del named["blk.1.ffn_up.weight"]
  assert "1 tensor(s) missing: blk.1.ffn_up.weight" in refused(write(tmp_path / "m", named))


def test_a_left_over_tensor_is_named(tmp_path):
  named = tensors() | {"blk.0.attn_q.bias": np.zeros(HEADS * HEAD_DIM, np.float32)}
  assert "left over" in (told := refused(write(tmp_path / "m", named)))
  assert "blk.0.attn_q.bias" in told


def test_a_wrong_shape_is_told_with_the_right_one(tmp_path):
  named = tensors()
  named["blk.1.attn_k.weight"] = np.zeros((GROUPS * HEAD_DIM, WIDTH + 1), np.float32)
  assert "blk.1.attn_k.weight has shape (8, 33), expected (8, 32)" in refused(
      write(tmp_path / "m", named))


def test_another_architecture_or_rope_scaling_is_refused(tmp_path):
  assert "'gpt2', expected one of llama, qwen2" in refused(
      write(tmp_path / "a", tensors(), architecture="gpt2"))
  assert "rope scaling is 'yarn'" in refused(
      write(tmp_path / "b", tensors(), scaling=gguf.RopeScalingType.YARN))


@pytest.mark.parametrize("keep", [0.9, 0.2, 0.01])
def test_a_truncated_file_is_refused(tmp_path, keep):
  data = write(tmp_path / "m", tensors()).read_bytes()
  (tmp_path / "short").write_bytes(data[:int(keep * len(data))])
  assert "not a readable GGUF file" in refused(tmp_path / "short")


@pytest.mark.parametrize("content", [b"", b"not a model", b"GGUF" + b"\xff" * 400])
def test_garbage_is_refused(tmp_path, content):
  (tmp_path / "bad").write_bytes(content)
  assert "not a readable GGUF file" in refused(tmp_path / "bad")


def test_an_absent_file_is_refused(tmp_path):
  assert "nowhere" in refused(tmp_path / "nowhere")


def perplexity(config, params, ids) -> float:
  ids = jnp.asarray([ids])

  @jax.jit
  def nll(params):
    model = language_model.bind(config, params)
    hidden = model.hidden(model.embed(ids), jnp.arange(ids.size)[None], jnp.ones_like(ids))
    return model.token_nll(hidden[:, :-1], ids[:, 1:])[0].mean()

  return float(jnp.exp(nll(params)))


def test_rotary_layout_on_the_real_weights():
  """Measured 9.5 with rows put back, 89 with rows as stored."""
  try:
    path = pinned.only("smollm2-135m-instruct")
  except errors.UserError as e:
    pytest.skip(f"needs the weights of SmolLM2-135M: {e}")
  ids = tokenizer_files.from_gguf(path).encode(PARAGRAPH)
  config, params = reader.load(path)
  assert 8 < perplexity(config, params, ids) < 11
  wrong = dict(params["layers"])
  for name in ("query", "key"):  # back to rows as stored
    heads = wrong[name].reshape(config.num_layers, config.width, -1, 2, config.head_dim // 2)
    wrong[name] = heads.swapaxes(-1, -2).reshape(wrong[name].shape)
  assert perplexity(config, params | {"layers": wrong}, ids) > 50
