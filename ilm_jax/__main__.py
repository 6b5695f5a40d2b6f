"""`python -m ilm_jax` is `python -m ilm_jax.main`."""
import runpy

if __name__ == "__main__":
  runpy.run_module("ilm_jax.main", run_name="__main__", alter_sys=True)
