"""Shapes of language models, which is all that a plan needs.

`lm.shape` names one of SHAPES; `lm.asset` reads weights of any shape.
"""
import dataclasses

from etils import epath

from ilm_jax import errors
from ilm_jax.assets import pinned
from ilm_jax.models import decoder, language_model
from ilm_jax.models.attention import RopeScaling
from ilm_jax.weights import gguf, hf

_GEMMA3_4B_LAYERS = 34
SHAPES = {
    # Touvron et al. 2023, arXiv 2307.09288; 6.74e9 parameters.
    "llama-2-7b": decoder.DecoderConfig(
        num_layers=32, width=4096, num_heads=32, num_kv_heads=32, head_dim=128, mlp_width=11008,
        vocab_size=32000, tied=False),
    # Chowdhery et al. 2022, arXiv 2204.02311, table 1; 62.5e9 parameters.
    "palm-62b": decoder.DecoderConfig(
        num_layers=64, width=8192, num_heads=32, num_kv_heads=1, head_dim=256, mlp_width=32768,
        vocab_size=256000, norm="layer", parallel=True),
    # The text model of Gemma 3 4B (arXiv 2503.19786) on Hugging Face; 3.88e9 parameters.
    "gemma-3-4b": decoder.DecoderConfig(
        num_layers=_GEMMA3_4B_LAYERS, width=2560, num_heads=8, num_kv_heads=4, head_dim=256,
        mlp_width=10240, vocab_size=262208, norm_eps=1e-6, post_norms=True, qk_norm=True,
        activation="gelu_tanh", rope_base=1e6, rope_scaling=RopeScaling(factor=8.0),
        local_layers=tuple((i + 1) % 6 != 0 for i in range(_GEMMA3_4B_LAYERS)), window=1024,
        local_rope_base=1e4, embed_scale=2560 ** 0.5),
}


def of(c) -> language_model.Config:
  """Shape of the language model in a run's step; reads no weights.

  Args:
    c: `config.lm`. Without `shape` the shape comes from `asset`, a GGUF file or a Hugging Face
      folder.

  Raises:
    UserError: `asset` is neither.
  """
  if c.shape:
    model = SHAPES[c.shape]
  else:
    path = pinned.only(c.asset) if c.asset in pinned.ASSETS else epath.Path(c.asset)
    if path.suffix == ".gguf":
      model = gguf.read_config(path)
    elif (path / "config.json").exists():
      model = hf.read_config(path)
    else:
      raise errors.UserError(f"lm.asset={c.asset!r}: --stage=plan reads the shape of a GGUF file "
                             "or of a Hugging Face folder, found neither: set lm.asset to one, or "
                             f"lm.shape to one of {', '.join(SHAPES)}")
  changes = {"remat": c.remat, "new_tokens": c.new_tokens, "int8": c.dtype == "int8",
             "dtype": "float32" if c.dtype == "int8" else c.dtype}     # as `load.load`
  if not language_model.is_encoder_decoder(model):
    changes |= {"prefix_lm": c.prefix_lm, "lora_rank": c.lora_rank, "attention": c.attention}
  return language_model.narrowed(dataclasses.replace(model, **changes), c.layers, c.index_only)


def with_layers(lm: language_model.Config, count: int, *, unroll: bool) -> language_model.Config:
  """The model with `count` layers, in a loop or unrolled."""
  # At least 2 even for one layer: above 1 the output head's loop is unrolled, too.
  changes = {"num_layers": count, "unroll": max(count, 2) if unroll else 1}
  if getattr(lm, "local_layers", ()):
    changes["local_layers"] = lm.local_layers[:count]
  return dataclasses.replace(lm, **changes)
