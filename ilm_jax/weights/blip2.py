"""Reads the Q-Former of a BLIP-2 checkpoint (arXiv 2301.12597) into our layout.

Two layouts: LAVIS's (.pth, both stages) and that of `transformers` (a folder with safetensors:
Blip2ForImageTextRetrieval, Blip2ForConditionalGeneration, Blip2Model). Tensors of the vision tower
and the language model are skipped by name; every other tensor must have a place.
"""
import re
from typing import NamedTuple

import numpy as np
from etils import epath

from ilm_jax import errors
from ilm_jax.models import qformer_config
from ilm_jax.weights import hf, torch_zip, trees

_OTHERS = ("visual_encoder.", "vision_model.", "ln_vision.", "language_model.",
           "language_projection.", "t5_model.", "opt_model.", "llm_model.", "t5_proj.",
           "opt_proj.", "llm_proj.")
# Copies of the word table and the bias in BERT's head, which shares them; position numbers.
_IGNORED = frozenset({
    "Qformer.cls.predictions.decoder.weight", "Qformer.cls.predictions.decoder.bias",
    "Qformer.bert.embeddings.position_ids", "embeddings.position_ids"})


class _Layout(NamedTuple):
  """Names in a layout: of the embedding norm, tables, layers and heads; "" for none."""
  norm: str
  tables: str
  layer: str
  inner: str         # between "attention." and "query"
  query_projection: str
  text_projection: str
  temperature: str
  lm: str


_LAVIS = _Layout("Qformer.bert.embeddings.LayerNorm", "Qformer.bert.embeddings.",
                 "Qformer.bert.encoder.layer.", "self", "vision_proj", "text_proj", "temp",
                 "Qformer.cls.predictions.")
_TRANSFORMERS = _Layout("qformer.layernorm", "embeddings.", "qformer.encoder.layer.", "attention",
                        "vision_projection", "text_projection", "", "")


class Sizes(NamedTuple):
  """The sizes of a checkpoint's Q-Former; 0 for a part that it lacks."""
  num_layers: int
  width: int
  mlp_width: int
  num_queries: int
  cross_every: int
  kv_width: int
  vocab_size: int
  max_text: int
  proj_width: int


def load(path) -> tuple[Sizes, dict]:
  """(sizes, parameters) of the Q-Former in a checkpoint.

  Args:
    path: a .pth or .bin file, or a folder with config.json and safetensors.

  Returns:
    The sizes, and a pure dict of float32 numpy arrays by the names of `models/qformer.py`, layers
    stacked. It has no `reader`; text tables, heads and `lm` as far as the checkpoint has them.

  Raises:
    UserError: the checkpoint is unreadable or has no Q-Former, or tensors are missing, left over or
      of another shape.
  """
  folder = epath.Path(path).is_dir()
  source = hf.Shards(epath.Path(path)) if folder else torch_zip.TorchFile(path)
  shapes = {n: s for n, s in source.shapes.items() if not n.startswith(_OTHERS)}
  layout = _LAVIS if _LAVIS.norm + ".weight" in shapes else _TRANSFORMERS
  sizes = _sizes(str(path), layout, shapes)
  places = _places(layout, sizes, shapes)
  trees.take(str(path), shapes, {name: shape for name, (_, shape) in places.items()}, _IGNORED)
  rows: dict[tuple, list] = {}
  for name, (place, _) in places.items():
    array = np.asarray(source.read(name)).astype(np.float32)
    rows.setdefault(place, []).append(array.T if place[-1] == "kernel" else array)
  params: dict = {}
  for place, arrays in rows.items():
    trees.put(params, place, np.stack(arrays) if place[0] == "stack" else arrays[0])
  params["query_tokens"] = params["query_tokens"][0]
  if "heads" in params and "log_temperature_itc" in params["heads"]:
    params["heads"]["log_temperature_itc"] = np.log(params["heads"]["log_temperature_itc"])
  return sizes, params


def check_room(path, sizes: Sizes, config: qformer_config.QFormerConfig) -> None:
  """Raises UserError if a Q-Former of `config` cannot start from one of `sizes`.

  `width`, `mlp_width` and `cross_every` must be equal. If `kv_width` or `proj_width` differs, those
  projections start from random values.
  """
  wrong = [f"qformer.{name}={getattr(config, name)}, expected {getattr(sizes, name)}"
           for name in ("width", "mlp_width", "cross_every")
           if getattr(config, name) != getattr(sizes, name)]
  if wrong:
    raise errors.UserError(f"{path}: this Q-Former does not fit the config: {'; '.join(wrong)}. "
                           f"All of its sizes are {sizes._asdict()}: set these in the config")


def _sizes(path: str, layout: _Layout, shapes: dict[str, tuple]) -> Sizes:
  """The sizes, read from the shapes; `trees.take` finds shapes that contradict them."""
  number = re.compile(re.escape(layout.layer) + r"(\d{1,10})\.(crossattention\.)?")
  matches = [number.match(name) for name in shapes]
  layers = {int(m[1]) for m in matches if m}
  trees.check_sizes(path, {}, {"layers": max(layers, default=0) + 1})
  crossing = sorted({int(m[1]) for m in matches if m and m[2]})
  try:
    _, queries, width = shapes["query_tokens"]
    mlp, _ = shapes[layout.layer + "0.intermediate_query.dense.weight"]
    _, kv = shapes[f"{layout.layer}0.crossattention.{layout.inner}.key.weight"]
    vocab, _ = shapes.get(layout.tables + "word_embeddings.weight", (0, 0))
    positions, _ = shapes.get(layout.tables + "position_embeddings.weight", (0, 0))
    proj, _ = shapes.get(layout.query_projection + ".weight", (0, 0))
  except (KeyError, ValueError) as e:
    raise errors.UserError(
        f"{path}: no Q-Former of BLIP-2 found ({e} is missing or has another rank): expected "
        "LAVIS's checkpoint or a folder of transformers' Blip2 models") from e
  return Sizes(max(layers) + 1, width, mlp, queries,
               crossing[1] if len(crossing) > 1 else max(layers) + 1, kv, vocab, positions, proj)


def _places(layout: _Layout, s: Sizes, shapes) -> dict[str, tuple[tuple, tuple]]:
  """Name in the file -> (path in our tree, shape in the file), with layers in order."""
  places = {"query_tokens": (("query_tokens",), (1, s.num_queries, s.width))}

  def linear(name, path, n_out, n_in):
    places[name + ".weight"] = ((*path, "kernel"), (n_out, n_in))
    places[name + ".bias"] = ((*path, "bias"), (n_out,))

  def norm(name, path):
    places[name + ".weight"] = ((*path, "scale"), (s.width,))
    places[name + ".bias"] = ((*path, "bias"), (s.width,))

  norm(layout.norm, ("embed_norm",))
  for n in range(s.num_layers):
    _layer(f"{layout.layer}{n}.", layout.inner, s, n, linear, norm)
  if s.vocab_size:
    for theirs, ours, rows in (("word", "word", s.vocab_size), ("position", "position",
                                                                s.max_text)):
      places[f"{layout.tables}{theirs}_embeddings.weight"] = (
          ("text_embed", ours), (rows, s.width))
  if s.proj_width:
    linear(layout.query_projection, ("heads", "query_projection"), s.proj_width, s.width)
    linear(layout.text_projection, ("heads", "text_projection"), s.proj_width, s.width)
    linear("itm_head", ("heads", "match"), 2, s.width)
    if layout.temperature:
      places[layout.temperature] = (("heads", "log_temperature_itc"), ())
  if layout.lm and layout.lm + "bias" in shapes:
    places[layout.lm + "bias"] = (("lm", "bias"), (s.vocab_size,))
    linear(layout.lm + "transform.dense", ("lm", "transform"), s.width, s.width)
    norm(layout.lm + "transform.LayerNorm", ("lm", "norm"))
  return places


def _layer(root: str, inner: str, s: Sizes, n: int, linear, norm) -> None:
  """Adds the places of layer `n`."""
  def attention(theirs, ours, norm_path, kv_width):
    for name, n_in in (("query", s.width), ("key", kv_width), ("value", kv_width)):
      linear(f"{root}{theirs}.{inner}.{name}", (*ours, name), s.width, n_in)
    linear(f"{root}{theirs}.output.dense", (*ours, "out"), s.width, s.width)
    norm(f"{root}{theirs}.output.LayerNorm", norm_path)

  layer = ("stack", "layer")
  attention("attention", (*layer, "attention"), (*layer, "attention_norm"), s.width)
  if n % s.cross_every == 0:
    cross = ("stack", "cross")
    attention("crossattention", (*cross, "attention"), (*cross, "norm"), s.kv_width)
  for suffix, branch in (("_query", "query"), ("", "text")):
    if branch == "query" or s.vocab_size:
      mlp = (*layer, f"{branch}_mlp")
      linear(f"{root}intermediate{suffix}.dense", (*mlp, "mlp_in"), s.mlp_width, s.width)
      linear(f"{root}output{suffix}.dense", (*mlp, "mlp_out"), s.width, s.mlp_width)
      norm(f"{root}output{suffix}.LayerNorm", (*layer, f"{branch}_norm"))
