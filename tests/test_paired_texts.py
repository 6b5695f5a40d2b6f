"""Losses of models from several workdirs: paired by example, or refused."""
import types

import numpy as np
import pytest

from benchmarks import paired_texts
from ilm_jax import errors
from ilm_jax.evaluation import paired
from ilm_jax.stages.evals import common


def example(item, *targets):
  return {"targets": np.array(targets), "target_entity": np.array([item])}


EXAMPLES = {"elm_year": [example(1, 5), example(2, 6)]}
SUMS = {"a:ilm": [1.0, 2.0], "b:mlp": [1.5, 3.5]}


def ask(monkeypatch, examples, *arguments):
  def measured(argument):
    nats = np.array(SUMS[argument]), np.ones(2)
    run = types.SimpleNamespace(data=types.SimpleNamespace(log=types.SimpleNamespace(num_items=2)))
    return run, examples[argument], {"elm_year": nats, "all": nats}

  monkeypatch.setattr(paired_texts, "measured", measured)
  monkeypatch.setattr(common, "bootstrap", lambda run: paired.Bootstrap(50, 0))
  monkeypatch.setattr(common, "item_rows", lambda some: [int(e["target_entity"][0]) for e in some])
  monkeypatch.setattr("sys.argv", ["paired_texts", *(arguments or SUMS)])
  paired_texts.main()


def test_the_first_minus_each_other(monkeypatch, capsys):
  ask(monkeypatch, dict.fromkeys(SUMS, EXAMPLES))
  lines = capsys.readouterr().out.splitlines()
  assert lines[0] == "| | all | elm_year |"
  assert lines[2].startswith("| a:ilm | 1.500 [") and lines[3].startswith("| b:mlp | 2.500 [")
  assert lines[4].startswith("| a:ilm minus b:mlp | -1.000 [-1.500, -0.500] |")


def test_seeds_are_pooled(monkeypatch, capsys):
  """Each seed has its own films: they are paired within a seed, and averaged over all."""
  monkeypatch.setitem(SUMS, "a0:ilm", [1.0, 2.0])
  monkeypatch.setitem(SUMS, "a1:ilm", [3.0, 4.0])
  monkeypatch.setitem(SUMS, "b0:mlp", [2.0, 4.0])
  monkeypatch.setitem(SUMS, "b1:mlp", [4.0, 5.0])
  others = {"elm_year": [example(1, 8), example(3, 9)]}
  ask(monkeypatch, {"a0:ilm": EXAMPLES, "b0:mlp": EXAMPLES, "a1:ilm": others, "b1:mlp": others},
      "a{}:ilm", "b{}:mlp", "--seeds=0,1")
  lines = capsys.readouterr().out.splitlines()
  assert lines[2].startswith("| a{}:ilm | 2.500 [") and lines[3].startswith("| b{}:mlp | 3.750 [")
  assert lines[4].startswith("| a{}:ilm minus b{}:mlp | -1.250 [")


@pytest.mark.parametrize("other", [
    {"elm_year": EXAMPLES["elm_year"][:1]}, {"elm_genres": EXAMPLES["elm_year"]},
    {"elm_year": [example(1, 5), example(2, 7)]}])
def test_other_examples_are_refused(monkeypatch, other):
  with pytest.raises(errors.UserError, match="b:mlp has other test examples than a:ilm"):
    ask(monkeypatch, {"a:ilm": EXAMPLES, "b:mlp": other})
