"""Stage eval, interpolations: what the model says of vectors halfway between two held-out items.

These entities do not exist, so there is no reference. By our reading of ELM an answer should lie
between the two references in meaning, and users who like both items should like it. So it is
compared with the mean of the references' sentence vectors and with the mean of the items' factors.
"""
import numpy as np

from ilm_jax import elm
from ilm_jax.evaluation import paired, rows, text_scores
from ilm_jax.stages import context, recipe, vectors
from ilm_jax.stages.evals import common, speaker


def table(run: context.Run, ilm: speaker.Speaker, behaviour) -> dict:
  """A row for each of ELM's tasks about one item, and their means; {} if there are none.

  Args:
    run: the run; `eval.interpolations` pairs are drawn by its seed, the same for every task.
    ilm: the model that answers.
    behaviour: from `text.behaviour`.
  """
  values, item_rows = {}, {}
  for task in recipe.task_names(run.config):
    examples = (common.sample(run, task, run.config.eval.interpolations)
                if task in elm.OF_ONE else [])
    if pairs := in_a_circle(examples):
      item_rows[task] = common.item_rows([first for first, _ in pairs])
      values[task] = _scores(run, ilm, behaviour, pairs)
  if not values:
    return {}
  bootstrap = common.bootstrap(run)
  made = [rows.row({name: bootstrap.mean(value_N) for name, value_N in of_task.items()}, task=task)
          for task, of_task in values.items()]
  if len(values) > 1:
    made.append(rows.row(paired.means_over_tasks(bootstrap, item_rows, values),
                         task=f"mean of {len(values)} tasks"))
  return {"title": "Text from vectors halfway between two held-out items",
          "note": "Semantic consistency: with the mean of the two references' sentence vectors; "
                  "behavioural: with the mean of the two items' factors. Beside each: the same "
                  "measure with another pair. Intervals: 95 %, bootstrap over pairs.",
          "protocol": common.text_protocol(run), "rows": made}


def in_a_circle(examples: list) -> list[tuple]:
  """Pairs of each example with the next, and of the last with the first; [] if fewer than two."""
  return list(zip(examples, examples[1:] + examples[:1])) if len(examples) > 1 else []


def _scores(run: context.Run, ilm: speaker.Speaker, behaviour, pairs: list) -> dict:
  """Metric -> float [N], one value for each pair."""
  row_N2 = np.array([[int(e["entities"][0]) for e in pair] for pair in pairs])
  chosen = {name: run.entities.vectors[name] for name in run.config.vectors}
  grown, new_N = ilm.knowing(text_scores.mean_vectors(chosen, run.entities.present, row_N2))
  examples = [{**first, "entities": np.array([row], np.int32)}
              for (first, _), row in zip(pairs, new_N)]
  longest = max(len(e["targets"]) for e in examples)
  answers = grown.say(examples, common.spec(run, [examples]), max_new=longest)
  first_NP, second_NP = (run.sentence_vectors([
      run.lm_tokenizer.decode(pair[i]["targets"][:-1]).strip() for pair in pairs])
                         for i in range(2))
  return text_scores.halfway(
      behaviour, answers, run.sentence_vectors(answers), first_NP, second_NP,
      text_scores.mean_factors(vectors.factors(run)[1], row_N2))
