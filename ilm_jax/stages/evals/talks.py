"""Stage eval, conversations: the items of the recommender's next turn, ranked by the item head."""
from collections.abc import Sequence

import numpy as np

from ilm_jax.config import mixture
from ilm_jax.evaluation import metrics, rows, target_sets
from ilm_jax.stages import context, recipe
from ilm_jax.stages.evals import common, methods, ranking

_NOTE = ("Of every reply in the test split that names an item for the first time in its dialog, "
         "all items that it so names are targets. What the prompt shows as soft tokens is taken "
         "out. Vectors shuffled: ILM, with another item's vectors in every slot: what is left is "
         "the words. Intervals: 95 %, bootstrap over replies, several of which may be of one "
         "dialog.")


def table(run: context.Run, compared: list[methods.Method]) -> dict | None:
  """R@1, 10 and 50, MRR and NDCG@10 in conversations; None where no item head reads any.

  Args:
    run: the run; `eval.loss_examples` replies of each task are ranked.
    compared: ILM first, then what is trained beside it.
  """
  tasks = [task for task in mixture.DIALOG_HEAD_TASKS if task in recipe.task_names(run.config)]
  if not run.config.phase2.head.weight:
    return None
  count, made = run.config.eval.loss_examples, []
  for task in tasks:
    if examples := common.sample(run, task, count):
      made += _rows(run, compared[:1 + len(run.config.phase2.compare)], task, examples)
  if not made:
    return None
  return {"title": f"Next item in conversations, full catalogue of {run.data.log.num_items}",
          "note": _NOTE, "rows": made,
          "protocol": {**common.protocol(run), "split": "test", "prompt": "seen template 0",
                       "tie rule": "lower item row first", "dialogs": run.config.tasks.dialogs,
                       "replies per task": count}}


def _rows(run: context.Run, models: list[methods.Method], task: str, examples: list) -> list[dict]:
  items = run.data.log.num_items
  targets = [np.asarray(e["ask_item"]) for e in examples]
  blocked_NI = shown(examples, items)
  to_R = methods.exchanged([np.arange(1, items + 1)], run.data.log.rows.total, run.config.seed)
  others = [{**e, "entities": to_R[e["entities"]]} for e in examples]
  count_I1 = run.data.log.train_counts[:items + 1].astype(np.float32)
  scored = [("popularity", np.broadcast_to(count_I1, (len(examples), items + 1)))]
  scored += ranking.head_scores(run, models, examples)
  scored += [(f"{label}, vectors shuffled", score_NI)
             for label, score_NI in ranking.head_scores(run, models[:1], others)]
  made, each = [], np.arange(len(examples))
  for label, score_NI in scored:
    values = target_sets.values(ranks(score_NI, targets, blocked_NI))
    made.append(rows.row(target_sets.estimates(common.bootstrap(run), values, each), task=task,
                         method=label, by="" if label == "popularity" else "item head"))
  return made


def shown(examples: Sequence[dict], num_items: int) -> np.ndarray:
  """bool [N, I + 1]: items that an example's prompt shows and does not ask for; and row 0."""
  blocked_NI = np.zeros((len(examples), num_items + 1), bool)
  blocked_NI[:, 0] = True
  for blocked_I, e in zip(blocked_NI, examples):
    blocked_I[e["entities"][e["entities"] <= num_items]] = True
    blocked_I[e["ask_item"]] = False
  return blocked_NI


def ranks(score_NI, targets: Sequence[np.ndarray], blocked_NI) -> list[np.ndarray]:
  """Of each of N rankings the ranks of its targets.

  Args:
    score_NI: [N, I + 1] scores by item row.
    targets: of each, item rows.
    blocked_NI: bool, true: taken out.
  """
  return [metrics.ranks_from_scores(
      np.broadcast_to(score_I, (len(target_T), len(score_I))), target_T,
      np.broadcast_to(blocked_I, (len(target_T), len(blocked_I))))
      for score_I, target_T, blocked_I in zip(score_NI, targets, blocked_NI)]
