"""Stage eval, a user's own tasks: their metric functions on decoded answers, and some answers.

A task defines SeqIO metric functions (docs/reference/tasks.md); stage prepare writes their names to
the manifest of the prepared split, where this stage finds them.
"""
import dataclasses

from ilm_jax.config import own_tasks
from ilm_jax.evaluation import rows
from ilm_jax.stages import context, recipe
from ilm_jax.stages.evals import common, methods

_SLACK = 8           # an answer may have so many tokens more than the longest target


def tables(run: context.Run, compared: list[methods.Method]) -> dict[str, dict]:
  """{"user_tasks": table, "user_answers": examples}; {} if no task has a metric function.

  Args:
    run: the run; `eval.consistency_examples` answers of each task are measured,
      `eval.generations` of them shown.
    compared: ILM first, then the models of `phase2.compare`: each answers.
  """
  names = {task: functions for task in recipe.task_names(run.config)
           if (functions := run.prepared(task, "test").manifest.get("metric_fns"))}
  if not names:
    return {}
  trained = compared[:1 + len(run.config.phase2.compare)]
  made, shown = [], []
  for task, functions in names.items():
    if not (examples := common.sample(run, task, run.config.eval.consistency_examples)):
      continue
    targets = [run.lm_tokenizer.decode(e["targets"][:-1]).strip() for e in examples]
    for method in trained:
      answers = _answers(run, method, examples)
      made.append(rows.row({metric: {"value": value, "n": len(answers)} for metric, value in
                            own_tasks.score(functions, targets, answers).items()},
                           task=task, method=method.label))
      if method is compared[0]:
        shown += [{"task": task, "answer": answer, "target": target} for answer, target in
                  list(zip(answers, targets))[:run.config.eval.generations]]
  return {"user_tasks": {"title": "Metric functions of your tasks",
                        "note": "Results of each task's metric_fns on the decoded answers to test "
                                "prompts.",
                        "protocol": {**common.protocol(run), "split": "test",
                                     "decoding": "greedy",
                                     "examples per task": run.config.eval.consistency_examples},
                        "rows": made},
          "user_answers": {"title": "Answers to your tasks",
                          "note": "Answers of ILM. Greedy decoding.", "examples": shown}}


def _answers(run: context.Run, method: methods.Method, examples: list) -> list[str]:
  prompts = [method.change(e) for e in examples]
  spec = common.spec(run, [prompts])
  if method.queries is not None:
    spec = dataclasses.replace(spec, queries=method.queries)
  return method.model.say(prompts, spec, max_new=max(len(e["targets"]) for e in prompts) + _SLACK)
