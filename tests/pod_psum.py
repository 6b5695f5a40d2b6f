"""A program for launch/local_pod.py: every process brings (its number + 1), all print the sum."""
import jax.numpy as jnp
import numpy as np

from ilm_jax import distributed

if __name__ == "__main__":
  place = distributed.start()
  import jax

  from ilm_jax import axes, train
  mesh = axes.make_mesh({"data": jax.device_count()})
  mine = np.full(jax.local_device_count(), place.process + 1.0)
  total = jax.jit(jnp.sum)(train.to_devices(mesh, {"x": mine})["x"])
  distributed.wait("summed")
  print(f"sum {float(total)} main {distributed.is_main()}", flush=True)
