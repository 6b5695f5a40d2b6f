"""Compares XLA's FLOP count of the frozen phase 2 step with the lower bound.

    python -m benchmarks.step_flops --out=step_flops.json

The step is loss and gradient of SmolLM2-135M with a Q-Former of two layers in the paper's form; no
matmul runs twice. XLA counts the body of a scan once, so the step is compiled unrolled at two
depths of the language model and extrapolated to 30 layers. Lower bound: each matmul weight of the
frozen model is used twice per token, forward and for the gradient of its input (4 FLOPs per weight
and token); weights of the output head likewise, at the loss positions only; trained weights three
times (6). A ratio near 1 means that no gradient of a frozen weight is computed.
"""
import argparse
import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np

from ilm_jax.data import packing
from ilm_jax.models import decoder, ilm, language_model, qformer
from ilm_jax.objectives import phase2

LM = decoder.DecoderConfig(num_layers=30, width=576, num_heads=9, num_kv_heads=3, head_dim=64,
                           mlp_width=1536, vocab_size=49152, rope_base=1e5)
FORM = ilm.Form(skip=False, per_query=False, soft_norm=False, equal_head=False)
QFORMER = qformer.QFormerConfig(vectors={"behavioral": 64}, num_layers=2, cross_every=2,
                                cross_init="bert", cross_reads="all", query_pool="nearest",
                                reader_hidden=0, members=0, width=384, num_heads=12,
                                mlp_width=1536, vocab_size=30522, max_text=24,
                                num_queries=4, kv_tokens=1, kv_width=0, proj_width=384,
                                user_projection=False,
                                proj_init="identity", text_pool="mean", dropout=0.1,
                                text_dropout=0.0, vector_noise=0.0, vector_dropout=0.0,
                                temperature=0.15, min_temperature=0.15, remat=False,
                                matmul_precision="default", query_path_only=True)
SPEC = packing.LmBatchSpec(rows=4, length=128, slots=28, targets=40, queries=4, slot_id=-1,
                           examples_per_group=1, rows_per_group=1, task_names=(), whole_words=0)


def step_flops(lm: decoder.DecoderConfig, config, spec: packing.LmBatchSpec) -> float:
  """FLOPs of loss and gradient as counted by XLA; nothing is run."""
  lm = dataclasses.replace(lm, unroll=lm.num_layers)
  graphdef, trainable = phase2.build_phase2(config, lm.width, FORM, 0.1, seed=0)
  loss = phase2.phase2_loss(graphdef, lm, ("task",))
  frozen = {"lm": language_model.abstract_params(lm),
            "vectors": {n: jax.ShapeDtypeStruct((2000, C), jnp.float32) for n, C in config.vectors},
            "present": {n: jax.ShapeDtypeStruct((2000,), bool) for n, _ in config.vectors}}
  step = jax.jit(jax.value_and_grad(loss, has_aux=True))
  compiled = step.lower(trainable, frozen, packing.empty(spec.rows, spec), None).compile()
  return compiled.cost_analysis()["flops"]


def least_flops(lm: decoder.DecoderConfig, config, spec: packing.LmBatchSpec) -> float:
  """The lower bound: 4 FLOPs per frozen matmul weight and token, 6 per trained weight and token."""
  def matmul_weights(tree):
    return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(tree) if len(x.shape) > 1)

  layers = language_model.abstract_params(lm)["layers"]
  layer_weights = sum(int(np.prod(x.shape)) for x in layers.values() if len(x.shape) == 3)
  _, trainable = phase2.build_phase2(config, lm.width, FORM, 0.1, seed=0)
  trained = matmul_weights({k: v for k, v in trainable["qformer"].items() if k != "query_tokens"})
  trained += matmul_weights(trainable["projection"])
  soft = spec.rows * spec.slots * spec.queries
  return (4 * layer_weights * spec.rows * spec.length
          + 4 * lm.vocab_size * lm.width * spec.rows * spec.targets + 6 * trained * soft)


def drawn_out(lm, config, spec) -> tuple[float, float]:
  """(counted by XLA, lower bound) FLOPs of the whole model, from compiled depths 1 and 2."""
  one, two = (step_flops(dataclasses.replace(lm, num_layers=n), config, spec) for n in (1, 2))
  return one + (lm.num_layers - 1) * (two - one), least_flops(lm, config, spec)


def main():
  args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  args.add_argument("--out", help="write the figures here as JSON")
  args = args.parse_args()
  counted, least = drawn_out(LM, QFORMER, SPEC)
  print(f"counted by XLA {counted / 1e9:.1f} GFLOP, least {least / 1e9:.1f} GFLOP, "
        f"ratio {counted / least:.3f}")
  if args.out:
    with open(args.out, "w") as file:
      json.dump({"counted": counted, "least": least, "ratio": counted / least}, file, indent=2)


if __name__ == "__main__":
  main()
