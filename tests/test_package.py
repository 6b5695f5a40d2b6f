"""The wheel: what is in it, and that it works in an environment and a folder of its own."""
import configparser
import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = ("ilm_jax", "tasks", "configs")
BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
IMPORTS = """
import importlib.util
import ilm_jax
from ilm_jax.configs import quickstart
from ilm_jax.config import own_tasks
from ilm_jax.tasks import catalog

assert ilm_jax.CHECKOUT is None
assert not importlib.util.find_spec("tasks") and not importlib.util.find_spec("configs")
module = catalog.import_module("my_tasks")
print(own_tasks.mixture("my_tasks"), module.FAMILY.fields, quickstart.get_config().seed)
"""
MY_TASKS = """
from ilm_jax.tasks import features, templates

MIXTURE = {"decade": 1.0}
FAMILY = templates.Family(fields=("item",), separator="", seen=("Film{item}. Decade:",), unseen=(),
                          fingerprint="decade 1")

def definitions(material):
  return {"decade": features.Definition}
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
  """The wheel, built from a copy: a build leaves folders where it runs."""
  source = tmp_path_factory.mktemp("source")
  for name in PACKAGES:
    shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
  for name in ("setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
    shutil.copy(ROOT / name, source)
  subprocess.run([sys.executable, "-c", BUILD, source], cwd=source, check=True, capture_output=True)
  return next(source.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
  """Runs a program of an environment that has the wheel and the packages of this Python's."""
  venv, folder = tmp_path_factory.mktemp("venv"), tmp_path_factory.mktemp("elsewhere")
  subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
  site = next(venv.glob("lib/python*/site-packages"))
  (site / "others.pth").write_text("\n".join(p for p in sys.path if p.endswith("-packages")))
  subprocess.run([sys.executable, "-m", "pip", "--python", venv / "bin" / "python", "install",
                  "--quiet", "--no-deps", "--no-index", "--ignore-installed", wheel], check=True)
  env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

  def run(program, *arguments):
    return subprocess.run([venv / "bin" / program, *arguments], cwd=folder, env=env, text=True,
                          capture_output=True, check=False)

  run.folder = folder
  return run


def test_the_wheel_has_all_files_under_one_name(wheel):
  names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
  files = {path.relative_to(ROOT).as_posix() for top in PACKAGES for path in (ROOT / top).rglob("*")
           if path.is_file() and "__pycache__" not in path.parts}
  assert names == {name if name.startswith("ilm_jax/") else f"ilm_jax/{name}" for name in files}


def test_the_program_of_the_wheel(installed):
  setup = configparser.ConfigParser()
  setup.read(ROOT / "setup.cfg")
  assert installed("ilm", "--version").stdout == f"ilm-jax {setup['metadata']['version']}\n"
  shown = installed("ilm", "--help")
  assert shown.returncode == 0 and "ilm chat --config=" in shown.stdout, shown.stderr
  mistaken = installed("ilm", "evla", "--config=tiny")
  assert mistaken.returncode == 1
  assert mistaken.stderr.startswith("error: unknown command 'evla': did you mean eval?")
  # A config by its name, from a folder that has none of that name.
  absent = installed("ilm", "chat", "--config=tiny", "--workdir=run")
  assert absent.stderr.startswith("error: --workdir=run does not exist"), absent.stderr


def test_own_tasks_with_the_wheel(installed):
  pytest.importorskip("seqio", reason="SeqIO, which the tasks need, is not installed")
  (installed.folder / "my_tasks.py").write_text(MY_TASKS)
  done = installed("python", "-c", IMPORTS)
  assert done.stdout == "{'decade': 1.0} ('item',) 0\n", done.stderr


def test_a_module_of_a_checkout_by_its_short_name():
  """`tasks.x` has the file of `ilm_jax.tasks.x`, can be run, and is not there where that is not."""
  program = """if True:
      import importlib.util, runpy
      from ilm_jax.config import own_tasks
      print(own_tasks.file_of("tasks.features"), importlib.util.find_spec("tasks.no_such"))
      print(runpy.run_module("tasks.datasets.cells", run_name="run")["__name__"])
  """
  done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True,
                        check=False)
  assert done.stdout.splitlines() == [f"{ROOT}/tasks/features.py None", "run"], done.stderr


def test_nothing_else_of_a_checkout_lies_in_the_package():
  """A second copy of `launch` or of the tests would load what is loaded."""
  for name in ("launch", "benchmarks", "tests", "ilm_jax"):
    assert importlib.util.find_spec(f"ilm_jax.{name}") is None, name
  assert importlib.util.find_spec("ilm_jax.configs.tiny").origin == f"{ROOT}/configs/tiny.py"
