"""Compares our language models with their originals: the largest logit difference per family.

    python -m benchmarks.parity --out=parity.json          (needs the extra `parity`)

Small random transformers models in float32, with sizes that all differ, norms away from 1, and
sequences longer than the sliding windows. The Hugging Face reader reads the files that transformers
saves; the GGUF reader reads the same weights with llama.cpp's names and layout (`write_gguf`).
Greedy continuations are compared token by token.
"""
import argparse
import dataclasses
import json
import pathlib
import tempfile

import gguf as gguf_format
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ilm_jax.decode import generate, prompt
from ilm_jax.models import attention, language_model
from ilm_jax.weights import gguf, hf

VOCAB, LENGTH, NEW = 101, 19, 8
_DECODER = dict(num_hidden_layers=4, hidden_size=48, num_attention_heads=6, num_key_value_heads=2,
                head_dim=10, intermediate_size=76, vocab_size=VOCAB, initializer_range=0.2)
_T5 = dict(num_layers=3, num_decoder_layers=2, d_model=48, num_heads=3, d_kv=10, d_ff=76,
           vocab_size=VOCAB, relative_attention_num_buckets=8, relative_attention_max_distance=12,
           initializer_factor=1.0, decoder_start_token_id=0)
_LLAMA3 = {"rope_type": "llama3", "rope_theta": 500.0, "factor": 4.0, "low_freq_factor": 1.0,
           "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
_GEMMA3 = {"sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
           "full_attention": {"rope_type": "linear", "rope_theta": 900.0, "factor": 8.0}}
_WINDOWS = dict(sliding_window=5, query_pre_attn_scalar=14)

# name -> (transformers' class, its config's class, fields of the config)
FAMILIES = {
    "Llama 2": ("LlamaForCausalLM", "LlamaConfig", {}),
    "Llama 3": ("LlamaForCausalLM", "LlamaConfig",
                {"rope_parameters": _LLAMA3, "tie_word_embeddings": True}),
    "Qwen 2": ("Qwen2ForCausalLM", "Qwen2Config", {}),
    "Qwen 3": ("Qwen3ForCausalLM", "Qwen3Config", {}),
    "Gemma 1": ("GemmaForCausalLM", "GemmaConfig", {}),
    "Gemma 2": ("Gemma2ForCausalLM", "Gemma2Config",
                {**_WINDOWS, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0}),
    "Gemma 3": ("Gemma3ForCausalLM", "Gemma3TextConfig",
                {**_WINDOWS, "rope_parameters": _GEMMA3, "layer_types": [
                    "sliding_attention", "sliding_attention", "full_attention",
                    "sliding_attention"]}),
    "Mistral": ("MistralForCausalLM", "MistralConfig", {"sliding_window": 5}),
    "PaLM block (Cohere)": ("CohereForCausalLM", "CohereConfig",
                            {"num_key_value_heads": 1, "logit_scale": 0.3, "head_dim": None}),
    "T5 1.0": ("T5ForConditionalGeneration", "T5Config", {"feed_forward_proj": "relu"}),
    "T5 1.1": ("T5ForConditionalGeneration", "T5Config",
               {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    "mT5": ("MT5ForConditionalGeneration", "MT5Config", {"feed_forward_proj": "gated-gelu"}),
    "UMT5": ("UMT5ForConditionalGeneration", "UMT5Config", {"feed_forward_proj": "gated-gelu"}),
}
# The same through GGUF: name -> (its architecture, config fields that its header can express).
_SIX = {**_WINDOWS, "query_pre_attn_scalar": 10, "num_hidden_layers": 7, "rope_parameters": {
    "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
    "full_attention": {"rope_type": "linear", "rope_theta": 900.0, "factor": 8.0}}}
GGUF = {
    "Llama 2": ("llama", {}),
    "Llama 3": ("llama", {"rope_parameters": {
        **_LLAMA3, "rope_theta": 5e5, "factor": 32.0, "original_max_position_embeddings": 8192}}),
    "Qwen 2": ("qwen2", {}), "Qwen 3": ("qwen3", {}), "Gemma 1": ("gemma", {}),
    "Gemma 2": ("gemma2", {"query_pre_attn_scalar": 10}),
    "Gemma 3": ("gemma3", {**_SIX, "layer_types": None}),
}
ROWS = [(name, "Hugging Face") for name in FAMILIES] + [(name, "GGUF") for name in GGUF]


@dataclasses.dataclass(frozen=True)
class Row:
  """The result of a comparison."""
  family: str
  reader: str
  logits: float             # largest absolute logit, so that a difference has a scale
  difference: float         # largest absolute difference of a logit
  greedy_equal: bool


def original(name: str, more: dict | None = None, seed: int = 0):
  """A random transformers model with norms away from 1; `more`: fields of its config."""
  import torch
  import transformers
  model_class, config_class, fields = FAMILIES[name]
  fields = {**fields, **(more or {})}
  base = dict(_T5 if "T5" in config_class else _DECODER)
  base |= {} if "T5" in config_class else {"pad_token_id": None, "eos_token_id": None,
                                           "bos_token_id": None}
  config = getattr(transformers, config_class)(
      **{k: v for k, v in {**base, **fields}.items()
         if v is not None or k not in ("head_dim", "layer_types")})
  torch.manual_seed(seed)
  model = getattr(transformers, model_class)(config).eval()
  if fields.get("tie_word_embeddings") is False or name == "mT5":
    # transformers 5 ties T5's head by default; released models have a separate head.
    model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
  with torch.no_grad():
    for key, weight in model.named_parameters():
      if "norm" in key:
        plus_one = "Gemma" in model_class
        torch.nn.init.uniform_(weight, *((-0.5, 0.5) if plus_one else (0.5, 1.5)))
      elif "bias" in key and weight.ndim == 1:
        torch.nn.init.normal_(weight)
      elif "relative_attention_bias" in key:
        torch.nn.init.normal_(weight, std=2.0)
  return model


def compare(name: str, reader: str = "Hugging Face") -> Row:
  """Saves a random model of the family, reads it back with our reader, and compares."""
  import torch
  architecture, more = GGUF[name] if reader == "GGUF" else ("", {})
  theirs = original(name, more)
  with tempfile.TemporaryDirectory() as folder:
    if reader == "GGUF":
      write_gguf(theirs, architecture, pathlib.Path(folder) / "model.gguf")
      config, params = gguf.load(pathlib.Path(folder) / "model.gguf")
    else:
      theirs.save_pretrained(folder)
      config, params = hf.load(folder)
  params = jax.tree.map(jnp.asarray, params)
  ids = np.random.default_rng(0).integers(3, VOCAB, (2, LENGTH))
  said = np.random.default_rng(1).integers(3, VOCAB, (2, 7))
  with torch.no_grad():
    if language_model.is_encoder_decoder(config):
      want = theirs(input_ids=torch.tensor(ids), decoder_input_ids=torch.tensor(said)).logits
    else:
      want = theirs(torch.tensor(ids)).logits
    theirs.generation_config.eos_token_id = None
    text = theirs.generate(torch.tensor(ids), max_new_tokens=NEW, min_new_tokens=NEW,
                           do_sample=False, attention_mask=torch.ones((2, LENGTH), dtype=int),
                           pad_token_id=0)
  got = logits(config, params, ids, said)
  want = want.float().numpy()
  return Row(name, reader, float(np.abs(want).max()), float(np.abs(got - want).max()),
             bool((greedy(config, params, ids) == text.numpy()[:, -NEW:]).all()))


_GGUF_NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm"}
_GGUF_POST_NORMS = {"post_attention_layernorm": "post_attention_norm",
                    "pre_feedforward_layernorm": "ffn_norm",
                    "post_feedforward_layernorm": "post_ffw_norm"}
_GGUF_ENDS = {"model.embed_tokens.weight": "token_embd.weight", "lm_head.weight": "output.weight",
              "model.norm.weight": "output_norm.weight"}


def write_gguf(theirs, architecture: str, path) -> None:
  """Writes a transformers model in the layout of llama.cpp's converter, in float32."""
  c, tied = theirs.config, theirs.config.tie_word_embeddings
  writer = gguf_format.GGUFWriter(path, architecture)
  names = {**_GGUF_NAMES, **(_GGUF_POST_NORMS if architecture in ("gemma2", "gemma3") else {})}
  for name, tensor in theirs.state_dict().items():
    x = tensor.float().numpy()
    if name == "lm_head.weight" and tied:
      continue
    if architecture.startswith("gemma") and "norm" in name:
      x = x + 1
    if architecture == "llama" and ("q_proj" in name or "k_proj" in name):
      # Halves of a head (j, j + K/2) become neighbours.
      x = x.reshape(-1, 2, c.head_dim // 2, x.shape[1]).swapaxes(1, 2).reshape(x.shape)
    if name not in _GGUF_ENDS:
      _, _, n, rest = name.split(".", 3)
      part, kind = rest.rsplit(".", 1)
      name = f"blk.{n}.{names[part]}.{kind}"
    writer.add_tensor(_GGUF_ENDS.get(name, name), np.ascontiguousarray(x))
  _write_gguf_header(writer, c)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()


def _write_gguf_header(writer, c) -> None:
  writer.add_block_count(c.num_hidden_layers)
  writer.add_embedding_length(c.hidden_size)
  writer.add_feed_forward_length(c.intermediate_size)
  writer.add_head_count(c.num_attention_heads)
  writer.add_head_count_kv(c.num_key_value_heads)
  writer.add_key_length(c.head_dim)
  writer.add_layer_norm_rms_eps(c.rms_norm_eps)
  rope = c.rope_parameters
  rope, near = rope.get("full_attention", rope), rope.get("sliding_attention")
  writer.add_rope_freq_base(rope["rope_theta"])
  if rope["rope_type"] == "linear":
    writer.add_rope_scaling_type(gguf_format.RopeScalingType.LINEAR)
    writer.add_rope_scaling_factor(rope["factor"])
  elif rope["rope_type"] == "llama3":
    scaling = attention.RopeScaling(rope["factor"], rope["low_freq_factor"],
                                    rope["high_freq_factor"],
                                    rope["original_max_position_embeddings"])
    writer.add_tensor("rope_freqs.weight",
                      1 / attention.stretch(c.head_dim, rope["rope_theta"], scaling))
  if near:
    writer.add_float32(f"{writer.arch}.rope.freq_base_swa", near["rope_theta"])
  if getattr(c, "query_pre_attn_scalar", None):
    writer.add_sliding_window(c.sliding_window)
    for field, cap in (("attn", c.attn_logit_softcapping), ("final", c.final_logit_softcapping)):
      if cap:
        writer.add_float32(f"{writer.arch}.{field}_logit_softcapping", cap)


def logits(config, params, ids_BL, said_BX) -> np.ndarray:
  """Logits at all positions of a decoder, or of an encoder-decoder's decoder given `said_BX`."""
  model = language_model.bind(config, params)
  position_BL = jnp.broadcast_to(jnp.arange(ids_BL.shape[1]), ids_BL.shape)
  segment_BL = jnp.ones(ids_BL.shape, int)
  if not language_model.is_encoder_decoder(config):
    return np.asarray(model.logits(model.hidden(model.embed(ids_BL), position_BL, segment_BL)))
  encoded_BLD = model.encode(model.embed(ids_BL), position_BL, segment_BL)
  position_BX = jnp.broadcast_to(jnp.arange(said_BX.shape[1]), said_BX.shape)
  return np.asarray(model.logits(model.decode(
      model.embed(said_BX), position_BX, jnp.ones(said_BX.shape, int), encoded_BLD, segment_BL)))


def greedy(config, params, ids_BL) -> np.ndarray:
  """int [B, NEW]: tokens of a text that no token ends."""
  model = language_model.bind(config, params)
  position_BL = jnp.broadcast_to(jnp.arange(ids_BL.shape[1]), ids_BL.shape)
  prompts = prompt.Prompt(
      model.embed(jnp.asarray(ids_BL)), position_BL, jnp.ones(ids_BL.shape, bool))
  return np.asarray(generate.generate(nnx.split(model)[0], params, prompts, max_new=NEW,
                                      eos_id=-1)[0])


def main():
  args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  args.add_argument("--out", help="write the figures here as JSON")
  args = args.parse_args()
  rows = []
  print("| family | reader | largest logit | largest difference | greedy text equal |\n"
        "|---|---|---|---|---|")
  for name, reader in ROWS:
    rows.append(compare(name, reader))
    print(f"| {name} | {reader} | {rows[-1].logits:.2f} | {rows[-1].difference:.1e} | "
          f"{'yes' if rows[-1].greedy_equal else 'NO'} |", flush=True)
  if args.out:
    with open(args.out, "w") as file:
      json.dump([dataclasses.asdict(row) for row in rows], file, indent=2)


if __name__ == "__main__":
  main()
