"""Counts the bytes that phase 1's losses send between chips, compared with the lower bound.

    JAX_DISABLE_MOST_OPTIMIZATIONS=1 python -m benchmarks.phase1_bytes --devices=16

Compiles, but does not run, the step of configs/plan_phase1.py in the paper's form (8,192 items with
their texts, as many pairs) with one loss at a time for --devices forced CPU devices. XLA partitions
it as for TPUs; the TPU compiler also turns an all-reduce of which each chip keeps a part into a
reduce-scatter. Weights are replicated and their gradients reduced: column "gradients" holds these
all-reduces. The lower bound is an all-gather forward and a reduce-scatter backward: of the
projected texts (ITC), or of all queries of one side (II and UI).

Megabytes that a chip sends per step, measured with the command above:

       least  gathered   reduced   other  gradients
  itc   23.6      12.6      23.6     0.0      261.2
  ii    94.4      47.5      94.4    28.3       96.1
  ui    94.4      47.5      94.4    28.3       96.1
  itm   23.6      14.7       0.0     0.0      231.9
  itg    0.0       0.1       0.0     0.0      767.3

"reduced" is halved by a reduce-scatter: ITC then sends 24.4, against the lower bound of 23.6. II
and UI send 28.3 in "other" because both sides of the pairs are concatenated in one pass of the
Q-Former. ITG sums the word table's gradient over all chips once in each of its six turns. ITM draws
its negatives by ITC's similarities, without a gradient. Temporaries of the whole step on such a
device: 31.69 GiB, with qformer.remat 11.31.
"""
import argparse

import jax

from ilm_jax.config import reading as config_lib
from ilm_jax.planning import hlo, programs
from ilm_jax.runtime import axes


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--devices", type=int, default=16, help="number of forced CPU devices")
  parser.add_argument("--batch", type=int, default=8192, help="items with texts; pairs")
  args = parser.parse_args()
  jax.config.update("jax_platforms", "cpu")
  jax.config.update("jax_num_cpu_devices", args.devices)
  print(f"{'':6}{'least':>8}{'gathered':>10}{'reduced':>10}{'other':>8}{'gradients':>11}")
  for loss in ("itc", "ii", "ui", "itm", "itg"):
    sent, least = measure(loss, args.devices, args.batch)
    print(f"{loss:6}{least:8.1f}", *(f"{sent[k]:9.1f}" for k in (
        "all-gather", "reduced", "other", "gradients")))
  for remat in (False, True):
    _, compiled = step({"qformer.remat": remat}, args.devices, args.batch)
    print(f"all losses, qformer.remat={remat}: temporaries of a device "
          f"{compiled.memory_analysis().temp_size_in_bytes / 2 ** 30:.2f} GiB")


def step(changes: dict, devices: int, batch: int):
  """(config, compiled step) of configs/plan_phase1.py with the given changes."""
  c = config_lib.load("configs/plan_phase1.py", {
      "qformer.cross_init": "bert", "qformer.cross_every": 2, "qformer.cross_reads": "all",  # paper
      **changes, "mesh.data": devices, "phase1.batch_size": batch,
      "phase1.pair_batch_size": batch})
  return c, programs.phase1(c, axes.make_mesh(dict(c.mesh), jax.devices())).lower().compile()


def measure(loss: str, devices: int, batch: int) -> tuple[dict[str, float], float]:
  """({kind: megabytes sent}, lower bound) of one loss."""
  names = ("itc", "itm", "itg", "ii", "ui")
  c, compiled = step({f"phase1.losses.{n}": float(n == loss) for n in names}, devices, batch)
  vectors = {"itc": 1, "itm": 1, "itg": 0}.get(loss, c.qformer.num_queries)
  one_side = 4 * batch * c.qformer.proj_width * vectors
  sent = dict.fromkeys(("all-gather", "reduced", "other", "gradients"), 0.0)
  for one in hlo.collectives(compiled.as_text(), devices):
    kind = "all-gather" if one.kind == "all-gather" else "other"
    if one.kind == "all-reduce":
      kind = "reduced" if one.bytes == one_side else "gradients"
    sent[kind] += one.sent / 1e6
  return sent, 2 * one_side * (devices - 1) / devices / 1e6


if __name__ == "__main__":
  main()
