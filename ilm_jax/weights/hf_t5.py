"""Hugging Face's T5 families: the meaning of config.json, and the places of the tensors."""
from ilm_jax import errors
from ilm_jax.models import t5
from ilm_jax.weights import hf_decoders, stream

_ATTENTION = {"query": "q", "key": "k", "value": "v", "out": "o"}


def _config(per_layer: bool, ever_scaled: bool):
  def config(c: dict, dtype: str) -> t5.T5Config:
    how = c.get("feed_forward_proj", "relu")
    gated = how.startswith("gated-")
    act = how.removeprefix("gated-")
    # Published as "gated-gelu", which always means the tanh form.
    act = "gelu_new" if gated and act == "gelu" else act
    # transformers 5 writes "tied" for all models, so the tensors decide whether there is a head.
    scaled = c.get("scale_decoder_outputs", c.get("tie_word_embeddings", True)) and ever_scaled
    return t5.T5Config(
        num_encoder_layers=c["num_layers"],
        num_layers=c.get("num_decoder_layers") or c["num_layers"], width=c["d_model"],
        num_heads=c["num_heads"], head_dim=c["d_kv"], mlp_width=c["d_ff"],
        vocab_size=c["vocab_size"], gated=gated, tied=not c["has_head"],
        activation=hf_decoders.known("feed_forward_proj", act, hf_decoders.ACTIVATIONS),
        logit_scale=c["d_model"] ** -0.5 if scaled else 1.0,
        relative_buckets=c["relative_attention_num_buckets"],
        relative_distance=c.get("relative_attention_max_distance", 128),
        bias_per_layer=per_layer, norm_eps=float(c.get("layer_norm_epsilon", 1e-6)),
        start_id=_start(c), dtype=dtype)

  return config


def _start(c: dict) -> int:
  start = c.get("decoder_start_token_id") or 0
  if type(start) is not int or not 0 <= start < c["vocab_size"]:
    raise ValueError(f"decoder_start_token_id is {errors.shown(start)}, expected an id of its "
                     f"{c['vocab_size']} words")
  return start


def _places(c: t5.T5Config, names: frozenset[str]):
  """(places, ignored names)."""
  places = {"shared.weight": stream.Place(("embedding",))}
  ignored = {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight",
             # A table in the first releases that no code reads.
             "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"}
  if c.tied:
    ignored.add("lm_head.weight")
  else:
    places["lm_head.weight"] = stream.Place(("head",), turn=stream.TRANSPOSE)
  for side, layers in (("encoder", c.num_encoder_layers), ("decoder", c.num_layers)):
    places[f"{side}.final_layer_norm.weight"] = stream.Place((side, "final_norm"))
    for n in range(layers):
      places |= _layer(c, side, n)
  return places, frozenset(ignored)


def _layer(c: t5.T5Config, side: str, n: int) -> dict[str, stream.Place]:
  root, places = f"{side}.block.{n}.layer.", {}
  parts = [("self", "SelfAttention")] + [("cross", "EncDecAttention")] * (side == "decoder")
  for at, (ours, theirs) in enumerate(parts):
    places[f"{root}{at}.layer_norm.weight"] = stream.Place((side, f"{ours}_norm"), n)
    for kernel, letter in _ATTENTION.items():
      places[f"{root}{at}.{theirs}.{letter}.weight"] = stream.Place(
          (side, f"{ours}_{kernel}"), n, stream.TRANSPOSE)
  if n == 0 or c.bias_per_layer:
    places[f"{root}0.SelfAttention.relative_attention_bias.weight"] = stream.Place(
        (side, "relative_bias"), n)
  at = len(parts)
  places[f"{root}{at}.layer_norm.weight"] = stream.Place((side, "mlp_norm"), n)
  kernels = {"gate": "wi_0", "up": "wi_1", "down": "wo"} if c.gated else {"up": "wi", "down": "wo"}
  for ours, theirs in kernels.items():
    places[f"{root}{at}.DenseReluDense.{theirs}.weight"] = stream.Place(
        (side, ours), n, stream.TRANSPOSE)
  return places


FAMILIES = {"t5": (_config(False, True), _places), "mt5": (_config(False, False), _places),
            "umt5": (_config(True, True), _places)}
