"""Which packages there are; all else about the package is in setup.cfg.

In the wheel tasks/ and configs/ are ilm_jax.tasks and ilm_jax.configs (ilm_jax/__init__.py): it
takes no name in an environment but ilm_jax. setup.cfg can find packages or rename them, not both.
"""
import sys

import setuptools

_INSIDE = ("tasks", "configs")


def _found(*names: str) -> list[str]:
  return setuptools.find_namespace_packages(include=[f"{name}*" for name in names],
                                            exclude=["*__pycache__"])


if "editable_wheel" in sys.argv:
  # `pip install -e`: the root of the checkout on Python's path, where ilm_jax finds the two.
  setuptools.setup(packages=_found("ilm_jax"), package_dir={"": "."})
else:
  setuptools.setup(
      packages=[*_found("ilm_jax"), *(f"ilm_jax.{name}" for name in _found(*_INSIDE))],
      package_dir={f"ilm_jax.{name}": name for name in _INSIDE})
