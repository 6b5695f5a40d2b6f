"""Downloads, with pip, the wheels that a machine without a package registry lacks."""
import configparser
import pathlib
import re
import subprocess
import sys
import tempfile

from ilm_jax import errors
from launch import closure

ROOT = pathlib.Path(__file__).parents[1]
# Packages of a machine for JAX; --have names others. With JAX come the packages that it needs.
HAVE = ("jax", "flax", "optax", "orbax-checkpoint", "tokenizers", "safetensors")
_OF_JAX = ("jaxlib", "ml-dtypes", "numpy", "opt-einsum", "scipy")


def required() -> list[str]:
  """The requirements to train, evaluate and report, from setup.cfg."""
  setup = configparser.ConfigParser()
  setup.read(ROOT / "setup.cfg")
  return setup["options"]["install_requires"].split()


def name(requirement: str) -> str:
  """"etils[epath]>=1" -> "etils"."""
  return closure.canonical(re.match(r"[\w.-]+", requirement)[0])


def platforms(text: str) -> list[str]:
  """The tags that a machine accepts: "manylinux_2_28_x86_64" takes wheels of older ones, too."""
  m = re.fullmatch(r"manylinux_2_(\d+)_(\w+)", text)
  if not m:
    return [text]
  older = [f"manylinux_2_{minor}_{m[2]}" for minor in range(int(m[1]), 4, -1)]
  return [*older, *(f"{old}_{m[2]}" for old in ("manylinux2014", "manylinux2010", "manylinux1"))]


def present(have: list[str]) -> set[str]:
  """Packages that need no wheel: those of --have and, if JAX is one, the packages it requires."""
  there = {closure.canonical(name) for name in have if name}
  return there | (set(_OF_JAX) if "jax" in there else set())


def machine(platform: str) -> str:
  """"manylinux_2_28_x86_64" -> "x86_64", as platform.machine() says."""
  m = re.search(r"(x86_64|aarch64|arm64)$", platform)
  if not m:
    raise errors.UserError(f"--platform={platform}: expected e.g. manylinux_2_28_x86_64 or "
                           "manylinux_2_28_aarch64")
  return m[1]


def download(python: str, platform: str, have: list[str]) -> dict[str, bytes]:
  """{file name: wheel} of all required packages that the machine lacks.

  Args:
    python: "3.12".
    platform: e.g. "manylinux_2_28_x86_64".
    have: packages of the machine; [] or [""]: none, a bare interpreter.

  Raises:
    UserError: pip cannot get them, e.g. there is no wheel for that Python.
  """
  if not re.fullmatch(r"3\.\d+", python):
    raise errors.UserError(f"--python={python}: expected e.g. 3.12")
  machine(platform)
  there = present(have)
  wanted = [r for r in required() if name(r) not in there]
  with tempfile.TemporaryDirectory() as folder:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
         "--only-binary=:all:", f"--python-version={python}", "--implementation=cp",
         *(f"--platform={tag}" for tag in platforms(platform)), f"--dest={folder}", *wanted],
        capture_output=True, text=True, check=False)
    if done.returncode:
      said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
      raise errors.UserError(f"pip has no wheels for Python {python} on {platform} "
                             f"({(said or ['no reason'])[-1]}): give another --python or "
                             "--platform, or leave --wheels out")
    return {path.name: path.read_bytes() for path in sorted(pathlib.Path(folder).glob("*.whl"))
            if name(path.name.split("-")[0]) not in there}
