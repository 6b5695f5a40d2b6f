"""benchmarks/elm_sweep.py: each variant is a config that can run, and a row of the table."""
import ast
import json
import pathlib

import pytest

from benchmarks import elm_sweep
from ilm_jax.config import reading

CONFIG = "configs/elm_ml100k_small.py"


@pytest.fixture
def asked(monkeypatch):
  """What is run, {variant: config}; each leaves tables in which ILM loses 2.0 and 1.0 nats."""
  configs = {}

  def run(argv, cwd, check):
    assert cwd == elm_sweep.ROOT and check and argv[1:3] == ["-m", "ilm_jax.main"]
    flags = dict(arg.removeprefix("--").split("=", 1) for arg in argv[3:])
    changes = {name.removeprefix("config."): value for name, value in flags.items()
               if name.startswith("config.")}
    workdir = pathlib.Path(flags["workdir"])
    c = configs[workdir.name] = reading.load(elm_sweep.ROOT / flags["config"], {
        name: ast.literal_eval(value) for name, value in changes.items()})
    reading.validate(c, device_count=1)
    cell = lambda x: {"value": x, "lo": x - 0.5, "hi": x + 0.5}  # noqa: E731
    losses = {"mean of 3 written tasks": cell(2.0), "elm_genres": cell(1.0)}
    write(workdir / "eval/phase1/300/retrieval.json", {
        "Q-Former": {"item to text R@10": cell(0.25), "text to item R@10": cell(0.5)}})
    write(workdir / "eval/phase2/90/loss.json", {"ILM": {}})        # of an earlier step
    write(workdir / "eval/phase2/120/loss.json", {
        "ILM": losses, elm_sweep.SHUFFLED: {name: cell(-0.125) for name in losses}})

  monkeypatch.setattr(elm_sweep.subprocess, "run", run)
  return configs


def write(path, rows):
  path.parent.mkdir(parents=True)
  path.write_text(json.dumps({"rows": [{"method": n, "metrics": m} for n, m in rows.items()]}))


def sweep(monkeypatch, tmp_path, *flags):
  (tmp_path / "from" / "data").mkdir(parents=True)
  monkeypatch.setattr("sys.argv", ["elm_sweep", f"--workdir={tmp_path}/from",
                                   f"--out={tmp_path}/out", *flags])
  elm_sweep.main()


def test_every_variant_runs_and_has_a_row(asked, monkeypatch, tmp_path, capsys):
  sweep(monkeypatch, tmp_path)
  assert list(asked) == list(elm_sweep.VARIANTS)
  assert len({reading.to_json(c) for c in asked.values()}) == len(asked), "no two are alike"
  assert asked["base"].phase1 == reading.load(elm_sweep.ROOT / CONFIG).phase1
  assert (tmp_path / "out/q1/data").resolve() == tmp_path / "from/data"
  rows = capsys.readouterr().out.splitlines()
  assert rows[2] == ("| base | 0.250 | 0.500 | 2.000 [1.500, 2.500] | -0.125 [-0.625, 0.375] "
                     "| 1.000 [0.500, 1.500] | -0.125 [-0.625, 0.375] |")
  assert len(rows) == 2 + len(elm_sweep.VARIANTS)


def test_an_unknown_variant_is_refused(asked, monkeypatch, tmp_path, capsys):
  with pytest.raises(SystemExit):
    sweep(monkeypatch, tmp_path, "--variants=base,q3")
  assert "unknown ['q3']" in capsys.readouterr().err and not asked
