"""Reads a BERT encoder (MiniLM) from the safetensors folder its publishers ship."""
import pathlib

import numpy as np
import safetensors
import safetensors.numpy

from ilm_jax import errors, files
from ilm_jax.models import bert
from ilm_jax.weights import trees

# Buffers and heads of the published model that are not needed for sentence vectors.
IGNORED = frozenset({"embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias"})

_SIZES = ("hidden_size", "num_attention_heads", "intermediate_size", "vocab_size",
          "max_position_embeddings", "type_vocab_size")
_LAYER = {
    "attention.self.query": "query", "attention.self.key": "key",
    "attention.self.value": "value", "attention.output.dense": "out",
    "attention.output.LayerNorm": "attention_norm", "intermediate.dense": "mlp_in",
    "output.dense": "mlp_out", "output.LayerNorm": "mlp_norm"}


def read_bert_config(path) -> bert.BertConfig:
  """BertConfig from a Hugging Face `config.json`; UserError if it is damaged or no BERT."""
  try:
    c = files.parse_json(pathlib.Path(path).read_text())
    trees.check_sizes(str(path), {f: c[f] for f in _SIZES},
                      {"num_hidden_layers": c["num_hidden_layers"]})
    config = bert.BertConfig(
        num_layers=c["num_hidden_layers"], width=c["hidden_size"],
        num_heads=c["num_attention_heads"], mlp_width=c["intermediate_size"],
        vocab_size=c["vocab_size"], max_positions=c["max_position_embeddings"],
        num_types=c["type_vocab_size"], norm_eps=float(c["layer_norm_eps"]))
  except (OSError, ValueError, OverflowError, KeyError, TypeError) as e:
    if isinstance(e, errors.UserError):
      raise
    raise errors.UserError(f"{path}: not a BERT config ({type(e).__name__}: {e}); expected the "
                           "config.json of the model: get the file again") from e
  if config.width % config.num_heads:
    raise errors.UserError(f"{path}: hidden_size {config.width} is no multiple of "
                           f"num_attention_heads {config.num_heads}: get the file again")
  if c.get("hidden_act") != "gelu":
    raise errors.UserError(f"{path}: hidden_act is {c.get('hidden_act')!r}, expected 'gelu': use "
                           "a BERT or MiniLM encoder")
  return config


def load_bert(paths) -> tuple[bert.BertConfig, dict]:
  """Config and parameters (pure dict, numpy, float32) of a published encoder.

  Args:
    paths: a folder that holds `config.json` and `model.safetensors`, or a dict from these names to
      paths, as from `pinned.fetch`.

  Raises:
    UserError: a file is absent or damaged, or does not hold exactly this encoder.
  """
  if not isinstance(paths, dict):
    paths = {name: pathlib.Path(paths) / name for name in ("config.json", "model.safetensors")}
  config = read_bert_config(paths["config.json"])
  path = paths["model.safetensors"]
  try:
    files.refuse_pointer(path)
    tensors = safetensors.numpy.load_file(path)
  except (OSError, AttributeError, safetensors.SafetensorError) as e:    # AttributeError: float8
    raise errors.UserError(f"{path}: not a readable safetensors file ({e}): get it again") from e
  places = _places(config)
  shapes = _shapes(config, places)
  trees.take(str(path), {n: t.shape for n, t in tensors.items()}, shapes, IGNORED)
  params = {}
  for name, place in places.items():
    tensor = tensors[name].T if place[-1] == "kernel" else tensors[name]
    trees.put(params, place, tensor.astype(np.float32))
  return config, params


def _places(c: bert.BertConfig) -> dict[str, tuple]:
  """Tensor name in the file -> path in our tree."""
  places = {"embeddings.word_embeddings.weight": ("word",),
            "embeddings.position_embeddings.weight": ("position",),
            "embeddings.token_type_embeddings.weight": ("type",),
            "embeddings.LayerNorm.weight": ("norm", "scale"),
            "embeddings.LayerNorm.bias": ("norm", "bias")}
  for n in range(c.num_layers):
    for theirs, ours in _LAYER.items():
      weight = "scale" if ours.endswith("norm") else "kernel"
      places[f"encoder.layer.{n}.{theirs}.weight"] = ("layers", n, ours, weight)
      places[f"encoder.layer.{n}.{theirs}.bias"] = ("layers", n, ours, "bias")
  return places


def _shapes(config: bert.BertConfig, places: dict[str, tuple]) -> dict[str, tuple[int, ...]]:
  """Tensor name -> the shape it must have in the file (kernels are stored [out, in])."""
  abstract = bert.abstract_params(config)
  shapes = {}
  for name, place in places.items():
    leaf = abstract
    for key in place:
      leaf = leaf[key]
    shapes[name] = leaf.shape[::-1] if place[-1] == "kernel" else leaf.shape
  return shapes
