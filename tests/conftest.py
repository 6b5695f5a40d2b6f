"""Eight forced host devices, no silent broadcasting, and compilations shared between runs."""
import gc
import importlib.metadata
import os
import pathlib

# Tests compile much and compute little. All of it holds for the processes they start, too. XLA's
# fusion emitters take twice as long to compile a step for CPU as the code generator before them,
# which jaxlib 0.12 no longer has: there the flag ends the process. By default a program's code is
# split for idle cores to compile: the workers leave none idle, and each part costs time of its own.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"
if tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2])) < (0, 11):
  os.environ["XLA_FLAGS"] = (
      f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false"
      " --xla_cpu_parallel_codegen_split_count=1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(
    pathlib.Path(__file__).parents[1] / ".pytest_cache" / "compiled")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

import jax

gc.set_threshold(10_000)      # as in ilm_jax/main.py
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_collection_finish():
  """All modules are imported: what they hold stays, and need not be looked through again."""
  gc.collect()
  gc.freeze()
