"""Every file in configs/ builds, runs as written, and its names exist."""
import math
import pathlib

import jax
import pytest

from configs import base
from ilm_jax.assets import pinned
from ilm_jax.config import dialog_sources, names, reading
from ilm_jax.training import optimizer

FILES = sorted(p for p in (pathlib.Path(__file__).parents[1] / "configs").glob("*.py")
               if p.stem != "__init__")


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_config_is_runnable_and_has_every_field(path, tmp_path, monkeypatch):
  c = reading.load(path)
  monkeypatch.chdir(tmp_path)
  if c.lm.asset not in pinned.ASSETS:        # a folder that the docstring's first command makes
    (tmp_path / c.lm.asset).mkdir(parents=True)
  brought = [c.data.path, *(source.path for source in dialog_sources.parse(c.tasks.dialogs))]
  for path in filter(None, brought):         # folders of files that the user brings
    (tmp_path / path).mkdir(parents=True, exist_ok=True)
  reading.validate(c, device_count=math.prod(c.mesh.values()))
  assert fields(c) == fields(base.get_config())
  assert c.is_locked
  for phase in (c.phase1, c.phase2):
    tx = optimizer.make_optimizer(phase)
    jax.eval_shape(tx.init, {"w": jax.ShapeDtypeStruct((2, 3), "float32")})
    assert phase.warmup < phase.steps
    assert float(optimizer.schedule(phase)(phase.steps)) < phase.learning_rate


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_docstring_tells_the_command_or_the_use(path):
  assert f"--config=configs/{path.name}" in path.read_text() or path.stem == "base"


def test_the_names_a_config_may_use_are_assets():
  usable = (*names.FETCHED, *names.LANGUAGE_MODELS, *names.TEXT_ENCODERS)
  assert sorted(usable) == sorted(pinned.ASSETS)


def fields(c, prefix=""):
  return {prefix + k for k, v in c.items() if not hasattr(v, "items")}.union(
      *(fields(v, prefix + k + ".") for k, v in c.items() if hasattr(v, "items")))
