"""The report as one self-contained HTML page: no script, no request to anywhere.

The page shows the summary, then the parts that the summary draws on, then all other tables, then
the training curves.
"""
import base64
import html
import io

from ilm_jax.config import variants
from ilm_jax.evaluation import plain_text, sentences
from ilm_jax.evaluation import rows as rows_lib

_STYLE = """
:root{color-scheme:light dark;--text:#1b1f24;--faint:#57606a;--line:#d0d7de;--shade:#f6f8fa;
--page:#fff}
@media(prefers-color-scheme:dark){:root{--text:#e6edf3;--faint:#9aa4af;--line:#3d444d;
--shade:#1c2128;--page:#0d1117}img{filter:invert(1) hue-rotate(180deg)}}
body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;
color:var(--text);background:var(--page)}
h1{font-size:1.6rem}h2{font-size:1.15rem;margin-top:2.2rem}
h1,h2,p,li,details{overflow-wrap:anywhere}
p.note{color:var(--faint);max-width:60rem}
table{border-collapse:collapse;margin:.6rem 0}
td,th{padding:.3rem .7rem;border-bottom:1px solid var(--line);text-align:right;vertical-align:top}
th{background:var(--shade);vertical-align:bottom}
td:first-child,th:first-child,.examples td,.examples th,.summary td:last-child{text-align:left}
small{color:var(--faint);display:block;white-space:nowrap}
details{color:var(--faint)}
img{max-width:100%}
.wide{overflow-x:auto}
.wide td:first-child,.wide th:first-child{position:sticky;left:0;max-width:40vw}
.wide td:first-child{background:var(--page)}
section{background:var(--shade);padding:.3rem 1.2rem;border-radius:6px}
.summary .wide td:first-child{background:var(--shade)}
.examples th{white-space:nowrap}
section ul{margin:.2rem 0;padding-left:1.2rem}section p{margin:.8rem 0 .2rem}
code{display:block;overflow-wrap:anywhere;padding:.3rem 0 .8rem}
td ol{margin:0;padding-left:1.6rem;min-width:11rem}
@media(max-width:40rem){body{margin:1rem auto}td,th{padding:.3rem .45rem}
section{padding:.3rem .8rem}.curves{overflow-x:auto}.curves img{max-width:none;width:60rem}}
"""
_UNCUT = 1000        # line width for the summary: wide enough that no title is cut
# The parts that the summary draws on, in its order; they follow it on the page.
_FIRST = ("examples", "recommendation", "lists", "generations", "consistency", "loss")

# Curves that readers need least: they come last.
_LAST = ("temperature", "grad_norm", "dropped", "tokens", "learning_rate")
_LABELS = {v.folder: v.label for v in (variants.ILM, *variants.COMPARED.values())}


def to_html(content: dict) -> str:
  """Returns the page as HTML.

  Args:
    content: from `report.collect`. A comparison has no summary, and its parts have no names.
  """
  body = [f"<h1>{html.escape(content['run'])}</h1>"]
  if "summary" in content:
    body += _summary(content["summary"])
  parts = sorted([*content["tables"], *content["examples"]], key=_place)
  body += [_table(part) if "rows" in part else _examples(part) for part in parts]
  if content["curves"]:
    body.append("<h2>Training curves</h2>")
    body += [_curves(phase, of) for phase, of in _by_phase(content["curves"]).items()]
  return (f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport "
          f"content='width=device-width,initial-scale=1'><title>{html.escape(content['run'])}"
          f"</title><style>{_STYLE}</style><body>{''.join(body)}</body></html>")


def columns(part: dict) -> list[str]:
  """The columns of a table, in the order of its rows."""
  return list(dict.fromkeys(c for row in part["rows"] for c in row["metrics"]))


def cell_text(metric: dict | None, newline: str) -> str:
  """A value, then `newline` and its interval if it has one; "" for a value that is missing."""
  if metric is None:
    return ""
  value = metric["value"]
  text = (str(value) if isinstance(value, int) else f"{value:.4f}" if abs(value) < 10
          else f"{value:.1f}")
  if "lo" in metric:
    text += f"{newline}{metric['lo']:.3f}..{metric['hi']:.3f}"
  return text


def bars(part: dict, column: str) -> str:
  """A bar plot of one column of a table with its intervals, as HTML."""
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


def _place(part: dict) -> int:
  name = part.get("name")
  return _FIRST.index(name) if name in _FIRST else len(_FIRST)


def _summary(said: dict) -> list[str]:
  """The sentences and rows of the terminal's summary, uncut: the window wraps the lines."""
  body = []
  for block in sentences.blocks({**said, "report": ""}, _UNCUT):
    body.append(f"<p>{html.escape(block.head)}</p>")
    if block.sentences:
      items = "".join(f"<li>{html.escape(sentence)}" for sentence in block.sentences)
      body.append(f"<ul>{items}</ul>")
    if block.rows:
      rows = ("".join(f"<td>{html.escape(cell)}" for cell in row) for row in block.rows)
      body.append(f"<div class=wide><table>{''.join(f'<tr>{row}' for row in rows)}</table></div>")
    if block.command:
      body.append(f"<code>{html.escape(' '.join(map(plain_text.quoted, block.command)))}</code>")
  return ["<section class=summary>", *body, "</section>"]


def _table(part: dict) -> str:
  names = columns(part)
  head = "".join(f"<th>{html.escape(c)}</th>" for c in ["", *names])
  rows = []
  for row in part["rows"]:
    cells = "".join(f"<td>{_cell(row['metrics'].get(c))}</td>" for c in names)
    rows.append(f"<tr><td>{html.escape(rows_lib.label(row))}</td>{cells}</tr>")
  protocol = "; ".join(f"{k}: {v}" for k, v in part.get("protocol", {}).items())
  return (f"{_title(part)}<div class=wide><table><tr>{head}</tr>{''.join(rows)}</table></div>"
          f"<details><summary>Protocol ({html.escape(part['phase'])}, step {part['step']})"
          f"</summary>{html.escape(protocol)}</details>")


def _title(part: dict) -> str:
  note = html.escape(part.get("note", ""))
  return f"<h2>{html.escape(part['title'])}</h2>" + (f"<p class=note>{note}</p>" if note else "")


def _cell(metric: dict | None) -> str:
  value, _, interval = cell_text(metric, "\n").partition("\n")
  return value + (f"<small>{interval}</small>" if interval else "")


def _examples(part: dict) -> str:
  names = list(dict.fromkeys(c for e in part["examples"] for c in e))
  head = "".join(f"<th>{html.escape(c)}</th>" for c in names)
  rows = "".join(
      "<tr>" + "".join(f"<td>{_text(e.get(c, ''))}</td>" for c in names) + "</tr>"
      for e in part["examples"])
  return (f"{_title(part)}<div class=wide><table class=examples><tr>{head}</tr>{rows}</table>"
          "</div>")


def _text(text: str | list[str]) -> str:
  """A cell of a table of examples; a list becomes a numbered list with one text per line."""
  if isinstance(text, list):
    return f"<ol>{''.join(f'<li>{html.escape(str(line))}' for line in text)}</ol>"
  return html.escape(str(text))


def _by_phase(curves: dict) -> dict[str, dict[str, list[dict]]]:
  """Phase -> its curves by name: models of `phase2.compare` share the panels with ILM."""
  phases: dict = {}
  for name, rows in curves.items():
    if rows:
      phases.setdefault(variants.stage_of(name), {})[name] = rows
  return phases


def _curves(phase: str, curves: dict[str, list[dict]]) -> str:
  """One panel per metric, with one line per entry of `curves`."""
  plt = _pyplot()
  keys = [k for k in dict.fromkeys(k for rows in curves.values() for r in rows for k in r)
          if k != "step" and not k.startswith("time/")]
  keys.sort(key=lambda key: (key != "loss") + key.startswith(_LAST))
  across = 4
  down = -(-len(keys) // across)
  figure, axes = plt.subplots(down, across, figsize=(14, 2.6 * down), squeeze=False)
  for axis, key in zip(axes.flat, keys):
    for name, rows in curves.items():
      points = [(r["step"], r[key]) for r in rows if isinstance(r.get(key), (int, float))]
      axis.plot(*zip(*points) if points else ([], []), lw=1.3,
                label=_LABELS.get(name, name))
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
  """The figure as HTML, under its name; transparent, since the page may be dark."""
  figure.tight_layout()
  buffer = io.BytesIO()
  figure.savefig(buffer, format="png", dpi=90, transparent=True)
  plt.close(figure)
  image = base64.b64encode(buffer.getvalue()).decode()
  name = html.escape(name)
  return (f"<h3>{name}</h3><div class=curves><img alt='plot of {name}' "
          f"src='data:image/png;base64,{image}'></div>")
