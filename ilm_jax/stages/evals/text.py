"""Stage eval, texts: what the model says of held-out entities given only their vectors.

A table with a row for each ELM task, and the means over tasks; another of these means by all
methods (`methods`), and of ILM minus each of them; a list of answers to read.
"""
import dataclasses

import numpy as np

from ilm_jax import elm
from ilm_jax.data import interactions as interactions_lib
from ilm_jax.evaluation import consistency, metrics
from ilm_jax.runtime import axes
from ilm_jax.stages import context, recipe, vectors
from ilm_jax.stages.evals import methods

_SHORT = 24          # tokens of an answer that the data set knows
_SLACK = 8           # a teacher's tokens may be other ones than the model's
_NOTE = ("Semantic consistency: cosine of MiniLM sentence vectors of the answer and the reference; "
         "behavioural: Spearman of all users ranked by the answer and by the item's own factors "
         "(ilm_jax/evaluation/consistency). Beside each, the same of another item's reference or "
         "vector: what style alone gives. Words: length of an answer. Intervals: 95 %, bootstrap "
         "over examples, of means over items; of differences, paired.")


@dataclasses.dataclass
class Answers:
  """What was said in one task: answer n is to examples[n], whose reference is wanted[n]."""
  task: str
  examples: list
  said: list[str]
  wanted: list[str]

  @property
  def entities(self) -> list[tuple[int, ...]]:
    return [tuple(int(e) for e in example["entities"]) for example in self.examples]


def generations(run: context.Run, asked: list[methods.Method], behaviour) -> dict[str, dict]:
  """{"consistency", "compared", "generations"}: two tables of greedy answers, and some to read.

  Args:
    run: the run.
    asked: ILM first, of whom the first table is; then whom the second compares it with.
    behaviour: of `behaviour`.
  """
  examples = {task: sample(run, task, run.config.eval.consistency_examples)
              for task in methods.OF_ELM if task in recipe.task_names(run.config)}
  answers = list(_ask(run, asked[0], examples))
  values = {found.task: scores(run, found, behaviour) for found in answers}
  rows = [{"name": found.task, "metrics": {
      **{name: bootstrap(run, value_N) for name, value_N in values[found.task].items()},
      **_variety(found.said)}} for found in answers]
  shown = {}
  for found in answers:
    for example, text in zip(found.examples, found.said):
      shown.setdefault(int(example["target_entity"][0]), {})[found.task] = text
  table = {"title": "Text from vectors alone: held-out items", "note": _NOTE,
           "protocol": _protocol(run), "rows": rows + _means(run, answers, values)}
  return {"consistency": table, **_compared(run, asked, answers, behaviour),
          "generations": _described(run, shown)}


def _compared(run: context.Run, asked, answers: list[Answers], behaviour) -> dict[str, dict]:
  """The table of means over tasks by all methods, and of ILM minus each; {} if not asked for."""
  most = run.config.eval.compared_examples
  main = [a for a in answers if a.task in elm.ELM_24] or answers
  if not most or not main:
    return {}
  few = {a.task: a.examples[:most] for a in main}
  said = {asked[0].name: [Answers(a.task, a.examples[:most], a.said[:most], a.wanted[:most])
                          for a in main]}
  said |= {method.name: list(_ask(run, method, few)) for method in asked[1:]}
  values = {name: {a.task: scores(run, a, behaviour) for a in found}
            for name, found in said.items()}
  minus = {f"{method.beside} minus {method.name}": {
      task: {metric: values[method.beside][task][metric] - value_N
             for metric, value_N in found.items()}
      for task, found in values[method.name].items()} for method in asked[1:]}
  rows = [{"name": name, "metrics": {
      **over_tasks(run, few, found),
      **(_variety([text for a in said[name] for text in a.said]) if name in said else {})}}
          for name, found in (values | minus).items()]
  return {"compared": {
      "title": f"Text from vectors alone, compared: means over {len(main)} tasks", "note": _NOTE,
      "protocol": {**_protocol(run), "examples per task": most}, "rows": rows}}


def over_tasks(run: context.Run, examples: dict, values: dict) -> dict:
  """Metric -> its mean over tasks; with several tasks also the semantic consistency of each.

  Args:
    run: for the bootstrap's settings.
    examples: task -> examples.
    values: task -> metric -> float [N].
  """
  rows = {task: [int(e["target_entity"][0]) for e in examples[task]] for task in values}
  means = {metric: mean_over_tasks(run, {
      task: (rows[task], found[metric], np.ones(len(rows[task])))
      for task, found in values.items()}) for metric in next(iter(values.values()))}
  each = {f"semantic, {task}": bootstrap(run, found["semantic consistency"])
          for task, found in values.items()}
  return means | (each if len(each) > 1 else {})


def _variety(said: list[str]) -> dict:
  return {f"distinct-{n}": {"value": metrics.distinct(said, n)} for n in (1, 2)}


def scores(run: context.Run, found: Answers, behaviour) -> dict[str, np.ndarray]:
  """Metric -> float [N], one value for each answer of a task."""
  said_NP, wanted_NP = run.sentence_vectors(found.said), run.sentence_vectors(found.wanted)
  other = np.roll(np.arange(len(found.said)), -1)
  out = {"semantic consistency": np.sum(said_NP * wanted_NP, axis=1),
         "with another item's reference": np.sum(said_NP * wanted_NP[other], axis=1),
         "exact match": np.array([a == b for a, b in zip(found.said, found.wanted)], float)}
  if found.task in elm.ELM_24:
    own_NC = _factors(run, found)
    out |= {"behavioural consistency": behaviour.consistency(said_NP, own_NC),
            "with another item's users": behaviour.consistency(said_NP, own_NC[other]),
            "of the reference": behaviour.consistency(wanted_NP, own_NC)}
  return {**out, "words": np.array([len(text.split()) for text in found.said], float)}


def mean_over_tasks(run: context.Run, values: dict[str, tuple]) -> dict:
  """The mean over tasks with its interval over items, as the report wants it.

  Args:
    run: for the bootstrap's settings.
    values: task -> (first entity row of each example, sum of each, count of each).
  """
  rows = sorted({row for entities, _, _ in values.values() for row in entities})
  at = {row: i for i, row in enumerate(rows)}
  sum_TI, count_TI = np.zeros((2, len(values), len(rows)))
  for t, (entities, sum_N, count_N) in enumerate(values.values()):
    np.add.at(sum_TI[t], [at[row] for row in entities], sum_N)
    np.add.at(count_TI[t], [at[row] for row in entities], count_N)
  return metrics.bootstrap_mean(sum_TI, count_TI, resamples=run.config.eval.bootstrap,
                                seed=run.config.seed)._asdict()


def _ask(run: context.Run, method: methods.Method, asked: dict):
  """The answers of a method, task after task, to {task: examples}."""
  # Two shapes, not one a task: the known answers are short.
  for kind, most in ((elm.KNOWN, _SHORT), (elm.WRITTEN, 0)):
    of_kind = {task: [method.change(e) for e in examples] for task, examples in asked.items()
               if task in kind and examples}
    longest = max((len(e["targets"]) for es in of_kind.values() for e in es), default=0)
    shape = spec(run, list(of_kind.values()) or [[]])
    if method.queries is not None:
      shape = dataclasses.replace(shape, queries=method.queries)
    for task, shown in of_kind.items():
      wanted = [run.lm_tokenizer.decode(e["targets"][:-1]).strip() for e in asked[task]]
      said = method.model.say(shown, shape, max_new=most or longest + _SLACK)
      yield Answers(task, asked[task], said, wanted)


def behaviour(run: context.Run) -> consistency.Behaviour | None:
  """The map from texts to factors, of training items: their known text and all references.

  None where none of ELM's 24 tasks is trained: nothing is measured by it.
  """
  if not set(elm.ELM_24) & set(recipe.task_names(run.config)):
    return None
  user_UC, item_I1C = vectors.factors(run)
  items = run.data.items
  rows = [row for row in range(1, len(items) + 1) if not run.heldout[row]]
  texts = [interactions_lib.item_text(items, row) for row in rows]
  told_NC = [item_I1C[rows]]
  for task in recipe.task_names(run.config):
    if task in elm.ELM_24:
      stored = run.prepared(task, "train")
      found = Answers(task, [e for e in map(stored.__getitem__, range(len(stored)))
                             if not e["prompt"][0]], [], [])
      texts += [run.lm_tokenizer.decode(e["targets"][:-1]).strip() for e in found.examples]
      told_NC.append(_factors(run, found))
  return consistency.fit(run.sentence_vectors(texts), np.concatenate(told_NC), user_UC,
                         seed=run.config.seed)


def _factors(run: context.Run, found: Answers) -> np.ndarray:
  """[N, C]: iALS factors of the item of each example, of two items their mean."""
  rows = [e or (int(x["target_entity"][0]),) for e, x in zip(found.entities, found.examples)]
  return mean_factors(run, rows)


def mean_factors(run: context.Run, rows) -> np.ndarray:
  """[N, C]: the mean of the iALS factors of each tuple of item rows."""
  _, item_I1C = vectors.factors(run)
  return np.array([item_I1C[list(r)].mean(axis=0) for r in rows]).reshape(-1, item_I1C.shape[1])


def _means(run: context.Run, answers: list[Answers], values: dict) -> list[dict]:
  """The row of means over those of the 24 tasks that there are, if more than one."""
  found = {a.task: a.examples for a in answers if a.task in elm.ELM_24}
  if len(found) < 2:
    return []
  means = over_tasks(run, found, {task: values[task] for task in found})
  return [{"name": f"mean of {len(found)} of ELM's 24 tasks",
           "metrics": {name: means[name] for name in values[next(iter(found))]}}]


def _described(run: context.Run, shown: dict) -> dict:
  log, items, _ = run.data
  examples = []
  for row, answers in list(shown.items())[:run.config.eval.generations]:
    name = (f"user {log.user_ids[log.rows.user_number(row)]}" if log.rows.is_user(row)
            else interactions_lib.item_text(items, row))
    examples.append({"item (never shown)": name, **answers})
  return {"title": "What the model says of an item, given only its vector",
          "note": "Held-out items: no text of theirs was trained on in either phase as a "
                  "description. Greedy decoding.", "examples": examples}


# Small parts, also of the other tables.


def bootstrap(run: context.Run, sum_N, count_N=None) -> dict:
  return metrics.bootstrap(sum_N, count_N, resamples=run.config.eval.bootstrap,
                           seed=run.config.seed)._asdict()


def sample(run: context.Run, task: str, count: int) -> list[dict]:
  """`count` examples of a task's test split (0: all), drawn with the run's seed."""
  stored = run.prepared(task, "test")
  return [stored[i] for i in drawn(run, len(stored), count)]


def drawn(run: context.Run, have: int, want: int) -> np.ndarray:
  """`want` of the numbers below `have` (0: all), drawn with the run's seed."""
  if not want or want >= have:
    return np.arange(have)
  return np.random.default_rng(run.config.seed).permutation(have)[:want]


def spec(run: context.Run, groups):
  """One example a row, as long as the longest of `groups` needs (a multiple of 16).

  There are `eval.batch_size` rows, or the next number that the devices can share.
  """
  ways = axes.ways(run.mesh, "batch")
  shape = recipe.lm_spec(run, rows=-(-run.config.eval.batch_size // ways) * ways, one_a_row=True)
  sizes = [shape.sizes(len(e["inputs"]), len(e["entities"]), len(e["targets"]))
           for examples in groups for e in examples]
  longest = {k: max((s[k] for s in sizes), default=1) for k in ("length", "slots", "targets")}
  return dataclasses.replace(shape, length=-(-longest["length"] // 16) * 16,
                             slots=max(longest["slots"], 1), targets=longest["targets"])


def _protocol(run: context.Run) -> dict:
  return {**protocol(run), "decoding": "greedy",
          "sentence encoder": run.config.text_encoder.asset}


def protocol(run: context.Run) -> dict:
  return {"language model": run.config.lm.asset, "vectors": ", ".join(run.config.vectors),
          "queries": run.config.qformer.num_queries, "seed": run.config.seed}
