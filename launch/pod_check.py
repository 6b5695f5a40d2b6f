"""Does a pod work? Every process brings its number + 1, and all must see the same sum.

    python launch/local_pod.py -n 2 -- python -m launch.pod_check
    python -m launch.tpu_vm run my-tpu --zone=us-east5-a -- python -m launch.pod_check auto
"""
import argparse
import sys

from ilm_jax.runtime import distributed
from launch import shell


def parse(argv: list[str] | None) -> argparse.Namespace:
  p = argparse.ArgumentParser(description=__doc__,
                              formatter_class=argparse.RawDescriptionHelpFormatter)
  p.add_argument("mode", nargs="?", default="", choices=("", "auto"), metavar="auto",
                 help="auto: the pod says who takes part; default: the environment does")
  return p.parse_args(argv)


def check(mode: str) -> int:
  """Prints what this process sees; 1 if the sum is wrong."""
  place = distributed.start(mode)
  import jax
  import jax.numpy as jnp
  import numpy as np

  from ilm_jax.runtime import axes
  from ilm_jax.training import loop
  mesh = axes.make_mesh({"data": jax.device_count()})
  mine = np.full(jax.local_device_count(), place.process + 1.0)
  got = float(jax.jit(jnp.sum)(loop.to_devices(mesh, {"x": mine})["x"]))
  expected = float(sum(device.process_index + 1 for device in jax.devices()))
  distributed.wait("summed")
  print(f"process {place.process} of {place.count}: {jax.device_count()} devices "
        f"({jax.devices()[0].device_kind}), sum {got:g}, expected {expected:g}", flush=True)
  return 0 if got == expected else 1


if __name__ == "__main__":
  sys.exit(shell.main(lambda: check(parse(None).mode)))
