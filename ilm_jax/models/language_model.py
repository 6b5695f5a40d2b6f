"""Builds any language model of the project, selected by the type of its config.

All share one interface: embed, target_hidden, prefill, extend, logits, token_nll. Objectives,
decode/ and stages/ use this interface and work with all models.
"""
import dataclasses

import jax.numpy as jnp
from flax import nnx

from ilm_jax import errors
from ilm_jax.models import decoder, decoder_layers, t5

Config = decoder.DecoderConfig | t5.T5Config
LanguageModel = decoder.Decoder | t5.T5
_MODELS = {decoder.DecoderConfig: decoder.Decoder, t5.T5Config: t5.T5}


def bind(config: Config, params: dict) -> LanguageModel:
  """The model with the given pure dict of parameters (`abstract_params` gives their shapes)."""
  return nnx.merge(_graphdef(config), params)


def abstract_params(config: Config) -> dict:
  """The pure dict of parameters as ShapeDtypeStructs; costs nothing at any size."""
  return nnx.to_pure_dict(nnx.state(_abstract(config), nnx.Param))


def init(config: Config, seed: int) -> dict:
  """Random parameters, a pure dict."""
  return nnx.to_pure_dict(nnx.state(_MODELS[type(config)](config, rngs=nnx.Rngs(seed)), nnx.Param))


def fresh_lora(config: decoder.DecoderConfig, seed: int) -> dict:
  """Initial low-rank updates for training, see `decoder_layers.Lora`."""
  return nnx.to_pure_dict(nnx.state(decoder_layers.Lora(config, rngs=nnx.Rngs(seed)), nnx.Param))


def embed_prompt(model: LanguageModel, batch: dict):
  """[B, L, D]: embeddings of a batch's tokens, plus whole-word embeddings if it has "word"."""
  embeds_BLD = model.embed(batch["tokens"])
  return model.add_whole_words(embeds_BLD, batch["word"]) if "word" in batch else embeds_BLD


def narrowed(config: Config, layers: int, index_only: bool) -> Config:
  """The config of a decoder's first `layers` layers (0: all); `index_only`: see `head.Tables`.

  Raises:
    UserError: the model is an encoder-decoder, `layers` exceeds its layers, or `index_only` is set
      without added words.
  """
  if not layers and not index_only:
    return config
  if is_encoder_decoder(config):
    raise errors.UserError(f"lm.layers={layers}, lm.index_only={index_only}: both are for "
                           "decoders, but this language model is a T5: set them to 0 and False")
  if layers > config.num_layers:
    raise errors.UserError(f"lm.layers={layers}: the language model has {config.num_layers}: set "
                           "at most that, or 0 for all")
  if index_only and not config.new_tokens:
    raise errors.UserError("lm.index_only=True with lm.new_tokens=0: nothing could be said: set "
                           "lm.new_tokens above 0, or lm.index_only=False")
  few = layers or config.num_layers
  return dataclasses.replace(config, index_only=index_only, num_layers=few,
                             local_layers=config.local_layers[:few])


def split_trained(params: dict, train: str) -> tuple[dict, dict]:
  """Splits `params` into (frozen, trained) parameters.

  Args:
    params: of a model.
    train: what to train: "none"; "index_tokens": only the tables of the added words; "lora": only
      low-rank updates; or "all".
  """
  trained = {"none": lambda name: False, "all": lambda name: True,
             "index_tokens": lambda name: name.startswith("new_"),
             "lora": lambda name: name == "lora"}[train]
  return ({k: v for k, v in params.items() if not trained(k)},
          {k: v for k, v in params.items() if trained(k)})


def is_encoder_decoder(config: Config) -> bool:
  """Whether an encoder reads the prompts and a decoder writes the answers (data/packing.py)."""
  return isinstance(config, t5.T5Config)


def embedding_rms(config: Config, params: dict) -> float:
  """Root mean square of the word embeddings that enter the first layer."""
  model = bind(config, params)
  return float(jnp.sqrt(jnp.mean(jnp.square(
      model.embed(jnp.arange(config.vocab_size)).astype(jnp.float32)))))


def _abstract(config: Config) -> LanguageModel:
  return nnx.eval_shape(lambda: _MODELS[type(config)](config, rngs=nnx.Rngs(0)))


def _graphdef(config: Config) -> nnx.GraphDef:
  return nnx.split(_abstract(config))[0]
