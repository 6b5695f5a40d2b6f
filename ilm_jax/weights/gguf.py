"""Reads decoders from GGUF files, quantised or not: Llama, Qwen 2 and 3, Gemma 1, 2 and 3.

GGUF of type llama keeps the rows of the query and key projections permuted for interleaved rotary
positions (channel 2j turns with 2j + 1). Our decoder turns channel j with j + K/2, so the rows are
put back here. Read without that, every shape fits and the model talks nonsense. Norms of Gemma are
stored with the 1 of "1 + w" added already.
"""
import dataclasses

import gguf
import numpy as np

from ilm_jax import errors
from ilm_jax.data import gguf_file
from ilm_jax.models import attention, decoder, language_model
from ilm_jax.weights import stream

QUANTISATIONS = ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q8_0", "Q4_K", "Q6_K")
_KERNELS = {"attn_q": "query", "attn_k": "key", "attn_v": "value", "attn_output": "out",
            "ffn_gate": "gate", "ffn_up": "up", "ffn_down": "down"}
_NORMS = {"attn_norm": "attention_norm", "ffn_norm": "mlp_norm", "attn_q_norm": "query_norm",
          "attn_k_norm": "key_norm", "post_attention_norm": "attention_post_norm",
          "post_ffw_norm": "mlp_post_norm"}
_GET_AGAIN = "delete it and get it again"
# (factor, low, high, original length) of the Llama 3 releases: their files hold the result alone.
_LLAMA3 = ((8.0, 1.0, 4.0, 8192), (32.0, 1.0, 4.0, 8192))
ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3")


def read_config(path, dtype="float32") -> decoder.DecoderConfig:
  """The shape of the decoder in the file; reads the header, not the weights."""
  return _config(_open(path), path, dtype)


def load(path, dtype="float32", mesh=None, *,
         int8: bool = False) -> tuple[decoder.DecoderConfig, dict]:
  """Config and parameters of the decoder in the file.

  Args:
    path: a local GGUF file of one of `ARCHITECTURES`, its tensors in `QUANTISATIONS`.
    dtype: of the kernels; quantised tensors are expanded. Norms are float32 always.
    mesh: where the parameters go; None: they are numpy arrays.
    int8: kernels and tables become int8 with scales as they are read, and `dtype` is that of the
      activations.

  Raises:
    UserError: the file is damaged, does not hold exactly such a decoder, or has a tensor in another
      quantisation.
  """
  reader = _open(path)
  config = dataclasses.replace(_config(reader, path, dtype), int8=int8)
  tensors = {t.name: _Tensor(t) for t in reader.tensors}
  for tensor in reader.tensors:
    if tensor.tensor_type.name not in QUANTISATIONS:
      raise errors.UserError(
          f"{path}: tensor {tensor.name} is stored as {tensor.tensor_type.name}, which cannot be "
          f"expanded: use a GGUF whose tensors are {', '.join(QUANTISATIONS)}")
  architecture = _field(reader, path, "general.architecture")
  params = stream.fill(
      str(path), _places(config, architecture), {n: t.shape for n, t in tensors.items()},
      tensors.__getitem__, language_model.abstract_params(config), mesh,
      frozenset({"rope_freqs.weight"}))
  return config, params


class _Tensor:
  """A tensor of the mapped file; slices along its first axis are expanded when taken."""

  def __init__(self, tensor: gguf.ReaderTensor):
    self._data, self._type = tensor.data, tensor.tensor_type
    self.shape = tuple(int(s) for s in tensor.shape[::-1])   # listed from the innermost

  def __getitem__(self, rows: slice) -> np.ndarray:
    part = self._data[rows]
    wide = gguf.quants.dequantize(part, self._type)
    if not np.may_share_memory(wide, part):
      stream.forget(part)
    return wide


def _open(path) -> gguf_file.Reader:
  try:
    return gguf_file.Reader(path)
  except Exception as e:  # The parser of a damaged file may fail in any way; each means the same.
    raise errors.UserError(f"{path}: not a readable GGUF file ({type(e).__name__}: "
                           f"{_one_line(e)}): {_GET_AGAIN}") from e


def _field(reader: gguf_file.Reader, path, name: str, default=None):
  if name in reader.fields:
    return reader.fields[name].contents()
  if default is None:
    raise errors.UserError(f"{path}: header has no field {name}, expected of such a decoder: "
                           f"{_GET_AGAIN}")
  return default


def _config(reader: gguf_file.Reader, path, dtype) -> decoder.DecoderConfig:
  kind = _field(reader, path, "general.architecture")
  if kind not in ARCHITECTURES:
    raise errors.UserError(f"{path}: architecture is {kind!r}, expected one of "
                           f"{', '.join(ARCHITECTURES)}: use a GGUF of such a model")

  def field(name, default=None):
    return _field(reader, path, f"{kind}.{name}", default)

  if (parts := _field(reader, path, "split.count", 0)) > 1:
    raise errors.UserError(f"{path}: is one of {parts} parts, expected a whole model: join them "
                           "with llama-gguf-split --merge")
  width, heads = field("embedding_length"), field("attention.head_count")
  head_dim = field("attention.key_length", width // heads)
  turned = field("rope.dimension_count", head_dim)
  if turned != head_dim:
    raise errors.UserError(f"{path}: rotary positions on {turned} of {head_dim} channels, expected "
                           "all: use a model with full rotary positions")
  tensors = {t.name: t for t in reader.tensors}
  shape = tensors["token_embd.weight"].shape if "token_embd.weight" in tensors else None
  common = dict(
      num_layers=field("block_count"), width=width, num_heads=heads,
      num_kv_heads=field("attention.head_count_kv", heads), head_dim=head_dim,
      mlp_width=field("feed_forward_length"),
      vocab_size=int(shape[1]) if shape is not None else field("vocab_size"),
      rope_base=float(field("rope.freq_base", 10000.0)),
      rope_scaling=_rope_scaling(field, path, tensors, head_dim),
      norm_eps=float(field("attention.layer_norm_rms_epsilon")),
      tied="output.weight" not in tensors, dtype=str(dtype))
  return decoder.DecoderConfig(**common, **_own(kind, field, common))


def _own(kind: str, field, c: dict) -> dict:
  """What the header of a family says, and what its readers know without being told."""
  if kind == "qwen2":
    return {"qkv_bias": True}
  if kind == "qwen3":
    return {"qk_norm": True}
  if not kind.startswith("gemma"):
    return {}
  own = {"activation": "gelu_tanh", "embed_scale": c["width"] ** 0.5}
  if kind == "gemma":
    return own
  # The 27B models scale by the width of a head as it would be without key_length.
  large = c["num_layers"] == {"gemma2": 46, "gemma3": 62}[kind]
  every = {"gemma2": 2, "gemma3": 6}[kind]
  own |= {"post_norms": True,
          "scale": (c["width"] / c["num_heads"] if large else c["head_dim"]) ** -0.5,
          "local_layers": tuple((n + 1) % every != 0 for n in range(c["num_layers"])),
          "window": int(field("attention.sliding_window")),
          # Early files of Gemma 2 do not say what they are capped with.
          "softcap": float(field("attn_logit_softcapping", 50.0 if kind == "gemma2" else 0.0)),
          "logit_softcap": float(field("final_logit_softcapping",
                                       30.0 if kind == "gemma2" else 0.0))}
  if kind == "gemma3":
    own |= {"qk_norm": True, "local_rope_base": float(field("rope.freq_base_swa", 10000.0))}
  return own


def _rope_scaling(field, path, tensors, head_dim: int) -> attention.RopeScaling | None:
  kind = field("rope.scaling.type", "none")
  old = float(field("rope.scale_linear", 1.0))    # of files before scaling.type
  if kind == "linear" or (kind == "none" and old != 1.0):
    return attention.RopeScaling(float(field("rope.scaling.factor", old)))
  if kind != "none":
    raise errors.UserError(f"{path}: rope scaling is {kind!r}, expected none or linear: use a "
                           "model without such scaling")
  if "rope_freqs.weight" not in tensors:
    return None
  stretch_K = 1 / np.asarray(tensors["rope_freqs.weight"].data, np.float32)
  for parts in _LLAMA3:
    scaling = attention.RopeScaling(*parts)
    ours_K = attention.stretch(head_dim, float(field("rope.freq_base", 10000.0)), scaling)
    if ours_K.shape == stretch_K.shape and np.allclose(ours_K, stretch_K, rtol=1e-3):
      return scaling
  raise errors.UserError(f"{path}: rope_freqs.weight is not that of a Llama 3 release "
                         f"{_LLAMA3}: use the safetensors of this model")


def _places(c: decoder.DecoderConfig, architecture: str) -> dict[str, stream.Place]:
  """Tensor name in the file -> where it belongs."""
  found = {"token_embd.weight": stream.Place(("embedding",)),
           "output_norm.weight": stream.Place(("final_norm",))}
  if not c.tied:
    found["output.weight"] = stream.Place(("head",), turn=stream.TRANSPOSE)
  permuted = stream.half_split(c.head_dim) if architecture == "llama" else stream.TRANSPOSE
  ours = language_model.abstract_params(c)["layers"]
  for n in range(c.num_layers):
    for theirs, name in _KERNELS.items():
      turn = permuted if name in ("query", "key") else stream.TRANSPOSE
      found[f"blk.{n}.{theirs}.weight"] = stream.Place(("layers", name), n, turn)
      if f"{name}_bias" in ours:
        found[f"blk.{n}.{theirs}.bias"] = stream.Place(("layers", f"{name}_bias"), n)
    for theirs, name in _NORMS.items():
      if name in ours:
        found[f"blk.{n}.{theirs}.weight"] = stream.Place(("layers", name), n)
  return found


def _one_line(e: Exception) -> str:
  return " ".join(str(e).split())[:160]
