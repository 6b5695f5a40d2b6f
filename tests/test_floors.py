"""The architecture: every module is on a floor, imports point down, TensorFlow stays in tasks/."""
import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
TENSORFLOW = {"tensorflow", "tensorflow_datasets", "tensorflow_text", "seqio", "t5", "clu",
              "apache_beam"}

# From the ground up. A module imports only from floors below its own.
FLOORS = [
    {"", "errors"},           # "": ilm_jax itself
    {"elm", "config_rules"},
    {"config_names"},
    {"config_data_checks"},
    {"axes", "own_tasks", "distributed", "sources", "progress", "config_checks", "files",
     "clock", "goodput", "profiling", "accumulation", "planning.chips"},
    {"assets", "config", "history", "data.arrays", "data.tokenizer", "losses", "metrics",
     "significance", "heartbeat", "parameters", "utilization", "placement",
     "orbax_io", "models.attention", "models.head", "models.remat", "models.qformer_config",
     "weights.trees", "weights.torch_zip",
     "data.splits", "data.order", "data.filling", "data.gguf_file"},
    {"monitor"},
    {"data.interactions", "data.entities", "data.store", "data.packing", "data.tokenizer_files",
     "data.targets", "gin_config"},
    # The tasks stand here: they know data and nothing above it.
    {"tasks.templates", "tasks.vocabulary", "tasks.clustering", "tasks.datasets.lines",
     "tasks.beam_options"},
    {"tasks.indexing"},
    {"tasks.features", "tasks.material", "tasks.datasets.movielens_files",
     "tasks.datasets.amazon_files", "tasks.datasets.lastfm_files", "tasks.datasets.yelp_files",
     "tasks.datasets.taobao_files", "tasks.datasets.table_files"},
    {"tasks.datasets.openp5_files", "tasks.elm_requests"},
    {"tasks.datasets.registry", "tasks.datasets.examples"},
    {"tasks.datasets.beam_log"},
    {"tasks.datasets.builder"},
    {"tasks.item_text", "tasks.openp5", "tasks.elm"},
    {"tasks.catalog", "tasks.pieces"},
    {"tasks.beam_prepare"},
    {"tasks.prepare"},
    {"cf.histories"},
    {"cf.layout", "cf.solve"},
    {"data.batches", "cf.ials", "baselines.popularity", "baselines.neighbours", "baselines.bpr",
     "baselines.sasrec", "teachers"},
    {"models.qformer_layers", "models.decoder_layers", "models.bert", "weights.t5x_gin",
     "weights.stream"},
    {"models.qformer", "models.qformer_init", "models.decoder"},
    {"models.t5"},
    {"models.language_model"},
    {"models.ilm", "weights.gguf", "weights.safetensors", "weights.hf_decoders", "weights.t5x",
     "weights.int8", "weights.own"},
    {"weights.hf_t5"},
    {"weights.hf"},
    {"weights.load", "weights.blip2"},
    {"objectives", "decode.trie", "decode.prompt"},
    {"alignment"},
    {"decode.beam", "decode.exact", "decode.generate", "decode.dot"},
    {"train", "checkpoint", "spread"},
    {"retrieval", "report", "audit", "planning.hlo", "planning.shapes",
     "planning.programs", "planning.table"},
    {"planning.costs"},
    {"planning.estimate"},
    {"planning.arithmetic"},
    {"planning.search"},
    {"compare", "consistency"},
    {"stages.context"},
    {"stages.prepare", "stages.vectors", "stages.phases", "stages.plan"},
    {"tasks.registered"},     # a door for SeqIO's tools, as main is for people
    {"stages.trained", "stages.rivals", "stages.lm_teacher"},
    {"stages.speaker"},
    {"stages.methods"},
    {"stages.auditing", "stages.eval_phase1", "stages.eval_text", "stages.targets"},
    {"stages.eval_between", "stages.describe", "stages.eval_prompts"},
    {"stages.eval_phase2"},
    {"stages.watching"},
    {"stages"},
    {"main"},
]
HEIGHT = {name if name.startswith("tasks.") else f"ilm_jax.{name}".removesuffix("."): height
          for height, floor in enumerate(FLOORS) for name in floor}
LOADS_TASKS = "ilm_jax.stages.prepare"     # the one door to tasks/, opened when it runs


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
  """Full dotted names that `tree` imports, lazily or not; of our own, the modules."""
  found = set()
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f"{name}: relative import"
      for alias in node.names:
        full = f"{node.module}.{alias.name}"
        found.add(full if full in MODULES or full in HEIGHT else node.module)
  return found


def ours(names: set[str]) -> set[str]:
  return {n for n in names if n.split(".")[0] in ("ilm_jax", "tasks", "configs")}


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_down(name):
  assert name in HEIGHT, f"{name} is on no floor: add it to FLOORS"
  for below in ours(imports(ast.parse(MODULES[name].read_text()), name)):
    assert below in HEIGHT, f"{name} imports {below}, which is on no floor"
    assert HEIGHT[below] < HEIGHT[name], f"{name} imports {below}, which is not below it"


def test_no_floor_names_a_module_that_is_gone():
  assert HEIGHT.keys() - MODULES.keys() == set()


def test_two_packages_meet_at_one_door():
  """ilm_jax names tasks only in stages.prepare, and there only inside functions."""
  for name, path in MODULES.items():
    if name.startswith("tasks"):
      continue
    tree = ast.parse(path.read_text())
    to_tasks = {n for n in ours(imports(tree, name)) if n.startswith("tasks")}
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
