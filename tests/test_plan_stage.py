"""Stage plan from end to end: by arithmetic, and where libtpu is, compiled for TPUs."""
import dataclasses
import importlib.util
import json
import math
import pathlib

import jax
import pytest
from flax import nnx

from ilm_jax import errors
from ilm_jax.baselines import head_teacher, sasrec
from ilm_jax.config import checks
from ilm_jax.config import reading as config_lib
from ilm_jax.planning import remedies, shapes
from ilm_jax.runtime import axes, chips
from ilm_jax.stages import context
from ilm_jax.stages import run as stages

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
KEYS = {"chips", "fits", "peak_bytes_per_chip", "useful_flops", "compiled_flops",
        "compiled_over_useful_flops", "collectives", "estimated_step_seconds",
        "useful_utilization"}
needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu is not installed: pip install -r requirements-plan.lock")


def load(name="plan_llama2_7b", **changes):
  return config_lib.load(CONFIGS / f"{name}.py", {k.replace("__", "."): v
                                                  for k, v in changes.items()})


def test_by_arithmetic_with_a_search(tmp_path, capsys):
  c = load(mesh__data=8, phase2__rows=64)
  stages.plan_step(c, tmp_path, topology="h100:8", search=True)
  plan = json.loads((tmp_path / "plan.json").read_text())
  assert plan.keys() >= KEYS
  assert (plan["chips"], plan["fits"], plan["mesh"]) == (8, True, c.mesh.to_dict())
  assert 0.5 < plan["useful_utilization"] <= 1      # bound by products alone: 1
  assert "nothing was compiled" in plan["estimate_of"]
  best, naive = plan["search"][0], next(x for x in plan["search"] if x["naive"])
  assert naive["mesh"] == {"data": 1, "fsdp": 8, "tensor": 1}
  assert best["plan"]["estimated_step_seconds"] / best["rows"] <= (
      naive["plan"]["estimated_step_seconds"] / naive["rows"])
  assert "phase 2 on h100:8, 8 chips" in capsys.readouterr().out


def test_a_teacher_of_the_item_head_is_planned_on_every_chip(tmp_path):
  """Its parameters and matrices lie whole on each chip, and its products are useful ones."""
  fields = {"mesh__data": 4, "mesh__fsdp": 2, "phase2__rows": 64, "phase2__head__weight": 1.0,
            "plan__catalogue": 2000}
  plain, by_sasrec, by_counts = (
      stages.plan_step(load(**fields, **more), tmp_path, topology="h100:8") for more in (
          {}, {"phase2__head__distil": 1.0},
          {"phase2__head__distil": 1.0, "phase2__head__distil_transitions": 0.5,
           "phase2__head__distil_ease": 0.3}))
  config = head_teacher.sasrec_config(load())
  shapes_of_sasrec = jax.tree.leaves(nnx.split(sasrec.abstract(config, 2000), nnx.Param)[1])
  size = 4 * sum(math.prod(x.shape) for x in shapes_of_sasrec)
  weights = [x["weight_bytes_per_chip"] for x in (plain, by_sasrec, by_counts)]
  assert weights[1] - weights[0] == size
  assert weights[2] - weights[1] == 2 * 2000 * 2000 * 4
  assert plain["useful_flops"] < by_sasrec["useful_flops"] < by_counts["useful_flops"]
  assert plain["activation_bytes_per_chip"] < by_sasrec["activation_bytes_per_chip"]


def changed(c, flags):
  """(the config, the topology) under what a remedy says."""
  said = dict(flag.removeprefix("--").split("=") for flag in flags.split())
  topology = said.pop("topology", "h100:2")
  c = c.copy_and_resolve_references()
  for name, value in said.items():
    name = name.removeprefix("config.")
    c.update_from_flattened_dict({name: int(value) if value.isdigit() else value})
  return c, topology


def test_what_does_not_fit_is_an_error_that_says_what_would(tmp_path, capsys):
  """Every remedy fits, changes one thing, and is the least of its kind."""
  c = load(mesh__data=2, phase2__rows=64, lm__dtype="float32")
  with pytest.raises(errors.UserError) as e:
    stages.plan_step(c, tmp_path, topology="h100:2")
  plan = json.loads((tmp_path / "plan.json").read_text())
  flags = [x["flags"] for x in plan["would_fit"]]
  assert flags == [
      "--config.lm.remat=full", "--config.phase2.rows=32", "--config.lm.dtype=bfloat16",
      "--topology=h100:4 --config.mesh.data=4 --config.mesh.fsdp=1 --config.mesh.tensor=1"]
  assert not plan["fits"] and str(e.value).startswith("phase 2 does not fit into h100:2: ")
  said = capsys.readouterr().out
  assert all(words in str(e.value) and words in said for words in flags)
  for words in flags:
    there, topology = changed(c, words)
    assert stages.plan_step(there, tmp_path, topology=topology)["fits"]


def test_what_fits_only_with_several_changes_or_not_at_all(tmp_path, monkeypatch):
  c = load(mesh__data=2, phase2__rows=8, phase2__rows_per_group=2, lm__dtype="float32")
  monkeypatch.setitem(chips.CHIPS, "h100", dataclasses.replace(
      chips.CHIPS["h100"], memory=4.5 * chips.GIB))
  monkeypatch.setattr(remedies, "_GPUS", ("2",))
  with pytest.raises(errors.UserError, match="--config.lm.remat=full --config.lm.dtype=int8 "):
    stages.plan_step(c, tmp_path, topology="h100:2")
  monkeypatch.setitem(chips.CHIPS, "h100", dataclasses.replace(chips.CHIPS["h100"], memory=1e8))
  with pytest.raises(errors.UserError, match="nothing near it would"):
    stages.plan_step(c, tmp_path, topology="h100:2")


@pytest.mark.parametrize("name, said", [("quickstart", 2), ("ml100k_head", 0)])
def test_fewer_rows_are_legal_whatever_the_groups(name, said):
  """Groups as large as the batch shrink with it, and no change builds on one that is refused."""
  c = config_lib.load(CONFIGS / f"{name}.py", {"mesh.data": 1, "phase2.microbatches": 1})
  changes = list(remedies._rows(remedies.Change(c, chips.parse("h100:1"), ()), None))
  assert [x.config.phase2.head.rows for x in changes] == [16] * (said // 2) + [8, 4, 2, 1]
  for x in changes:
    assert checks.mistakes(x.config, 1, paths=False) == []
  assert changes[-1].flags[-3:] == (
      "--config.phase2.head.rows=1", "--config.phase2.head.rows_per_group=1",
      "--config.phase2.head.examples_per_group=1")
  # Two rows over two chips cannot be halved: ranking rows are halved from the rows that there are.
  two = config_lib.load(CONFIGS / f"{name}.py", {"mesh.data": 2, "phase2.microbatches": 1})
  changes = remedies._rows(remedies.Change(two, chips.parse("h100:2"), ()), None)
  legal = [x for x in changes if not checks.mistakes(x.config, 2, paths=False)]
  assert [x.config.phase2.head.rows for x in legal] == [8, 4, 2]


@pytest.mark.parametrize("topology, changes, says", [
    ("h100:16", {}, "needs 64 devices, this job has 16"),
    ("h100:8", {"mesh__data": 8, "plan__phase": 1}, "plan.phase=1 needs a TPU topology"),
    ("h100:8", {"mesh__data": 8, "lm__shape": "llama-2-70b"}, "did you mean 'llama-2-7b'"),
    ("h100:8", {"mesh__data": 8, "plan__phase": 3}, "plan.phase=3: expected 1 or 2"),
    ("h100:8", {"mesh__data": 8, "phase2__head__weight": 1.0, "phase2__head__distil": 1.0,
                "phase2__head__distil_ease": 0.3, "plan__catalogue": 20_001},
     "matrices of items by items: 20,001, expected at most 20,000"),
    ("v5x:4x4", {}, "no chip is called 'v5x'")])
def test_what_cannot_be_planned(tmp_path, topology, changes, says):
  with pytest.raises(errors.UserError, match=says):
    stages.plan_step(load(**changes), tmp_path, topology=topology)
  assert not (tmp_path / "plan.json").exists()


def test_a_shape_without_weights_runs_no_other_stage(tmp_path):
  with pytest.raises(errors.UserError, match="a shape without weights, for --stage=plan only"):
    context.Run(load(mesh__data=1), tmp_path, devices=False)


def test_shape_of_an_asset_needs_something_to_read(tmp_path):
  with pytest.raises(errors.UserError, match="reads the shape of a GGUF file"):
    shapes.of(load(lm__shape="", lm__asset=str(tmp_path)).lm)


@needs_libtpu
def test_slices_lie_along_data():
  found = chips.devices(chips.parse("v5e:2x2*2"))
  mesh = axes.make_mesh({"data": 4, "fsdp": 2, "tensor": 1}, found)
  slices = [{d.slice_index for d in row.flat} for row in mesh.devices]
  assert slices == [{0}, {0}, {1}, {1}]
  with pytest.raises(errors.UserError, match="mesh.data=1 does not divide over 2 slices"):
    axes.make_mesh({"data": 1, "fsdp": 8, "tensor": 1}, found)


@needs_libtpu
def test_a_topology_that_libtpu_refuses():
  with pytest.raises(errors.UserError, match="libtpu refuses it"):
    chips.devices(chips.parse("v5e:3x3"))


def small(monkeypatch, **changes):
  tiny = dataclasses.replace(shapes.SHAPES["llama-2-7b"], **(dict(
      num_layers=4, width=256, num_heads=2, num_kv_heads=2, mlp_width=512, vocab_size=1024)
      | changes))
  monkeypatch.setitem(shapes.SHAPES, "llama-2-7b", tiny)
  c = load()
  with c.unlocked():
    c.mesh.update(data=2, fsdp=2)
    c.qformer.update(num_layers=2, width=128, num_heads=2, mlp_width=128, proj_width=128)
    c.phase2.update(rows=8, length=128, slots=4, targets=16, dropout=0.0, vector_noise=0.0)
  return c


@needs_libtpu
def test_compiled_for_a_tpu(tmp_path, monkeypatch):
  """Weights spread over fsdp are gathered in each layer's turn, and no FLOP is wasted."""
  plan = stages.plan_step(small(monkeypatch), tmp_path, topology="v5e:2x2")
  assert plan.keys() >= KEYS and plan["fits"]
  assert 0.9 < plan["compiled_over_useful_flops"] < 1.6
  assert sum(x["count"] for x in plan["collectives"].values()) >= 2 * 4
  assert "roofline" in plan["estimate_of"]


@needs_libtpu
def test_too_large_for_a_tpu(tmp_path, monkeypatch):
  c = small(monkeypatch, num_layers=400, width=2048, mlp_width=8192)
  with pytest.raises(errors.UserError, match="phase 2 does not fit into v5e:2x2"):
    stages.plan_step(c, tmp_path, topology="v5e:2x2")
  plan = json.loads((tmp_path / "plan.json").read_text())
  assert not plan["fits"] and plan["peak_bytes_per_chip"] > plan["capacity_bytes_per_chip"]
  assert plan["useful_utilization"] is None
