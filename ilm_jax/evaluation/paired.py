"""Paired differences between methods, and means over tasks: the arithmetic of the tables."""
import dataclasses

import numpy as np

from ilm_jax.evaluation import metrics


@dataclasses.dataclass(frozen=True)
class Bootstrap:
  """How intervals are made: `resamples` draws of the examples, by `seed`."""
  resamples: int
  seed: int

  def mean(self, sum_N, count_N=None) -> dict:
    """Estimate of sum / count over examples. Args: of `metrics.bootstrap`."""
    return metrics.bootstrap(
        sum_N, count_N, resamples=self.resamples, seed=self.seed)._asdict()

  def mean_by_item(self, item_N, value_N) -> dict:
    """Estimate of the mean over examples where items, not examples, are drawn again.

    For few items that many examples share: what moves them together is in the interval.

    Args:
      item_N: item row of each example.
      value_N: one value an example.
    """
    sum_TI, count_TI = by_item({"": (item_N, value_N, np.ones(len(item_N)))})
    return self.mean(sum_TI[0], count_TI[0])

  def mean_over_tasks(self, values: dict[str, tuple]) -> dict:
    """Estimate of the mean over tasks, its interval over items. Args: of `by_item`."""
    return metrics.bootstrap_mean(
        *by_item(values), resamples=self.resamples, seed=self.seed)._asdict()

  def ranks(self, rank_U, *, hits: tuple, ndcgs: tuple, depth: float = np.inf) -> dict:
    """Metric -> estimate of ranks that are known up to `depth`. Args: `metrics.rank_estimates`."""
    estimates = metrics.rank_estimates(rank_U, hits=hits, ndcgs=ndcgs, depth=depth,
                                       resamples=self.resamples, seed=self.seed)
    return {name: estimate._asdict() for name, estimate in estimates.items()}


def sums_minus(sums: dict[str, tuple], other: dict[str, tuple]) -> dict[str, tuple]:
  """Task -> (sums minus those of the other, counts), of the tasks that both have.

  Args:
    sums: task -> (sum_N, count_N) of each example, e.g. nats and tokens of its target.
    other: likewise, of the same examples.

  Raises:
    ValueError: the examples of a task are not the same.
  """
  out = {}
  for task in sums:
    if task in other:
      (sum_N, count_N), (other_N, other_count_N) = sums[task], other[task]
      if not np.array_equal(count_N, other_count_N):
        raise ValueError(f"{task}: a paired difference needs the same examples on both sides")
      out[task] = (np.asarray(sum_N) - np.asarray(other_N), np.asarray(count_N))
  return out


def values_minus(values: dict[str, dict], other: dict[str, dict]) -> dict[str, dict]:
  """Task -> metric -> values minus those of the other, of the tasks and metrics that both have.

  Args:
    values: task -> metric -> float [N], one value an example.
    other: likewise, of the same examples.
  """
  return {task: {metric: value_N - other[task][metric] for metric, value_N in of_task.items()
                 if metric in other[task]}
          for task, of_task in values.items() if task in other}


def by_item(values: dict[str, tuple]) -> tuple[np.ndarray, np.ndarray]:
  """(sum_TI, count_TI): what was measured of each task and item, for `metrics.bootstrap_mean`.

  Args:
    values: task -> (item row of each example, sum of each, count of each). Items are ordered by
      row; several examples of one task and item are added up.
  """
  every_row = [np.asarray(rows, np.int64) for rows, _, _ in values.values()]
  items_I = np.unique(np.concatenate(every_row))
  sum_TI, count_TI = np.zeros((2, len(values), len(items_I)))
  for t, (rows, sum_N, count_N) in enumerate(values.values()):
    at = np.searchsorted(items_I, np.asarray(rows, np.int64))
    np.add.at(sum_TI[t], at, sum_N)
    np.add.at(count_TI[t], at, count_N)
  return sum_TI, count_TI


def means_over_tasks(bootstrap: Bootstrap, rows: dict, values: dict) -> dict:
  """Metric -> estimate of its mean over tasks; with several tasks, also semantic of each.

  Args:
    bootstrap: of the intervals.
    rows: task -> item row of each example.
    values: task -> metric -> float [N]; every task has the metrics of the first.
  """
  means = {metric: bootstrap.mean_over_tasks({
      task: (rows[task], of_task[metric], np.ones(len(rows[task])))
      for task, of_task in values.items()}) for metric in next(iter(values.values()))}
  if len(values) > 1:
    means |= {f"semantic, {task}": bootstrap.mean(of_task["semantic consistency"])
              for task, of_task in values.items()}
  return means


def mean_over_rankings(value, ranks: list, k: int) -> np.ndarray:
  """float64 [U]: a metric of each user averaged over rankings of the same users.

  Args:
    value: `metrics.hit_rate` or `metrics.ndcg`.
    ranks: float [U] ranks, one array a ranking.
    k: how far the metric looks.
  """
  return np.mean([value(rank_U, k) for rank_U in ranks], axis=0)


def with_differences(values: dict[str, dict], baselines: dict[str, str], minus
                     ) -> list[tuple[dict, dict]]:
  """The rows of a table of methods: each method's values, then the paired differences.

  A difference is the baseline's values minus the method's: ILM minus MLP is below zero where ILM's
  are smaller.

  Args:
    values: method -> its values.
    baselines: method -> the method whose values it is subtracted from; those without one have no
      row of differences.
    minus: `sums_minus` or `values_minus`.

  Returns:
    [(fields of the row, values)], for `rows.row`.
  """
  alone = [({"method": method}, of_method) for method, of_method in values.items()]
  differences = [({"method": baseline, "minus": method}, minus(values[baseline], values[method]))
                 for method, baseline in baselines.items()]
  return alone + differences


def loss_metrics(bootstrap: Bootstrap, sums: dict[str, tuple], rows: dict, elm_tasks) -> dict:
  """Task -> estimate of nats a token, with the mean over those of ELM's tasks that there are.

  Args:
    bootstrap: of the intervals.
    sums: task -> (nats, tokens) of each example.
    rows: task -> item row of each example.
    elm_tasks: ELM's tasks.
  """
  out = {task: bootstrap.mean(nll_N, count_N) for task, (nll_N, count_N) in sums.items()}
  of_elm = {task: (rows[task], *sums[task]) for task in elm_tasks if task in sums}
  if len(of_elm) > 1:
    out[f"mean of {len(of_elm)} ELM tasks"] = bootstrap.mean_over_tasks(of_elm)
  return out
