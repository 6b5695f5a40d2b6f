"""Readers of weights: GGUF, safetensors, T5X, PyTorch's zip."""
import functools
import io
import json
import pathlib
import pickle
import struct
import tempfile
import zipfile

import numpy as np

from benchmarks.garbage import gguf_file, reader

_D, _HEADS, _K, _MLP, _V = 8, 2, 4, 12, 20


def _random(shapes: dict[str, tuple]) -> dict[str, np.ndarray]:
  rng = np.random.default_rng(0)
  return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def _safetensors(tensors: dict) -> bytes:
  from ilm_jax.weights import tensor_file
  out = io.BytesIO()
  tensor_file.write(out, [tensor_file.of(*entry) for entry in tensors.items()], {"format": "pt"})
  return out.getvalue()


@functools.cache
def _shapes_once() -> None:
  """Computes abstract trees once per config, since only the reading is tested here."""
  from ilm_jax.models import bert, language_model
  for module in (language_model, bert):
    module.abstract_params = functools.lru_cache(64)(module.abstract_params)


# GGUF.

@functools.cache
def _gguf() -> list[dict[str, bytes]]:
  wide = 32                          # rows of whole Q8_0 blocks
  shapes = {"token_embd.weight": (_V, wide), "output_norm.weight": (wide,),
            "blk.0.attn_norm.weight": (wide,), "blk.0.ffn_norm.weight": (wide,),
            **{f"blk.0.attn_{part}.weight": (wide, wide) for part in ("q", "k", "v", "output")},
            "blk.0.ffn_gate.weight": (wide, wide), "blk.0.ffn_up.weight": (wide, wide),
            "blk.0.ffn_down.weight": (wide, wide)}
  made = []
  for quantised in (False, True):
    with tempfile.TemporaryDirectory() as folder:
      path = pathlib.Path(folder, "m.gguf")
      tensors = _random(shapes)
      gguf_file.write(path, tensors, {
          "block_count": 1, "embedding_length": wide, "feed_forward_length": wide, "head_count": 4,
          "head_count_kv": 4, "layer_norm_rms_eps": 1e-5, "tokenizer_model": "gpt2",
          "tokenizer_pre": "smollm", "token_list": _words(), "token_types": [3, 1, *[1] * (_V - 2)],
          "token_merges": ["a b"], "eos_token_id": 0,
          "chat_template": "{{ messages[0].content }}"},
          quantise=[name for name in tensors if quantised and tensors[name].ndim > 1])
      made.append({"m.gguf": path.read_bytes()})
  return made


def _words() -> list[str]:
  return ["<|im_end|>", "ab", *map(chr, range(ord("a"), ord("a") + _V - 2))]


def _read_gguf(folder) -> None:
  _shapes_once()
  from ilm_jax.data import chat_files, tokenizer_files
  from ilm_jax.weights import gguf
  tokenizer = tokenizer_files.load(folder / "m.gguf")
  tokenizer.decode(tokenizer.encode("abc"))
  chat_files.of_tokenizer(folder / "m.gguf", tokenizer)
  gguf.load(folder / "m.gguf")


# Safetensors.

_LLAMA = {"model_type": "llama", "hidden_size": _D, "num_attention_heads": _HEADS,
          "num_key_value_heads": 1, "intermediate_size": _MLP, "num_hidden_layers": 1,
          "vocab_size": _V, "rms_norm_eps": 1e-5, "rope_theta": 1e4, "tie_word_embeddings": True,
          "rope_scaling": {"rope_type": "linear", "factor": 2.0}}


def _llama_tensors() -> dict:
  layer = "model.layers.0."
  return _random({
      "model.embed_tokens.weight": (_V, _D), "model.norm.weight": (_D,),
      f"{layer}input_layernorm.weight": (_D,), f"{layer}post_attention_layernorm.weight": (_D,),
      f"{layer}self_attn.q_proj.weight": (_HEADS * _K, _D),
      f"{layer}self_attn.k_proj.weight": (_K, _D), f"{layer}self_attn.v_proj.weight": (_K, _D),
      f"{layer}self_attn.o_proj.weight": (_D, _HEADS * _K),
      f"{layer}mlp.gate_proj.weight": (_MLP, _D), f"{layer}mlp.up_proj.weight": (_MLP, _D),
      f"{layer}mlp.down_proj.weight": (_D, _MLP)})


@functools.cache
def _hugging_face() -> list[dict[str, bytes]]:
  tensors, config = _llama_tensors(), json.dumps(_LLAMA).encode()
  names = list(tensors)
  parts = {"a.safetensors": names[:4], "b.safetensors": names[4:]}
  index = {"metadata": {"total_size": 1}, "weight_map": {
      name: file for file, of in parts.items() for name in of}}
  return [{"config.json": config, "model.safetensors": _safetensors(tensors)},
          {"config.json": config, "model.safetensors.index.json": json.dumps(index).encode(),
           **{file: _safetensors({n: tensors[n] for n in of}) for file, of in parts.items()}}]


def _read_hugging_face(folder) -> None:
  _shapes_once()
  from ilm_jax.weights import load
  load.language_model(folder)


@functools.cache
def _bert() -> list[dict[str, bytes]]:
  from ilm_jax.models import bert
  from ilm_jax.weights import safetensors
  fields = {"hidden_size": _D, "num_attention_heads": 2, "intermediate_size": _MLP,
            "vocab_size": _V, "max_position_embeddings": 6, "type_vocab_size": 2,
            "num_hidden_layers": 1, "layer_norm_eps": 1e-12, "hidden_act": "gelu"}
  config = bert.BertConfig(num_layers=1, width=_D, num_heads=2, mlp_width=_MLP, vocab_size=_V,
                           max_positions=6, num_types=2, norm_eps=1e-12)
  shapes = safetensors._shapes(config, safetensors._places(config))
  return [{"config.json": json.dumps(fields).encode(),
           "model.safetensors": _safetensors(_random(shapes))}]


def _read_bert(folder) -> None:
  _shapes_once()
  from ilm_jax.weights import safetensors
  safetensors.load_bert(folder)


# T5X.

_GIN = """
LAYERS = 1
network.Transformer.config = @network.T5Config()
network.T5Config:
  vocab_size = 20
  emb_dim = 8
  num_heads = 2
  num_encoder_layers = %LAYERS
  num_decoder_layers = %LAYERS
  head_dim = 4
  mlp_dim = 12
  mlp_activations = ('gelu', 'linear')
  logits_via_embedding = False
"""


def _t5_tensors() -> dict[str, np.ndarray]:
  from ilm_jax.models import language_model, t5
  from ilm_jax.weights import t5x, trees
  config = t5.T5Config(num_layers=1, num_encoder_layers=1, width=_D, num_heads=2, head_dim=4,
                       mlp_width=_MLP, vocab_size=_V, relative_buckets=32)
  abstract, shapes = language_model.abstract_params(config), {}
  for name, place in t5x._t5_places(config, {}).items():
    leaf = trees.get(abstract, place.path)
    shapes[name] = place.turn.shape(leaf.shape if place.layer is None else leaf.shape[1:])
  return _random(shapes)


def _zarr(array: np.ndarray, kvstore) -> None:
  import tensorstore
  store = tensorstore.open({"driver": "zarr", "kvstore": kvstore}, create=True, dtype=array.dtype,
                           shape=array.shape).result()
  store.write(array).result()


def _files(folder: str) -> dict[str, bytes]:
  root = pathlib.Path(folder)
  return {str(path.relative_to(root)): path.read_bytes()
          for path in sorted(root.rglob("*")) if path.is_file()}


@functools.cache
def _t5x_msgpack() -> list[dict[str, bytes]]:
  from flax import serialization
  from flax.traverse_util import unflatten_dict
  inside, beside = _t5_tensors(), _t5_tensors()
  with tempfile.TemporaryDirectory() as folder:
    for n, name in enumerate(list(beside)[::3]):
      _zarr(beside[name], {"driver": "file", "path": f"{folder}/t{n}/"})
      beside[name] = {"driver": "zarr", "kvstore": {"driver": "file", "path": f"t{n}"},
                      "metadata": {"shape": list(inside[name].shape)}}
    arrays = _files(folder)
  made = []
  for tensors, more in ((inside, {}), (beside, arrays)):
    tree = {"version": 3, "optimizer": {"target": unflatten_dict(tensors, sep="/"),
                                        "state": {"step": np.int32(1)}}}
    made.append({"checkpoint": serialization.msgpack_serialize(tree), "model.gin": _GIN.encode(),
                 **more})
  return made


@functools.cache
def _t5x_tensorstore() -> list[dict[str, bytes]]:
  """Orbax's two layouts: one folder per array, and all arrays in one database."""
  tensors, made = _t5_tensors(), []
  keys = {"tree_metadata": {str(("target", *name.split("/"))): {
      "key_metadata": [{"key": key, "key_type": 2} for key in ("target", *name.split("/"))],
      "value_metadata": {"value_type": "jax.Array"}} for name in tensors}}
  for database in (False, True):
    with tempfile.TemporaryDirectory() as folder:
      for name, array in tensors.items():
        at = f"target.{name.replace('/', '.')}"
        _zarr(array, {"driver": "ocdbt", "base": f"file://{folder}/state/", "path": f"{at}/"}
              if database else {"driver": "file", "path": f"{folder}/state/{at}/"})
      pathlib.Path(folder, "state", "_METADATA").write_text(json.dumps(keys))
      pathlib.Path(folder, "model.gin").write_text(_GIN)
      made.append(_files(folder))
  return made


def _read_t5x(folder) -> None:
  _shapes_once()
  from ilm_jax.weights import load
  load.language_model(folder)


# PyTorch.

def torch_zip(tensors: dict[str, np.ndarray]) -> bytes:
  """The bytes that torch.save writes for {"model": tensors} in float32, opcode by opcode."""
  def word(text):
    return pickle.BINUNICODE + struct.pack("<I", len(text)) + text.encode()

  def numbers(values):
    return pickle.MARK + b"".join(pickle.BININT + struct.pack("<i", n) for n in values) + (
        pickle.TUPLE)

  ordered = pickle.GLOBAL + b"collections\nOrderedDict\n" + pickle.EMPTY_TUPLE + pickle.REDUCE
  made = pickle.PROTO + b"\x02" + pickle.EMPTY_DICT + pickle.MARK + word("model") + ordered
  made += pickle.MARK
  for key, (name, array) in enumerate(tensors.items()):
    steps = tuple(step // array.itemsize for step in array.strides)
    made += (word(name) + pickle.GLOBAL + b"torch._utils\n_rebuild_tensor_v2\n" + pickle.MARK
             + pickle.MARK + word("storage") + pickle.GLOBAL + b"torch\nFloatStorage\n"
             + word(str(key)) + word("cpu") + pickle.BININT + struct.pack("<i", array.size)
             + pickle.TUPLE + pickle.BINPERSID + pickle.BININT1 + b"\0" + numbers(array.shape)
             + numbers(steps) + pickle.NEWFALSE + ordered + pickle.TUPLE + pickle.REDUCE)
  made += pickle.SETITEMS + pickle.SETITEMS + pickle.STOP
  out = io.BytesIO()
  with zipfile.ZipFile(out, "w") as archive:
    archive.writestr(zipfile.ZipInfo("archive/data.pkl"), made)
    for key, array in enumerate(tensors.values()):
      archive.writestr(zipfile.ZipInfo(f"archive/data/{key}"), array.tobytes())
  return out.getvalue()


@functools.cache
def _blip2() -> list[dict[str, bytes]]:
  from ilm_jax.weights import blip2
  sizes = blip2.Sizes(1, _D, _MLP, 2, 1, 6, _V, 5, 4)
  layout = blip2._LAVIS
  places = blip2._places(layout, sizes, {layout.lm + "bias": ()})
  tensors = _random({name: shape for name, (_, shape) in places.items()})
  tensors["temp"] = np.full((), 0.05, np.float32)
  return [{"q.pth": torch_zip(tensors)}]


def _read_blip2(folder) -> None:
  from ilm_jax.weights import blip2
  blip2.load(folder / "q.pth")


ALL = [
    reader.Reader("gguf", _gguf, _read_gguf),
    reader.Reader("safetensors", _hugging_face, _read_hugging_face),
    reader.Reader("safetensors-bert", _bert, _read_bert),
    reader.Reader("t5x-msgpack", _t5x_msgpack, _read_t5x),
    reader.Reader("t5x-tensorstore", _t5x_tensorstore, _read_t5x),
    reader.Reader("pth", _blip2, _read_blip2),
]
