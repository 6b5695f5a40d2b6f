"""The BERT encoder, its reader and sentence vectors, on tiny random weights; then the real ones."""
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

from ilm_jax import errors
from ilm_jax.assets import pinned
from ilm_jax.data import tokenizer_files
from ilm_jax.models import bert
from ilm_jax.weights import safetensors as reader

CONFIG = bert.BertConfig(num_layers=2, width=12, num_heads=3, mlp_width=20, vocab_size=30,
                         max_positions=40)
NAMES = {"query": "attention.self.query", "key": "attention.self.key",
         "value": "attention.self.value", "out": "attention.output.dense",
         "attention_norm": "attention.output.LayerNorm", "mlp_in": "intermediate.dense",
         "mlp_out": "output.dense", "mlp_norm": "output.LayerNorm"}


@pytest.fixture(scope="module")
def params():
  return nnx.to_pure_dict(nnx.state(bert.Bert(CONFIG, rngs=nnx.Rngs(0)), nnx.Param))


def published(params) -> dict[str, np.ndarray]:
  """The same parameters under the names and layouts of the Hub."""
  out = {"embeddings.position_ids": np.arange(40)[None],
         "embeddings.LayerNorm.weight": params["norm"]["scale"],
         "embeddings.LayerNorm.bias": params["norm"]["bias"]}
  for ours in ("word", "position"):
    out[f"embeddings.{ours}_embeddings.weight"] = params[ours]
  out["embeddings.token_type_embeddings.weight"] = params["type"]
  for n, layer in params["layers"].items():
    for ours, theirs in NAMES.items():
      for part, value in layer[ours].items():
        suffix = "bias" if part == "bias" else "weight"
        value = value.T if part == "kernel" else value
        out[f"encoder.layer.{n}.{theirs}.{suffix}"] = value
  return {name: np.ascontiguousarray(value) for name, value in out.items()}


def write(folder, named, **changed):
  sizes = {"num_hidden_layers": 2, "hidden_size": 12, "num_attention_heads": 3,
           "intermediate_size": 20, "vocab_size": 30, "max_position_embeddings": 40,
           "type_vocab_size": 2, "layer_norm_eps": 1e-12, "hidden_act": "gelu"}
  (folder / "config.json").write_text(json.dumps(sizes | changed))
  safetensors.numpy.save_file(named, folder / "model.safetensors")
  return folder


def test_reads_back_what_was_published(tmp_path, params):
  config, read = reader.load_bert(write(tmp_path, published(params)))
  assert config == CONFIG
  jax.tree.map(np.testing.assert_array_equal, read, params)


def refused(folder, where="model.safetensors") -> str:
  with pytest.raises(errors.UserError) as caught:
    reader.load_bert(folder)
  assert "\n" not in str(caught.value) and str(folder / where) in str(caught.value)
  return str(caught.value)


def test_what_does_not_fit_is_named(tmp_path, params):
  named = published(params)
  bias = named.pop("encoder.layer.1.output.dense.bias")
  told = refused(write(tmp_path, named))
  assert "1 tensor(s) missing: encoder.layer.1.output.dense.bias" in told
  named["encoder.layer.1.output.dense.bias"] = bias
  assert "left over" in refused(write(tmp_path, named | {"classifier.weight": bias}))
  named["embeddings.word_embeddings.weight"] = np.zeros((29, 12), np.float32)
  assert "shape (29, 12), expected (30, 12)" in refused(write(tmp_path, named))
  assert "'relu', expected 'gelu'" in refused(
      write(tmp_path, named, hidden_act="relu"), "config.json")


def test_damaged_files_are_refused(tmp_path, params):
  write(tmp_path, published(params))
  data = (tmp_path / "model.safetensors").read_bytes()
  (tmp_path / "model.safetensors").write_bytes(data[:len(data) // 2])
  assert "not a readable safetensors file" in refused(tmp_path)
  (tmp_path / "config.json").write_text("{}")
  assert "not a BERT config" in refused(tmp_path, "config.json")


def test_headers_that_no_encoder_has_are_refused(tmp_path, params):
  folder = write(tmp_path, published(params), num_hidden_layers=1 << 31)
  assert "num_hidden_layers is 2147483648" in refused(folder, "config.json")
  write(tmp_path, published(params), num_attention_heads=0)
  assert "num_attention_heads is 0" in refused(folder, "config.json")
  write(tmp_path, published(params), num_attention_heads=7)
  assert "no multiple of num_attention_heads 7" in refused(folder, "config.json")
  (folder / "config.json").write_text("[" * 100_000)
  assert "not a BERT config" in refused(folder, "config.json")
  write(tmp_path, published(params))
  (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
  assert "git-lfs pointer" in refused(folder, "model.safetensors")


def test_padding_changes_nothing(params):
  model = bert.bind(CONFIG, params)
  ids = jnp.asarray([[4, 9, 2, 7]])
  alone = model.hidden(ids, jnp.ones((1, 4), bool))
  padded = model.hidden(jnp.asarray([[4, 9, 2, 7, 11, 0]]), jnp.arange(6)[None] < 4)
  np.testing.assert_allclose(padded[:, :4], alone, atol=1e-5)


class Letters:
  """One token a letter; 1 opens, 2 closes."""

  def encode(self, text):
    return [1, *(3 + ord(c) % 27 for c in text), 2]


def test_sentence_vectors_keep_the_order_and_cut_the_tail(params):
  texts = ["a rather long text, far longer than the rest", "", "longer text"]
  got = bert.sentence_vectors(CONFIG, params, Letters(), texts, batch_size=2, max_length=24)
  run = jax.jit(bert.bind(CONFIG, params).hidden)
  for row, text in zip(got, texts):
    ids = Letters().encode(text)
    ids = ids if len(ids) <= 24 else ids[:23] + [2]
    hidden = run(jnp.asarray([ids]), jnp.ones((1, len(ids)), bool))
    mean = np.asarray(hidden[0]).mean(axis=0)
    np.testing.assert_allclose(row, mean / np.linalg.norm(mean), atol=1e-5)
  assert got.dtype == np.float32


def test_the_real_encoder_knows_what_is_alike():
  try:
    files = pinned.fetch("minilm-l6")
  except errors.UserError as e:
    pytest.skip(f"needs the weights of MiniLM-L6: {e}")
  config, params = reader.load_bert(files)
  cat, kitten, bond = bert.sentence_vectors(
      config, params, tokenizer_files.from_file(files["tokenizer.json"]),
      ["The cat sleeps on the sofa.", "A kitten is napping on the couch.", "Bond yields fell."])
  assert cat @ kitten > 0.6 and cat @ bond < 0.2
  assert cat @ cat == pytest.approx(1.0, abs=1e-5)
