"""Several runs beside one another: `comparison.md`, `.html` and `.json` in the first workdir.

Each run's evaluation left the rank of every user's target by every method (`ranks.json.gz`). Runs
are compared on the same users, targets and protocol, or not at all. Runs that differ only in their
seed are one row: its mean is over seeds and users, its deviation over seeds.
"""
import gzip
import json
from typing import NamedTuple

import numpy as np
from etils import epath

from ilm_jax import errors, files
from ilm_jax.evaluation import metrics, report, significance

METRICS = {"hr@5": lambda r: metrics.hit_rate(r, 5), "hr@10": lambda r: metrics.hit_rate(r, 10),
           "ndcg@5": lambda r: metrics.ndcg(r, 5), "ndcg@10": lambda r: metrics.ndcg(r, 10)}
TESTED = "ndcg@10"       # the metric of the paired test
# Fields of a protocol that two runs must share for their ranks to mean the same.
SHARED = ("split", "filter", "tie rule", "task")
_RESAMPLES = 1000


class Method(NamedTuple):
  """One row: a method, of which run, and its ranks [seeds, users]."""
  name: str
  run: str
  rank_SU: np.ndarray


class _Run(NamedTuple):
  name: str
  protocol: dict
  users: list
  targets: list
  ranks: dict[str, np.ndarray]     # by method, of all users
  settings: str                    # the config without its seed


def write(workdirs: list) -> dict:
  """Compares the newest evaluation of each workdir; writes, prints and returns the comparison.

  Raises:
    UserError: a workdir has no evaluation, or its protocol, users or targets are not the first's.
  """
  runs = [_read(epath.Path(w)) for w in workdirs]
  for other in runs[1:]:
    _check_same(runs[0], other)
  part = table(_methods(runs), runs[0])
  content = {"run": "comparison of " + ", ".join(r.name for r in runs), "tables": [part],
             "examples": [], "curves": {}}
  first = epath.Path(workdirs[0])
  files.write_text(first / "comparison.json", json.dumps(content, indent=1))
  files.write_text(first / "comparison.md", to_markdown(part))
  files.write_text(first / "comparison.html",
                   report.to_html(content).replace("</body>", report.bars(part, TESTED)))
  report.show(content)
  return content


def table(found: list[Method], run: _Run) -> dict:
  """The comparison as a table of `report`: each method, then each one minus the first, paired."""
  rows = [{"name": _label(m), "metrics": {name: _estimate(value, m.rank_SU)
                                          for name, value in METRICS.items()}} for m in found]
  values = [METRICS[TESTED](m.rank_SU).mean(axis=0) for m in found]
  p = significance.holm([significance.randomisation_test(v, values[0]) for v in values[1:]])
  for method, value_U, corrected in zip(found[1:], values[1:], p):
    difference = metrics.bootstrap(value_U - values[0], resamples=_RESAMPLES, seed=0)._asdict()
    rows.append({"name": f"{_label(method)} minus {_label(found[0])}",
                 "metrics": {TESTED: difference, "p (Holm)": {"value": float(corrected)}}})
  return {"title": f"Comparison over {len(run.users)} users", "phase": "comparison", "step": 0,
          "note": "Intervals: 95 %, bootstrap over users. p: paired randomisation test of "
                  f"{TESTED}, 10,000 draws, Holm's correction over the rows.",
          "protocol": run.protocol, "rows": rows}


def to_markdown(part: dict) -> str:
  """The table in Markdown."""
  columns = list(dict.fromkeys(c for row in part["rows"] for c in row["metrics"]))
  lines = [f"# {part['title']}", "", part["note"], "", "| | " + " | ".join(columns) + " |",
           "|---" * (len(columns) + 1) + "|"]
  for row in part["rows"]:
    cells = [_cell(row["metrics"].get(c)) for c in columns]
    lines.append(f"| {row['name']} | " + " | ".join(cells) + " |")
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
  found = metrics.bootstrap(value_SU.mean(axis=0), resamples=_RESAMPLES, seed=0)._asdict()
  if len(value_SU) > 1:
    found["deviation"] = float(value_SU.mean(axis=1).std(ddof=1))
  return found


def _label(method: Method) -> str:
  seeds = f", {len(method.rank_SU)} seeds" if len(method.rank_SU) > 1 else ""
  return f"{method.name} ({method.run}{seeds})"


def _methods(runs: list[_Run]) -> list[Method]:
  """Rows of all runs; runs of equal settings together, by the name of the first of them."""
  groups: dict[str, list[_Run]] = {}
  for run in runs:
    groups.setdefault(run.settings, []).append(run)
  return [Method(name, group[0].name, np.stack([run.ranks[name] for run in group]))
          for group in groups.values() for name in group[0].ranks
          if all(name in run.ranks for run in group)]


def _read(workdir) -> _Run:
  steps = workdir / "eval" / "phase2"
  newest = max((s for s in steps.iterdir() if s.name.isdigit()), key=lambda s: int(s.name),
               default=None) if steps.exists() else None
  path = None if newest is None else newest / "ranks.json.gz"
  if path is None or not path.exists():
    raise errors.UserError(f"{workdir} has no evaluation to compare (eval/phase2/<step>/"
                           "ranks.json.gz): run --stage=eval there first")
  stored = json.loads(gzip.decompress(path.read_bytes()))
  config = json.loads((workdir / "config.eval.json").read_text())
  config.pop("seed")
  ranks = {name: np.array([np.inf if r is None else r for r in rank], float)
           for name, rank in stored["ranks"].items() if len(rank) == len(stored["users"])}
  return _Run(workdir.name, stored["protocol"], stored["users"], stored["targets"], ranks,
              json.dumps(config, sort_keys=True))


def _check_same(first: _Run, other: _Run) -> None:
  for field in SHARED:
    if first.protocol.get(field) != other.protocol.get(field):
      raise errors.UserError(
          f"runs {first.name} and {other.name} cannot be compared: {field} is "
          f"{first.protocol.get(field)!r} and {other.protocol.get(field)!r}; evaluate both alike")
  if first.users != other.users or first.targets != other.targets:
    raise errors.UserError(
        f"runs {first.name} and {other.name} ranked other users or other targets: evaluate all "
        "users of the same data in both (eval.users=0)")
