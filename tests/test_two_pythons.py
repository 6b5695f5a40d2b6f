"""A workdir prepared by one Python is trained by another, with the same losses.

ILM_PREPARING_PYTHON names a Python that has the extra data; the one that runs this test does the
rest, as both do for comparison. launch/test_py313.sh sets it.
"""
import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import random_lm
import real

ROOT = pathlib.Path(__file__).parents[1]
STAGES = "--stage=phase1,phase2,eval,report"


def main(python, workdir, stages):
  env = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
  if python != sys.executable:      # XLA's flags are of this Python's version (conftest.py)
    env.pop("XLA_FLAGS", None)
  done = subprocess.run(
      [python, "-m", "ilm_jax.main", f"--config={ROOT}/configs/tiny.py", f"--workdir={workdir}",
       "--config.data.k_core=80", f"--config.lm.asset={workdir.parent}/lm",
       "--config.lm.tokenizer=smollm2-135m-instruct", stages],
      capture_output=True, text=True, check=False, env=env)
  assert done.returncode == 0, done.stderr[-2000:]


def logged(workdir) -> dict[str, list[float]]:
  """Every loss of every logged step, by the phase's folder and the name."""
  losses = {}
  for path in sorted(workdir.glob("*/metrics.jsonl")):
    for row in map(json.loads, path.read_text().splitlines()):
      for name, value in row.items():
        if "loss" in name or "nll" in name:
          losses.setdefault(f"{path.parent.name}: {name}", []).append(value)
  return losses


def evaluated(workdir) -> dict[str, float]:
  """Every number in the tables of losses of report.json, by title, method and metric."""
  tables = json.loads((workdir / "report.json").read_text())["tables"]
  return {f"{table['title']}: {row['method']}: {name}: {key}": value
          for table in tables if table["title"].startswith("Loss")
          for row in table["rows"] for name, metric in row["metrics"].items()
          for key, value in metric.items() if isinstance(value, float)}


def test_what_one_python_prepared_another_trains_to_the_same_losses(tmp_path):
  if not (other := os.environ.get("ILM_PREPARING_PYTHON")):
    pytest.skip("ILM_PREPARING_PYTHON names no Python with the extra data: docs/python_versions.md")
  real.movielens_paths()
  random_lm.write("llama", tmp_path / "lm")
  main(other, tmp_path / "there", "--stage=prepare,cf")
  shutil.copytree(tmp_path / "there", tmp_path / "here")
  main(other, tmp_path / "there", STAGES)
  main(sys.executable, tmp_path / "here", STAGES)
  for read in (logged, evaluated):
    there, here = read(tmp_path / "there"), read(tmp_path / "here")
    assert there and there.keys() == here.keys()
    apart = max(np.max(np.abs(np.subtract(here[name], there[name]))) for name in there)
    print(f"{read.__name__}: {len(there)} losses, at most {apart:.1e} apart")
    for name, values in there.items():
      np.testing.assert_allclose(here[name], values, rtol=1e-5, atol=1e-5, err_msg=name)
