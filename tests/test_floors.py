"""The architecture: every module is on a floor, imports point down, TensorFlow stays in tasks/."""
import ast
import graphlib
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
TENSORFLOW = {"tensorflow", "tensorflow_datasets", "tensorflow_text", "seqio", "t5", "clu",
              "apache_beam"}

# From the ground up: packages, and the modules that stand loose in ilm_jax. One imports only from
# floors below its own; the tasks stand beside, and know no stage.
FLOORS = [
    {"errors", "elm", "losses"},
    {"files"},
    {"runtime", "config", "assets"},
    {"data", "models", "cf", "monitoring"},
    {"weights", "decode", "objectives", "training"},
    {"evaluation", "conversation"},
    {"baselines", "export", "tasks"},
    {"planning"},
    {"stages"},
    {"serving"},
    {"main"},
    {"__main__"},
]
HEIGHT = {room: height for height, floor in enumerate(FLOORS) for room in floor}
LOADS_TASKS = "ilm_jax.stages.prepare"     # the one door to tasks/, opened when it runs


def room(name: str) -> str:
  """The package a module is in, or its own name if it stands loose in ilm_jax."""
  parts = name.split(".")
  return parts[0] if parts[0] == "tasks" else parts[1]


def modules() -> dict[str, pathlib.Path]:
  """{dotted name: file} of all that has code; an empty package is no module."""
  found = {}
  for package in ("ilm_jax", "tasks"):
    for path in sorted((ROOT / package).rglob("*.py")):
      name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
      has_code = any(not isinstance(n, ast.Expr) for n in ast.parse(path.read_text()).body)
      if has_code or path.stem != "__init__":
        found[name] = path
  return found


MODULES = modules()


def imports(tree: ast.AST, name: str) -> set[str]:
  """Full dotted names that `tree` imports, lazily or not; of our own, the modules, by file."""
  found = set()
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      found |= {by_file(alias.name) for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f"{name}: relative import"
      for alias in node.names:
        full = by_file(f"{node.module}.{alias.name}")
        found.add(full if full in MODULES else by_file(node.module))
  return found


def by_file(name: str) -> str:
  """ilm_jax.tasks is the folder tasks/."""
  return re.sub(r"^ilm_jax\.(?=(tasks|configs)\b)", "", name)


def test_what_is_in_the_wheel_imports_nothing_that_is_not():
  """There tasks/ and configs/ are ilm_jax.tasks and ilm_jax.configs alone, and launch/ is not."""
  absent = re.compile(r"^\s*(?:from|import) (?:tasks|configs|launch|benchmarks|tests)\b", re.M)
  for top in ("ilm_jax", "tasks", "configs"):
    for path in (ROOT / top).rglob("*.py"):
      assert not (line := absent.search(path.read_text())), f"{path}: {line[0]} .."


def project_modules(names: set[str]) -> set[str]:
  return {n for n in names if n.split(".")[0] in ("ilm_jax", "tasks", "configs", "launch")}


@pytest.mark.parametrize("name", [n for n in MODULES if n != "ilm_jax"])
def test_imports_point_down(name):
  assert room(name) in HEIGHT, f"{name} is on no floor: add {room(name)} to FLOORS"
  for below in project_modules(imports(ast.parse(MODULES[name].read_text()), name)) - {"ilm_jax"}:
    assert below in MODULES, f"{name} imports {below}, which is no module"
    assert room(below) == room(name) or HEIGHT[room(below)] < HEIGHT[room(name)], (
        f"{name} imports {below}, which is not below it")


def test_no_circle_inside_a_package():
  modules = {name: path for name, path in MODULES.items() if name != "ilm_jax"}
  graph = {name: {below for below in project_modules(imports(ast.parse(path.read_text()), name))
                  if below in modules and room(below) == room(name)}
           for name, path in modules.items()}
  assert set(graphlib.TopologicalSorter(graph).static_order()) == graph.keys()


def test_no_floor_names_a_room_that_is_gone():
  assert HEIGHT.keys() == {room(name) for name in MODULES if name != "ilm_jax"}


def test_two_packages_meet_at_one_door():
  """ilm_jax names tasks only in stages.prepare, and there only inside functions."""
  for name, path in MODULES.items():
    if name.startswith("tasks"):
      continue
    tree = ast.parse(path.read_text())
    to_tasks = {n for n in project_modules(imports(tree, name)) if n.startswith("tasks")}
    assert not to_tasks or name == LOADS_TASKS, f"{name} imports {to_tasks}"
    at_import = {n for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)
                 for n in imports(node, name)}
    assert not {n for n in at_import if n.split(".")[0] == "tasks"}, name


def test_tensorflow_stays_in_tasks():
  for name, path in MODULES.items():
    if not name.startswith("tasks"):
      found = {n.split(".")[0] for n in imports(ast.parse(path.read_text()), name)} & TENSORFLOW
      assert not found, f"{name} imports {found}"


def test_everything_but_tasks_imports_without_tensorflow():
  """In a process where TensorFlow cannot be imported, directly or by what we import."""
  program = (
      "import importlib, sys\n"
      f"sys.modules.update(dict.fromkeys({sorted(TENSORFLOW)!r}))\n"
      f"for name in {[n for n in MODULES if not n.startswith('tasks')]!r}:\n"
      "  importlib.import_module(name)\n"
      "print('imported')\n")
  done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True,
                        check=False)
  assert done.stdout == "imported\n", done.stderr[-2000:]


def test_the_checker_sees_what_it_should():
  tree = ast.parse("import seqio\ndef f():\n  from ilm_jax.data import store, nothing\n")
  assert imports(tree, "x") == {"seqio", "ilm_jax.data.store", "ilm_jax.data"}
