"""Measures constrained beam search: users per second against transformers; cost by catalogue size.

    python -m benchmarks.ranking --data=../shared/data/amazon-beauty-openp5 --out=ranking.json

First table: a Llama of SmolLM2-135M's shape with random weights, read by both from one folder; 64
prompt tokens per user; Beauty's collaborative index (20 clusters, groups of 500). The peer is
`transformers.generate` with num_beams = num_return_sequences, `prefix_allowed_tokens_fn` and a trie
of Python dicts, as OpenP5 evaluates. Both take turns in one process, on the same CPU.

Second table: ours alone, width 10, with random indices of four tokens out of 256. The decoder is
small, so that the search dominates the time; without a filter, and with a filter of 64 items per
user. Bytes are those of the trie on the device.
"""
import argparse
import dataclasses
import json
import pathlib
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks import sasrec as log_reader
from ilm_jax.decode import beam, prompt, trie
from ilm_jax.models import decoder, language_model
from ilm_jax.weights import hf
from tasks import clustering

EOS, FIRST = 2, 3            # ids: EOS, and the first number of a code
LENGTH = 64
SMALL = decoder.DecoderConfig(num_layers=2, width=64, num_heads=4, num_kv_heads=2, head_dim=16,
                              mlp_width=128, vocab_size=260)


def indices(folder) -> list[list[int]]:
  """Beauty's collaborative index, one token per number."""
  sequences, num_items = log_reader.read(folder)
  codes = clustering.collaborative(clustering.co_occurrence(
      [s[:-2] for s in sequences], num_items), 20, 500, seed=0)
  return [[FIRST + n for n in code] + [EOS] for code in codes]


def theirs(folder, vocab: int):
  """A random transformers model, saved for our reader."""
  import torch
  import transformers
  torch.manual_seed(0)
  model = transformers.LlamaForCausalLM(transformers.LlamaConfig(
      num_hidden_layers=30, hidden_size=576, num_attention_heads=9, num_key_value_heads=3,
      head_dim=64, intermediate_size=1536, vocab_size=vocab, rope_theta=1e5, rms_norm_eps=1e-5,
      tie_word_embeddings=True, initializer_range=0.04, bos_token_id=None, eos_token_id=EOS,
      pad_token_id=0)).eval()
  model.save_pretrained(folder)
  return model


def their_ranking(model, ids_BL, catalogue: list[list[int]], width: int) -> list[list[tuple]]:
  """Lists of indices, best first."""
  import torch
  children: dict[tuple, list[int]] = {}
  for index in catalogue:
    for at, token in enumerate(index):
      children.setdefault(tuple(index[:at]), []).append(token)
  children = {prefix: sorted(set(tokens)) for prefix, tokens in children.items()}
  with torch.no_grad():
    out = model.generate(
        torch.tensor(ids_BL), attention_mask=torch.ones(ids_BL.shape, dtype=int), num_beams=width,
        num_return_sequences=width, do_sample=False, length_penalty=0.0, early_stopping="never",
        max_new_tokens=max(map(len, catalogue)),
        prefix_allowed_tokens_fn=lambda _, ids: children.get(tuple(ids[LENGTH:].tolist()), [EOS]))
  said = [tuple(row[:row.index(EOS) + 1] if EOS in row else row)
          for row in out[:, LENGTH:].tolist()]
  return [said[b * width:(b + 1) * width] for b in range(len(ids_BL))]


def beside(folder, users: int, rounds: int) -> list[dict]:
  """The first table."""
  catalogue = indices(folder)
  vocab = FIRST + max(max(index) for index in catalogue)
  with tempfile.TemporaryDirectory() as saved:
    model = theirs(saved, vocab)
    config, params = hf.load(saved)
  params = jax.tree.map(jnp.asarray, params)
  graphdef = nnx.split(language_model.bind(config, params))[0]
  tree = trie.build(catalogue, EOS)
  ids_BL = np.random.default_rng(0).integers(FIRST, vocab, (users, LENGTH))
  prompts = prompt.Prompt(
      language_model.bind(config, params).embed(jnp.asarray(ids_BL)),
      jnp.tile(jnp.arange(LENGTH)[None], (users, 1)), jnp.ones((users, LENGTH), bool))
  rows = []
  for width in (10, 20):
    run = {"ilm_jax": lambda w=width: np.asarray(beam.beam_search(
               graphdef, params, tree, prompts, width=w)[0]),
           "transformers": lambda w=width: their_ranking(model, ids_BL, catalogue, w)}
    seconds, results = {peer: [] for peer in run}, {}
    for turn in range(rounds + 1):
      for peer, go in run.items():
        time.sleep(0.5)
        start = time.perf_counter()
        results[peer] = go()
        if turn:  # the first turn compiles
          seconds[peer].append(time.perf_counter() - start)
    ours = [[tuple(catalogue[i - 1]) for i in row if i] for row in results["ilm_jax"]]
    equal = np.mean([a == b for mine, other in zip(ours, results["transformers"])
                     for a, b in zip(mine, other)])
    speed = {peer: users / min(taken) for peer, taken in seconds.items()}
    rows.append({"width": width, "users_per_second": speed, "equal_places": float(equal),
                 "ratio": speed["ilm_jax"] / speed["transformers"]})
    print(f"width {width}: {speed['ilm_jax']:.2f} and {speed['transformers']:.3f} users/s, "
          f"{rows[-1]['ratio']:.1f} times; equal places in the lists: {equal:.3f}", flush=True)
  return rows


def growing(sizes: list[int], rounds: int) -> list[dict]:
  """The second table."""
  params = language_model.init(SMALL, 0)
  graphdef = nnx.split(language_model.bind(SMALL, params))[0]
  rng = np.random.default_rng(0)
  prompts = prompt.Prompt(jnp.asarray(rng.normal(size=(8, 16, SMALL.width)), jnp.float32),
                          jnp.tile(jnp.arange(16)[None], (8, 1)), jnp.ones((8, 16), bool))
  rows = []
  for count in sizes:
    drawn = np.unique(rng.integers(0, 256, (int(count * 1.1) + 16, 4)), axis=0)
    drawn = drawn[rng.permutation(len(drawn))[:count]] + FIRST
    start = time.perf_counter()
    tree = trie.build(np.pad(drawn, ((0, 0), (0, 1)), constant_values=EOS).tolist(), EOS)
    built = time.perf_counter() - start
    seen = trie.blocked_leaves(tree, [rng.choice(len(drawn), 64, False) + 1 for _ in range(8)])
    best = {}
    for name, blocked in (("seconds", None), ("filtered_seconds", jnp.asarray(seen))):
      taken = []
      for turn in range(rounds + 1):
        start = time.perf_counter()
        jax.block_until_ready(beam.beam_search(graphdef, params, tree, prompts, blocked, width=10))
        if turn:
          taken.append(time.perf_counter() - start)
      best[name] = min(taken)
    size = sum(getattr(tree, f.name).nbytes for f in dataclasses.fields(tree)
               if isinstance(getattr(tree, f.name), jax.Array))
    rows.append({"items": len(drawn), "nodes": tree.num_nodes, "build_seconds": built,
                 **best, "bytes_per_item": size / len(drawn)})
    print(f"{len(drawn):>10,} items: {best['seconds'] * 1e3:8.1f} ms a search of 8 users, "
          f"{best['filtered_seconds'] * 1e3:.1f} with a filter, {size / len(drawn):.0f} bytes an "
          f"item, built in {built:.1f} s", flush=True)
  return rows


def main():
  args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  args.add_argument("--data", default="../shared/data/amazon-beauty-openp5")
  args.add_argument("--users", type=int, default=8)
  args.add_argument("--rounds", type=int, default=2)
  args.add_argument("--sizes", default="10000,100000,1000000,10000000",
                    help="sizes in the second table; building the largest takes 8 GB")
  args.add_argument("--only", choices=("beside", "growing"), help="print one table")
  args.add_argument("--out", help="write the figures here as JSON")
  args = args.parse_args()
  tables = {"beside": lambda: beside(args.data, args.users, args.rounds),
            "growing": lambda: growing([int(n) for n in args.sizes.split(",")], args.rounds)}
  figures = {name: tables[name]() for name in ([args.only] if args.only else tables)}
  if args.out:
    pathlib.Path(args.out).write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
  main()
