"""Compares several runs: writes `comparison.md`, `.html` and `.json` into the first workdir.

Each run's evaluation stored the rank of every user's target for every method (`ranks.json.gz`).
Runs must share users, targets and protocol. Runs that differ only in their seed form one row: its
mean is over seeds and users, its deviation over seeds. Losses and retrieval are shown side by side
without a test, since evaluation does not store their values per example.
"""
import html
import json
from typing import NamedTuple

import numpy as np
from etils import epath

from ilm_jax import errors, files
from ilm_jax.evaluation import compared_runs, metrics, page, report, significance
from ilm_jax.evaluation import rows as rows_lib

METRICS = {"hr@5": lambda r: metrics.hit_rate(r, 5), "hr@10": lambda r: metrics.hit_rate(r, 10),
           "ndcg@5": lambda r: metrics.ndcg(r, 5), "ndcg@10": lambda r: metrics.ndcg(r, 10)}
TESTED = "ndcg@10"       # the metric of the paired test
_RESAMPLES = 1000


class Method(NamedTuple):
  """One row: a method, the runs it comes from, and its ranks [seeds, users]."""
  name: str
  runs: tuple[str, ...]
  rank_SU: np.ndarray


def write(workdirs: list) -> dict:
  """Compares the newest evaluation of each workdir; writes, prints and returns the comparison.

  Raises:
    UserError: a workdir has no evaluation; its protocol, users or targets differ from those of the
      first; or two workdirs hold the same run.
  """
  runs = compared_runs.read(workdirs)
  groups = compared_runs.by_settings(runs)
  for group in groups:
    compared_runs.check_seeds(group)
  part = table(_methods(groups), runs[0])
  beside = [side_by_side(runs, name) for _, name in compared_runs.SIDE_BY_SIDE
            if any(name in run.tables for run in runs)]
  content = {"run": "comparison of " + ", ".join(r.name for r in runs), "tables": [part, *beside],
             "examples": _settings(runs), "curves": {}}
  first = epath.Path(workdirs[0])
  files.write_text(first / "comparison.json", json.dumps(content, indent=1))
  files.write_text(first / "comparison.md", to_markdown(content))
  files.write_text(first / "comparison.html",
                   page.to_html(content).replace("</body>", page.bars(part, TESTED)))
  report.show(content)
  for line in _lines(content["examples"]):
    print(errors.plain(line))
  print(f"comparison: {first / 'comparison.html'}", flush=True)
  return content


def side_by_side(runs: list[compared_runs.Run], name: str) -> dict:
  """One table with every row of the runs' tables `name`; equal rows are shown once."""
  parts = {run.name: run.tables[name] for run in runs if name in run.tables}
  rows: dict = {}                  # (row, metrics) -> runs
  for row in dict.fromkeys(rows_lib.label(row) for part in parts.values() for row in part["rows"]):
    for run, part in parts.items():
      for candidate in part["rows"]:
        if rows_lib.label(candidate) == row:
          rows.setdefault((row, json.dumps(candidate["metrics"])), []).append(run)
  first = next(iter(parts.values()))
  return {"title": f"{first['title']}, side by side", "phase": "comparison", "step": 0,
          "note": "Values per example are not stored, so there is no paired test between runs. "
                  f"{first['note']}",
          "protocol": _protocol({run: part["protocol"] for run, part in parts.items()}),
          "rows": [rows_lib.row(json.loads(values), method=f"{row} ({', '.join(of)})")
                   for (row, values), of in rows.items()]}


def table(compared: list[Method], run: compared_runs.Run) -> dict:
  """The comparison as a table of `report`: all methods, then each minus the first, paired."""
  rows = [rows_lib.row({name: _estimate(value, m.rank_SU) for name, value in METRICS.items()},
                       method=_label(m)) for m in compared]
  values = [METRICS[TESTED](m.rank_SU).mean(axis=0) for m in compared]
  p = significance.holm([significance.randomisation_test(v, values[0]) for v in values[1:]])
  for method, value_U, corrected in zip(compared[1:], values[1:], p):
    difference = metrics.bootstrap(value_U - values[0], resamples=_RESAMPLES, seed=0)._asdict()
    rows.append(rows_lib.row({TESTED: difference, "p (Holm)": {"value": float(corrected)}},
                             method=_label(method), minus=_label(compared[0])))
  return {"title": f"Comparison over {len(run.users)} users", "phase": "comparison", "step": 0,
          "note": "Intervals: 95 %, bootstrap over users. p: paired randomisation test of "
                  f"{TESTED}, 10,000 draws, Holm's correction over the rows.",
          "protocol": run.protocol, "rows": rows}


def to_markdown(content: dict) -> str:
  """The tables and settings in Markdown."""
  parts = [_markdown(part) for part in content["tables"]]
  for part in content["examples"]:
    columns = list(dict.fromkeys(c for row in part["examples"] for c in row))
    parts.append("\n".join([
        f"# {part['title']}", "", _line(columns), "|---" * len(columns) + "|",
        *(_line([row.get(c, "") for c in columns]) for row in part["examples"]), ""]))
  return "\n".join(parts)


def _line(cells: list[str]) -> str:
  """A line of a Markdown table; marks of Markdown or HTML in a cell are escaped."""
  return "| " + " | ".join(html.escape(cell, quote=False).replace("|", "\\|").replace("\n", " ")
                           for cell in cells) + " |"


def _markdown(part: dict) -> str:
  columns = list(dict.fromkeys(c for row in part["rows"] for c in row["metrics"]))
  lines = [f"# {part['title']}", "", part["note"], "", _line(["", *columns]),
           "|---" * (len(columns) + 1) + "|"]
  lines += [_line([rows_lib.label(row), *(_cell(row["metrics"].get(c)) for c in columns)])
            for row in part["rows"]]
  protocol = "; ".join(f"{k}: {v}" for k, v in part["protocol"].items())
  return "\n".join([*lines, "", f"Protocol: {protocol}", ""])


def _cell(metric: dict | None) -> str:
  if metric is None:
    return ""
  interval = f" [{metric['lo']:.4f}, {metric['hi']:.4f}]" if "lo" in metric else ""
  seeds = f" (seeds: {metric['deviation']:.4f})" if "deviation" in metric else ""
  return f"{metric['value']:.4f}{interval}{seeds}"


def _estimate(value, rank_SU) -> dict:
  value_SU = value(rank_SU)
  estimate = metrics.bootstrap(value_SU.mean(axis=0), resamples=_RESAMPLES, seed=0)._asdict()
  if len(value_SU) > 1:
    estimate["deviation"] = float(value_SU.mean(axis=1).std(ddof=1))
  return estimate


def _label(method: Method) -> str:
  seeds = f", {len(method.rank_SU)} seeds" if len(method.rank_SU) > 1 else ""
  return f"{method.name} ({', '.join(method.runs)}{seeds})"


def _methods(groups: list[list[compared_runs.Run]]) -> list[Method]:
  """The rows of all groups, named after the group's first run; equal ranks of a method merge."""
  methods: list[Method] = []
  for group in groups:
    for name in group[0].ranks:
      if not all(name in run.ranks for run in group):
        continue
      rank_SU = np.stack([run.ranks[name] for run in group])
      for at, other in enumerate(methods):
        # The seed does not change e.g. popularity, so the number of seeds does not matter.
        if other.name == name and (other.rank_SU[:1] == rank_SU).all() and (
            other.rank_SU == rank_SU[:1]).all():
          methods[at] = Method(name, (*other.runs, group[0].name), rank_SU[:1])
          break
      else:
        methods.append(Method(name, (group[0].name,), rank_SU))
  return methods


def _settings(runs: list[compared_runs.Run]) -> list[dict]:
  """The settings that differ, as a list of examples for the report; [] if none differ."""
  rows = compared_runs.differences(runs)
  return [{"title": "Settings that differ", "note": "From config.<stage>.json of each workdir.",
           "examples": rows}] if rows else []


def _lines(settings: list[dict]) -> list[str]:
  return [f"{row['setting']} ({row['stages']}): " + ", ".join(
              f"{name}: {value}" for name, value in row.items()
              if name not in ("setting", "stages"))
          for part in settings for row in part["examples"]]


def _protocol(protocols: dict[str, dict]) -> dict:
  """Merges protocols: a field with one value keeps it, other fields list each run's value."""
  merged = {}
  for field in dict.fromkeys(field for protocol in protocols.values() for field in protocol):
    values = {run: protocol.get(field, compared_runs.ABSENT) for run, protocol in protocols.items()}
    first, *others = values.values()
    merged[field] = first if all(value == first for value in others) else ", ".join(
        f"{run}: {value}" for run, value in values.items())
  return merged
