"""Reads T5X checkpoints: T5, mT5 and UMT5, and the decoder-only example; both of T5X's layouts.

The old layout is a msgpack file `checkpoint` beside a TensorStore array for each parameter; the new
one is Orbax's. Layers are separate (`layers_0`, ..) or stacked along an axis. Attention kernels may
have separate axes for heads and head width. The optimizer's state is never read.
"""
import math
import re

import numpy as np
import tensorstore
from etils import epath
from flax import serialization

from ilm_jax import errors, files
from ilm_jax.models import decoder, language_model, t5
from ilm_jax.weights import stream, t5x_gin

_EXPECTED = ("expected a T5X checkpoint: a folder with the file `checkpoint`, or with state/ of "
             "Orbax, or a folder of such folders checkpoint_<step>")


_DRIVERS = ("zarr", "zarr3")     # TensorStore's drivers of arrays that T5X writes
# What TensorStore raises on a damaged array.
_UNREADABLE = (ValueError, TypeError, KeyError, OSError, NotImplementedError)
_SPARSE = 1000               # most elements of a checkpoint for each byte of its files
_PADDING = 1 << 20           # most elements by which a chunk, read as a whole, exceeds its array


def is_checkpoint(path) -> bool:
  """Whether `load` would find a checkpoint at `path`."""
  return _newest(epath.Path(path)) is not None


def is_encoder_decoder(path, gin_file: str = "") -> bool:
  """Whether the model of the checkpoint at `path` has an encoder, by its gin file alone.

  Raises:
    UserError: there is no gin file, or it describes no model.
  """
  return _encodes(t5x_gin.read(gin_file or _find_gin(_newest(epath.Path(path)))))


def load(path, gin_file: str = "", dtype: str = "float32", mesh=None):
  """Config and parameters of a T5X model.

  Args:
    path: a checkpoint, or a folder of checkpoint_<step> folders, of which the newest is read.
    gin_file: the model's gin file; "": model.gin, config.gin or operative_config.gin in the
      checkpoint's folder or one of the two above it.
    dtype: dtype of the kernels; norms and position biases are always float32.
    mesh: where the parameters go; None: they are numpy arrays.

  Returns:
    (T5Config, or DecoderConfig for a model without encoder; parameters).

  Raises:
    UserError: the checkpoint or gin file is absent or damaged, or they are not the same model.
  """
  folder = _newest(epath.Path(path))
  if folder is None:
    raise errors.UserError(f"{path}: no checkpoint found: {_EXPECTED}")
  architecture = t5x_gin.read(gin_file or _find_gin(folder))
  arrays = _legacy(folder) if (folder / "checkpoint").exists() else _orbax(folder)
  _check_size(folder, arrays)
  tensors = _by_layer(str(folder), arrays, architecture)
  config = _config(architecture, tensors, dtype)
  encoder_decoder = language_model.is_encoder_decoder(config)
  places = (_t5_places if encoder_decoder else _decoder_places)(config, tensors)
  params = stream.fill(str(folder), places, {n: t.shape for n, t in tensors.items()},
                       lambda name: tensors[name].read(), language_model.abstract_params(config),
                       mesh)
  return config, params


def _check_size(folder: epath.Path, arrays: dict) -> None:
  """Raises UserError if the headers claim far more than the files hold.

  TensorStore reads an absent file as zeros, of whatever shape the header claims.
  """
  stored = sum((at / name).stat().length for at, _, names in folder.walk() for name in names)
  claimed = sum(math.prod(array.shape) for array in arrays.values())
  if claimed > files.SMALL + _SPARSE * stored:
    raise errors.UserError(f"{folder}: its arrays have {claimed:,} elements by their headers, its "
                           f"files {stored:,} bytes: get the checkpoint again")


class _Part:
  """A tensor, or one layer of a stacked tensor; `read` reads it."""

  def __init__(self, array, axis: int | None = None, n: int = 0):
    self._array, self._axis, self._n = array, axis, n
    self.shape = tuple(s for i, s in enumerate(array.shape) if i != axis)

  def read(self) -> np.ndarray:
    part = self._array
    if self._axis is not None:
      part = part[(slice(None),) * self._axis + (self._n,)]
    try:
      return part.read().result() if hasattr(part, "read") else np.asarray(part)
    except _UNREADABLE as e:
      raise errors.UserError(f"an array of the checkpoint cannot be read "
                             f"({' '.join(str(e).split())[:160]}): get the checkpoint again") from e


def _by_layer(folder: str, arrays: dict, architecture: dict) -> dict[str, _Part]:
  """One tensor for each layer, even if the file stacks the layers."""
  axis, tensors = architecture["param_scan_axis"], {}
  for name, array in arrays.items():
    stacked = re.match(r"(encoder|decoder)/(?:encoder|decoder)/(.*)", name)
    if not stacked:
      tensors[name] = _Part(array)
      continue
    side, rest = stacked.groups()
    layers = architecture.get(f"num_{side}_layers", architecture.get("num_layers"))
    if tuple(array.shape[axis:axis + 1]) != (layers,):
      raise errors.UserError(
          f"{folder}: {name} has shape {tuple(array.shape)}, expected {layers} layers along axis "
          f"{axis} by the gin file: name the gin file of this checkpoint")
    for n in range(layers):
      tensors[f"{side}/layers_{n}/{rest}"] = _Part(array, axis, n)
  return tensors


def _newest(path: epath.Path) -> epath.Path | None:
  def holds(folder):
    return (folder / "checkpoint").is_file() or (folder / "state").is_dir()

  if not path.is_dir():
    return None
  if holds(path):
    return path
  steps = [(int(p.name.removeprefix("checkpoint_")), p) for p in path.glob("checkpoint_*")
           if p.name.removeprefix("checkpoint_").isdecimal() and holds(p)]
  return max(steps, key=lambda s: s[0])[1] if steps else None


def _find_gin(folder: epath.Path) -> epath.Path:
  for parent in (folder, folder.parent, folder.parent.parent):
    for name in ("model.gin", "config.gin", "operative_config.gin"):
      if (parent / name).exists():
        return parent / name
  raise errors.UserError(f"{folder}: no model.gin, config.gin or operative_config.gin beside the "
                         "checkpoint: name the model's gin file with --config.lm.gin_file")


def _legacy(folder: epath.Path) -> dict:
  """Parameter name -> array, in the msgpack layout."""
  files.refuse_pointer(folder / "checkpoint")
  try:
    tree = serialization.msgpack_restore((folder / "checkpoint").read_bytes())
    leaves = list(_leaves(dict(tree["optimizer"]["target"])))
  except Exception as e:  # a damaged msgpack file may raise anything
    raise errors.UserError(f"{folder}/checkpoint: not a readable T5X checkpoint "
                           f"({type(e).__name__}: {str(e)[:160]}): {_EXPECTED}") from e
  return {name: _array(folder, name, leaf) for name, leaf in leaves}


def _array(folder: epath.Path, name: str, leaf):
  """An array inside the checkpoint file, or in a folder beside it."""
  if isinstance(leaf, dict):
    try:
      # Old files name a bucket of their authors, but the array is beside the file.
      path = leaf["kvstore"]["path"].rstrip("/").rsplit("/", 1)[-1]
    except (KeyError, TypeError, AttributeError):
      path = ""
    if path not in ("", ".", "..") and leaf["driver"] in _DRIVERS:
      return _open({"driver": leaf["driver"], "kvstore": _kvstore(folder / path)}, name,
                   folder / path)
  if not isinstance(leaf, np.ndarray):
    raise errors.UserError(f"{folder}/checkpoint: {name} is no array ({errors.shown(leaf)}): get "
                           "the checkpoint again")
  return leaf


def _leaves(tree: dict, prefix: str = ""):
  for key, value in tree.items():
    if not isinstance(key, str):
      raise ValueError(f"{errors.shown(key)} is a key in it, expected a text")
    if isinstance(value, dict) and "driver" not in value:
      yield from _leaves(value, f"{prefix}{key}/")
    else:
      yield prefix + key, value


def _orbax(folder: epath.Path) -> dict:
  """Parameter name -> array, in Orbax's layout: a folder for each array, or all in one database."""
  state = folder / "state"
  try:
    keys = files.parse_json((state / "_METADATA").read_text())
    names = [tuple(k["key"] for k in leaf["key_metadata"])
             for leaf in keys["tree_metadata"].values()]
    for key in names:
      if not key or not all(isinstance(k, str) and k.isprintable() and "/" not in k for k in key):
        raise ValueError(f"a key is {errors.shown(key)}, expected texts without slashes")
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
    raise errors.UserError(f"{state}/_METADATA: not a readable Orbax checkpoint "
                           f"({type(e).__name__}: {str(e)[:160]}): {_EXPECTED}") from e
  zarr = "zarr3" if keys.get("use_zarr3") else "zarr"
  one_database, tensors = (state / "manifest.ocdbt").exists(), {}
  for key in names:
    if key[0] != "target":
      continue
    name = ".".join(key)
    kvstore = ({"driver": "ocdbt", "base": _kvstore(state), "path": f"{name}/"} if one_database
               else _kvstore(state / name))
    tensors["/".join(key[1:])] = _open({"driver": zarr, "kvstore": kvstore}, name, state)
  return tensors


def _kvstore(path: epath.Path) -> dict | str:
  text = str(path)
  return f"{text}/" if "://" in text else {"driver": "file", "path": f"{path.resolve()}/"}


def _open(spec: dict, name: str, where):
  try:
    array = tensorstore.open(spec, open=True, read=True).result()
    chunk = array.chunk_layout.read_chunk.shape
    if chunk and math.prod(chunk) > math.prod(array.shape) + _PADDING:
      raise ValueError(f"its chunks of {errors.shown(tuple(chunk))} are larger than the array")
    return array
  except _UNREADABLE as e:
    raise errors.UserError(f"{where}: array {name:.80} cannot be read "
                           f"({' '.join(str(e).split())[:160]}): get the checkpoint again") from e


def _encodes(architecture: dict) -> bool:
  return "num_encoder_layers" in architecture and "num_decoder_layers" in architecture


def _config(a: dict, tensors: dict, dtype: str):
  """The config by the gin file's architecture and the names of the tensors."""
  acts = tuple(a["mlp_activations"])
  gated = len(acts) == 2
  if acts[0] not in ("relu", "gelu", "silu", "swish") or acts[1:] not in ((), ("linear",)):
    raise errors.UserError(f"mlp_activations={acts} in the gin file, expected (x,) or (x, "
                           "'linear') with x one of relu, gelu, silu, swish: use such a model")
  tied = bool(a["logits_via_embedding"])
  common = dict(
      width=a["emb_dim"], num_heads=a["num_heads"], head_dim=a["head_dim"], mlp_width=a["mlp_dim"],
      vocab_size=a["vocab_size"], gated=gated, tied=tied, dtype=dtype, norm_eps=1e-6,
      activation={"gelu": "gelu_tanh", "swish": "silu"}.get(acts[0], acts[0]),
      logit_scale=a["emb_dim"] ** -0.5 if tied else 1.0, relative_buckets=32)
  if _encodes(a):
    return t5.T5Config(**common, num_layers=a["num_decoder_layers"],
                       num_encoder_layers=a["num_encoder_layers"],
                       bias_per_layer="decoder/layers_0/relpos_bias/rel_embedding" in tensors)
  return decoder.DecoderConfig(**common, num_layers=a["num_layers"], num_kv_heads=a["num_heads"],
                               rope_base=0.0, scale=1.0)


def _attention(places, theirs, ours, layer, tensors, heads: int, head_dim: int):
  """Adds the four kernels of an attention; heads may be an axis ([D, H, K] and [H, K, D])."""
  for kernel in ("query", "key", "value", "out"):
    name = f"{theirs}/{kernel}/kernel"
    turn = stream.KEEP
    if name in tensors and len(tensors[name].shape) == 3:
      turn = (stream.Turn(lambda x: x.reshape(-1, x.shape[-1]), lambda s: (heads, head_dim, s[1]))
              if kernel == "out" else
              stream.Turn(lambda x: x.reshape(len(x), -1), lambda s: (s[0], heads, head_dim)))
    places[name] = stream.Place((*ours[:-1], ours[-1] + kernel), layer, turn)


def _mlp(places, theirs, ours, layer, gated: bool):
  kernels = {"gate": "wi_0", "up": "wi_1", "down": "wo"} if gated else {"up": "wi", "down": "wo"}
  for mine, name in kernels.items():
    places[f"{theirs}/mlp/{name}/kernel"] = stream.Place((*ours, mine), layer)


def _ends(c, embedder: str) -> dict:
  places = {f"{embedder}/embedding": stream.Place(("embedding",))}
  if not c.tied:
    places["decoder/logits_dense/kernel"] = stream.Place(("head",))
  return places


def _t5_places(c: t5.T5Config, tensors) -> dict[str, stream.Place]:
  places = _ends(c, "token_embedder")
  for side, layers in (("encoder", c.num_encoder_layers), ("decoder", c.num_layers)):
    places[f"{side}/{side}_norm/scale"] = stream.Place((side, "final_norm"))
    parts = ({"self": ("attention", "pre_attention_layer_norm")} if side == "encoder" else
             {"self": ("self_attention", "pre_self_attention_layer_norm"),
              "cross": ("encoder_decoder_attention", "pre_cross_attention_layer_norm")})
    for n in range(layers):
      root = f"{side}/layers_{n}"
      for ours, (attention, norm) in parts.items():
        places[f"{root}/{norm}/scale"] = stream.Place((side, f"{ours}_norm"), n)
        _attention(places, f"{root}/{attention}", (side, f"{ours}_"), n, tensors, c.num_heads,
                   c.head_dim)
      places[f"{root}/pre_mlp_layer_norm/scale"] = stream.Place((side, "mlp_norm"), n)
      _mlp(places, root, (side,), n, c.gated)
      if n == 0 or c.bias_per_layer:
        at = root if c.bias_per_layer else side
        places[f"{at}/relpos_bias/rel_embedding"] = stream.Place(
            (side, "relative_bias"), n, stream.TRANSPOSE)
  return places


def _decoder_places(c: decoder.DecoderConfig, tensors) -> dict[str, stream.Place]:
  places = _ends(c, "decoder/token_embedder")
  places["decoder/decoder_norm/scale"] = stream.Place(("final_norm",))
  places["decoder/relpos_bias/rel_embedding"] = stream.Place(
      ("relative_bias",), turn=stream.TRANSPOSE)
  for n in range(c.num_layers):
    root = f"decoder/layers_{n}"
    places[f"{root}/pre_self_attention_layer_norm/scale"] = stream.Place(
        ("layers", "attention_norm"), n)
    _attention(places, f"{root}/self_attention", ("layers", ""), n, tensors, c.num_heads,
               c.head_dim)
    places[f"{root}/pre_mlp_layer_norm/scale"] = stream.Place(("layers", "mlp_norm"), n)
    _mlp(places, root, ("layers",), n, c.gated)
  return places
