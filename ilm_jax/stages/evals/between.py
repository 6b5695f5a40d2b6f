"""Stage eval, interpolations: what the model says of vectors halfway between two held-out items.

Entities that do not exist, so there is no reference. In ELM's spirit an answer should mean what
lies between the two references, and be liked by who would like both; so it is compared with the
mean of their sentence vectors and with the mean of the items' factors. Our reading.
"""
import numpy as np

from ilm_jax import elm
from ilm_jax.stages import context, recipe
from ilm_jax.stages.evals import speaker, text


def table(run: context.Run, ilm: speaker.Speaker, behaviour) -> dict:
  """A row for each of ELM's tasks about one item, and their means: {} if there are none.

  Args:
    run: the run; `eval.interpolations` pairs are drawn by its seed, the same for every task.
    ilm: who answers.
    behaviour: of `text.behaviour`.
  """
  values, pairs = {}, {}
  for task in recipe.task_names(run.config):
    if task in elm.OF_ONE and (found := _pairs(run, task)):
      pairs[task] = [first for first, _ in found]
      values[task] = _scores(run, ilm, behaviour, found)
  if not values:
    return {}
  rows = [{"name": task, "metrics": {
      name: text.bootstrap(run, value_N) for name, value_N in found.items()}}
          for task, found in values.items()]
  if len(values) > 1:
    rows.append({"name": f"mean of {len(values)} tasks",
                 "metrics": text.over_tasks(run, pairs, values)})
  return {"title": "Text from vectors halfway between two held-out items",
          "note": "Semantic consistency: with the mean of the two references' sentence vectors; "
                  "behavioural: with the mean of the two items' factors. Beside each, the same of "
                  "another pair. Intervals: 95 %, bootstrap over pairs.",
          "protocol": {**text.protocol(run), "decoding": "greedy",
                       "sentence encoder": run.config.text_encoder.asset}, "rows": rows}


def _pairs(run: context.Run, task: str) -> list[tuple[dict, dict]]:
  """Examples of two items each: every one of a seeded draw and the next, in a circle."""
  found = text.sample(run, task, run.config.eval.interpolations)
  return list(zip(found, found[1:] + found[:1])) if len(found) > 1 else []


def _scores(run: context.Run, ilm, behaviour, pairs: list) -> dict[str, np.ndarray]:
  """Metric -> float [N], one value for each pair."""
  row_N2 = np.array([[int(e["entities"][0]) for e in pair] for pair in pairs])
  arrays, names = run.entities, run.config.vectors
  halfway = [{n: arrays.vectors[n][rows].mean(axis=0) for n in names
              if arrays.present[n][rows].all()} for rows in row_N2]
  grown, new_N = ilm.knowing(halfway)
  examples = [{**first, "entities": np.array([row], np.int32)}
              for (first, _), row in zip(pairs, new_N)]
  longest = max(len(e["targets"]) for e in examples)
  said = grown.say(examples, text.spec(run, [examples]), max_new=longest)
  said_NP = run.sentence_vectors(said)
  wanted_NP = np.mean([run.sentence_vectors([
      run.lm_tokenizer.decode(pair[i]["targets"][:-1]).strip() for pair in pairs])
                       for i in range(2)], axis=0)
  wanted_NP /= np.linalg.norm(wanted_NP, axis=1, keepdims=True)
  item_NC = text.mean_factors(run, row_N2)
  # Two further on: the next pair shares an item with this one.
  other = np.roll(np.arange(len(pairs)), -2)
  return {"semantic consistency": np.sum(said_NP * wanted_NP, axis=1),
          "with another pair's references": np.sum(said_NP * wanted_NP[other], axis=1),
          "behavioural consistency": behaviour.consistency(said_NP, item_NC),
          "with another pair's users": behaviour.consistency(said_NP, item_NC[other]),
          "words": np.array([len(answer.split()) for answer in said], float)}
