"""Reports the tables, curves and examples of a workdir in `report.json`, `report.html` and stdout.

Stdout gets the closing summary (`closing`, `sentences`) and, on request, all tables. The page
(`page`) begins with the same summary.

Stage eval writes *tables* and the report only collects them, so the three outputs cannot disagree.
A table is a JSON object

  {"title": str, "note": str, "protocol": {name: value},
   "rows": [{"method": str, "metrics": {column: estimate}}]}

with estimate = {"value": float, "lo": float, "hi": float, "n": int},

where `lo`, `hi` (a 95 % interval) and `n` may be absent. A *list of examples* is
{"title", "note", "examples": [{column: text or list of texts}]}. Both live in
`eval/<phase>/<step>/<name>.json`.
"""
import json
import sys

from etils import epath

from ilm_jax import errors, files
from ilm_jax.config import variants
from ilm_jax.data import interactions as interactions_lib
from ilm_jax.evaluation import closing, measured, page, sentences, text_table
from ilm_jax.evaluation import rows as rows_lib
from ilm_jax.monitoring import scalars

_WIDTH = 100         # greatest width of the closing summary, in characters


def collect(workdir) -> dict:
  """Everything the report shows, as one JSON object.

  Each phase is shown at its newest evaluated step whose checkpoint still exists (measured.py).

  Args:
    workdir: folder of a run.

  Returns:
    {"run": name, "tables": [...], "examples": [...], "curves": {phase: [{"step": .., ...}]},
    "left_out": {"phase1/200": reason}, "summary": from `closing.summary`}.

  Raises:
    UserError: a file of the workdir is damaged.
  """
  workdir = epath.Path(workdir)
  tables, examples = [], []
  for phase in _subfolders(workdir / "eval"):
    folder = measured.newest(workdir, phase.name)
    for path in sorted(folder.glob("*.json")) if folder else []:
      if path.name == measured.NAME:
        continue
      part = {"phase": phase.name, "step": int(folder.name), "name": path.stem,
              **files.read_json(path, "run --stage=eval again")}
      (tables if "rows" in part else examples).append(part)
  curves = {}
  for path in sorted(workdir.glob("*/metrics.jsonl")):
    curves[path.parent.name] = scalars.read(path)
  content = {"run": workdir.name, "tables": tables, "examples": examples, "curves": curves,
             "left_out": measured.stale(workdir)}
  return {**content, "summary": _summary(workdir, content)}


def write(workdir, *, with_tables: bool = False, command: str = "") -> dict:
  """Writes report.json and report.html into `workdir` and prints the closing summary.

  Args:
    workdir: folder of a run.
    with_tables: also print all tables, before the summary.
    command: the command of the run without its stage, from which the summary makes the next
      command to type; "": unknown.

  Returns:
    The content of the report, see `collect`.

  Raises:
    UserError: a file of the workdir is damaged.
  """
  workdir = epath.Path(workdir)
  content = collect(workdir)
  content["summary"] |= {"report": str(workdir / "report.html"), "command": command}
  files.write_text(workdir / "report.json", json.dumps(content, indent=1))
  files.write_text(workdir / "report.html", page.to_html(content))
  if with_tables:
    show(content)
  for folder, why in content["left_out"].items():
    print(f"Not shown: eval/{folder}: {why}.")
  width = min(_WIDTH, text_table.columns_of_terminal() or text_table.FILE)
  text = errors.plain("\n".join(["", *sentences.lines(content["summary"], width)]))
  # Titles come from the user's data; letters that the terminal's encoding lacks become "?".
  encoding = sys.stdout.encoding or "utf-8"
  print(text.encode(encoding, "replace").decode(encoding), flush=True)
  return content


def _summary(workdir, content: dict) -> dict:
  """`closing.summary` of the content, config, items and ranks; missing files count as empty."""
  config, data = workdir / "config.eval.json", workdir / "data"
  folder = measured.newest(workdir, variants.ILM.folder)
  ranks = folder and folder / "ranks.json.gz"
  items = interactions_lib.load_names(data)[1] if (data / "items.json").exists() else None
  return closing.summary(
      content, config=files.read_json(config, "run --stage=eval again") if config.exists() else {},
      items=items,
      ranks=files.read_json(ranks, "run --stage=eval again")["ranks"]
      if ranks and ranks.exists() else {})


def show(content: dict) -> None:
  """Prints the tables of `content` to the terminal."""
  for part in content["tables"]:
    columns = page.columns(part)
    rows = [[errors.plain(rows_lib.label(row)),
             *(page.cell_text(row["metrics"].get(c), "\n") for c in columns)]
            for row in part["rows"]]
    text_table.show(errors.plain(part["title"]), ["", *map(errors.plain, columns)], rows,
                    errors.plain(part.get("note") or "") or None)


def _subfolders(folder):
  return sorted(p for p in folder.iterdir() if p.is_dir()) if folder.exists() else []
