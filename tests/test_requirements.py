"""The lock files: all pinned, with hashes, and the same names for both Pythons."""
import configparser
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
LOCKS = sorted(ROOT.glob("requirements*.lock"))
NO_HASHES = {"requirements-parity.lock"}     # its head says why


def pins(path: pathlib.Path) -> dict[str, tuple[str, list[str]]]:
  """{name: (version, hashes)} of a lock; refuses any other kind of line."""
  locked = {}
  for line in re.sub(r"\s*\\\n\s*", " ", path.read_text()).splitlines():
    if not line.startswith("#"):
      requirement, *hashes = line.split()
      name, version = requirement.split("==")
      assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", h) for h in hashes), line
      assert name not in locked, line
      locked[name] = version, hashes
  return locked


def names(*extras: str) -> set[str]:
  """What setup.cfg asks for in these extras; "": the core."""
  setup = configparser.ConfigParser()
  setup.read(ROOT / "setup.cfg")
  listed = [setup["options.extras_require"][extra] if extra else
            setup["options"]["install_requires"] for extra in extras]
  return {re.match(r"[\w-]+", line)[0] for text in listed for line in text.split()}


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_every_package_is_pinned_with_its_hashes(path):
  locked = pins(path)
  assert locked
  bare = {name for name, (_, hashes) in locked.items() if not hashes}
  assert bare == (locked.keys() if path.name in NO_HASHES else set())


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_no_lock_names_a_registry(path):
  assert not re.search(r"://|--(extra-)?index-url|--find-links", path.read_text())


def test_no_command_gives_pip_a_lock_with_hashes_as_constraints():
  """pip then wants a hash for every package of the command, and refuses a wheel of ours."""
  pages = [ROOT / "README.md", ROOT / "Dockerfile", *ROOT.glob("docs/**/*.md"),
           *ROOT.glob("launch/*.sh"), *ROOT.glob("launch/*.py")]
  lock = re.compile(r"(-c|--constraint)[ =]requirements[\w-]*\.lock")
  assert [page.name for page in pages if lock.search(page.read_text())] == []


def test_the_locks_hold_what_setup_asks_for():
  assert names("", "data", "serve", "dev") <= pins(ROOT / "requirements.lock").keys()
  assert names("", "serve", "dev", "parity") - {"torch"} <= pins(
      ROOT / "requirements-py313.lock").keys()
  parity = pins(ROOT / "requirements-parity.lock").keys()
  assert names("parity") <= parity
  assert not parity & pins(ROOT / "requirements.lock").keys()     # two locks, one version


def test_the_newer_lock_is_of_no_older_jax():
  """It is there to be tried with what is newest."""
  older, newer = pins(ROOT / "requirements.lock"), pins(ROOT / "requirements-py313.lock")
  for name in ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain"):
    number = [[int(n) for n in lock[name][0].split(".")] for lock in (older, newer)]
    assert number[0] <= number[1], name
