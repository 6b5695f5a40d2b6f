"""Stage eval, split cold_items: next items that no training interaction meets, known by text alone.

The same scores rank twice: among the cold items, and among the full catalogue, where a model must
also weigh an item without behaviour against those that have it.
"""
import numpy as np

from ilm_jax.evaluation import metrics, paired, rows
from ilm_jax.stages import context, vectors
from ilm_jax.stages.evals import common, methods, ranking

_LAST = 10           # items of a history whose texts the neighbour compares
_K = 10
_RIDGE = 10.0        # of text_factors: the best of 0.3 to 30 on validation, where all are alike


def tables(run: context.Run, compared: list[methods.Method]) -> dict[str, dict]:
  """{"cold": of the test targets, "cold_validation": of the others, to choose settings by}.

  Args:
    run: the run.
    compared: ILM first, then what `phase2.compare` names: each ranks by its item head.
  """
  trained = compared[:1 + len(run.config.phase2.compare)]
  return {name: _table(run, trained, split)
          for name, split in (("cold", "test"), ("cold_validation", "validation"))}


def text_neighbour(text_I1C, histories: list) -> np.ndarray:
  """float32 [U, I + 1]: cosine of each item's text to the mean of those of a history's last items.

  Args:
    text_I1C: a sentence vector for each item row; row 0 is the padding, which scores -inf.
    histories: item rows of each user, oldest first, at least one.
  """
  mean_UC = np.stack([text_I1C[history[-_LAST:]].mean(axis=0) for history in histories])
  score_UI = _unit(mean_UC) @ _unit(text_I1C).T
  score_UI[:, 0] = -np.inf
  return score_UI


def text_factors(text_I1C, item_I1C, user_UC, met_I) -> np.ndarray:
  """float32 [U, I + 1]: iALS's scores, where the factors of who was not met are read off its text.

  A ridge regression from unit text vectors to item factors, fitted on the items that were met.

  Args:
    text_I1C: a sentence vector for each item row; row 0 is the padding, which scores -inf.
    item_I1C, user_UC: factors of item rows and of the users who are ranked for.
    met_I: bool [I + 1], items that the factors know.
  """
  text_MC, item_MC = text_I1C[met_I], item_I1C[met_I]
  mean_C = text_MC.mean(axis=0)
  unit_IC = _unit(text_I1C - mean_C).astype(np.float64)
  unit_MC = unit_IC[met_I]
  kernel_CC = np.linalg.solve(unit_MC.T @ unit_MC + _RIDGE * np.eye(len(mean_C)),
                              unit_MC.T @ (item_MC - item_MC.mean(axis=0)))
  guessed_I1C = np.where(met_I[:, None], item_I1C, unit_IC @ kernel_CC + item_MC.mean(axis=0))
  score_UI = (user_UC @ guessed_I1C.T).astype(np.float32)
  score_UI[:, 0] = -np.inf
  return score_UI


def _unit(vectors_NC) -> np.ndarray:
  length_N1 = np.linalg.norm(vectors_NC, axis=1, keepdims=True)
  return vectors_NC / np.maximum(length_N1, 1e-12)


def _table(run: context.Run, models: list[methods.Method], split: str) -> dict:
  task = ranking.ranked_task(run.config)
  asked_for = ranking.questions(run, task, split)
  log, cold = run.data.log, run.data.log.untrained_items
  warm_I = ~np.isin(np.arange(log.num_items + 1), cold)
  ways = {f"among {len(cold)} cold items": asked_for.blocked_UI | warm_I[None],
          f"full catalogue of {log.num_items}": asked_for.blocked_UI}
  values = {}
  for method, score_UI in _scores(run, models, asked_for):
    values[method] = {by: _values(metrics.ranks_from_scores(score_UI, asked_for.target_U, out_UI))
                      for by, out_UI in ways.items()}
  return {"title": f"Next item among items without training interactions, {split} "
                   f"({len(asked_for.examples)} users)",
          "note": f"Cold items: {len(cold)}, known by their text alone. In random order hr@{_K} "
                  f"among them is {min(_K / len(cold), 1):.4f}. Popularity gives all of "
                  "them one score: what it hits among them, the order of item rows hits. "
                  f"Intervals: 95 %, bootstrap over the {len(np.unique(asked_for.target_U))} items "
                  "that are targets: each moves all users who will meet it; differences are "
                  "paired.",
          "protocol": {**common.protocol(run), "split": f"{split} ({run.rule.meaning})",
                       "task": task, "prompt": "seen template 0",
                       "tie rule": "lower item row first", **asked_for.protocol},
          "rows": _rows(common.bootstrap(run), values, asked_for.target_U)}


def _scores(run: context.Run, models: list[methods.Method], asked_for: ranking.Questions):
  """Yields (method, [U, I + 1])."""
  for label, score_UI in ranking.head_scores(run, models, asked_for.examples):
    yield f"{label}, item head", score_UI
  log, users = run.data.log, len(asked_for.user_U)
  text_I1C = run.entities.vectors["semantic"][:log.num_items + 1]
  yield "text nearest neighbour", text_neighbour(text_I1C, asked_for.histories)
  user_UC, item_I1C = vectors.factors(run)
  yield "text mapped to iALS", text_factors(
      text_I1C, item_I1C, user_UC[asked_for.user_U], log.train_counts[:log.num_items + 1] > 0)
  count_I = log.train_counts[:log.num_items + 1].astype(np.float32)
  count_I[0] = -np.inf
  yield "popularity", np.broadcast_to(count_I, (users, len(count_I)))


def _values(rank_U) -> dict[str, np.ndarray]:
  return {f"hr@{_K}": metrics.hit_rate(rank_U, _K), f"ndcg@{_K}": metrics.ndcg(rank_U, _K)}


def _rows(bootstrap: paired.Bootstrap, values: dict[str, dict], target_U) -> list[dict]:
  """A row of each method and way to rank, then of the first method minus each other.

  Args:
    bootstrap: of the intervals.
    values: method -> way -> metric -> float [U].
    target_U: item row that each user will meet.
  """
  first = next(iter(values))
  baselines = {method: first for method in values if method != first}
  return [rows.row({name: bootstrap.mean_by_item(target_U, value_U)
                    for name, value_U in of_way.items()}, by=way, **fields)
          for fields, by_way in paired.with_differences(values, baselines, paired.values_minus)
          for way, of_way in by_way.items()]
