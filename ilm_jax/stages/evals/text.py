"""Stage eval, texts: what the model says of held-out entities given only their vectors.

One table has a row for each ELM task and the means over tasks; another has these means for all
methods (`methods`) and for ILM minus each of them; and there is a list of answers to read.
"""
import dataclasses

import numpy as np

from ilm_jax import elm
from ilm_jax.data import interactions as interactions_lib
from ilm_jax.evaluation import consistency, metrics, paired, rows, text_scores
from ilm_jax.stages import context, recipe, vectors
from ilm_jax.stages.evals import common, methods

_SHORT = 24          # tokens of an answer to a task whose targets come from the data set
_SLACK = 8           # additional tokens: a teacher's tokens may differ from the model's
_NOTE = ("Semantic consistency: cosine of MiniLM sentence vectors of the answer and the reference; "
         "behavioural: Spearman of all users ranked by the answer and by the item's own factors "
         "(evaluation/consistency.py). Beside each: the same measure with another item's reference "
         "or vector, which shows what style alone reaches. First genre right: the first genre of "
         "the answer is one of the item's; commonest genre right: the genre that most training "
         "items have is one of the item's. Words: length of an answer. Intervals: 95 %, bootstrap "
         "over examples, for means over items; for differences, paired.")


@dataclasses.dataclass(frozen=True)
class Answers:
  """Answers in one task: texts[n] answers examples[n], whose reference is references[n]."""
  task: str
  examples: list
  texts: list[str]
  references: list[str]

  def first(self, count: int) -> "Answers":
    """The first `count` of them."""
    return Answers(self.task, self.examples[:count], self.texts[:count], self.references[:count])


def generations(run: context.Run, compared: list[methods.Method], behaviour) -> dict[str, dict]:
  """{"consistency", "compared", "generations"}: two tables of greedy answers, and some answers.

  Args:
    run: the run.
    compared: methods; the first (ILM) gets the first table, all of them the second.
    behaviour: from `behaviour`.
  """
  examples = {task: common.sample(run, task, run.config.eval.consistency_examples)
              for task in methods.OF_ELM if task in recipe.task_names(run.config)}
  answers = list(_answers(run, compared[0], examples))
  values = {a.task: _scores(run, a, behaviour) for a in answers}
  bootstrap = common.bootstrap(run)
  genres = {a.task: _genres(run, a, bootstrap) for a in answers}
  made = [rows.row({**{name: bootstrap.mean(value_N) for name, value_N in values[a.task].items()},
                    **genres[a.task][0], **_variety(a.texts)}, task=a.task) for a in answers]
  item_rows = {a.task: common.item_rows(a.examples) for a in answers}
  table = {"title": "Text from vectors alone: held-out items", "note": _NOTE,
           "protocol": {**common.text_protocol(run), **genres.get(elm.GENRES, ({}, {}))[1]},
           "rows": made + _means(bootstrap, item_rows, values)}
  return {"consistency": table, **_compared(run, compared, answers, behaviour),
          "generations": _described(run, answers)}


def _compared(run: context.Run, compared: list[methods.Method], answers: list[Answers], behaviour
              ) -> dict[str, dict]:
  """The table of means over tasks by all methods, and of ILM minus each; {} if not asked for."""
  most = run.config.eval.compared_examples
  main = [a for a in answers if a.task in elm.ELM_24] or answers
  if not most or not main:
    return {}
  few = {a.task: a.examples[:most] for a in main}
  by_method = {compared[0].label: [a.first(most) for a in main]}
  by_method |= {method.label: list(_answers(run, method, few)) for method in compared[1:]}
  values = {label: {a.task: _scores(run, a, behaviour) for a in of_method}
            for label, of_method in by_method.items()}
  texts = {label: [text for a in of_method for text in a.texts]
           for label, of_method in by_method.items()}
  return {"compared": {
      "title": f"Text from vectors alone, compared: means over {len(main)} tasks", "note": _NOTE,
      "protocol": {**common.text_protocol(run), "examples per task": most},
      "rows": compared_rows(
          common.bootstrap(run), values, methods.baselines(compared),
          {task: common.item_rows(some) for task, some in few.items()}, texts)}}


def compared_rows(bootstrap: paired.Bootstrap, values: dict, baselines: dict[str, str],
                  item_rows: dict, texts: dict[str, list[str]]) -> list[dict]:
  """Rows of means over tasks by method, then of baseline minus method.

  Args:
    bootstrap: of the intervals.
    values: method -> task -> metric -> float [N].
    baselines: method -> the method it is subtracted from.
    item_rows: task -> item row of each example.
    texts: method -> its answers, for their variety.
  """
  made = []
  for fields, of_row in paired.with_differences(values, baselines, paired.values_minus):
    of_texts = {} if "minus" in fields else _variety(texts[fields["method"]])
    made.append(rows.row({**paired.means_over_tasks(bootstrap, item_rows, of_row), **of_texts},
                         **fields))
  return made


def _means(bootstrap: paired.Bootstrap, item_rows: dict, values: dict) -> list[dict]:
  """The row of means over the trained tasks of ELM's 24, if there is more than one."""
  of_elm = {task: of_task for task, of_task in values.items() if task in elm.ELM_24}
  if len(of_elm) < 2:
    return []
  means = paired.means_over_tasks(bootstrap, item_rows, of_elm)
  columns = next(iter(of_elm.values()))
  return [rows.row({name: means[name] for name in columns},
                   task=f"mean of {len(of_elm)} of ELM's 24 tasks")]


def _variety(texts: list[str]) -> dict:
  return {f"distinct-{n}": {"value": metrics.distinct(texts, n)} for n in (1, 2)}


def _genres(run: context.Run, answers: Answers, bootstrap: paired.Bootstrap) -> tuple[dict, dict]:
  """(columns of the row of genres, the protocol's words about them); ({}, {}) for other tasks."""
  if answers.task != elm.GENRES:
    return {}, {}
  genre = text_scores.commonest([of_item for of_item, heldout in
                                 zip(run.data.items.genres, run.heldout[1:]) if not heldout])
  right = {"first genre right": answers.texts,
           "commonest genre right": [genre] * len(answers.references)}
  return ({name: bootstrap.mean(text_scores.first_named(texts, answers.references))
           for name, texts in right.items()}, {"commonest genre": genre})


def _scores(run: context.Run, answers: Answers, behaviour) -> dict[str, np.ndarray]:
  """Metric -> float [N], one value for each answer of a task."""
  factor_NC = _factors(run, answers.examples) if answers.task in elm.ELM_24 else None
  return text_scores.about_items(
      behaviour, answers.texts, answers.references, run.sentence_vectors(answers.texts),
      run.sentence_vectors(answers.references), factor_NC)


def _answers(run: context.Run, method: methods.Method, examples: dict):
  """Yields the answers of a method, task after task.

  Args:
    run: the run.
    method: the method that answers.
    examples: task -> examples.
  """
  # Two shapes, not one per task: answers from the data set are short.
  for kind, most in ((elm.KNOWN, _SHORT), (elm.WRITTEN, 0)):
    prompts = {task: [method.change(e) for e in some] for task, some in examples.items()
               if task in kind and some}
    longest = max((len(e["targets"]) for some in prompts.values() for e in some), default=0)
    shape = common.spec(run, list(prompts.values()) or [[]])
    if method.queries is not None:
      shape = dataclasses.replace(shape, queries=method.queries)
    for task, some in prompts.items():
      texts = method.model.say(some, shape, max_new=most or longest + _SLACK)
      yield Answers(task, examples[task], texts, [_reference(run, e) for e in examples[task]])


def behaviour(run: context.Run) -> consistency.Behaviour | None:
  """The map from texts to factors, fitted on training items: on their known text and all
  references. None if none of ELM's 24 tasks is trained: then nothing needs it."""
  tasks = [task for task in recipe.task_names(run.config) if task in elm.ELM_24]
  if not tasks:
    return None
  user_UC, item_I1C = vectors.factors(run)
  items = run.data.items
  item_rows = [row for row in range(1, len(items) + 1) if not run.heldout[row]]
  texts = [interactions_lib.item_text(items, row) for row in item_rows]
  factors, described = [item_I1C[item_rows]], [item_rows]
  for task in tasks:
    stored = run.prepared(task, "train")
    examples = [e for e in map(stored.__getitem__, range(len(stored))) if not e["prompt"][0]]
    texts += [_reference(run, e) for e in examples]
    factors.append(_factors(run, examples))
    described.append(common.item_rows(examples))
  return consistency.fit(run.sentence_vectors(texts), np.concatenate(factors),
                         np.concatenate(described), user_UC, seed=run.config.seed)


def _factors(run: context.Run, examples: list) -> np.ndarray:
  """[N, C]: iALS factors of the item of each example; for two items their mean."""
  shown = [tuple(int(e) for e in example["entities"]) for example in examples]
  return text_scores.mean_factors(vectors.factors(run)[1], [
      entities or (row,) for entities, row in zip(shown, common.item_rows(examples))])


def _reference(run: context.Run, example: dict) -> str:
  return run.lm_tokenizer.decode(example["targets"][:-1]).strip()


def _described(run: context.Run, answers: list[Answers]) -> dict:
  log, items, _ = run.data
  by_row: dict = {}
  for of_task in answers:
    for row, text in zip(common.item_rows(of_task.examples), of_task.texts):
      by_row.setdefault(row, {})[of_task.task] = text
  examples = []
  for row, texts in list(by_row.items())[:run.config.eval.generations]:
    name = (f"user {log.user_ids[log.rows.user_number(row)]}" if log.rows.is_user(row)
            else interactions_lib.item_text(items, row))
    examples.append({"item (never shown)": name, **texts})
  return {"title": "What the model says of an item, given only its vector",
          "note": "Held-out items: neither phase was trained on a description of them. Drawn by "
                  "the seed, not picked. Greedy decoding.",
          "examples": examples}
