"""The report of tables whose words are a user's: prompts, names of data, paths."""
import json

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
  report.write(tmp_path)
  out = capsys.readouterr().out
  assert all(text in out for text in (ODD, *words.values()))
  assert "&lt;b&gt;" in (tmp_path / "report.html").read_text()


def test_a_plot_takes_a_run_s_name_as_it_is():
  """Between two dollar signs matplotlib expects a formula."""
  estimate = {"value": 0.5, "lo": 0.4, "hi": 0.6}
  part = {"rows": [{"method": "ILM ($a_{b$)", "metrics": {"hr@5": estimate}}]}
  assert "<img" in report.bars(part, "hr@5")
