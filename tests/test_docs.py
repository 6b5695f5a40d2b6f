"""The pages of docs/ do what they say."""
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest
import real

from ilm_jax import errors
from ilm_jax.assets import pinned
from ilm_jax.data import entities, interactions, store
from ilm_jax.evaluation import rows
from tasks.datasets import registry

ROOT = pathlib.Path(__file__).parents[1]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Stands before the real one on the PATH: stage prepare in the process of the command, and only of
# the tasks that the page's config reads. A dozen others, with three splits each, would take most of
# the time.
PYTHON = f"""#!/bin/sh
if [ "$1 $2" != "-m ilm_jax.main" ]; then exec {sys.executable} "$@"; fi
shift 2
exec {sys.executable} -c '
import sys
from ilm_jax import main
from ilm_jax.config import own_tasks
from ilm_jax.stages import child

def here(name, function, *arguments):
  from ilm_jax.tasks import prepare
  todo = prepare._todo
  always = ("item_text", "item_item", "user_item", "catalogue", "sequential")   # phase 1, eval
  prepare._todo = lambda folder, material, definitions, *rest: todo(
      folder, material, {{
          task: definition for task, definition in definitions.items()
          if task in (*always, *own_tasks.mixture(material.module))}}, *rest)
  function(*arguments)

child.run = here
sys.exit(main.main(["main", *sys.argv[1:]]))' "$@"
"""


def run(kind: str, code: str, folder) -> str:
  """Runs a block of a page in `folder`, with this Python, or the `python` that lies there."""
  env = {**os.environ, "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "2",
         "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
         "PATH": os.pathsep.join(map(str, [
             folder / "bin", pathlib.Path(sys.executable).parent, os.environ["PATH"]]))}
  command = [sys.executable, "-c", code] if kind == "python" else ["bash", "-ec", code]
  done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr[-2000:]
  return done.stdout


def follow(page: str, folder, *needed: str) -> list[str]:
  """What the blocks of a page print, one after the other; where files are needed, they prepare."""
  if needed:
    pytest.importorskip("tensorflow_datasets", reason=real.NEEDS_DATA)
  try:
    for name in needed:
      pinned.fetch(name)
  except errors.UserError as e:
    pytest.skip(f"needs real data and weights, which cannot be had here: {e}")
  blocks = BLOCK.findall((ROOT / "docs" / page).read_text())
  return [run(kind, code, folder) for kind, code in blocks]


@pytest.fixture
def quick(tmp_path):
  """A folder where `python` is `PYTHON`."""
  (tmp_path / "bin").mkdir()
  (tmp_path / "bin" / "python").write_text(PYTHON)
  (tmp_path / "bin" / "python").chmod(0o755)
  return tmp_path


def test_register_a_task_as_written(quick):
  """Through the real language model, two layers of it: other tests have small ones."""
  _, shown = follow("register_a_task.md", quick, "smollm2-135m-instruct", "minilm-l6", "ml-100k")
  assert len(store.Prepared(quick / "runs/my_tasks/prepared/ml100k_decade/test"))
  table = json.loads(next((quick / "runs/my_tasks/eval/phase2").glob("*/loss.json")).read_text())
  assert [rows.label(row) for row in table["rows"]] == ["ILM", "no slots", "ILM minus no slots"]
  assert all("decade" in row["metrics"] for row in table["rows"])
  assert "decade" in shown


def test_register_a_conversation_as_written(quick):
  shown = follow("register_a_conversation.md", quick, "smollm2-135m-instruct", "minilm-l6",
                 "ml-100k")
  assert len(shown) == 3
  assert "I liked Heat (1995)." in shown[2] and "learned: Darkly so. | films: 2" in shown[2]


def test_bring_your_data_as_written(tmp_path):
  shown = follow("bring_your_data.md", tmp_path, "smollm2-135m-instruct", "minilm-l6")
  assert "data: 40 users, 30 items, 600 interactions by the 3-core (data.k_core=3)" in shown[2]
  log, items, _ = interactions.load(tmp_path / "runs/my_shop/data")
  assert len(log.user_N) == 600 and log.split.test.sum() == 40
  assert items.titles[0].endswith("kettle no. 0") and items.genres[0] == ["kitchen", "steel"]
  assert entities.load(tmp_path / "runs/my_shop/entities").vectors["behavioral"].shape == (71, 8)


def test_sessions_as_written(tmp_path):
  talk, critiques = follow("reference/sessions.md", tmp_path)
  assert "liked: ('50',)" in talk and "row: [False  True False]" in talk
  assert "turns after undo: 0" in talk and "back from JSON: True" in talk
  assert "(('dark', 1.0), ('new', 0.5)) liked: ('10',)" in critiques
  assert critiques.count("[") == 3 and "fit: [0.  1.5 0.5 1.  0. ]" in critiques


def test_dialogs_of_your_own_as_written(tmp_path):
  dialog, = follow("train_on_conversations.md", tmp_path)
  assert "items=('8',), act='recommend'" in dialog


def test_prepare_at_scale_as_written(tmp_path):
  """With Beam alone, which neither launch/test.sh nor CI installs."""
  pytest.importorskip("apache_beam", reason="Apache Beam: pip install -r requirements-beam.lock")
  needed = "smollm2-135m-instruct", "minilm-l6", "ml-100k"
  follow("prepare_at_scale.md", tmp_path, *needed)
  shown = follow("reference/beam.md", tmp_path, *needed)
  lines = shown[-1].splitlines()
  assert len(lines) == 6 and all(line.endswith(" equal") for line in lines)


def test_every_data_set_is_on_the_page():
  page = (ROOT / "docs" / "data_sets.md").read_text()
  for name, about in registry.DATASETS.items():
    if name == "table":
      continue
    row = next(line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
    numbers = [about.events, *(n for core in about.cores.values() for n in core)]
    assert all(f"{n:,}" in row for n in numbers if n), row
