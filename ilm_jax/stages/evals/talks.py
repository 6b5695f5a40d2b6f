"""Stage eval, conversations: the items of the recommender's next turn, ranked by the item head; and
the log likelihood of its replies.

Removing a part of the prompt shows which part the results depend on:

  vectors shuffled    another item's vectors in every slot
  vectors left out    no slots: the words alone
  words left out      the slots alone, and the token after which the reply begins
"""
import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from ilm_jax.baselines import popularity
from ilm_jax.config import mixture, names
from ilm_jax.conversation import heard, titles
from ilm_jax.data import interactions as interactions_lib
from ilm_jax.evaluation import metrics, rows, target_sets
from ilm_jax.stages import context, factor_scores, recipe
from ilm_jax.stages.evals import common, methods

SAID = (*names.CONVERSATIONS, *names.REDIAL)     # tasks with replies
_LEFT = ("Vectors shuffled: ILM, with another item's vectors in every slot. Vectors left out: "
         "without slots. Words left out: with the slots alone. Intervals: 95 %, bootstrap over "
         "dialogs.")
_NOTE = ("The targets of a reply in the test split are all items that it names for the first time "
         "in its dialog. Items that the prompt shows as soft tokens are filtered. "
         f"{_LEFT}")
_WORDS = ("Nats per token of the replies in the test split, given the dialog before them. Without "
          "titles: tokens that spell a title, or its year, are not counted, but the model still "
          "reads them: of an item that the dialog shows or the reply is about, or that the reply "
          f"names by its title. {_LEFT}")


def table(run: context.Run, compared: list[methods.Method]) -> dict | None:
  """R@1, 10 and 50, MRR and NDCG@10 in conversations; None if no item head reads conversations.

  Args:
    run: the run; `eval.loss_examples` replies of each task are ranked.
    compared: ILM first, then the models of `phase2.compare`.
  """
  if not run.config.phase2.head.weight:
    return None
  models, made = compared[:1 + len(run.config.phase2.compare)], []
  for task, examples, dialog_N in samples(run, mixture.DIALOG_HEAD_TASKS):
    made += _ranked(run, models, task, examples, dialog_N)
  return (made and {"title": "Next item in conversations, full catalogue of "
                   f"{run.data.log.num_items}", "note": _NOTE, "rows": made,
                   "protocol": {**_protocol(run), "tie rule": "lower item row first",
                                **common.added_scores(run)}}) or None


def replies(run: context.Run, compared: list[methods.Method]) -> dict | None:
  """Nats per token of replies, with and without titles; None if no trained task has replies.

  Args: as in `table`.
  """
  said = [task for task in SAID if task in recipe.said_tasks(run.config)]
  models, made = compared[:1 + len(run.config.phase2.compare)], []
  for task, examples, dialog_N in samples(run, said):
    asked = [{**e, "uncounted": of} for e, of in zip(examples, title_tokens(run, examples))]
    spec = common.spec(run, [examples])
    for label, method, changed in prompts(run, models, examples):
      loss = {}
      for name, some in (("loss", changed), ("loss without titles", [
          {**e, "uncounted": whole["uncounted"]} for e, whole in zip(changed, asked)])):
        nats_N, tokens_N = method.model.losses(some, spec)
        loss[name] = common.bootstrap(run).mean(*of_groups(dialog_N, nats_N, tokens_N))
      made.append(rows.row(loss, task=task, method=label))
  return (made and {"title": "Loss on replies in conversations (nats per token; lower is better)",
                   "note": _WORDS, "rows": made, "protocol": _protocol(run)}) or None


def _protocol(run: context.Run) -> dict:
  return {**common.protocol(run), "split": "test", "prompt": "seen template 0",
          "dialogs": run.config.tasks.dialogs, "replies per task": run.config.eval.loss_examples}


def samples(run: context.Run, tasks: Sequence[str]):
  """Yields (task, `eval.loss_examples` of it, the dialog of each) of tasks that the run has."""
  for task in tasks:
    if task in recipe.task_names(run.config):
      stored = run.prepared(task, "test")
      drawn = common.drawn(len(stored), run.config.eval.loss_examples, run.config.seed)
      if len(drawn):
        every = map(stored.__getitem__, range(len(stored)))
        yield task, [stored[n] for n in drawn], dialog_numbers(every)[drawn]


def prompts(run: context.Run, models: list[methods.Method], examples: list):
  """Yields (label, method, examples): every model, then ILM with a part of its prompt changed."""
  items, slot = run.data.log.num_items, run.lm_tokenizer.slot_id
  to_R = methods.exchanged([np.arange(1, items + 1)], run.data.log.rows.total, run.config.seed)
  ilm, label = models[0], models[0].label
  for method in models:
    yield method.label, method, examples
  yield f"{label}, vectors shuffled", ilm, [
      {**e, "entities": to_R[e["entities"]]} for e in examples]
  for part, slots in (("vectors", False), ("words", True)):
    yield f"{label}, {part} left out", ilm, [part_alone(e, slot, slots) for e in examples]


def _ranked(run: context.Run, models: list[methods.Method], task: str, examples: list,
            dialog_N) -> list[dict]:
  items = run.data.log.num_items
  targets = [np.asarray(e["ask_item"]) for e in examples]
  blocked_NI = shown(examples, items)
  count_I1 = popularity.popularity(interactions_lib.train_histories(run.data.log), items)
  scored = [("popularity", np.broadcast_to(count_I1, (len(examples), items + 1)))]
  spec, factors = common.head_spec(run, [examples]), factor_scores.of(run)
  for label, method, changed in prompts(run, models, examples):
    score_NI = method.model.head_score(changed, spec)
    scored.append((label, score_NI + factors.scores([items_of(e, items) for e in changed], score_NI)
                   if factors else score_NI))
  made = []
  for label, score_NI in scored:
    values = target_sets.values(ranks(score_NI, targets, blocked_NI))
    made.append(rows.row(target_sets.estimates(common.bootstrap(run), values, dialog_N), task=task,
                         method=label, by="" if label == "popularity" else "item head"))
  return made


def dialog_numbers(examples: Iterable[dict]) -> np.ndarray:
  """int [N], from 0: the dialog of each example; examples of a dialog follow each other.

  An example belongs to the dialog of the one before it if its prompt contains the end of that
  prompt and the reply. If a dialog was cut in between, its parts count as two dialogs.
  """
  number, number_N = -1, []
  before = None
  for e in examples:
    # Without the last target token, which may be the end of a text and not be in the next prompt.
    if before is None or not _holds(e["inputs"], np.r_[
        before["inputs"][-_TAIL:], before["targets"][:-1]]):
      number += 1
    number_N.append(number)
    before = e
  return np.array(number_N, int)


_TAIL = 16               # last tokens of a prompt, which identify it


def _holds(whole_N, part_M) -> bool:
  """Whether `whole_N` contains all of `part_M` as consecutive tokens."""
  if len(part_M) > len(whole_N):
    return False
  windows = np.lib.stride_tricks.sliding_window_view(np.asarray(whole_N), len(part_M))
  return bool((windows == part_M).all(axis=1).any())


def of_groups(group_N, *values_N) -> list[np.ndarray]:
  """For each [N] array, [G]: its sums over groups, whose numbers may be any integers."""
  _, group_N = np.unique(group_N, return_inverse=True)
  return [np.bincount(group_N, weights=value_N) for value_N in values_N]


def part_alone(example: dict, slot_id: int, slots: bool) -> dict:
  """The example with only the slots, or only the words, of its prompt, and the last token."""
  inputs = np.asarray(example["inputs"])
  keep_N = (inputs == slot_id) == slots
  keep_N[-1] = True
  return {**example, "inputs": inputs[keep_N], "reply_at": np.zeros(0, int),
          "ask_at": np.full(len(example["ask_at"]), keep_N.sum() - 1),
          "entities": example["entities"] if slots else example["entities"][:0]}


def title_tokens(run: context.Run, examples: Sequence[dict]) -> list[np.ndarray]:
  """For each example the places in its targets that spell titles."""
  items, total, decode = run.data.items, run.data.log.num_items, run.lm_tokenizer.decode
  known = titles.Titles(items)
  def spelled(e):
    rows_of = np.unique(np.concatenate([e[key] for key in ("entities", "ask_item",
                                                           "target_entity")]))
    said = decode(e["targets"])
    return [said[each.start:each.end] for each in heard.mentions(said, known)] + [
        words for row in rows_of if 0 < row <= total
        for words in (interactions_lib.full_title(items, int(row)), items.titles[row - 1])]
  return [spelling(e["targets"], spelled(e), decode) for e in examples]


def spelling(targets, texts: Sequence[str], decode: Callable[[Sequence[int]], str]) -> np.ndarray:
  """int: the places in `targets` whose tokens contain a letter of one of `texts`.

  Args:
    targets: token ids.
    texts: searched as whole words, case-sensitively.
    decode: token ids -> text.
  """
  ends = [len(decode(targets[:n + 1])) for n in range(len(targets))]
  said, in_text = decode(targets), np.zeros(max(ends, default=0), bool)
  for text in texts:
    for match in re.finditer(rf"(?<!\w){re.escape(text)}(?!\w)", said) if text else ():
      in_text[match.start():match.end()] = True
  starts = [0, *ends[:-1]]
  return np.array([n for n, (start, end) in enumerate(zip(starts, ends))
                   if in_text[start:end].any()], int)


def items_of(example: dict, num_items: int) -> np.ndarray:
  """int: the rows of the items that an example's prompt shows."""
  return example["entities"][example["entities"] <= num_items]


def shown(examples: Sequence[dict], num_items: int) -> np.ndarray:
  """bool [N, I + 1]: items that an example's prompt shows and that are no targets; and row 0."""
  blocked_NI = np.zeros((len(examples), num_items + 1), bool)
  blocked_NI[:, 0] = True
  for blocked_I, e in zip(blocked_NI, examples):
    blocked_I[items_of(e, num_items)] = True
    blocked_I[e["ask_item"]] = False
  return blocked_NI


def ranks(score_NI, targets: Sequence[np.ndarray], blocked_NI) -> list[np.ndarray]:
  """For each of N rankings the ranks of its targets.

  Args:
    score_NI: [N, I + 1] scores by item row.
    targets: for each ranking, item rows.
    blocked_NI: bool [N, I + 1], true: filtered.
  """
  return [metrics.ranks_from_scores(
      np.broadcast_to(score_I, (len(target_T), len(score_I))), target_T,
      np.broadcast_to(blocked_I, (len(target_T), len(blocked_I))))
      for score_I, target_T, blocked_I in zip(score_NI, targets, blocked_NI)]
