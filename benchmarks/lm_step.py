"""Speed of the frozen decoder, compared with transformers on torch if that is installed.

    python -m benchmarks.lm_step --out=lm_step.json
    python -m benchmarks.lm_step --dtype=bfloat16

Random weights in the shape of SmolLM2-135M, 8 rows of 64 tokens; both peers hold weights and
activations in --dtype. Measured are: the hidden states forward; forward and the gradient to the
input embeddings (the frozen step of phase 2); prefill of the prompts; and prefill with 32 tokens of
greedy text (logits included). The peers take turns in one process and the best round of each
counts, so read the ratio. GFLOP/s counts matmuls with weights of the layers: 2 FLOPs per parameter
and token forward, and as many backward.
"""
import argparse
import dataclasses
import functools
import importlib.util
import json
import os
import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ilm_jax.decode import generate, prompt
from ilm_jax.models import decoder, language_model, products

CONFIG = decoder.DecoderConfig(num_layers=30, width=576, num_heads=9, num_kv_heads=3, head_dim=64,
                               mlp_width=1536, vocab_size=49152, rope_base=1e5)
DTYPES = ("float32", "bfloat16")
NEW = 32                     # tokens of the text
REST = 0.5                   # seconds between turns, in which the peer's threads stop spinning


def ours(config, embeds_BLD):
  """{measurement: function that runs it once}."""
  model = decoder.Decoder(config, rngs=nnx.Rngs(0))
  params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
  if jax.default_backend() == "cpu":
    params = products.packed(params)
  B, L, _ = embeds_BLD.shape
  position_BL, segment_BL = jnp.tile(jnp.arange(L)[None], (B, 1)), jnp.ones((B, L), int)

  def loss(embeds, params):
    hidden = language_model.bind(config, params).hidden(embeds, position_BL, segment_BL)
    return (hidden.astype(jnp.float32) ** 2).sum()

  forward, both = jax.jit(loss), jax.jit(jax.value_and_grad(loss))
  graphdef = nnx.split(model)[0]
  prompts = prompt.Prompt(embeds_BLD, position_BL, jnp.ones((B, L), bool))
  prefill = jax.jit(lambda params: prompts.run(nnx.merge(graphdef, params), NEW))
  said = functools.partial(generate.generate, graphdef, params, prompts, max_new=NEW, eos_id=-1)
  return {"forward": lambda: jax.block_until_ready(forward(embeds_BLD, params)),
          "forward+backward": lambda: jax.block_until_ready(both(embeds_BLD, params)),
          "prefill": lambda: jax.block_until_ready(prefill(params)),
          "prefill+decode": lambda: jax.block_until_ready(said())}


def theirs(config, embeds_BLD):
  """The same with transformers and frozen parameters."""
  import torch
  import transformers
  torch.set_num_threads(os.cpu_count())
  whole = transformers.LlamaForCausalLM(transformers.LlamaConfig(
      num_hidden_layers=config.num_layers, hidden_size=config.width,
      num_attention_heads=config.num_heads, num_key_value_heads=config.num_kv_heads,
      head_dim=config.head_dim, intermediate_size=config.mlp_width,
      vocab_size=config.vocab_size, tie_word_embeddings=True, eos_token_id=None,
      bos_token_id=None)).requires_grad_(False).eval().to(getattr(torch, config.dtype))
  model = whole.model
  embeds = torch.tensor(np.asarray(embeds_BLD, np.float32), dtype=getattr(torch, config.dtype))

  def forward():
    with torch.no_grad():
      model(inputs_embeds=embeds, use_cache=False)

  def both():
    leaf = embeds.clone().requires_grad_(True)
    model(inputs_embeds=leaf, use_cache=False).last_hidden_state.float().square().sum().backward()

  def prefill():
    with torch.no_grad():
      model(inputs_embeds=embeds, use_cache=True)

  def said():
    with torch.no_grad():
      whole.generate(inputs_embeds=embeds, max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False,
                     attention_mask=torch.ones(embeds.shape[:2], dtype=int), pad_token_id=0)

  return {"forward": forward, "forward+backward": both, "prefill": prefill, "prefill+decode": said}


def main():
  args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  args.add_argument("--rows", type=int, default=8)
  args.add_argument("--length", type=int, default=64)
  args.add_argument("--rounds", type=int, default=5)
  args.add_argument("--dtype", choices=DTYPES, default=DTYPES[0])
  args.add_argument("--out", help="write the figures here as JSON")
  args = args.parse_args()
  config = dataclasses.replace(CONFIG, dtype=args.dtype)
  shape = (args.rows, args.length, config.width)
  embeds_BLD = 0.1 * jax.random.normal(jax.random.key(0), shape, args.dtype)
  peers = {"ilm_jax": ours(config, embeds_BLD)}
  if importlib.util.find_spec("torch") and importlib.util.find_spec("transformers"):
    peers["transformers"] = theirs(config, embeds_BLD)
  weights = sum(int(np.prod(x.shape)) for x in jax.tree.leaves(
      language_model.abstract_params(config)["layers"]))
  rows = []
  print(f"{'':18}{'peer':14}{'seconds':>9}{'tokens/s':>10}{'GFLOP/s':>9}")
  for what, passes in (("forward", 1), ("forward+backward", 2), ("prefill", 1),
                       ("prefill+decode", 1)):
    tokens = args.rows * (args.length + (NEW if what == "prefill+decode" else 0))
    seconds = {peer: [] for peer in peers}
    for turn in range(args.rounds + 1):
      for peer, run in peers.items():
        time.sleep(REST)
        start = time.perf_counter()
        run[what]()
        if turn:  # the first turn compiles
          seconds[peer].append(time.perf_counter() - start)
    for peer, taken in seconds.items():
      best = min(taken)
      rows.append({"what": what, "peer": peer, "seconds": best, "tokens_per_second": tokens / best,
                   "gflop_per_second": 2 * passes * weights * tokens / best / 1e9})
      print(f"{what:18}{peer:14}{best:9.3f}{tokens / best:10.0f}"
            f"{rows[-1]['gflop_per_second']:9.0f}", flush=True)
  if args.out:
    with open(args.out, "w") as file:
      json.dump({"rows": args.rows, "length": args.length, "cores": os.cpu_count(),
                 "dtype": args.dtype,
                 "results": rows}, file, indent=2)


if __name__ == "__main__":
  main()
