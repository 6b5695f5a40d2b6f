"""Hugging Face's decoder families: the meaning of config.json, and the places of the tensors.

A field that changes the outputs and that our decoder does not support is a ValueError.
"""
from ilm_jax import errors
from ilm_jax.models import attention, decoder
from ilm_jax.weights import stream

ACTIVATIONS = {"silu": "silu", "swish": "silu", "relu": "relu", "gelu": "gelu",
               "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}


def known(field: str, value, table: dict):
  """table[value]; ValueError with the supported values if it is not there."""
  if value not in table:
    raise ValueError(f"{field} is {errors.shown(value)}, expected one of "
                     f"{', '.join(map(repr, table))}")
  return table[value]


def _refuse(c: dict, **only) -> None:
  """Raises ValueError if a field has another value than the one supported."""
  for field, value in only.items():
    if c.get(field, value) not in (value, None):
      raise ValueError(f"{field} is {errors.shown(c[field])}, expected {value!r}")


def _positive(c: dict, field: str) -> float:
  """The field as a float; ValueError unless it is finite and above 0."""
  if not 0 < float(c[field]) < float("inf"):
    raise ValueError(f"{field} is {errors.shown(c[field])}, expected a number above 0")
  return float(c[field])


def _rope(c: dict, layers: str = "") -> dict:
  """rope_base and rope_scaling, from the old fields or from `rope_parameters`."""
  p = c.get("rope_parameters") or {"rope_theta": c.get("rope_theta", 10000.0),
                                   **(c.get("rope_scaling") or {})}
  p = p.get(layers, p)
  kind = p.get("rope_type", p.get("type", "default"))
  _refuse({**c, **p}, partial_rotary_factor=1.0)
  known("rope type", kind, {"default": 0, "linear": 0, "llama3": 0})
  scaling = None
  if kind == "linear":
    scaling = attention.RopeScaling(float(p["factor"]))
  elif kind == "llama3":
    scaling = attention.RopeScaling(
        float(p["factor"]), float(p["low_freq_factor"]), float(p["high_freq_factor"]),
        int(p["original_max_position_embeddings"]))
  return {"rope_base": float(p.get("rope_theta", c.get("rope_theta", 10000.0))),
          "rope_scaling": scaling}


def _common(c: dict, dtype: str, **more) -> decoder.DecoderConfig:
  heads = c["num_attention_heads"]
  groups = c.get("num_key_value_heads") or heads
  if heads % groups:
    raise ValueError(f"num_key_value_heads is {groups}, which does not divide {heads} heads")
  head_dim = c.get("head_dim") or c["hidden_size"] // heads
  if head_dim < 1:
    raise ValueError(f"hidden_size is {c['hidden_size']}, less than {heads} heads")
  if head_dim % 2:
    raise ValueError(f"heads have {head_dim} channels, expected an even number for rotary "
                     "positions")
  fields = dict(
      num_layers=c["num_hidden_layers"], width=c["hidden_size"], num_heads=heads,
      num_kv_heads=groups,
      head_dim=head_dim, mlp_width=c["intermediate_size"],
      vocab_size=c["vocab_size"], tied=bool(c.get("tie_word_embeddings", False)), dtype=dtype,
      norm_eps=float(c.get("rms_norm_eps", 1e-6)))
  return decoder.DecoderConfig(**{**fields, **more})


def _act(c: dict) -> str:
  return known("hidden_act", c.get("hidden_act", "silu"), ACTIVATIONS)


def _window(c: dict, default_layers) -> dict:
  """local_layers and window; `default_layers` gives the local layers if the file does not."""
  n, window = c["num_hidden_layers"], c.get("sliding_window")
  kinds = c.get("layer_types")
  local = tuple(k == "sliding_attention" for k in kinds) if kinds else tuple(default_layers(n))
  if len(local) != n:
    raise ValueError(f"layer_types has {len(local)} entries for {n} layers")
  if not window or not any(local):
    return {}
  return {"local_layers": local, "window": int(_positive(c, "sliding_window"))}


def _llama(c, dtype):
  _refuse(c, attention_bias=False, mlp_bias=False)
  return _common(c, dtype, activation=_act(c), **_rope(c))


def _mistral(c, dtype):
  return _common(c, dtype, activation=_act(c), **_rope(c), **_window(c, lambda n: [True] * n))


def _qwen2(c, dtype):
  _refuse(c, use_sliding_window=False)
  return _common(c, dtype, activation=_act(c), qkv_bias=True, **_rope(c))


def _qwen3(c, dtype):
  _refuse(c, use_sliding_window=False, attention_bias=False)
  return _common({"head_dim": 128, **c}, dtype, activation=_act(c), qk_norm=True, **_rope(c))


def _gemma_common(c, dtype, **more):
  _refuse(c, attention_bias=False)
  # Early files say "gelu" but mean the tanh form: their publishers' code ignores the field.
  act = c.get("hidden_activation") or "gelu_pytorch_tanh"
  c = {"tie_word_embeddings": True, "head_dim": 256, **c}
  return _common(c, dtype, embed_scale=c["hidden_size"] ** 0.5,
                 activation=known("hidden_activation", act, ACTIVATIONS), **more)


def _gemma(c, dtype):
  return _gemma_common(c, dtype, **_rope(c))


def _gemma2(c, dtype):
  c = {"query_pre_attn_scalar": 256, "sliding_window": 4096, "attn_logit_softcapping": 50.0,
       "final_logit_softcapping": 30.0, **c}
  return _gemma_common(
      c, dtype, post_norms=True, scale=_positive(c, "query_pre_attn_scalar") ** -0.5,
      softcap=float(c.get("attn_logit_softcapping") or 0),
      logit_softcap=float(c.get("final_logit_softcapping") or 0), **_rope(c),
      **_window(c, lambda n: [i % 2 == 0 for i in range(n)]))


# Published configs with a vision tower leave out fields that have these values.
_GEMMA3 = {"vocab_size": 262208, "num_attention_heads": 8, "num_key_value_heads": 4,
           "query_pre_attn_scalar": 256, "sliding_window": 4096, "rope_theta": 1e6}


def _gemma3(c, dtype):
  """As in transformers, which has a field attn_logit_softcapping but never reads it."""
  c = {**_GEMMA3, **c}
  _refuse(c, use_bidirectional_attention=False)
  pattern = c.get("sliding_window_pattern") or c.get("_sliding_window_pattern") or 6
  every = _positive({"sliding_window_pattern": pattern}, "sliding_window_pattern")
  near = (c.get("rope_parameters") or {}).get("sliding_attention", {})
  known("rope type of sliding_attention", near.get("rope_type", "default"), {"default": 0})
  base = near.get("rope_theta", c.get("rope_local_base_freq", 10000.0))
  return _gemma_common(
      c, dtype, post_norms=True, qk_norm=True,
      scale=_positive(c, "query_pre_attn_scalar") ** -0.5, local_rope_base=float(base),
      logit_softcap=float(c.get("final_logit_softcapping") or 0),
      **_rope(c, "full_attention"),
      **_window(c, lambda n: [(i + 1) % every != 0 for i in range(n)]))


def _cohere(c, dtype):
  """Command R: the parallel block of PaLM, and a scale of the logits."""
  _refuse(c, attention_bias=False, use_qk_norm=False)
  return _common({"tie_word_embeddings": True, **c}, dtype, norm="layer",
                 norm_eps=float(c.get("layer_norm_eps", 1e-5)), parallel=True, activation=_act(c),
                 logit_scale=float(c.get("logit_scale", 0.0625)), **_rope(c))


_KERNELS = {"query": "self_attn.q_proj", "key": "self_attn.k_proj", "value": "self_attn.v_proj",
            "out": "self_attn.o_proj", "gate": "mlp.gate_proj", "up": "mlp.up_proj",
            "down": "mlp.down_proj"}
_NORMS = {"attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm",
          "query_norm": "self_attn.q_norm", "key_norm": "self_attn.k_norm"}
_POST_NORMS = {**_NORMS, "mlp_norm": "pre_feedforward_layernorm",
               "attention_post_norm": "post_attention_layernorm",
               "mlp_post_norm": "post_feedforward_layernorm"}


def _places(norm=stream.KEEP, interleaved=False):
  """A function: config, names in the file -> (places, ignored names)."""
  def places(c: decoder.DecoderConfig, names: frozenset[str]):
    # With a vision tower, the names of the language model have a longer prefix.
    root = next((r for r in ("language_model.model.", "model.language_model.", "model.")
                 if f"{r}embed_tokens.weight" in names), "model.")
    by_name = {f"{root}embed_tokens.weight": stream.Place(("embedding",)),
               f"{root}norm.weight": stream.Place(("final_norm",), turn=norm)}
    head = next((n for n in ("lm_head.weight", "language_model.lm_head.weight") if n in names),
                "lm_head.weight")
    ignored = {n for n in names if n.endswith("rotary_emb.inv_freq")
               or (root != "model." and not n.startswith(root))}
    if c.tied:
      ignored.add(head)
    else:
      by_name[head] = stream.Place(("head",), turn=stream.TRANSPOSE)
    turned = stream.half_split(c.head_dim) if interleaved else stream.TRANSPOSE
    norms = _POST_NORMS if c.post_norms else _NORMS
    used = {"attention_norm": True, "mlp_norm": not c.parallel, "query_norm": c.qk_norm,
            "key_norm": c.qk_norm, "attention_post_norm": c.post_norms,
            "mlp_post_norm": c.post_norms}
    for n in range(c.num_layers):
      layer = f"{root}layers.{n}."
      for ours, theirs in _KERNELS.items():
        turn = turned if ours in ("query", "key") else stream.TRANSPOSE
        by_name[f"{layer}{theirs}.weight"] = stream.Place(("layers", ours), n, turn)
        if c.qkv_bias and ours in ("query", "key", "value"):
          by_name[f"{layer}{theirs}.bias"] = stream.Place(("layers", f"{ours}_bias"), n)
      for ours, theirs in norms.items():
        if used[ours]:
          by_name[f"{layer}{theirs}.weight"] = stream.Place(("layers", ours), n, norm)
    return by_name, frozenset(ignored)

  return places


_PLAIN, _PLUS_ONE = _places(), _places(norm=stream.PLUS_ONE)
FAMILIES = {
    "llama": (_llama, _PLAIN), "mistral": (_mistral, _PLAIN), "qwen2": (_qwen2, _PLAIN),
    "qwen3": (_qwen3, _PLAIN), "gemma": (_gemma, _PLUS_ONE), "gemma2": (_gemma2, _PLUS_ONE),
    "gemma3_text": (_gemma3, _PLUS_ONE), "cohere": (_cohere, _places(interleaved=True)),
}
