"""The Item-Language Model in JAX.

The tasks are `ilm_jax.tasks` and the configs `ilm_jax.configs`, so that an installed wheel has no
other top-level name. The wheel holds both inside this package. In a checkout they are the folders
tasks/ and configs/ beside it, and this module finds them there.
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
  """Finds tasks and configs in the root of a checkout, and no other module there."""

  @staticmethod
  def find_spec(name, path=None, target=None):
    if name not in _INSIDE:
      return None
    return importlib.machinery.PathFinder.find_spec(name, [str(CHECKOUT)])


if CHECKOUT:
  sys.meta_path.append(_Beside)


def one_package(name: str) -> None:
  """Makes a package such as `tasks` an alias of `ilm_jax.tasks`, with all its modules.

  In the root of a checkout Python also finds the plain name `tasks`. Without the alias it would
  load every module twice.

  Args:
    name: the name of the package being imported, e.g. "tasks" or "ilm_jax.tasks".
  """
  if not name.startswith(f"{__name__}."):
    sys.meta_path.insert(0, _Inside(name))
    sys.modules[name] = importlib.import_module(f"{__name__}.{name}")


class _Inside:
  """Resolves a module such as `tasks.elm` to `ilm_jax.tasks.elm`."""

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
    spec.loader_state = module.__spec__     # Python is about to replace it by `spec`
    return module

  def exec_module(self, module):
    module.__spec__ = module.__spec__.loader_state
