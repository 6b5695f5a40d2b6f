"""Paired differences between methods and means over tasks, for the tables of the report."""
import dataclasses

import numpy as np

from ilm_jax.evaluation import metrics


@dataclasses.dataclass(frozen=True)
class Bootstrap:
  """Makes bootstrap intervals: `resamples` draws of the examples, with `seed`."""
  resamples: int
  seed: int

  def mean(self, sum_N, count_N=None) -> dict:
    """Estimate of sum / count over examples. Args: see `metrics.bootstrap`."""
    return metrics.bootstrap(
        sum_N, count_N, resamples=self.resamples, seed=self.seed)._asdict()

  def mean_by_item(self, item_N, sum_N, count_N=None) -> dict:
    """Estimate of sum / count over examples; the interval resamples items, not examples.

    For items that several examples share: examples of one item are not independent.

    Args:
      item_N: item row of each example.
      sum_N, count_N: see `metrics.bootstrap`.
    """
    count_N = np.ones(len(item_N)) if count_N is None else count_N
    sum_TI, count_TI = by_item({"": (item_N, sum_N, count_N)})
    return self.mean(sum_TI[0], count_TI[0])

  def mean_over_tasks(self, values: dict[str, tuple]) -> dict:
    """Estimate of the mean over tasks; the interval resamples items. Args: see `by_item`."""
    return metrics.bootstrap_mean(
        *by_item(values), resamples=self.resamples, seed=self.seed)._asdict()

  def ranks(self, rank_U, *, hits: tuple, ndcgs: tuple, depth: float = np.inf) -> dict:
    """Metric -> estimate, for ranks known up to `depth`. Args: see `metrics.rank_estimates`."""
    estimates = metrics.rank_estimates(rank_U, hits=hits, ndcgs=ndcgs, depth=depth,
                                       resamples=self.resamples, seed=self.seed)
    return {name: estimate._asdict() for name, estimate in estimates.items()}


def sums_minus(sums: dict[str, tuple], other: dict[str, tuple]) -> dict[str, tuple]:
  """Task -> (`sums` minus `other`, counts), for the tasks in both.

  Args:
    sums: task -> (sum_N, count_N): one sum and count per example, e.g. nats and tokens of its
      target.
    other: the same for another method, on the same examples.

  Raises:
    ValueError: the counts of a task differ, so its examples are not the same.
  """
  out = {}
  for task in sums:
    if task in other:
      (sum_N, count_N), (other_N, other_count_N) = sums[task], other[task]
      if not np.array_equal(count_N, other_count_N):
        raise ValueError(f"{task}: a paired difference needs the same examples on both sides, "
                         "found different counts: measure both on the same split")
      out[task] = (np.asarray(sum_N) - np.asarray(other_N), np.asarray(count_N))
  return out


def values_minus(values: dict[str, dict], other: dict[str, dict]) -> dict[str, dict]:
  """Task -> metric -> `values` minus `other`, for the tasks and metrics in both.

  Args:
    values: task -> metric -> float [N], one value per example.
    other: the same for another method, on the same examples.
  """
  return {task: {metric: value_N - other[task][metric] for metric, value_N in of_task.items()
                 if metric in other[task]}
          for task, of_task in values.items() if task in other}


def by_item(values: dict[str, tuple]) -> tuple[np.ndarray, np.ndarray]:
  """(sum_TI, count_TI): float64 sums and counts per task and item, for `metrics.bootstrap_mean`.

  Args:
    values: task -> (item row of each example, its sum, its count). Items are ordered by row;
      examples of the same task and item are added up.
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
  """Metric -> estimate of its mean over tasks; with several tasks also each task's semantic one.

  Args:
    bootstrap: makes the intervals.
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
  """float64 [U]: each user's metric, averaged over rankings of the same users.

  Args:
    value: `metrics.hit_rate` or `metrics.ndcg`.
    ranks: float [U] ranks, one array per ranking.
    k: depth of the metric.
  """
  return np.mean([value(rank_U, k) for rank_U in ranks], axis=0)


def with_differences(values: dict[str, dict], baselines: dict[str, str], minus
                     ) -> list[tuple[dict, dict]]:
  """The rows of a table of methods: each method's values, then the paired differences.

  A difference is baseline - method: "ILM minus MLP" is negative where ILM's values are smaller.

  Args:
    values: method -> its values.
    baselines: method -> its baseline; a method without one gets no row of differences.
    minus: `sums_minus` or `values_minus`.

  Returns:
    [(fields of the row, values)], for `rows.row`.
  """
  alone = [({"method": method}, of_method) for method, of_method in values.items()]
  differences = [({"method": baseline, "minus": method}, minus(values[baseline], values[method]))
                 for method, baseline in baselines.items()]
  return alone + differences


def loss_metrics(bootstrap: Bootstrap, sums: dict[str, tuple], rows: dict, elm_tasks) -> dict:
  """Task -> estimate of nats per token; with several ELM tasks also their mean.

  The interval of "all" resamples items, since several tasks ask about the same one.

  Args:
    bootstrap: makes the intervals.
    sums: task -> (nats, tokens) of each example; with "all", all other tasks are pooled under it.
    rows: task -> item row of each example.
    elm_tasks: names of all ELM tasks; those missing from `sums` are skipped.
  """
  tasks = [task for task in sums if task != "all"]
  out = {task: bootstrap.mean(*sums[task]) for task in tasks}
  if "all" in sums:
    pooled = [np.concatenate(part) for part in zip(*((rows[t], *sums[t]) for t in tasks))]
    out["all"] = bootstrap.mean_by_item(*pooled)
  of_elm = {task: (rows[task], *sums[task]) for task in elm_tasks if task in sums}
  if len(of_elm) > 1:
    out[f"mean of {len(of_elm)} ELM tasks"] = bootstrap.mean_over_tasks(of_elm)
  return out
