"""Loads a language model of any supported layout: GGUF, Hugging Face, T5X, or our own."""
import dataclasses
import hashlib
import zlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from ilm_jax import errors
from ilm_jax.models import language_model as models_lib
from ilm_jax.models import products
from ilm_jax.runtime import axes
from ilm_jax.weights import gguf, hf, int8, own, t5x


class LanguageModel(NamedTuple):
  """A loaded language model."""
  config: models_lib.Config
  params: dict        # nested; on the mesh if one was given


def language_model(path, *, dtype: str = "float32", mesh=None, gin_file: str = "",
                   new_tokens: int = 0, vocabulary: int = 0):
  """The model at `path`, as a `LanguageModel`.

  Args:
    path: a .gguf file, a folder with config.json and safetensors, a T5X checkpoint, or
      a folder that `own.save` wrote.
    dtype: dtype of the kernels: "float32", "bfloat16", or "int8" (weight-only, a scale for each
      channel).
    mesh: where the parameters go; None: they are numpy arrays.
    gin_file: the gin file with the architecture of a T5X checkpoint.
    new_tokens: number of words to add after the vocabulary.
    vocabulary: number of words of the tokenizer; the new words follow these, and further rows of a
      padded table are cut off. Used only if words are added; 0: all rows of the table.

  Raises:
    UserError: there is no readable model, or it is damaged or of an unsupported kind.
  """
  path, few = epath.Path(path), dtype == "int8"
  wide = "float32" if few else dtype
  if path.suffix == ".gguf":
    config, params = gguf.load(path, wide, mesh, int8=few)
  elif own.is_model(path):
    config, params = own.load(path, wide, mesh)
  elif (path / "config.json").exists():
    config, params = hf.load(path, wide, mesh, int8=few)
  elif t5x.is_checkpoint(path):
    config, params = t5x.load(path, gin_file, wide, mesh)
  else:
    raise errors.UserError(
        f"{path}: no language model found: expected a .gguf file, a folder with config.json and "
        "safetensors, or a T5X checkpoint (checkpoint_<step>/)")
  if few and not config.int8:
    config, params = int8.quantise(config, params, mesh)
  if new_tokens:
    config, params = _add_words(config, params, new_tokens, vocabulary or config.vocab_size, mesh)
  return LanguageModel(config, params)


def encodes(path, gin_file: str = "") -> bool:
  """Whether the model at `path` is an encoder-decoder; reads its description, not its weights.

  Args:
    path: as in `language_model`.
    gin_file: the gin file with the architecture of a T5X checkpoint.

  Raises:
    UserError: the description cannot be read. For a path without a model, returns False.
  """
  path = epath.Path(path)
  if path.suffix == ".gguf":
    return False
  if own.is_model(path):
    return own.is_encoder_decoder(path)
  if (path / "config.json").exists():
    return models_lib.is_encoder_decoder(hf.read_config(path))
  return t5x.is_checkpoint(path) and t5x.is_encoder_decoder(path, gin_file)


def adapt(config, params: dict, mesh=None, *, remat: str = "dots", attention: str = "plain",
          prefix_lm: bool = False, whole_words: int = 0, layers: int = 0, index_only: bool = False,
          lora_rank: int = 0, seed: int = 0, frozen: bool = False
          ) -> tuple[models_lib.Config, dict]:
  """The same model with the settings and additions of a config.

  Args:
    config, params: as `language_model` returns them.
    mesh: where added parameters go; None: they are numpy arrays.
    remat: see models/remat.py.
    attention: of a decoder, see `attention.attend`.
    prefix_lm: True: attention inside a decoder's prompt is bidirectional.
    whole_words: rows of a table for P5's whole-word embeddings, which start at zero so that they do
      not change the model at first; 0: none.
    layers, index_only: see `language_model.narrowed`; its errors are raised here, too.
    lora_rank: rank of low-rank updates of a decoder's kernels, which start at zero; 0: none.
    seed: seed of the low-rank updates.
    frozen: nothing differentiates the kernels: on a CPU those in bfloat16 are `products.packed`.

  Raises:
    UserError: prefix_lm or lora_rank for an encoder-decoder, or whole_words for a decoder.
  """
  encodes = models_lib.is_encoder_decoder(config)
  if prefix_lm and encodes:
    raise errors.UserError("lm.prefix_lm=True with a T5, whose encoder attends to the whole prompt "
                           "anyway: set it to False")
  if whole_words and not encodes:
    raise errors.UserError(f"lm.whole_words={whole_words} with a decoder: only the encoder of a T5 "
                           "has such embeddings; set it to 0, or use a T5")
  if lora_rank and encodes:
    raise errors.UserError(f"lm.lora_rank={lora_rank} with a T5: only a decoder has low-rank "
                           "updates; set it to 0, or lm.train='all'")
  changes, added = {} if encodes else {"attention": attention}, {}
  if prefix_lm:
    changes["prefix_lm"] = True
  config = models_lib.narrowed(config, layers, index_only)
  if layers:
    params = {**params, "layers": jax.tree.map(lambda x: x[:layers], params["layers"])}
  if whole_words:
    changes["whole_words"] = whole_words
    added["whole_word"] = np.zeros((whole_words, config.width), np.float32)
  if frozen and mesh is not None and mesh.devices.flat[0].platform == "cpu":
    params = products.packed(params)
  config = dataclasses.replace(config, remat=remat, **changes)
  if lora_rank:
    config = dataclasses.replace(config, lora_rank=lora_rank)
    added["lora"] = models_lib.fresh_lora(config, seed)
  return LanguageModel(config, {**params, **(added if mesh is None else axes.place(mesh, added))})


def redrawn(model: LanguageModel, seed: int) -> LanguageModel:
  """The same model with random weights: a control for the effect of pretraining.

  Every kernel and table [.., in, out] is drawn from a normal with the standard deviation that it
  had, layer by layer; norms and biases stay.
  """
  axis = {"layers": 1, "encoder": 1, "decoder": 1}        # first axis of a layer's own

  def draw(path, x):
    names = axes.path_name(path).split("/")
    own = x.ndim - axis.get(names[0], 0)
    if own < 2 or "norm" in names[-1] or not jnp.issubdtype(x.dtype, jnp.floating):
      return x
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32("/".join(names).encode()))
    std = jnp.std(x.astype(jnp.float32), axis=tuple(range(x.ndim - own, x.ndim)), keepdims=True)
    return (std * jax.random.normal(key, x.shape)).astype(x.dtype)

  params = jax.tree_util.tree_map_with_path(draw, model.params)
  return LanguageModel(model.config, params)


def fingerprint(path) -> str:
  """sha256 over the names, sizes and bytes of a model's files; of a file of a MiB or more, over 64
  pieces of 64 KiB from its beginning to its end: fine-tuned models have equal sizes."""
  path = epath.Path(path)
  files = [path] if path.is_file() else sorted(
      folder / name for folder, _, names in path.walk() for name in names)
  digest = hashlib.sha256()
  for file in files:
    size = file.stat().length
    digest.update(f"{file.name} {size}\n".encode())
    for piece in _pieces(file, size):
      digest.update(piece)
  return digest.hexdigest()


def _pieces(file, size: int, count: int = 64, length: int = 1 << 16):
  if size < 1 << 20:
    yield file.read_bytes()
    return
  with file.open("rb") as opened:
    for n in range(count):
      opened.seek((size - length) * n // (count - 1))
      yield opened.read(length)


def _add_words(config, params: dict, count: int, vocabulary: int, mesh):
  """Adds rows for words; they start near the mean of the old rows, which is no word but near all.
  """
  if vocabulary > config.vocab_size:
    raise errors.UserError(f"the tokenizer knows {vocabulary} words, the model's table has "
                           f"{config.vocab_size}: it is the tokenizer of another model; name the "
                           "right one with --config.lm.tokenizer")
  config = dataclasses.replace(config, vocab_size=vocabulary, new_tokens=count)
  rng, params = np.random.default_rng(0), dict(params)
  for name, axis in (("embedding", 0), ("head", 1)):
    if name not in params:
      continue
    table = params[name] = jax.lax.slice_in_dim(jnp.asarray(params[name]), 0, vocabulary, axis=axis)
    if (scale := params.get(f"{name}_scale")) is not None:
      scale = params[f"{name}_scale"] = jnp.asarray(scale)[:vocabulary]
      table = table * jnp.expand_dims(scale, 1 - axis)
    wide = table.astype(jnp.float32)
    mean, std = jnp.mean(wide, axis=axis, keepdims=True), float(jnp.std(wide))
    shape = (count, config.width) if axis == 0 else (config.width, count)
    drawn = jnp.asarray(rng.normal(size=shape), jnp.float32)
    params[f"new_{name}"] = mean + 0.1 * std * drawn
  return config, params if mesh is None else axes.place(mesh, params)
