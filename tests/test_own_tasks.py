import importlib

import pytest

from ilm_jax import errors
from ilm_jax.config import own_tasks, reading


@pytest.fixture
def module(tmp_path, monkeypatch):
  monkeypatch.syspath_prepend(str(tmp_path))

  def write(text, name="their_tasks"):
    (tmp_path / f"{name}.py").write_text(text)
    return name

  return write


def test_the_mixture_is_read_without_running_the_module(module):
  name = module('raise SystemExit\nMIXTURE = {"decade": 2, "other": 0.5}\n')
  assert own_tasks.mixture(name) == {"decade": 2.0, "other": 0.5}
  assert own_tasks.fingerprint(name) != own_tasks.fingerprint(module("MIXTURE = {}", "more_tasks"))


@pytest.mark.parametrize("text, message", [
    ("x = 1", "has no MIXTURE"), ("MIXTURE = dict(a=1)", "line 1, is no literal"),
    ("MIXTURE = [1]", "is no literal"), ("def f(:", "line 1"),
    ("MIXTURE = {'my task-1': 1}", "line 1: task 'my task-1': expected a name of letters"),
    ("x = 1\nMIXTURE = {'t': 1e999}", "line 2: task 't' has the rate inf: expected 0 "),
    ("MIXTURE = {'t': -1}", "has the rate -1.0: expected 0 ")])
def test_what_cannot_be_read_is_named(module, text, message):
  with pytest.raises(errors.UserError, match=message):
    own_tasks.mixture(module(text, "bad_tasks"))


def test_a_module_may_begin_with_a_byte_order_mark(module):
  assert own_tasks.mixture(module("\ufeffMIXTURE = {'t': 1}", "marked_tasks")) == {"t": 1.0}


def test_a_rate_of_the_config_is_finite():
  from configs import tiny
  for rate in (float("inf"), float("nan"), -1.0):
    c = tiny.get_config()
    c.tasks.mixture.sequential = rate
    with pytest.raises(errors.UserError, match=f"tasks.mixture.sequential={rate}: expected 0"):
      reading.validate(c, 1)


METRICS = """
def near(targets, predictions):
  far = [abs(int(target) - int(said)) for target, said in zip(targets, predictions)]
  return {"near": sum(years < 20 for years in far) / len(far)}

def odd(targets, scores):
  return {}

def words(targets, predictions):
  return {"near": "close"}

def nothing(targets, predictions):
  return {"near": None}

def fails(targets, predictions):
  return {"first": int(predictions[0])}
"""


def test_metric_functions_are_found_again_by_name(module):
  found = importlib.import_module(module(METRICS, "metric_tasks"))
  name = own_tasks.metric_name(found.near)
  assert name == "metric_tasks:near"
  assert own_tasks.score([name], ["1990", "1950"], ["1985", "1990"]) == {"near": 0.5}
  for wrong, words in ((lambda targets, predictions: {}, "cannot be found again by its name"),
                       (found.odd, "odd: has the arguments .'targets', 'scores'., expected")):
    with pytest.raises(errors.UserError, match=words):
      own_tasks.metric_name(wrong)
  for fn, predictions, words in (
      ("words", ["1"], "words gives near='close', expected a finite number"),
      ("nothing", ["1"], "nothing gives near=None, expected a finite number"),
      ("fails", ["soon"], "fails failed on 1 answers: ValueError"),
      ("gone", ["1"], "metric_tasks:gone: no such function any more")):
    with pytest.raises(errors.UserError, match=words):
      own_tasks.score([f"metric_tasks:{fn}"], ["1"], predictions)


def test_an_absent_module_is_named():
  with pytest.raises(errors.UserError, match="no_such_tasks: no such module"):
    own_tasks.mixture("no_such_tasks")


def test_a_config_takes_the_rates_and_keeps_its_names(module):
  from configs import tiny
  c = reading.with_tasks(tiny.get_config().lock(), module('MIXTURE = {"decade": 2}', "ok_tasks"))
  assert c.tasks.mixture.decade == 2.0 and c.tasks.module == "ok_tasks" and c.is_locked
  assert reading.from_json(reading.to_json(c)).tasks.mixture.decade == 2.0
  with pytest.raises(errors.UserError, match=r"\['elm_title'\] are names of the project's own"):
    reading.with_tasks(tiny.get_config().lock(), module('MIXTURE = {"elm_title": 1}', "no_tasks"))
