"""Writes decoders as Hugging Face folders: the inverse of `hf`, with the same tables.

It picks the family whose config.json, read by `hf_decoders`, gives the same decoder in every field.
A decoder that no family can express is refused; no field is left out.
"""
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from ilm_jax import errors
from ilm_jax.models import decoder, products
from ilm_jax.weights import hf_decoders, stream, tensor_file, trees

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"   # [V, D], in every family
_BACK = {stream.KEEP: lambda x: x, stream.TRANSPOSE: lambda x: x.T,
         stream.PLUS_ONE: lambda x: x - 1}
_ARCHITECTURES = {
    "llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM", "gemma": "GemmaForCausalLM", "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM"}
_ACTIVATIONS = {"silu": "silu", "relu": "relu", "gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh"}
# Fields that say how a model runs, not what it computes.
_RUNS = ("remat", "unroll", "attention", "dtype")


def fields(config: decoder.DecoderConfig) -> dict:
  """The fields of config.json for a decoder, its family included.

  Raises:
    UserError: no family of `_ARCHITECTURES` computes the same.
  """
  want = dataclasses.replace(config, **_runs_as(config))
  for family, architecture in _ARCHITECTURES.items():
    stated = {"model_type": family, "architectures": [architecture], **_fields(config, family)}
    try:
      got = hf_decoders.FAMILIES[family][0](stated, config.dtype)
    except (ValueError, KeyError, TypeError):
      continue
    if got == want:
      return stated
  raise errors.UserError(
      f"no decoder of Hugging Face ({', '.join(_ARCHITECTURES)}) computes the same as this "
      "language model, which may have e.g. parallel layers, bidirectional attention in prompts "
      "(lm.prefix_lm) or positions other than rotary: export it without the folder hf/")


def tensors(config: decoder.DecoderConfig, params: dict, family: str) -> list[tensor_file.Entry]:
  """The tensors of model.safetensors, in the dtype of the config.

  Args:
    config, params: from `plain`.
    family: "model_type" from `fields`.
  """
  places, _ = hf_decoders.FAMILIES[family][1](config, frozenset())
  entries = []
  for name, place in places.items():
    leaf = trees.get(params, place.path)
    shape = leaf.shape if place.layer is None else leaf.shape[1:]

    def array(leaf=leaf, place=place):
      part = np.asarray(leaf if place.layer is None else leaf[place.layer])
      return _BACK[place.turn](part.astype(np.float32) if place.turn is stream.PLUS_ONE else part)

    entries.append(tensor_file.Entry(name, place.turn.shape(shape), jnp.dtype(config.dtype), array))
  return entries


def plain(config: decoder.DecoderConfig, params: dict) -> tuple[decoder.DecoderConfig, dict]:
  """The same model with plain kernels and tables: int8 expanded, integers of `products.packed`
  turned back, low-rank updates and added words merged.

  Args:
    config, params: of a decoder, e.g. from `load.adapt`; arrays of one device or numpy's.

  Raises:
    UserError: the model can generate only indices (lm.index_only).
  """
  if config.index_only:
    raise errors.UserError("lm.index_only=True: this model generates only indices of items, and a "
                           "Hugging Face folder cannot hold such a head: export it without hf/")
  params = jax.tree.map(products.unpacked, params)
  if config.int8:
    for tree in (params, params["layers"]):
      for name in [n for n in tree if f"{n}_scale" in tree]:
        axis = stream.summed_axis(name, np.ndim(tree[name]))
        scale = np.expand_dims(np.asarray(tree.pop(f"{name}_scale")), axis)
        tree[name] = (np.asarray(tree[name], np.float32) * scale).astype(config.dtype)
  low = params.pop("lora", {})
  for name in [n.removesuffix("_lora_a") for n in low if n.endswith("_lora_a")]:
    update = np.asarray(low[f"{name}_lora_a"]) @ np.asarray(low[f"{name}_lora_b"])
    kernel = np.asarray(params["layers"][name])
    params["layers"][name] = (kernel.astype(np.float32) + update).astype(kernel.dtype)
  if config.new_tokens:
    for name, axis in (("embedding", 0), ("head", 1)):
      if name in params:
        table = np.asarray(params[name])
        added = np.asarray(params.pop(f"new_{name}")).astype(table.dtype)
        params[name] = np.concatenate([table, added], axis=axis)
  return dataclasses.replace(
      config, int8=False, lora_rank=0, new_tokens=0,
      vocab_size=config.vocab_size + config.new_tokens), params


def _runs_as(config: decoder.DecoderConfig) -> dict:
  default = {f.name: f.default for f in dataclasses.fields(config)}
  return {**{name: default[name] for name in _RUNS if name != "dtype"}, "dtype": config.dtype}


def _fields(c: decoder.DecoderConfig, family: str) -> dict:
  """config.json of a decoder, as if it were of this family; reading it back shows if it is."""
  stated = {
      "hidden_size": c.width, "intermediate_size": c.mlp_width, "num_hidden_layers": c.num_layers,
      "num_attention_heads": c.num_heads, "num_key_value_heads": c.num_kv_heads,
      "head_dim": c.head_dim, "vocab_size": c.vocab_size, "rms_norm_eps": c.norm_eps,
      "hidden_act": _ACTIVATIONS.get(c.activation), "attention_bias": False, "mlp_bias": False,
      "rope_theta": c.rope_base, "rope_scaling": _scaling(c), "tie_word_embeddings": c.tied}
  if family == "qwen2":
    return {**stated, "use_sliding_window": False}
  if family == "mistral":
    return {**stated, "sliding_window": c.window or None}
  if not family.startswith("gemma"):
    return stated
  stated |= {"hidden_activation": stated["hidden_act"]}
  if family == "gemma":
    return stated
  kinds = ["sliding_attention" if local else "full_attention" for local in c.local_layers]
  stated |= {"query_pre_attn_scalar": c.scale ** -2 if c.scale else None,
             "layer_types": kinds, "sliding_window": c.window,
             "final_logit_softcapping": c.logit_softcap or None}
  if stated["query_pre_attn_scalar"] is not None:
    whole = round(stated["query_pre_attn_scalar"])
    stated["query_pre_attn_scalar"] = (
        whole if whole ** -0.5 == c.scale else stated["query_pre_attn_scalar"])
  if family == "gemma2":
    return {**stated, "attn_logit_softcapping": c.softcap or None}
  return {**stated, "rope_local_base_freq": c.local_rope_base}


def _scaling(c: decoder.DecoderConfig) -> dict | None:
  """The field rope_scaling."""
  s = c.rope_scaling
  if s is None:
    return None
  if not s.original:
    return {"rope_type": "linear", "factor": s.factor}
  return {"rope_type": "llama3", "factor": s.factor, "low_freq_factor": s.low,
          "high_freq_factor": s.high, "original_max_position_embeddings": s.original}
