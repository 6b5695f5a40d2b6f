"""Reads decoders from GGUF files, quantised or not: Llama, Qwen 2 and 3, Gemma 1, 2 and 3.

GGUF files of type llama hold the rows of the query and key projections permuted for interleaved
rotary positions (channel 2j rotates with 2j + 1). Our decoder rotates channel j with j + K/2, so
the rows are put back in order here. Without this, every shape fits but the model writes nonsense.
Norms of Gemma are stored as "1 + w".
"""
import dataclasses
import functools
import math

import gguf
import numpy as np

from ilm_jax import errors
from ilm_jax.data import gguf_file
from ilm_jax.models import attention, decoder, language_model
from ilm_jax.weights import stream, trees

_KERNELS = {"attn_q": "query", "attn_k": "key", "attn_v": "value", "attn_output": "out",
            "ffn_gate": "gate", "ffn_up": "up", "ffn_down": "down"}
_NORMS = {"attn_norm": "attention_norm", "ffn_norm": "mlp_norm", "attn_q_norm": "query_norm",
          "attn_k_norm": "key_norm", "post_attention_norm": "attention_post_norm",
          "post_ffw_norm": "mlp_post_norm"}
# (factor, low, high, original length) of the Llama 3 releases; their files hold only the result.
_LLAMA3 = ((8.0, 1.0, 4.0, 8192), (32.0, 1.0, 4.0, 8192))
ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3")


def read_config(path) -> decoder.DecoderConfig:
  """The config of the decoder in the file; reads only the header. Raises UserError as `load`."""
  return _config(gguf_file.read(path), path, "float32")


def load(path, dtype="float32", mesh=None, *,
         int8: bool = False) -> tuple[decoder.DecoderConfig, dict]:
  """Config and parameters of the decoder in the file.

  Args:
    path: a local GGUF file of one of `ARCHITECTURES`, with tensors in floating point or in any
      quantisation that the package gguf can dequantise.
    dtype: dtype of the kernels; quantised tensors are dequantised. Norms are always float32.
    mesh: where the parameters go; None: they are numpy arrays.
    int8: True: kernels and tables are quantised to int8 with scales while they are read, and
      `dtype` is that of the activations.

  Raises:
    UserError: the file is damaged, does not hold exactly such a decoder, or has a tensor in another
      quantisation.
  """
  reader = gguf_file.read(path)
  config = dataclasses.replace(_config(reader, path, dtype), int8=int8)
  tensors = {t.name: _Tensor(t) for t in reader.tensors}
  for tensor in reader.tensors:
    if not _expands(tensor.tensor_type):
      names = [kind.name for kind in gguf.GGMLQuantizationType if _expands(kind)]
      raise errors.UserError(
          f"{path}: tensor {tensor.name} is stored as {tensor.tensor_type.name}, which cannot be "
          f"dequantised: use a GGUF whose tensors are {', '.join(names)}")
  architecture = reader.value("general.architecture")
  params = stream.fill(
      str(path), _places(config, architecture), {n: t.shape for n, t in tensors.items()},
      tensors.__getitem__, language_model.abstract_params(config), mesh,
      frozenset({"rope_freqs.weight"}))
  return config, params


class _Tensor:
  """A tensor of the mapped file; slices along its first axis are dequantised when read."""

  def __init__(self, tensor: gguf.ReaderTensor):
    self._data, self._type = tensor.data, tensor.tensor_type
    self.shape = tuple(int(s) for s in tensor.shape[::-1])   # GGUF lists the innermost axis first

  def __getitem__(self, rows: slice) -> np.ndarray:
    part = self._data[rows]
    wide = gguf.quants.dequantize(part, self._type)
    if not np.may_share_memory(wide, part):
      stream.forget(part)
    return wide


@functools.cache
def _expands(kind: gguf.GGMLQuantizationType) -> bool:
  """Whether the package gguf can dequantise tensors of this kind."""
  try:
    with np.errstate(all="ignore"):
      gguf.quants.dequantize(np.zeros((1, gguf.GGML_QUANT_SIZES[kind][1]), np.uint8), kind)
  except NotImplementedError:
    return False
  return True


def _config(reader: gguf_file.Reader, path, dtype) -> decoder.DecoderConfig:
  kind = reader.value("general.architecture")
  if kind not in ARCHITECTURES:
    raise errors.UserError(f"{path}: architecture is {kind!r}, expected one of "
                           f"{', '.join(ARCHITECTURES)}: use a GGUF of such a model")

  def field(name, *default):
    return reader.value(f"{kind}.{name}", *default)

  def number(name, *default):
    value = field(name, *default)
    if type(value) not in (int, float) or not math.isfinite(value):
      raise errors.UserError(f"{path}: {kind}.{name} is {errors.shown(value)}, expected a "
                             "number: delete the file and get it again")
    return float(value)

  if (parts := reader.value("split.count", 0)) not in (0, 1):
    raise errors.UserError(f"{path} is one of {parts} parts, expected a whole model: join them "
                           "with llama-gguf-split --merge")
  sizes = _sizes(field, kind, path)
  head_dim, tensors = sizes["head_dim"], {t.name: t for t in reader.tensors}
  turned = field("rope.dimension_count", head_dim)
  if turned != head_dim:
    raise errors.UserError(f"{path}: rotary positions on {turned} of {head_dim} channels, expected "
                           "all: use a model with full rotary positions")
  shape = tensors["token_embd.weight"].shape if "token_embd.weight" in tensors else ()
  if len(shape) == 2:
    trees.check_sizes(str(path), {"the number of words": int(shape[1])}, {})
  common = dict(
      **sizes, vocab_size=int(shape[1]) if len(shape) == 2 else 0,
      rope_base=number("rope.freq_base", 10000.0),
      rope_scaling=_rope_scaling(field, number, path, tensors, head_dim),
      norm_eps=number("attention.layer_norm_rms_epsilon"),
      tied="output.weight" not in tensors, dtype=str(dtype))
  return decoder.DecoderConfig(**common, **_of_family(kind, field, number, common, path))


def _sizes(field, kind: str, path) -> dict:
  """The integer sizes of the header, checked."""
  width, heads = field("embedding_length"), field("attention.head_count")
  stated = {"embedding_length": width, "attention.head_count": heads,
            "attention.head_count_kv": field("attention.head_count_kv", heads),
            "feed_forward_length": field("feed_forward_length")}
  layers = field("block_count")
  trees.check_sizes(str(path), {f"{kind}.{name}": size for name, size in stated.items()},
                    {f"{kind}.block_count": layers})
  groups = stated["attention.head_count_kv"]
  head_dim = field("attention.key_length", width // heads)
  trees.check_sizes(str(path), {f"{kind}.attention.key_length": head_dim}, {})
  if head_dim % 2:
    raise errors.UserError(f"{path}: {kind}.attention.key_length is {head_dim}, expected an even "
                           "number for rotary positions: delete the file and get it again")
  if heads % groups:
    raise errors.UserError(f"{path}: {kind}.attention.head_count_kv is {groups}, which does not "
                           f"divide {heads} heads: delete the file and get it again")
  return {"num_layers": layers, "width": width, "num_heads": heads, "num_kv_heads": groups,
          "head_dim": head_dim, "mlp_width": stated["feed_forward_length"]}


def _of_family(kind: str, field, number, c: dict, path) -> dict:
  """Further config fields of a family, by the header or by convention."""
  if kind == "qwen2":
    return {"qkv_bias": True}
  if kind == "qwen3":
    return {"qk_norm": True}
  if not kind.startswith("gemma"):
    return {}
  family = {"activation": "gelu_tanh", "embed_scale": c["width"] ** 0.5}
  if kind == "gemma":
    return family
  # The 27B models scale by width / heads, not by key_length.
  large = c["num_layers"] == {"gemma2": 46, "gemma3": 62}[kind]
  family |= {"post_norms": True,
             "scale": (c["width"] / c["num_heads"] if large else c["head_dim"]) ** -0.5,
             "local_layers": _local_layers(kind, field, c["num_layers"], path),
             "window": int(number("attention.sliding_window"))}
  if kind == "gemma2":   # early files lack the caps
    return family | {"softcap": number("attn_logit_softcapping", 50.0),
                     "logit_softcap": number("final_logit_softcapping", 30.0)}
  return family | {"qk_norm": True, "logit_softcap": number("final_logit_softcapping", 0.0),
                   "local_rope_base": number("rope.freq_base_swa", 10000.0)}


def _local_layers(kind: str, field, layers: int, path) -> tuple[bool, ...]:
  """Whether each layer attends to a window only: all but every n-th (n = 0: all), or as listed."""
  pattern = field("attention.sliding_window_pattern", {"gemma2": 2, "gemma3": 6}[kind])
  if isinstance(pattern, list) and len(pattern) == layers:
    return tuple(map(bool, pattern))
  if type(pattern) is int and pattern >= 0:
    return tuple(pattern == 0 or (n + 1) % pattern != 0 for n in range(layers))
  raise errors.UserError(f"{path}: {kind}.attention.sliding_window_pattern is "
                         f"{errors.shown(pattern)}, expected a whole number or {layers} of "
                         "true and false: get the file again")


def _rope_scaling(field, number, path, tensors, head_dim: int) -> attention.RopeScaling | None:
  kind = field("rope.scaling.type", "none")
  old = number("rope.scale_linear", 1.0)    # of files before scaling.type
  if kind == "linear" or (kind == "none" and old != 1.0):
    return attention.RopeScaling(number("rope.scaling.factor", old))
  if kind != "none":
    raise errors.UserError(f"{path}: rope scaling is {kind!r}, expected none or linear: use a "
                           "model without such scaling")
  if "rope_freqs.weight" not in tensors:
    return None
  stretch_K = 1 / np.asarray(tensors["rope_freqs.weight"].data, np.float32)
  for parts in _LLAMA3 if stretch_K.shape == (head_dim // 2,) else ():
    scaling = attention.RopeScaling(*parts)
    ours_K = attention.stretch(head_dim, number("rope.freq_base", 10000.0), scaling)
    if np.allclose(ours_K, stretch_K, rtol=1e-3):
      return scaling
  raise errors.UserError(f"{path}: rope_freqs.weight is not that of a Llama 3 release "
                         f"{_LLAMA3}: use the safetensors of this model")


def _places(c: decoder.DecoderConfig, architecture: str) -> dict[str, stream.Place]:
  """Tensor name in the file -> where it belongs."""
  places = {"token_embd.weight": stream.Place(("embedding",)),
            "output_norm.weight": stream.Place(("final_norm",))}
  if not c.tied:
    places["output.weight"] = stream.Place(("head",), turn=stream.TRANSPOSE)
  permuted = stream.half_split(c.head_dim) if architecture == "llama" else stream.TRANSPOSE
  ours = language_model.abstract_params(c)["layers"]
  for n in range(c.num_layers):
    for theirs, name in _KERNELS.items():
      turn = permuted if name in ("query", "key") else stream.TRANSPOSE
      places[f"blk.{n}.{theirs}.weight"] = stream.Place(("layers", name), n, turn)
      if f"{name}_bias" in ours:
        places[f"blk.{n}.{theirs}.bias"] = stream.Place(("layers", f"{name}_bias"), n)
    for theirs, name in _NORMS.items():
      if name in ours:
        places[f"blk.{n}.{theirs}.weight"] = stream.Place(("layers", name), n)
  return places
