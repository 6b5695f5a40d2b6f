"""Stage eval, cold splits: next items without training interactions, known by their text alone.

The same scores rank twice: among the cold items, and in the full catalogue, where a model must also
compare items without behaviour to items with it.
"""
import numpy as np

from ilm_jax.baselines import popularity, texts
from ilm_jax.data import interactions as interactions_lib
from ilm_jax.evaluation import metrics, paired, rows
from ilm_jax.stages import context, vectors
from ilm_jax.stages.evals import common, methods, ranking

_K = 10


def tables(run: context.Run, compared: list[methods.Method]) -> dict[str, dict]:
  """{"cold": table of the test targets, "cold_validation": the same to choose settings by}.

  Args:
    run: the run.
    compared: ILM first, then the models of `phase2.compare`: each ranks by its item head.
  """
  trained = compared[:1 + len(run.config.phase2.compare)]
  return {name: _table(run, trained, split)
          for name, split in (("cold", "test"), ("cold_validation", "validation"))}


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
                  "them the same score: among them its hits come from the order of item rows. "
                  f"Intervals: 95 %, bootstrap over the {len(np.unique(asked_for.target_U))} "
                  "target items, each with all users of whom it is the target; differences are "
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
  yield "text nearest neighbour", texts.neighbour(text_I1C, asked_for.histories)
  user_UC, item_I1C = vectors.factors(run)
  yield "text mapped to iALS", texts.factors(
      text_I1C, item_I1C, user_UC[asked_for.user_U], log.train_counts[:log.num_items + 1] > 0)
  count_I = popularity.popularity(interactions_lib.train_histories(log), log.num_items)
  yield "popularity", np.broadcast_to(count_I, (users, len(count_I)))


def _values(rank_U) -> dict[str, np.ndarray]:
  return {f"hr@{_K}": metrics.hit_rate(rank_U, _K), f"ndcg@{_K}": metrics.ndcg(rank_U, _K)}


def _rows(bootstrap: paired.Bootstrap, values: dict[str, dict], target_U) -> list[dict]:
  """A row for each method and way to rank, then for the first method minus each other.

  Args:
    bootstrap: of the intervals.
    values: method -> way -> metric -> float [U].
    target_U: item row of each user's target.
  """
  first = next(iter(values))
  baselines = {method: first for method in values if method != first}
  return [rows.row({name: bootstrap.mean_by_item(target_U, value_U)
                    for name, value_U in of_way.items()}, by=way, **fields)
          for fields, by_way in paired.with_differences(values, baselines, paired.values_minus)
          for way, of_way in by_way.items()]
