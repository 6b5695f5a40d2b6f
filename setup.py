"""Which packages there are; all else about the package is in setup.cfg.

In the wheel tasks/ and configs/ are ilm_jax.tasks and ilm_jax.configs (ilm_jax/__init__.py): it
takes no name in an environment but ilm_jax. setup.cfg can find packages or rename them, not both.
"""
import setuptools

_INSIDE = ("tasks", "configs")
_CACHE = ["*__pycache__"]

setuptools.setup(
    packages=[*setuptools.find_namespace_packages(include=["ilm_jax*"], exclude=_CACHE),
              *(f"ilm_jax.{name}" for top in _INSIDE for name in
                setuptools.find_namespace_packages(include=[f"{top}*"], exclude=_CACHE))],
    package_dir={f"ilm_jax.{name}": name for name in _INSIDE})
