"""Stage eval, log perplexity: nats per token of test targets, by every method."""
import dataclasses

import numpy as np

from ilm_jax import elm
from ilm_jax.config import names
from ilm_jax.evaluation import paired, rows
from ilm_jax.stages import context, recipe
from ilm_jax.stages.evals import common, methods

_NOTE = ("ILM-rand: the same steps without phase 1. MLP projector: the same steps with an MLP in "
         "place of the Q-Former. ILM without vectors: the same steps without any vector. "
         "No slots: the frozen language model alone. Title as text: the same, with titles in "
         "place of soft tokens. Vectors shuffled: the model gets another item's vectors. Test "
         "split: next items never trained on, and held-out items for the elm tasks. The mean of "
         "ELM's tasks is the mean of their log perplexities. Intervals: 95 %, bootstrap over "
         "examples, for all tasks together and for that mean over items; for a difference, paired.")


def table(run: context.Run, compared: list[methods.Method]) -> dict:
  """Mean negative log likelihood of test targets by each method, and the differences from ILM."""
  count = run.config.eval.loss_examples
  examples = {task: some for task in recipe.said_tasks(run.config)
              if (some := common.sample(run, task, count))}
  sums = {method.label: method_sums(method, examples, lambda groups: common.spec(run, groups))
          for method in compared}
  return {"title": "Loss on test targets (nats per token; lower is better)", "note": _NOTE,
          "protocol": {**common.protocol(run), "split": "test", "examples per task": count},
          "rows": loss_rows(common.bootstrap(run), sums, methods.baselines(compared),
                            {task: common.item_rows(some) for task, some in examples.items()})}


def loss_rows(bootstrap: paired.Bootstrap, sums: dict, baselines: dict[str, str],
              item_rows: dict) -> list[dict]:
  """Rows of methods, then of baseline minus method.

  Args:
    bootstrap: of the intervals.
    sums: method -> task -> (nats, tokens) of each example.
    baselines: method -> the method it is subtracted from.
    item_rows: task -> item row of each example.
  """
  return [rows.row(paired.loss_metrics(bootstrap, of_row, item_rows, elm.ELM_24), **fields)
          for fields, of_row in paired.with_differences(sums, baselines, paired.sums_minus)]


def method_sums(method: methods.Method, examples: dict, spec_of) -> dict:
  """Task -> (nll, tokens) of each example; also "all", if the method answers all tasks.

  Args:
    method: the method to measure.
    examples: task -> examples.
    spec_of: groups of examples -> the shape of their batches.
  """
  prompts = {task: [method.change(e) for e in some] for task, some in examples.items()
             if method.answers(task)}
  # At most three shapes, not one per task: each is compiled for each method.
  shapes = {kind: spec_of([e for task, e in prompts.items() if _shape(task) == kind])
            for kind in set(map(_shape, prompts))}
  sums = {}
  for task, some in prompts.items():
    spec = shapes[_shape(task)]
    if method.queries is not None:
      spec = dataclasses.replace(spec, queries=method.queries)
    sums[task] = method.model.losses(some, spec)
  if sums and prompts.keys() == examples.keys():
    nll, tokens = zip(*sums.values())
    sums["all"] = np.concatenate(nll), np.concatenate(tokens)
  return sums


def _shape(task: str) -> str:
  """The kind of a task; prompts of one kind have similar lengths: history, conversation, short."""
  kinds = {"sequential": "history"} | dict.fromkeys(
      (*names.CONVERSATIONS, *names.REDIAL), "conversation")
  return kinds.get(task, "short")
