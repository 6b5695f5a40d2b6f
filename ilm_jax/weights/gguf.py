"""Reads a Llama-type decoder from a GGUF file, quantised or not.

GGUF of type llama keeps the rows of the query and key projections permuted for interleaved rotary
positions (channel 2j turns with 2j + 1). Our decoder turns channel j with j + K/2, so the rows are
put back here. Read without that, every shape fits and the model talks nonsense.
"""
import gguf
import jax.numpy as jnp
import numpy as np

from ilm_jax import errors
from ilm_jax.models import decoder
from ilm_jax.weights import trees

_LAYER = {
    "attn_norm": "attention_norm", "attn_q": "query", "attn_k": "key", "attn_v": "value",
    "attn_output": "out", "ffn_norm": "mlp_norm", "ffn_gate": "gate", "ffn_up": "up",
    "ffn_down": "down"}
_GET_AGAIN = "delete it and get it again"


def read_config(path, dtype="float32") -> decoder.DecoderConfig:
  """The shape of the decoder in the file; reads the header, not the weights."""
  return _config(_open(path), path, dtype)


def load_decoder(path, dtype="float32") -> tuple[decoder.DecoderConfig, dict]:
  """Config and parameters (pure dict, numpy) of the decoder in the file.

  Args:
    path: a GGUF file whose architecture is llama.
    dtype: of the parameters; quantised tensors are expanded.

  Raises:
    UserError: the file is damaged or does not hold exactly such a decoder.
  """
  reader = _open(path)
  config = _config(reader, path, dtype)
  tensors = {t.name: t for t in reader.tensors}
  shapes = _shapes(config)
  # GGUF lists dimensions from the innermost.
  trees.take(str(path), {n: tuple(int(s) for s in t.shape[::-1]) for n, t in tensors.items()},
             shapes)
  params = {"embedding": _expand(path, tensors["token_embd.weight"]).astype(jnp.dtype(dtype)),
            "final_norm": _expand(path, tensors["output_norm.weight"]).astype(jnp.dtype(dtype)),
            "layers": {}}
  if not config.tied:
    params["head"] = _expand(path, tensors["output.weight"]).T.astype(jnp.dtype(dtype))
  for theirs, ours in _LAYER.items():
    shape = shapes[f"blk.0.{theirs}.weight"]
    stacked = np.empty((config.num_layers, *shape[::-1]), jnp.dtype(dtype))
    for n in range(config.num_layers):
      tensor = _expand(path, tensors[f"blk.{n}.{theirs}.weight"])
      if ours in ("query", "key"):
        tensor = half_split(tensor, config.head_dim)
      stacked[n] = tensor.T
    params["layers"][ours] = stacked
  return config, params


def half_split(rows, head_dim: int) -> np.ndarray:
  """Rows [heads * K, D] from the interleaved rotary layout to the half-split one."""
  pairs = rows.reshape(-1, head_dim // 2, 2, rows.shape[-1])
  return pairs.swapaxes(1, 2).reshape(rows.shape)


def _open(path) -> gguf.GGUFReader:
  try:
    return gguf.GGUFReader(str(path))
  except Exception as e:  # The parser of a damaged file may fail in any way; each means the same.
    raise errors.UserError(f"{path}: not a readable GGUF file ({type(e).__name__}: "
                           f"{_one_line(e)}): {_GET_AGAIN}") from e


def _config(reader: gguf.GGUFReader, path, dtype) -> decoder.DecoderConfig:
  def field(name, default=None):
    if name in reader.fields:
      return reader.fields[name].contents()
    if default is None:
      raise errors.UserError(f"{path}: header has no field {name}, expected of a Llama-type "
                             f"decoder: {_GET_AGAIN}")
    return default

  kind = field("general.architecture")
  if kind != "llama":
    raise errors.UserError(f"{path}: architecture is {kind!r}, expected 'llama': use a GGUF of a "
                           "Llama-type model")
  scaling = field("llama.rope.scaling.type", "none")
  if scaling != "none":
    raise errors.UserError(f"{path}: rope scaling is {scaling!r}, expected none: use a model "
                           "without rope scaling")
  width, heads = field("llama.embedding_length"), field("llama.attention.head_count")
  head_dim = field("llama.attention.key_length", width // heads)
  turned = field("llama.rope.dimension_count", head_dim)
  if turned != head_dim:
    raise errors.UserError(f"{path}: rotary positions on {turned} of {head_dim} channels, expected "
                           "all: use a model with full rotary positions")
  shapes = {t.name: t.shape for t in reader.tensors}
  return decoder.DecoderConfig(
      num_layers=field("llama.block_count"), width=width, num_heads=heads,
      num_kv_heads=field("llama.attention.head_count_kv", heads), head_dim=head_dim,
      mlp_width=field("llama.feed_forward_length"),
      vocab_size=int(shapes["token_embd.weight"][1]) if "token_embd.weight" in shapes
      else field("llama.vocab_size"),
      rope_base=float(field("llama.rope.freq_base", 10000.0)),
      norm_eps=float(field("llama.attention.layer_norm_rms_epsilon")),
      tied="output.weight" not in shapes, dtype=str(dtype))


def _shapes(c: decoder.DecoderConfig) -> dict[str, tuple[int, ...]]:
  """Tensor name -> shape in the file, matrices as [out, in]."""
  params = decoder.abstract_params(c)
  shapes = {"token_embd.weight": params["embedding"].shape,
            "output_norm.weight": params["final_norm"].shape}
  if not c.tied:
    shapes["output.weight"] = params["head"].shape[::-1]
  for n in range(c.num_layers):
    for theirs, ours in _LAYER.items():
      shapes[f"blk.{n}.{theirs}.weight"] = params["layers"][ours].shape[:0:-1]
  return shapes


def _expand(path, tensor: gguf.ReaderTensor) -> np.ndarray:
  try:
    return gguf.quants.dequantize(tensor.data, tensor.tensor_type)
  except NotImplementedError as e:
    raise errors.UserError(
        f"{path}: tensor {tensor.name} is stored as {tensor.tensor_type.name}, which cannot be "
        "expanded: use a GGUF quantised as Q4_0, Q4_1, Q8_0, F16 or F32") from e


def _one_line(e: Exception) -> str:
  return " ".join(str(e).split())[:160]
