"""Memory that reading a checkpoint takes on the host, beyond the parameters themselves.

    python -m benchmarks.read_weights --gb=2 --out=read_weights.json

Writes a synthetic Llama of that size as sharded safetensors, reads it in a child process onto a
mesh of one device, and watches the child's own memory (anonymous pages; those of the mapped file
are the kernel's to drop). On a CPU the parameters lie in host memory too, so their size is taken
off. What is left must stay under two of the largest tensors.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np

WIDTH, MLP, VOCAB = 2048, 5632, 8192
PER_LAYER = 4 * WIDTH * WIDTH + 3 * WIDTH * MLP


def write(folder: pathlib.Path, gigabytes: float) -> int:
  """Writes the checkpoint, a file a layer; returns the bytes of its largest tensor."""
  import safetensors.numpy
  layers = max(1, round(gigabytes * 1e9 / 4 / PER_LAYER))
  config = {"model_type": "llama", "num_hidden_layers": layers, "hidden_size": WIDTH,
            "num_attention_heads": 16, "num_key_value_heads": 16, "intermediate_size": MLP,
            "vocab_size": VOCAB, "rms_norm_eps": 1e-5, "tie_word_embeddings": True}
  (folder / "config.json").write_text(json.dumps(config))
  names = {"self_attn.q_proj": (WIDTH, WIDTH), "self_attn.k_proj": (WIDTH, WIDTH),
           "self_attn.v_proj": (WIDTH, WIDTH), "self_attn.o_proj": (WIDTH, WIDTH),
           "mlp.gate_proj": (MLP, WIDTH), "mlp.up_proj": (MLP, WIDTH),
           "mlp.down_proj": (WIDTH, MLP), "input_layernorm": (WIDTH,),
           "post_attention_layernorm": (WIDTH,)}
  where = {}
  for n in range(-1, layers):
    shapes = ({"model.embed_tokens.weight": (VOCAB, WIDTH), "model.norm.weight": (WIDTH,)} if n < 0
              else {f"model.layers.{n}.{k}.weight": s for k, s in names.items()})
    file = f"model-{n + 1}.safetensors"
    safetensors.numpy.save_file(
        {k: np.full(s, 0.01 * (n + 2), np.float32) for k, s in shapes.items()}, folder / file)
    where |= dict.fromkeys(shapes, file)
  (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
  return max(WIDTH * MLP, VOCAB * WIDTH) * 4


def anonymous_bytes() -> int:
  for line in pathlib.Path("/proc/self/status").read_text().splitlines():
    if line.startswith("RssAnon"):
      return int(line.split()[1]) * 1024
  raise OSError("/proc/self/status has no RssAnon: this benchmark needs Linux")


def read(folder: str) -> None:
  """In the child: reads the checkpoint and prints what it took."""
  import jax

  from ilm_jax import axes
  from ilm_jax.weights import hf
  mesh = axes.make_mesh({"data": 1, "fsdp": 1, "tensor": 1})
  jax.block_until_ready(jax.jit(lambda x: x + 1)(np.zeros(8)))
  before, peak, stop = anonymous_bytes(), 0, threading.Event()

  def watch():
    nonlocal peak
    while not stop.is_set():
      peak = max(peak, anonymous_bytes())
      time.sleep(0.001)

  watcher = threading.Thread(target=watch)
  watcher.start()
  start = time.perf_counter()
  _, params = hf.load(folder, mesh=mesh)
  seconds = time.perf_counter() - start
  stop.set()
  watcher.join()
  held = sum(x.nbytes for x in jax.tree.leaves(params))
  print(json.dumps({"seconds": seconds, "parameters": held, "extra": peak - before - held}))


def main():
  args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  args.add_argument("--gb", type=float, default=2.0)
  args.add_argument("--out", help="write the figures here as JSON")
  args.add_argument("--read", help=argparse.SUPPRESS)
  args = args.parse_args()
  if args.read:
    return read(args.read)
  with tempfile.TemporaryDirectory() as folder:
    largest = write(pathlib.Path(folder), args.gb)
    done = subprocess.run([sys.executable, "-m", "benchmarks.read_weights", f"--read={folder}"],
                          capture_output=True, text=True, check=True,
                          env={**os.environ, "JAX_PLATFORMS": "cpu"})
  found = {**json.loads(done.stdout), "largest_tensor": largest}
  print(f"{found['parameters'] / 1e9:.2f} GB in {found['seconds']:.1f} s; beyond the parameters "
        f"{found['extra'] / 1e6:.0f} MB at most, {found['extra'] / largest:.2f} of the largest "
        f"tensor ({largest / 1e6:.0f} MB)")
  if args.out:
    with open(args.out, "w") as file:
      json.dump(found, file, indent=2)
  return None


if __name__ == "__main__":
  main()
