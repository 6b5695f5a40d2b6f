"""The Item-Language Model in JAX.

The tasks are `ilm_jax.tasks` and the configs `ilm_jax.configs`, so that an installed wheel takes no
name but its own. The wheel has both inside this package; in a checkout they lie beside it, as the
folders tasks/ and configs/, and this module alone makes up for the difference.
"""
import importlib
import importlib.machinery
import importlib.util
import pathlib
import sys

_HERE = pathlib.Path(__file__).parent
CHECKOUT = None if (_HERE / "tasks").is_dir() else _HERE.parent     # its root; None: a wheel
_INSIDE = {f"{__name__}.tasks", f"{__name__}.configs"}


class _Beside:
  """Finds in a checkout's root what the wheel has inside, and nothing else that lies there."""

  @staticmethod
  def find_spec(name, path=None, target=None):
    if name not in _INSIDE:
      return None
    return importlib.machinery.PathFinder.find_spec(name, [str(CHECKOUT)])


if CHECKOUT:
  sys.meta_path.append(_Beside)


def one_package(name: str) -> None:
  """Makes `tasks` another name of `ilm_jax.tasks`, and so on, with all modules in it.

  Python finds the first name, too, where it runs in the root of a checkout. Without this it would
  load every module a second time.

  Args:
    name: of the package that is being imported, by either name.
  """
  if not name.startswith(f"{__name__}."):
    sys.meta_path.insert(0, _Inside(name))
    sys.modules[name] = importlib.import_module(f"{__name__}.{name}")


class _Inside:
  """Finds the modules of a package of a checkout as those that ilm_jax has."""

  def __init__(self, package: str):
    self._package = package

  def find_spec(self, name, path=None, target=None):
    if not name.startswith(f"{self._package}."):
      return None
    ours = importlib.util.find_spec(f"{__name__}.{name}")
    return ours and importlib.util.spec_from_loader(name, self, origin=ours.origin)

  def get_code(self, name):
    """The code of a module that `python -m` runs."""
    ours = importlib.util.find_spec(f"{__name__}.{name}")
    return ours.loader.get_code(ours.name)

  def create_module(self, spec):
    module = importlib.import_module(f"{__name__}.{spec.name}")
    spec.loader_state = module.__spec__     # which Python is about to replace by `spec`
    return module

  def exec_module(self, module):
    module.__spec__ = module.__spec__.loader_state
