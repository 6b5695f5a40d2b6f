"""Stage eval, texts: what the model says of held-out entities given only their vectors.

One table with a row for each ELM task, and the means over tasks; a list of answers to read.
"""
import dataclasses

import numpy as np

from ilm_jax import consistency, elm, metrics
from ilm_jax.data import interactions as interactions_lib
from ilm_jax.stages import context, phases, speaker, vectors

_SHORT = 24          # tokens of an answer that the data set knows
_SLACK = 8           # a teacher's tokens may be other ones than the model's


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


def generations(this: context.Run, ilm: speaker.Speaker) -> tuple[dict, dict]:
  """(table, examples): greedy answers about held-out entities, compared with the references."""
  answers = list(_ask(this, ilm))
  behaviour = _behaviour(this) if any(a.task in elm.ELM_24 for a in answers) else None
  rows, values, shown = [], {}, {}
  for found in answers:
    values[found.task] = scores(this, found, behaviour)
    rows.append({"name": found.task, "metrics": {
        **{name: bootstrap(this, value_N) for name, value_N in values[found.task].items()},
        "distinct-1": {"value": metrics.distinct(found.said, 1)},
        "distinct-2": {"value": metrics.distinct(found.said, 2)}}})
    for example, text in zip(found.examples, found.said):
      shown.setdefault(int(example["target_entity"][0]), {})[found.task] = text
  rows += _means(this, answers, values)
  table = {"title": "Text from vectors alone: held-out items",
           "note": "Semantic consistency: cosine of MiniLM sentence vectors of the answer and the "
                   "reference; behavioural: Spearman of all users ranked by the answer and by the "
                   "item's own factors (ilm_jax/consistency.py). Beside each, the same of another "
                   "item's reference or vector: what style alone gives. Words: length of an "
                   "answer. Intervals: 95 %, bootstrap over examples, of means over items.",
           "protocol": {**protocol(this), "decoding": "greedy",
                        "sentence encoder": this.config.text_encoder.asset},
           "rows": rows}
  return table, _described(this, shown)


def scores(this: context.Run, found: Answers, behaviour) -> dict[str, np.ndarray]:
  """Metric -> float [N], one value for each answer of a task."""
  said_NP, wanted_NP = this.sentence_vectors(found.said), this.sentence_vectors(found.wanted)
  other = np.roll(np.arange(len(found.said)), -1)
  out = {"semantic consistency": np.sum(said_NP * wanted_NP, axis=1),
         "with another item's reference": np.sum(said_NP * wanted_NP[other], axis=1),
         "exact match": np.array([a == b for a, b in zip(found.said, found.wanted)], float)}
  if found.task in elm.ELM_24:
    own_NC = _factors(this, found)
    out |= {"behavioural consistency": behaviour.consistency(said_NP, own_NC),
            "with another item's users": behaviour.consistency(said_NP, own_NC[other]),
            "of the reference": behaviour.consistency(wanted_NP, own_NC)}
  return {**out, "words": np.array([len(text.split()) for text in found.said], float)}


def mean_over_tasks(this: context.Run, values: dict[str, tuple]) -> dict:
  """The mean over tasks with its interval over items, as the report wants it.

  Args:
    this: for the bootstrap's settings.
    values: task -> (first entity row of each example, sum of each, count of each).
  """
  rows = sorted({row for entities, _, _ in values.values() for row in entities})
  at = {row: i for i, row in enumerate(rows)}
  sum_TI, count_TI = np.zeros((2, len(values), len(rows)))
  for t, (entities, sum_N, count_N) in enumerate(values.values()):
    np.add.at(sum_TI[t], [at[row] for row in entities], sum_N)
    np.add.at(count_TI[t], [at[row] for row in entities], count_N)
  return metrics.bootstrap_mean(sum_TI, count_TI, resamples=this.config.eval.bootstrap,
                                seed=this.config.seed)._asdict()


def _ask(this: context.Run, ilm: speaker.Speaker):
  tasks = [t for t in (*elm.KNOWN, *elm.WRITTEN) if t in phases.task_names(this)]
  asked = {task: sample(this, task, this.config.eval.consistency_examples) for task in tasks}
  # Two shapes, not one a task: the known answers are short.
  for kind, most in ((elm.KNOWN, _SHORT), (elm.WRITTEN, 0)):
    of_kind = {task: examples for task, examples in asked.items() if task in kind and examples}
    longest = max((len(e["targets"]) for es in of_kind.values() for e in es), default=0)
    shape = spec(this, list(of_kind.values()) or [[]])
    for task, examples in of_kind.items():
      wanted = [this.lm_tokenizer.decode(e["targets"][:-1]).strip() for e in examples]
      said = ilm.say(examples, shape, max_new=most or longest + _SLACK)
      yield Answers(task, examples, said, wanted)


def _behaviour(this: context.Run) -> consistency.Behaviour:
  """The map from texts to factors, of training items: their known text and all references."""
  user_UC, item_I1C = vectors.factors(this)
  items = this.data[1]
  rows = [row for row in range(1, len(items) + 1) if not this.heldout[row]]
  texts = [interactions_lib.item_text(items, row) for row in rows]
  told_NC = [item_I1C[rows]]
  for task in phases.task_names(this):
    if task in elm.ELM_24:
      stored = this.prepared(task, "train")
      found = Answers(task, [e for e in map(stored.__getitem__, range(len(stored)))
                             if not e["prompt"][0]], [], [])
      texts += [this.lm_tokenizer.decode(e["targets"][:-1]).strip() for e in found.examples]
      told_NC.append(_factors(this, found))
  return consistency.fit(this.sentence_vectors(texts), np.concatenate(told_NC), user_UC,
                         seed=this.config.seed)


def _factors(this: context.Run, found: Answers) -> np.ndarray:
  """[N, C]: iALS factors of the item of each example, of two items their mean."""
  _, item_I1C = vectors.factors(this)
  rows = [e or (int(x["target_entity"][0]),) for e, x in zip(found.entities, found.examples)]
  return np.array([item_I1C[list(r)].mean(axis=0) for r in rows]).reshape(-1, item_I1C.shape[1])


def _means(this: context.Run, answers: list[Answers], values: dict) -> list[dict]:
  """The row of means over those of the 24 tasks that there are, if more than one."""
  found = [a for a in answers if a.task in elm.ELM_24]
  if len(found) < 2:
    return []
  rows = {a.task: [int(e["target_entity"][0]) for e in a.examples] for a in found}
  means = {name: mean_over_tasks(this, {
      a.task: (rows[a.task], values[a.task][name], np.ones(len(rows[a.task]))) for a in found})
           for name in values[found[0].task]}
  return [{"name": f"mean of {len(found)} of ELM's 24 tasks", "metrics": means}]


def _described(this: context.Run, shown: dict) -> dict:
  log, items, _ = this.data
  examples = []
  for row, answers in list(shown.items())[:this.config.eval.generations]:
    name = (interactions_lib.item_text(items, row) if row <= len(items)
            else f"user {log.user_ids[row - 1 - len(items)]}")
    examples.append({"item (never shown)": name, **answers})
  return {"title": "What the model says of an item, given only its vector",
          "note": "Held-out items: no text of theirs was trained on in either phase as a "
                  "description. Greedy decoding.", "examples": examples}


# Small parts, also of the other tables.


def bootstrap(this: context.Run, sum_N, count_N=None) -> dict:
  return metrics.bootstrap(sum_N, count_N, resamples=this.config.eval.bootstrap,
                           seed=this.config.seed)._asdict()


def sample(this: context.Run, task: str, count: int) -> list[dict]:
  """`count` examples of a task's test split (0: all), drawn with the run's seed."""
  stored = this.prepared(task, "test")
  return [stored[i] for i in drawn(this, len(stored), count)]


def drawn(this: context.Run, have: int, want: int) -> np.ndarray:
  """`want` of the numbers below `have` (0: all), drawn with the run's seed."""
  if not want or want >= have:
    return np.arange(have)
  return np.random.default_rng(this.config.seed).permutation(have)[:want]


def spec(this: context.Run, groups):
  """One example a row, as long as the longest of `groups` needs (a multiple of 16)."""
  shape = phases.lm_spec(this, rows=this.config.eval.batch_size, one_a_row=True)
  sizes = [shape.sizes(len(e["inputs"]), len(e["entities"]), len(e["targets"]))
           for examples in groups for e in examples]
  longest = {k: max((s[k] for s in sizes), default=1) for k in ("length", "slots", "targets")}
  return dataclasses.replace(shape, length=-(-longest["length"] // 16) * 16,
                             slots=max(longest["slots"], 1), targets=longest["targets"])


def protocol(this: context.Run) -> dict:
  return {"language model": this.config.lm.asset, "vectors": ", ".join(this.config.vectors),
          "queries": this.config.qformer.num_queries, "seed": this.config.seed}
