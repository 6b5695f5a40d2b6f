"""The report of tables whose words are a user's: prompts, names of data, paths."""
import io
import json
import sys

from ilm_jax.evaluation import measured, report

ODD = "sequential, seen 0: After {history}? [/item] [bold]what[/bold] :smile: <b>"


def test_a_user_s_words_are_printed_as_they_are(tmp_path, capsys):
  folder = tmp_path / "eval" / "phase2" / "2"
  folder.mkdir(parents=True)
  measured.mark(folder, {"checkpoints": {}})
  words = {place: f"{place} [/x] [red]{place} :tada:" for place in ("title", "note", "column")}
  (folder / "prompts.json").write_text(json.dumps({
      "title": words["title"], "note": words["note"], "protocol": {},
      "rows": [{"method": ODD, "metrics": {words["column"]: {"value": 0.5}}}]}))
  report.write(tmp_path, with_tables=True)
  out = capsys.readouterr().out
  assert all(text in out for text in (ODD, *words.values()))
  assert "&lt;b&gt;" in (tmp_path / "report.html").read_text()


def test_a_plot_takes_a_run_s_name_as_it_is():
  """Between two dollar signs matplotlib expects a formula."""
  estimate = {"value": 0.5, "lo": 0.4, "hi": 0.6}
  part = {"rows": [{"method": "ILM ($a_{b$)", "metrics": {"hr@5": estimate}}]}
  assert "<img" in report.bars(part, "hr@5")


def write_parts(workdir, **parts):
  folder = workdir / "eval" / "phase2" / "2"
  folder.mkdir(parents=True)
  measured.mark(folder, {"checkpoints": {}})
  for name, part in parts.items():
    (folder / f"{name}.json").write_text(json.dumps(part))


LISTS = {"title": "Recommendations", "note": "", "examples": [
    {"user": "7", "last read": ["<One>", "Two"], "recommended": ["Three", "Caf\u00e9"]}]}
TABLE = {"title": "Next item", "note": "", "protocol": {}, "rows": [
    {"method": "ILM", "metrics": {"distinct items": {"value": 8, "n": 2}}}]}


def test_the_terminal_gets_the_summary_and_tables_when_they_are_asked_for(tmp_path, capsys):
  write_parts(tmp_path, examples=LISTS, recommendation=TABLE)
  report.write(tmp_path)
  out = capsys.readouterr().out
  assert "user 7: <One>; Two -> Three; Caf\u00e9" in out and "distinct items" not in out
  assert f"{tmp_path}/report.html" in out
  report.write(tmp_path, with_tables=True)
  assert "distinct items" in capsys.readouterr().out


def test_the_page_begins_with_the_summary_and_lists_are_numbered(tmp_path, capsys):
  write_parts(tmp_path, examples=LISTS, recommendation=TABLE)
  report.write(tmp_path)
  page = (tmp_path / "report.html").read_text()
  summary, rest = page.split("</pre>")
  assert "<h1>" in summary and "<h2>" not in summary and "user 7: &lt;One&gt;; Two -&gt;" in summary
  assert "<ol><li>&lt;One&gt;<li>Two</ol>" in rest and "<td>8</td>" in rest    # a count is whole


def test_a_terminal_without_a_letter_shows_a_question_mark(tmp_path, monkeypatch):
  write_parts(tmp_path, examples=LISTS)
  out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
  monkeypatch.setattr(sys, "stdout", out)
  report.write(tmp_path)
  assert b"Three; Caf?" in out.buffer.getvalue()
