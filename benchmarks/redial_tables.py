"""Rows and Markdown tables of `benchmarks.redial`: methods, and trained runs over seeds."""
import itertools
from collections.abc import Iterable

import numpy as np

from benchmarks.conversations import BOOTSTRAP, cell, header
from ilm_jax.evaluation import target_sets

COPY = "naive copy"


def measured(name: str, setting: dict, ranks, of_dialog, *, by: str, targets: str, more=()
             ) -> dict:
  """A row of the tables; it is printed.

  Args:
    more: ranks by other seeds. The metrics of an instance are then the mean over all seeds.
  """
  seeds = [target_sets.values(each) for each in (ranks, *more)]
  values = {metric: np.mean([of[metric] for of in seeds], axis=0) for metric in seeds[0]}
  row = {"name": name, "setting": setting, "by": by, "targets": targets, "instances": len(ranks),
         "mentions": sum(map(len, ranks)), "values": values, "dialogs": of_dialog,
         "metrics": target_sets.estimates(BOOTSTRAP, values, of_dialog),
         "seeds": [float(of["R@10"].mean()) for of in seeds]}
  print(f"{name}, {by}, {targets}: " + ", ".join(
      f"{metric} {cell(of)}" for metric, of in row["metrics"].items()), flush=True)
  return row


def table(rows: list[dict], references: Iterable[str]) -> str:
  """Up to four tables, and paired differences of fresh R@10 to the rows `references`."""
  out = []
  for by, targets in itertools.product(("turns", "messages"), ("all", "fresh")):
    some = [row for row in rows if (row["by"], row["targets"]) == (by, targets)]
    if not some:
      continue
    out += [f"By {by}, {targets}: {some[0]['instances']:,} instances, {some[0]['mentions']:,} "
            "targets", "", *header(["row", *some[0]["metrics"]])]
    out += [f"| {row['name']} | " + " | ".join(map(cell, row["metrics"].values())) + " |"
            for row in some] + [""]
  fresh = {row["name"]: row for row in rows if (row["by"], row["targets"]) == ("turns", "fresh")}
  for reference in references:
    if reference in fresh:
      out += ["", *differences(fresh, reference)]
  return "\n".join(out)


def differences(fresh: dict[str, dict], reference: str) -> list[str]:
  """Lines: R@10 of each row minus that of one of them, paired."""
  out = [f"Fresh R@10 by turns, minus that of {reference}", "", *header(["row", "difference"])]
  for name, row in fresh.items():
    if name not in (COPY, reference):
      less = {"R@10": row["values"]["R@10"] - fresh[reference]["values"]["R@10"]}
      out.append(f"| {name} | "
                 f"{cell(target_sets.estimates(BOOTSTRAP, less, row['dialogs'])['R@10'])} |")
  return out


