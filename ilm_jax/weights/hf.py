"""Reads language models from Hugging Face folders: config.json, and one safetensors file or shards.

This module maps the files itself. The safetensors package would keep every page that it has read in
memory, in the end the whole checkpoint.
"""
import dataclasses
import math

import jax.numpy as jnp
import numpy as np
from etils import epath

from ilm_jax import errors, files
from ilm_jax.models import language_model
from ilm_jax.weights import hf_decoders, hf_t5, stream, trees

FAMILIES = {**hf_decoders.FAMILIES, **hf_t5.FAMILIES}
_DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": jnp.bfloat16}
_LONGEST_HEADER = 100 << 20     # bytes: the format's own limit
_ONE_FILE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_OTHER_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".h5", ".msgpack", ".gguf")
_SIZES = ("hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim", "vocab_size",
          "intermediate_size", "d_model", "d_kv", "d_ff", "num_heads",
          "relative_attention_num_buckets", "relative_attention_max_distance")
_LAYERS = ("num_hidden_layers", "num_layers", "num_decoder_layers")
_OPTIONAL = ("num_key_value_heads", "head_dim", "num_decoder_layers")     # null: as if absent


def read_config(folder) -> language_model.Config:
  """The config of the model in a folder; reads only the headers of its weights.

  Raises:
    UserError: as `load`, for mistakes that show in config.json and the headers.
  """
  return _family(folder, Shards(epath.Path(folder)))[0]("float32")


def load(folder, dtype: str = "float32", mesh=None, *,
         int8: bool = False) -> tuple[language_model.Config, dict]:
  """Config and parameters of the model in a folder.

  Args:
    folder: local; holds config.json, and model.safetensors or its shards with
      model.safetensors.index.json.
    dtype: dtype of the kernels; norms are always float32.
    mesh: where the parameters go; None: they are numpy arrays.
    int8: True: kernels and tables are quantised to int8 with scales while they are read, and
      `dtype` is that of the activations.

  Raises:
    UserError: a file is absent or damaged, the family or an option of it is not supported, or the
      tensors are not exactly the model's.
  """
  shards = Shards(epath.Path(folder))
  config_of, places_of = _family(folder, shards)
  config = dataclasses.replace(config_of(dtype), int8=int8)
  places, ignored = places_of(config, frozenset(shards.shapes))
  params = stream.fill(str(folder), places, shards.shapes, shards.read,
                       language_model.abstract_params(config), mesh, ignored)
  return config, params


def _family(folder, shards: "Shards"):
  """(config_of, places_of): dtype -> config; config, names in the file -> (places, ignored names).
  """
  path = epath.Path(folder) / "config.json"
  try:
    fields = dict(files.parse_json(path.read_text()))
  except (OSError, ValueError, TypeError) as e:
    raise errors.UserError(f"{path}: no readable config ({type(e).__name__}): expected a Hugging "
                           "Face folder with config.json and safetensors") from e
  name = fields.get("model_type")
  if name == "gemma3" and isinstance(fields.get("text_config"), dict):  # it has a vision tower
    tied = fields.get("tie_word_embeddings", True)   # the top level decides, as in transformers
    fields, name = {**fields["text_config"], "tie_word_embeddings": tied}, "gemma3_text"
  if not isinstance(name, str) or name not in FAMILIES:
    raise errors.UserError(f"{path}: model_type is {name!r}, expected one of "
                           f"{', '.join(sorted(FAMILIES))}: use a model of one of these")
  config_of, places_of = FAMILIES[name]
  trees.check_sizes(str(path), *(
      {f: fields[f] for f in group if f in fields and (f not in _OPTIONAL or fields[f] is not None)}
      for group in (_SIZES, _LAYERS)))
  fields["has_head"] = "lm_head.weight" in shards.shapes

  def read(dtype):
    try:
      return config_of(fields, dtype)
    except (KeyError, TypeError, AttributeError) as e:
      raise errors.UserError(f"{path}: field {e} is missing or of another kind than in a config of "
                             f"{name}: get the file again") from e
    except (ValueError, OverflowError) as e:
      raise errors.UserError(f"{path}: {e}: use a {name} model without it") from e

  return read, places_of


@dataclasses.dataclass(frozen=True)
class _Tensor:
  """The place of a tensor: bytes start..end of a mapped file."""
  file: np.memmap
  dtype: np.dtype
  shape: tuple[int, ...]
  start: int
  end: int


class Shards:
  """The tensors of a folder by name: `shapes` has name -> shape of all, `read` maps one.

  Raises:
    UserError: a file is absent or damaged, or a tensor has an unsupported dtype.
  """

  def __init__(self, folder: epath.Path):
    self._tensors: dict[str, _Tensor] = {}
    for file in _files(folder):
      try:
        self._tensors |= _tensors(folder / file)
      except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as e:
        if isinstance(e, errors.UserError):
          raise
        why = " ".join(str(e).split())[:160]
        raise errors.UserError(f"{folder / file}: not a readable safetensors file "
                               f"({type(e).__name__}: {why}): get it again") from e
    self.shapes = {name: tensor.shape for name, tensor in self._tensors.items()}

  def read(self, name: str) -> np.ndarray:
    """A view of the mapped file."""
    t = self._tensors[name]
    return t.file[t.start:t.end].view(t.dtype).reshape(t.shape)


def _files(folder: epath.Path) -> list[str]:
  """The files with a folder's tensors: one file, or the files that its index names.

  As in transformers, the one file has priority: saving one file leaves the index of older shards.
  """
  index = folder / _INDEX
  if (folder / _ONE_FILE).exists():
    return [_ONE_FILE]
  if not index.exists():
    others = sorted(p.name for p in folder.glob("*") if p.suffix in _OTHER_WEIGHTS)
    if not others:
      cure = f"get {_ONE_FILE}, or {_INDEX} and its shards"
    elif any(name.endswith(".safetensors") for name in others):
      cure = f"get {_INDEX} of these shards"
    else:
      cure = "load them with transformers and call save_pretrained, which writes safetensors"
    raise errors.UserError(f"{folder}: no {_ONE_FILE}, found "
                           f"{', '.join(others[:4]) or 'no weights'}: {cure}")
  try:
    names = set(files.parse_json(index.read_text())["weight_map"].values())
    for name in names:
      if not isinstance(name, str) or name in ("", ".", "..") or "/" in name or "\\" in name:
        raise ValueError(f"it names {name!r}, expected a file of its own folder")
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
    raise errors.UserError(f"{index}: not a readable index of shards ({type(e).__name__}: "
                           f"{str(e)[:160]}): get the file again") from e
  return sorted(names)


def _tensors(path) -> dict[str, _Tensor]:
  """Reads the header of a safetensors file: its length, then JSON; the tensors follow it."""
  files.refuse_pointer(path)
  size = path.stat().length
  with open(path, "rb") as file:
    length = int.from_bytes(file.read(8), "little")
    if not 0 < length <= min(size - 8, _LONGEST_HEADER):
      raise ValueError(f"a header of {length} bytes in a file of {size}")
    header = files.parse_json(file.read(length))
  header.pop("__metadata__", None)
  mapped, tensors = np.memmap(path, np.uint8, "r"), {}
  for name, entry in header.items():
    if entry["dtype"] not in _DTYPES:
      raise errors.UserError(f"{path}: tensor {name} has dtype {entry['dtype']}, expected one of "
                             f"{', '.join(_DTYPES)}: use an unquantised model")
    dtype, shape = np.dtype(_DTYPES[entry["dtype"]]), tuple(entry["shape"])
    start, end = (8 + length + offset for offset in entry["data_offsets"])
    if len(shape) > trees.MOST_AXES or not all(
        type(n) is int and n >= 0 for n in (*shape, start, end)):
      raise ValueError(f"tensor {name} of shape {errors.shown(shape)} at {errors.shown(start)} to "
                       f"{errors.shown(end)}")
    if not 8 + length <= start <= end <= size:
      raise ValueError(f"tensor {name} ends at byte {end} of {size}")
    if end - start != math.prod(shape) * dtype.itemsize:
      raise ValueError(f"tensor {name} of shape {shape} in {dtype} has {end - start} bytes")
    tensors[name] = _Tensor(mapped, dtype, shape, start, end)
  return tensors
