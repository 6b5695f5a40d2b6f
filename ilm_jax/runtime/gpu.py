"""What XLA is told where JAX runs on NVIDIA GPUs; read as jax starts, so set before.

Known to jaxlib 0.10 and 0.11. More flags are published, but those are on by default by now
(asynchronous collectives, CUDA graphs) or a matter of the model (thresholds, pipelining).
"""
import importlib.util

PLUGINS = ("jax_cuda12_plugin", "jax_cuda13_plugin")
# Collectives are started early and waited for late: the one flag that NVIDIA's image of JAX sets,
# https://docs.nvidia.com/jax-toolbox/environment-variables
FLAGS = ("--xla_gpu_enable_latency_hiding_scheduler=true",)
# Of a GPU's memory, what JAX takes as it starts; .75 unless it is told.
MEMORY_FRACTION = 0.9


def prepare(environ, installed: bool | None = None) -> None:
  """Adds flags to $XLA_FLAGS, and what JAX takes of the memory; what is set by the user stays.

  Args:
    environ: as os.environ, changed.
    installed: whether JAX has its GPU plugin; None: look. Without it nothing changes, as flags are
      part of the name under which compiled programs are kept.
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
  """Whether all of them multiply in bfloat16 at a higher rate: TPUs, and GPUs since Ampere."""
  return all(d.platform == "tpu" or (
      d.platform in ("gpu", "cuda")
      and float(getattr(d, "compute_capability", None) or 0) >= 8) for d in devices)
