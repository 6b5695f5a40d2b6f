"""The pages of docs/ do what they say."""
import os
import pathlib
import re
import subprocess
import sys

import pytest
import real

from ilm_jax import errors
from ilm_jax.assets import pinned
from tasks.datasets import registry

ROOT = pathlib.Path(__file__).parents[1]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def run(kind: str, code: str, folder) -> str:
  """Runs a block of a page in `folder`, with this Python."""
  env = {**os.environ, "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "2",
         "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
         "PATH": f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
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


def test_register_a_task_as_written(tmp_path):
  shown = follow("register_a_task.md", tmp_path, "smollm2-135m-instruct", "minilm-l6", "ml-100k")
  assert len(shown) == 6 and "films to ask about" in shown[2]
  assert shown[2].count("decade") == 3           # ILM, no slots, their difference
  assert "I liked Heat (1995)." in shown[5] and "learned: Darkly so. | films: 2" in shown[5]


def test_bring_your_data_as_written(tmp_path):
  shown = follow("bring_your_data.md", tmp_path, "smollm2-135m-instruct", "minilm-l6")
  assert len(shown) == 4
  assert "data: 40 users, 30 items, 600 interactions by the 3-core (data.k_core=3)" in shown[2]
  assert "40 users, 30 items, 600 events" in shown[-1] and "40 test targets" in shown[-1]
  assert "'behavioral'" in shown[-1] and "kettle no. 0" in shown[-1]


def test_conversation_as_written(tmp_path):
  session, critiques, dialog = follow("conversation.md", tmp_path)
  assert "liked: ('50',)" in session and "row: [False  True False]" in session
  assert "turns after undo: 0" in session and "back from JSON: True" in session
  assert "(('dark', 1.0), ('new', 0.5)) liked: ('10',)" in critiques
  assert critiques.count("[") == 2 and "nan" not in critiques
  assert "items=('8',), act='recommend'" in dialog


def test_prepare_at_scale_as_written(tmp_path):
  """With Beam alone, which neither launch/test.sh nor CI installs."""
  pytest.importorskip("apache_beam", reason="Apache Beam: pip install -r requirements-beam.lock")
  shown = follow("prepare_at_scale.md", tmp_path, "smollm2-135m-instruct", "minilm-l6", "ml-100k")
  assert len(shown) == 3
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
