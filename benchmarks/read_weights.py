"""Measures the host memory that reading a checkpoint takes beyond the parameters themselves.

    python -m benchmarks.read_weights --out=read_weights.json             (2 GB, one device)
    python -m benchmarks.read_weights --gb=.5 --devices=8 --dtype=int8

Writes a synthetic Llama of --gb GB as sharded safetensors, reads it in a child process onto a mesh
of CPU devices, and takes the child's peak resident memory, pages of mapped files included. On a CPU
the parameters are in host memory as well, so their size is subtracted. The rest must stay below
twice the largest tensor (in float32 if it is quantised to int8). Needs Linux.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np

VOCAB = 16      # rows / width; makes the table the largest tensor


def write(folder: pathlib.Path, gigabytes: float) -> None:
  """Writes the checkpoint in float32, one file per layer; larger sizes are wider and deeper."""
  import safetensors.numpy
  width = max(64, round((gigabytes / 2) ** 0.5 * 1408 / 64) * 64)
  layers = max(1, round((gigabytes * 1e9 / 4 / width ** 2 - VOCAB) / 16))
  config = {"model_type": "llama", "num_hidden_layers": layers, "hidden_size": width,
            "num_attention_heads": width // 64, "intermediate_size": 4 * width,
            "vocab_size": VOCAB * width, "rms_norm_eps": 1e-5, "tie_word_embeddings": True}
  (folder / "config.json").write_text(json.dumps(config))
  names = {"self_attn.q_proj": (width, width), "self_attn.k_proj": (width, width),
           "self_attn.v_proj": (width, width), "self_attn.o_proj": (width, width),
           "mlp.gate_proj": (4 * width, width), "mlp.up_proj": (4 * width, width),
           "mlp.down_proj": (width, 4 * width), "input_layernorm": (width,),
           "post_attention_layernorm": (width,)}
  where = {}
  for n in range(-1, layers):
    shapes = ({"model.embed_tokens.weight": (VOCAB * width, width), "model.norm.weight": (width,)}
              if n < 0 else {f"model.layers.{n}.{k}.weight": s for k, s in names.items()})
    file = f"model-{n + 1}.safetensors"
    safetensors.numpy.save_file(
        {k: np.full(s, 0.01 * (n + 2), np.float32) for k, s in shapes.items()}, folder / file)
    where |= dict.fromkeys(shapes, file)
  (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))


def measure(gigabytes: float, devices: int = 1, dtype: str = "float32") -> dict:
  """Bytes and seconds of one reading; `extra`: peak host memory without the parameters."""
  with tempfile.TemporaryDirectory() as folder:
    write(pathlib.Path(folder), gigabytes)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.read_weights", f"--read={folder}",
         f"--devices={devices}", f"--dtype={dtype}"],
        capture_output=True, text=True, check=False, env={**os.environ, "JAX_PLATFORMS": "cpu"})
  if done.returncode:
    raise RuntimeError(done.stderr[-2000:])
  return json.loads(done.stdout.splitlines()[-1])


def read(folder: str, devices: int, dtype: str) -> dict:
  """In the child: reads the checkpoint."""
  import jax
  jax.config.update("jax_num_cpu_devices", devices)
  from ilm_jax.runtime import axes
  from ilm_jax.weights import hf
  mesh = axes.make_mesh({"data": 1, "fsdp": 1, "tensor": devices})
  jax.block_until_ready(jax.jit(lambda x: x @ x)(np.ones((8, 8), np.float32)))  # starts XLA
  before = _status("VmRSS")
  pathlib.Path("/proc/self/clear_refs").write_text("5")     # resets the peak, VmHWM
  start = time.perf_counter()
  int8 = dtype == "int8"
  _, params = hf.load(folder, "float32" if int8 else dtype, mesh, int8=int8)
  seconds = time.perf_counter() - start
  # A replicated array is in memory once per device.
  held = sum(part.data.nbytes for x in jax.tree.leaves(params) for part in x.addressable_shards)
  return {"seconds": seconds, "parameters": held, "extra": _status("VmHWM") - before - held,
          "largest_tensor": params["embedding"].nbytes,
          "largest_parameter": max(x.nbytes for x in jax.tree.leaves(params))}


def _status(name: str) -> int:
  """A field of /proc/self/status, in bytes."""
  for line in pathlib.Path("/proc/self/status").read_text().splitlines():
    if line.startswith(f"{name}:"):
      return int(line.split()[1]) * 1024
  raise OSError(f"/proc/self/status has no {name}: this benchmark needs Linux")


def main():
  args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  args.add_argument("--gb", type=float, default=2.0, help="size of the checkpoint, in 1e9 bytes")
  args.add_argument("--devices", type=int, default=1, help="devices, all on the tensor axis")
  args.add_argument("--dtype", default="float32", help="of our kernels: float32, bfloat16, int8")
  args.add_argument("--out", help="write the costs here as JSON")
  args.add_argument("--read", help=argparse.SUPPRESS)
  args = args.parse_args()
  if args.read:
    print(json.dumps(read(args.read, args.devices, args.dtype)))
    return
  costs = measure(args.gb, args.devices, args.dtype)
  print(f"{costs['parameters'] / 1e9:.2f} GB in {costs['seconds']:.1f} s; beyond the parameters "
        f"{costs['extra'] / 1e6:.0f} MB at most, {costs['extra'] / costs['largest_tensor']:.2f} of "
        f"the largest tensor ({costs['largest_tensor'] / 1e6:.0f} MB; the largest stacked "
        f"parameter has {costs['largest_parameter'] / 1e6:.0f} MB)")
  if args.out:
    with open(args.out, "w") as file:
      json.dump(costs, file, indent=2)


if __name__ == "__main__":
  main()
