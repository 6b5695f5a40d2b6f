"""Tables, curves and examples of a workdir: `report.json`, `report.html` and the terminal.

The terminal gets the closing summary (`closing`), which the page begins with, and all tables if
they are asked for.

Evaluation writes *tables*, the report only collects them, so the three outputs cannot disagree. A
table is a JSON object

  {"title": str, "note": str, "protocol": {name: value},
   "rows": [{"method": str, "metrics": {column: estimate}}]}

with estimate = {"value": float, "lo": float, "hi": float, "n": int},

where `lo`, `hi` (a 95 % interval) and `n` may be absent. A *list of examples* is
{"title", "note", "examples": [{column: text or list of texts}]}. Both live in
`eval/<phase>/<step>/<name>.json`.
"""
import base64
import gzip
import html
import io
import json
import shutil
import sys

from etils import epath
from rich import console as rich_console
from rich import table as rich_table

from ilm_jax import files
from ilm_jax.config import variants
from ilm_jax.data import interactions as interactions_lib
from ilm_jax.evaluation import closing, measured
from ilm_jax.evaluation import rows as rows_lib

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;
color:#1b1f24}h1{font-size:1.6rem}h2{font-size:1.15rem;margin-top:2.2rem}
p.note{color:#57606a;max-width:60rem}
table{border-collapse:collapse;margin:.6rem 0}
td,th{padding:.3rem .7rem;border-bottom:1px solid #d0d7de;text-align:right;vertical-align:top}
td:first-child,th:first-child,table.examples td,
table.examples th{text-align:left}
small{color:#57606a;display:block}details{color:#57606a}
img{max-width:100%}th{background:#f6f8fa}
.wide{overflow-x:auto}
pre{background:#f6f8fa;padding:.8rem 1rem;white-space:pre-wrap;overflow-wrap:anywhere}
td ol{margin:0;padding-left:1.6rem;min-width:11rem}
"""
_WIDTH = 100         # columns of the closing summary at most


def collect(workdir) -> dict:
  """Everything the report shows, as one JSON object.

  Of each phase the newest evaluated step is taken whose weights are there (measured.py).

  Args:
    workdir: folder of a run.

  Returns:
    {"run": name, "tables": [...], "examples": [...], "curves": {phase: [{"step": .., ...}]},
    "left_out": {"phase1/200": why}, "summary": of `closing.summary`}.
  """
  workdir = epath.Path(workdir)
  tables, examples = [], []
  for phase in _subfolders(workdir / "eval"):
    folder = measured.newest(workdir, phase.name)
    for path in sorted(folder.glob("*.json")) if folder else []:
      if path.name == measured.NAME:
        continue
      part = {"phase": phase.name, "step": int(folder.name), "name": path.stem,
              **json.loads(path.read_text())}
      (tables if "rows" in part else examples).append(part)
  curves = {}
  for path in sorted(workdir.glob("*/metrics.jsonl")):
    curves[path.parent.name] = [json.loads(line) for line in path.read_text().splitlines()]
  content = {"run": workdir.name, "tables": tables, "examples": examples, "curves": curves,
             "left_out": measured.stale(workdir)}
  return {**content, "summary": _summary(workdir, content)}


def write(workdir, *, with_tables: bool = False, command: str = "") -> dict:
  """Writes report.json and report.html into `workdir`, prints the closing summary.

  Args:
    workdir: folder of a run.
    with_tables: print all tables, too, before it.
    command: of the run, without its stage, for what the summary says to type next; "": unknown.

  Returns:
    The content of the report.
  """
  workdir = epath.Path(workdir)
  content = collect(workdir)
  content["summary"] |= {"report": str(workdir / "report.html"), "command": command}
  files.write_text(workdir / "report.json", json.dumps(content, indent=1))
  files.write_text(workdir / "report.html", to_html(content))
  if with_tables:
    show(content)
  for folder, why in content["left_out"].items():
    print(f"Not shown: eval/{folder}: {why}.")
  width = min(_WIDTH, shutil.get_terminal_size((_WIDTH, 24)).columns)
  text = "\n".join(["", *closing.lines(content["summary"], width)])
  # Titles are a user's; a terminal that lacks a letter of theirs shows "?".
  encoding = sys.stdout.encoding or "utf-8"
  print(text.encode(encoding, "replace").decode(encoding), flush=True)
  return content


def _summary(workdir, content: dict) -> dict:
  """`closing.summary` with what it wants beside the content: some of it may not be there."""
  config, data = workdir / "config.eval.json", workdir / "data"
  folder = measured.newest(workdir, variants.ILM.folder)
  ranks = folder and folder / "ranks.json.gz"
  user_ids, items = (interactions_lib.load_names(data) if (data / "items.json").exists()
                     else ([], None))
  return closing.summary(
      content, config=json.loads(config.read_text()) if config.exists() else {},
      user_ids=user_ids, items=items,
      ranks=json.loads(gzip.decompress(ranks.read_bytes()))["ranks"]
      if ranks and ranks.exists() else {})


def show(content: dict) -> None:
  """Prints the tables of `content` to the terminal."""
  # Titles, columns and names hold words of a user's: "[..]" in them is no markup.
  out = rich_console.Console(width=None if rich_console.Console().is_terminal else 150,
                             markup=False, emoji=False)
  for part in content["tables"]:
    columns = _columns(part)
    table = rich_table.Table(title=part["title"], caption=part.get("note"), title_justify="left",
                             caption_justify="left")
    for i, name in enumerate(["", *columns]):
      table.add_column(name, justify="right" if i else "left")
    for row in part["rows"]:
      table.add_row(rows_lib.label(row), *(_cell(row["metrics"].get(c), "\n") for c in columns))
    out.print(table)


def to_html(content: dict) -> str:
  """One self-contained page: no script, no request to anywhere."""
  body = [f"<h1>{html.escape(content['run'])}</h1>"]
  if "summary" in content:
    text = "\n".join(closing.lines(content["summary"], _WIDTH))
    body.append(f"<pre class=summary>{html.escape(text)}</pre>")
  body += [_html_table(part) for part in content["tables"]]
  body += [_html_examples(part) for part in content["examples"]]
  if content["curves"]:
    body.append("<h2>Training curves</h2>")
    body += [_html_curves(phase, of) for phase, of in _by_phase(content["curves"]).items()]
  return (f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(content['run'])}"
          f"</title><style>{_STYLE}</style><body>{''.join(body)}</body></html>")


def _subfolders(folder):
  return sorted(p for p in folder.iterdir() if p.is_dir()) if folder.exists() else []


def _columns(part: dict) -> list[str]:
  return list(dict.fromkeys(c for row in part["rows"] for c in row["metrics"]))


def _cell(metric: dict | None, newline: str) -> str:
  if metric is None:
    return ""
  value = metric["value"]
  text = (str(value) if isinstance(value, int) else f"{value:.4f}" if abs(value) < 10
          else f"{value:.1f}")
  if "lo" in metric:
    text += f"{newline}{metric['lo']:.3f}..{metric['hi']:.3f}"
  return text


def _html_table(part: dict) -> str:
  columns = _columns(part)
  head = "".join(f"<th>{html.escape(c)}</th>" for c in ["", *columns])
  rows = []
  for row in part["rows"]:
    cells = "".join(f"<td>{_html_cell(row['metrics'].get(c))}</td>" for c in columns)
    rows.append(f"<tr><td>{html.escape(rows_lib.label(row))}</td>{cells}</tr>")
  protocol = "; ".join(f"{k}: {v}" for k, v in part.get("protocol", {}).items())
  return (f"<h2>{html.escape(part['title'])}</h2><p class=note>{html.escape(part.get('note', ''))}"
          f"</p><div class=wide><table><tr>{head}</tr>{''.join(rows)}</table></div>"
          f"<details><summary>Protocol ({html.escape(part['phase'])}, step {part['step']})"
          f"</summary>{html.escape(protocol)}</details>")


def _html_cell(metric: dict | None) -> str:
  if metric is None:
    return ""
  value, _, interval = _cell(metric, "\n").partition("\n")
  return value + (f"<small>{interval}</small>" if interval else "")


def _html_examples(part: dict) -> str:
  columns = list(dict.fromkeys(c for e in part["examples"] for c in e))
  head = "".join(f"<th>{html.escape(c)}</th>" for c in columns)
  rows = "".join(
      "<tr>" + "".join(f"<td>{_html_text(e.get(c, ''))}</td>" for c in columns) + "</tr>"
      for e in part["examples"])
  return (f"<h2>{html.escape(part['title'])}</h2><p class=note>{html.escape(part.get('note', ''))}"
          f"</p><div class=wide><table class=examples><tr>{head}</tr>{rows}</table></div>")


def _html_text(text: str | list[str]) -> str:
  """A cell of examples; a list, one text a line, numbered."""
  if isinstance(text, list):
    return f"<ol>{''.join(f'<li>{html.escape(str(line))}' for line in text)}</ol>"
  return html.escape(str(text))


def bars(part: dict, column: str) -> str:
  """A plot of one column of a table with its intervals, as HTML."""
  plt = _pyplot()
  rows = [(rows_lib.label(r), r["metrics"][column]) for r in part["rows"]
          if "lo" in r["metrics"].get(column, {}) and "minus" not in r]
  figure, axis = plt.subplots(figsize=(9, 0.45 * len(rows) + 1))
  for at, (_, m) in enumerate(rows):
    axis.barh(at, m["value"], color="#8fb1d9")
    axis.plot([m["lo"], m["hi"]], [at, at], color="#1b1f24", lw=1.3)
  axis.set_yticks(range(len(rows)), [name.replace("$", r"\$") for name, _ in rows], fontsize=8)
  axis.invert_yaxis()
  axis.set_xlabel(column)
  return _image(plt, figure, column)


def _by_phase(curves: dict) -> dict[str, dict[str, list[dict]]]:
  """Phase -> its curves by name: what phase2.compare trains stands beside ILM's."""
  phases: dict = {}
  for name, rows in curves.items():
    if rows:
      phases.setdefault(variants.stage_of(name), {})[name] = rows
  return phases


def _html_curves(phase: str, curves: dict[str, list[dict]]) -> str:
  """A panel for each metric, with a line for each of `curves`."""
  plt = _pyplot()
  keys = [k for k in dict.fromkeys(k for rows in curves.values() for r in rows for k in r)
          if k != "step" and not k.startswith("time/")]
  across = 4
  down = -(-len(keys) // across)
  figure, axes = plt.subplots(down, across, figsize=(14, 2.6 * down), squeeze=False)
  for axis, key in zip(axes.flat, keys):
    for name, rows in curves.items():
      points = [(r["step"], r[key]) for r in rows if isinstance(r.get(key), (int, float))]
      axis.plot(*zip(*points) if points else ([], []), lw=1.3, label=name)
    axis.set_title(key, fontsize=9)
    axis.tick_params(labelsize=7)
    axis.grid(alpha=.3)
  for axis in list(axes.flat)[len(keys):]:
    axis.axis("off")
  if len(curves) > 1:
    axes.flat[0].legend(fontsize=7)
  return _image(plt, figure, phase)


def _pyplot():
  import matplotlib  # 1 s to import: only the report stage pays for it
  matplotlib.use("Agg")
  from matplotlib import pyplot
  return pyplot


def _image(plt, figure, name: str) -> str:
  """The figure under its name, inside the page."""
  figure.tight_layout()
  buffer = io.BytesIO()
  figure.savefig(buffer, format="png", dpi=90)
  plt.close(figure)
  image = base64.b64encode(buffer.getvalue()).decode()
  name = html.escape(name)
  return f"<h3>{name}</h3><img alt='plot of {name}' src='data:image/png;base64,{image}'>"
