"""Decoders as Hugging Face folders: every published config comes back as it was read."""
import dataclasses
import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from test_hf import PUBLISHED

from ilm_jax import errors
from ilm_jax.models import decoder, language_model, products
from ilm_jax.weights import hf, hf_decoders, hf_folder, int8, tensor_file

SMALL = decoder.DecoderConfig(num_layers=2, width=16, num_heads=4, num_kv_heads=2, head_dim=4,
                              mlp_width=24, vocab_size=30, tied=False)


@pytest.mark.parametrize("name", [
    name for name, (_, fields) in PUBLISHED.items()
    if fields.get("model_type") in hf_decoders.FAMILIES and fields["model_type"] != "cohere"])
def test_published_configs_are_written_as_they_were_read(name):
  fields = PUBLISHED[name][1]
  config = hf_decoders.FAMILIES[fields["model_type"]][0](fields, "bfloat16")
  config = dataclasses.replace(config, remat="none", unroll=2)
  written = json.loads(json.dumps(hf_folder.fields(config)))
  again = hf_decoders.FAMILIES[written["model_type"]][0](written, "bfloat16")
  assert again == dataclasses.replace(config, remat="dots", unroll=1)
  if fields["model_type"] != "mistral":         # without a window it is a Llama
    assert written["model_type"] == fields["model_type"]


@pytest.mark.parametrize("change", [
    {"prefix_lm": True}, {"parallel": True}, {"relative_buckets": 8}, {"logit_scale": 0.5}])
def test_what_no_family_computes_is_refused(change):
  with pytest.raises(errors.UserError, match="without the folder hf/") as caught:
    hf_folder.fields(dataclasses.replace(SMALL, **change))
  assert "\n" not in str(caught.value)


def test_how_a_decoder_runs_is_no_part_of_its_config():
  runs = dataclasses.replace(SMALL, remat="full", unroll=2, attention="auto")
  assert hf_folder.fields(runs) == hf_folder.fields(SMALL)


@pytest.mark.parametrize("change", [{}, {"post_norms": True, "norm_eps": 1e-6, "qk_norm": True,
                                         "activation": "gelu_tanh", "embed_scale": 4.0,
                                         "local_layers": (True, False), "window": 3}])
def test_a_written_folder_is_read_as_the_same_model(tmp_path, change):
  config = dataclasses.replace(SMALL, scale=0.5 if change else 0.0,
                               local_rope_base=99.0 if change else 0.0, **change)
  params = jax.tree.map(np.asarray, language_model.init(config, 0))
  params["final_norm"] = np.linspace(-1, 2, 16, dtype=np.float32)
  stated = hf_folder.fields(config)
  (tmp_path / "config.json").write_text(json.dumps(stated))
  with open(tmp_path / "model.safetensors", "wb") as file:
    tensor_file.write(file, hf_folder.tensors(config, params, stated["model_type"]), {})
  got_config, got = hf.load(tmp_path)
  assert got_config == config
  assert jax.tree.all(jax.tree.map(lambda a, b: np.allclose(a, b, atol=1e-6), got, params))


def logits(config, params, first):
  params = jax.tree.map(jnp.asarray, params)
  model = language_model.bind(config, params)
  at = jnp.arange(5)[None]
  return np.asarray(model.logits(model.hidden(model.embed(at + first), at, at * 0)))


def test_updates_added_words_and_int8_are_written_into_the_kernels():
  config = dataclasses.replace(SMALL, new_tokens=3, lora_rank=2)
  params = language_model.init(config, 0)
  params["lora"] = jax.tree.map(lambda x: x + 0.1, params["lora"])
  got = hf_folder.plain(config, params)
  assert got[0] == dataclasses.replace(SMALL, vocab_size=33) and "lora" not in got[1]
  assert got[1]["embedding"].shape == (33, 16)
  np.testing.assert_allclose(logits(*got, 28), logits(config, params, 28), atol=1e-5)
  few = int8.quantise(SMALL, language_model.init(SMALL, 1))
  np.testing.assert_allclose(logits(*hf_folder.plain(*few), 9), logits(*few, 9), atol=1e-4)
  wide = dataclasses.replace(SMALL, dtype="bfloat16")
  params = language_model.init(wide, 2)
  got = hf_folder.plain(wide, products.packed(params))
  assert got[0] == wide and jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), got[1], params))
  with pytest.raises(errors.UserError, match="generates only indices"):
    hf_folder.plain(dataclasses.replace(config, index_only=True), {})


def test_files_can_be_read_by_the_package_safetensors():
  file = io.BytesIO()
  tensor_file.write(file, [tensor_file.of("a", np.ones((2, 3), np.float16)),
                           tensor_file.of("b", np.arange(3)),
                           tensor_file.of("none", np.zeros((0, 2), np.int32))], {"format": "pt"})
  read = safetensors.numpy.load(file.getvalue())
  assert read["a"].shape == (2, 3) and read["a"].dtype == np.float16 and read["a"].all()
  assert read["b"].tolist() == [0, 1, 2] and read["none"].shape == (0, 2)
  parts = tensor_file.Entry("a", (3, 2), np.dtype(np.float32), lambda: iter(
      [np.ones((2, 2)), np.zeros((1, 2))]))
  whole, pieces = io.BytesIO(), io.BytesIO()
  tensor_file.write(whole, [tensor_file.of("a", np.float32([[1, 1], [1, 1], [0, 0]]))], {})
  tensor_file.write(pieces, [parts], {})
  assert whole.getvalue() == pieces.getvalue()
  with pytest.raises(ValueError, match="tensor a has 3 rows, expected 4"):
    tensor_file.write(io.BytesIO(), [parts._replace(shape=(4, 2))], {})
  wrong = tensor_file.Entry("a", (2,), np.dtype(np.float32), lambda: np.ones(3))
  with pytest.raises(ValueError, match="has shape .*, expected"):
    tensor_file.write(io.BytesIO(), [wrong], {})
