"""Settings of XLA for NVIDIA GPUs; jax reads them when it starts, so they are set before.

jaxlib 0.10 and 0.11 know the flags. Other published flags are on by default by now (asynchronous
collectives, CUDA graphs) or depend on the model (thresholds, pipelining).
"""
import importlib.util

PLUGINS = ("jax_cuda12_plugin", "jax_cuda13_plugin")
# Starts collectives early and waits for them late: the one flag that NVIDIA's image of JAX sets,
# https://docs.nvidia.com/jax-toolbox/environment-variables
FLAGS = ("--xla_gpu_enable_latency_hiding_scheduler=true",)
# The share of a GPU's memory that JAX takes when it starts; JAX's default is .75.
MEMORY_FRACTION = 0.9


def prepare(environ, installed: bool | None = None) -> None:
  """Sets $XLA_FLAGS and $XLA_PYTHON_CLIENT_MEM_FRACTION; values that the user has set stay.

  Args:
    environ: a mapping like os.environ; changed in place.
    installed: whether JAX has its GPU plugin; None: look for it. Without it nothing changes, since
      the flags are part of the key of cached programs.
  """
  if installed is None:
    installed = any(importlib.util.find_spec(name) for name in PLUGINS)
  if not installed:
    return
  flags = environ.get("XLA_FLAGS", "").split()
  names = {flag.split("=")[0] for flag in flags}
  flags += [flag for flag in FLAGS if flag.split("=")[0] not in names]
  environ["XLA_FLAGS"] = " ".join(flags)
  environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", str(MEMORY_FRACTION))


def has_bfloat16(devices) -> bool:
  """Whether all devices multiply faster in bfloat16: TPUs, and GPUs since Ampere."""
  return all(d.platform == "tpu" or (
      d.platform in ("gpu", "cuda")
      and float(getattr(d, "compute_capability", None) or 0) >= 8) for d in devices)
