"""A user's module of tasks (`--tasks_module`): reads its tasks and rates without running it.

Only stage prepare imports the module, and with it SeqIO and TensorFlow. All other stages need just
the names and rates in its literal `MIXTURE`. If its tasks have metric functions, evaluation imports
the modules that define these.
"""
import ast
import hashlib
import importlib.util
import inspect
import math
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any

from ilm_jax import errors


def mixture(module: str) -> dict[str, float]:
  """{task: rate} of `MIXTURE = {"task": rate}` in the module.

  Raises:
    UserError: there is no such module, it has no such literal, or a name or rate is not valid.
  """
  path = file_of(module)
  try:
    body = ast.parse(path.read_bytes()).body
  except SyntaxError as e:
    raise errors.UserError(f"--tasks_module={module}: {path}, line {e.lineno}: {e.msg}") from e
  except (ValueError, RecursionError, MemoryError) as e:
    raise errors.UserError(f"--tasks_module={module}: {path} cannot be read as Python ({e}): "
                           "expected a module of tasks") from e
  for node in body:
    if isinstance(node, ast.Assign) and any(
        isinstance(t, ast.Name) and t.id == "MIXTURE" for t in node.targets):
      try:
        rates = {str(name): float(rate) for name, rate in ast.literal_eval(node.value).items()}
      except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as e:
        raise errors.UserError(
            f"--tasks_module={module}: MIXTURE in {path}, line {node.lineno}, is no literal such "
            "as {\"my_task\": 1.0}: write names and rates out") from e
      for name, rate in rates.items():
        _check(f"--tasks_module={module}: MIXTURE in {path}, line {node.lineno}: task {name!r}",
               name, rate)
      return rates
  raise errors.UserError(f"--tasks_module={module}: {path} has no MIXTURE = {{\"my_task\": 1.0}}: "
                         "add it, with a rate for each task (0.0: prepared, not trained)")


def _check(task: str, name: str, rate: float) -> None:
  if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
    raise errors.UserError(f"{task}: expected a name of letters, digits and _, e.g. 'my_task_1'")
  if not 0 <= rate < math.inf:
    raise errors.UserError(f"{task} has the rate {rate}: expected 0 (prepared, not trained) or a "
                           "finite number above it")


def metric_name(fn: Callable) -> str:
  """ "my_tasks:near": the name by which evaluation finds a task's metric function again.

  Raises:
    UserError: the function is not at the top of a module, or does not take (targets, predictions).
  """
  name = f"{fn.__module__}:{getattr(fn, '__qualname__', type(fn).__name__)}"
  if (arguments := list(inspect.signature(fn).parameters)) != ["targets", "predictions"]:
    raise errors.UserError(f"metric function {name}: has the arguments {arguments}, expected "
                           "(targets, predictions), two lists of texts")
  if "<" in name or _metric(name) is not fn:
    raise errors.UserError(f"metric function {name} cannot be found again by its name: define it "
                           "with def at the top of a module")
  return name


def score(names: Sequence[str], targets: list[str], predictions: list[str]) -> dict[str, float]:
  """Scores of a task's answers by its metric functions. Imports the modules that define these.

  Args:
    names: names of the functions, as `metric_name` gave them; a prepared split's manifest has them
      under "metric_fns".
    targets: the target texts.
    predictions: the decoded texts, in the same order.

  Returns:
    Metric -> number, of all functions together.

  Raises:
    UserError: a function is gone, fails, or gives no numbers.
  """
  scores = {}
  for name in names:
    fn = _metric(name)
    try:
      values = dict(fn(targets, predictions))
    except Exception as e:     # the user's function may raise anything
      raise errors.UserError(f"metric function {name} failed on {len(targets)} answers: "
                             f"{type(e).__name__}: {e}") from e
    for metric, value in values.items():
      number: Any = getattr(value, "value", value)     # SeqIO's Scalar wraps a number
      if not _finite(number):
        raise errors.UserError(f"metric function {name} gives {metric}={value!r}, expected a "
                               "finite number")
      scores[str(metric)] = float(number)
  return scores


def _finite(number) -> bool:
  try:
    return not isinstance(number, str) and math.isfinite(number)
  except TypeError:      # None, a list: no number at all
    return False


def _metric(name: str) -> Callable:
  module, _, function = name.partition(":")
  try:
    return getattr(importlib.import_module(module), function)
  except (ImportError, AttributeError) as e:
    raise errors.UserError(f"metric function {name}: no such function any more ({e}): put it back, "
                           "or run --stage=prepare again") from e


def fingerprint(module: str) -> str:
  """sha256 of the module's source; "" for no module."""
  return hashlib.sha256(file_of(module).read_bytes()).hexdigest() if module else ""


def file_of(module: str) -> pathlib.Path:
  """The file of a module of tasks.

  Raises:
    UserError: there is no such module.
  """
  try:
    spec = importlib.util.find_spec(module)
  except (ImportError, ValueError) as e:
    raise errors.UserError(f"--tasks_module={module}: not a module that can be imported ({e})"
                           ) from e
  if spec is None or not spec.origin or not pathlib.Path(spec.origin).is_file():
    raise errors.UserError(f"--tasks_module={module}: no such module: give the name of a file that "
                           f"Python finds, e.g. my_tasks for ./my_tasks.py, or set PYTHONPATH")
  return pathlib.Path(spec.origin)
