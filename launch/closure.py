"""Reads from metadata which packages a program needs, directly or not, before it is imported.

It runs where a bundle is unpacked, so it uses only the standard library, and `packaging` or pip's
copy of it.
"""
import dataclasses
import email.parser
import pathlib
import re
import zipfile

from ilm_jax import errors


@dataclasses.dataclass(frozen=True)
class Package:
  """Version and requirements of a package, from its METADATA."""
  version: str
  requires: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Unmet:
  """A requirement that no available package meets."""
  name: str           # canonical
  requirement: str    # "numpy>=2"
  by: str             # the package that needs it; "": the bundle
  found: str          # available version; "": none

  def __str__(self) -> str:
    return (f"{self.requirement}{f' for {self.by}' if self.by else ''}"
            f"{f' (has {self.found})' if self.found else ''}")


def canonical(name: str) -> str:
  """A package's name in canonical form: "ML_Collections" -> "ml-collections"."""
  return re.sub(r"[-_.]+", "-", name).lower()


def of_wheels(wheels: list[pathlib.Path]) -> dict[str, Package]:
  """{canonical name: package} of wheel files.

  Raises:
    UserError: a file is no wheel.
  """
  packages = {}
  for path in wheels:
    try:
      with zipfile.ZipFile(path) as wheel:
        member, = (m for m in wheel.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", m))
        said = email.parser.Parser().parsestr(wheel.read(member).decode(errors="replace"))
    except (OSError, ValueError, RuntimeError, zipfile.BadZipFile) as e:
      raise errors.UserError(f"{path} is no wheel ({e}): make the bundle again") from e
    packages[canonical(path.name.split("-")[0])] = Package(
        said["Version"] or "", tuple(said.get_all("Requires-Dist", ())))
  return packages


def installed(distributions) -> dict[str, Package]:
  """{canonical name: package} of `importlib.metadata.distributions()`; of two, the first counts."""
  packages = {}
  for d in distributions:
    if name := canonical(d.metadata["Name"] or ""):
      packages.setdefault(name, Package(d.metadata["Version"] or "", tuple(d.requires or ())))
  return packages


def plan(requires: list[str], there: dict[str, Package],
         wheels: dict[str, Package]) -> tuple[set[str], list[Unmet]]:
  """The wheels to install so that as many requirements as possible are met.

  Args:
    requires: requirements of the program, e.g. "etils[epath]".
    there: packages that are installed.
    wheels: packages that can replace or complement them.

  Returns:
    (canonical names of wheels, requirements that stay unmet).
  """
  chosen: set[str] = set()
  while True:
    unmet = _unmet(requires, there | {name: wheels[name] for name in chosen})
    more = {u.name for u in unmet if u.name in wheels} - chosen
    if not more:
      return chosen, unmet
    chosen |= more


def _unmet(requires: list[str], packages: dict[str, Package]) -> list[Unmet]:
  """Unmet requirements among the given ones and those of the packages that meet them; each once."""
  requirements = _packaging()
  todo, done, unmet = [(text, "", frozenset()) for text in requires], set(), {}
  while todo:
    text, by, extras = todo.pop(0)
    try:
      r = requirements.Requirement(text)
      wanted = r.marker is None or any(r.marker.evaluate({"extra": e}) for e in ("", *extras))
      name, found = canonical(r.name), packages.get(canonical(r.name))
      fits = found and (not found.version
                        or r.specifier.contains(found.version, prereleases=True))
    except ValueError:         # from packaging: invalid metadata of a package
      continue
    if not wanted:
      continue
    if not fits:
      unmet.setdefault(name, Unmet(name, f"{name}{r.specifier}", by,
                                   found.version if found else ""))
    if found and (name, frozenset(r.extras)) not in done:
      done.add((name, frozenset(r.extras)))
      todo += [(more, name, frozenset(r.extras)) for more in found.requires]
  return list(unmet.values())


def _packaging():
  """The module `packaging.requirements`, or pip's own copy."""
  try:
    from packaging import requirements
  except ImportError:
    try:
      from pip._vendor.packaging import requirements
    except ImportError as e:
      raise errors.UserError("this Python has neither pip nor packaging, by which packages "
                             "are chosen: python3 -m ensurepip, or set PYTHON to another "
                             "interpreter") from e
  return requirements
