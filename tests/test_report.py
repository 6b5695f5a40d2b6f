"""The report of tables whose words are a user's: prompts, names of data, paths."""
import io
import json
import os
import pty
import sys
import termios

import pytest

from ilm_jax.evaluation import measured, page, report, text_table

ODD = "sequential, seen 0: After {history}? [/item] [bold]what[/bold] :smile: <b>"


def test_a_user_s_words_are_printed_as_they_are(tmp_path, capsys, monkeypatch):
  monkeypatch.setenv("COLUMNS", "150")       # wide enough that no line is wrapped
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
  assert "<img" in page.bars(part, "hr@5")


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
  """Its titles are whole, however wide the terminal, and the page does not name its own path."""
  long = "A Title That No Line Of A Terminal Would Hold Without Cutting It Somewhere " * 3 + "!"
  of_user = {**LISTS["examples"][0], "recommended": [long, "Caf\u00e9"]}
  write_parts(tmp_path, examples={**LISTS, "examples": [of_user]}, recommendation=TABLE)
  report.write(tmp_path)
  page_text = (tmp_path / "report.html").read_text()
  summary, rest = page_text.split("</section>")
  assert "<h1>" in summary and "<h2>" not in summary and str(tmp_path) not in summary
  assert f"<li>user 7: &lt;One&gt;; Two -&gt; {long}; Caf\u00e9" in summary
  assert "<ol><li>&lt;One&gt;<li>Two</ol>" in rest and "<td>8</td>" in rest    # a count is whole


def test_the_page_has_the_summary_s_rows_and_command(tmp_path):
  estimate = {"value": .5, "lo": .25, "hi": .75, "n": 4}
  write_parts(tmp_path, recommendation={**TABLE, "rows": [
      {"method": method, "metrics": {"hr@10": estimate}} for method in ("ILM", "<mine>")]})
  content = report.collect(tmp_path)
  content["summary"] |= {"command": "bash 'my script'", "description": {
      "item": "One", "name": "One & Two", "answers": {"elm_title": "x"}, "right": {}}}
  summary = page.to_html(content).split("</section>")[0]
  assert "<tr><td>ILM<td>.500 [.250, .750]<td>" in summary and "<td>&lt;mine&gt;<td>" in summary
  assert ("<code>bash &#x27;my script&#x27; --stage=describe --items=&#x27;One &amp; Two&#x27;"
          "</code>") in summary


def test_after_the_summary_stands_what_it_was_picked_from_then_the_rest(tmp_path):
  """Tables and lists in one order, not one kind behind the other."""
  names = ("audit", "consistency", "examples", "generations", "lists", "loss", "recommendation")
  texts = {**LISTS, "examples": [{"item (never shown)": "One", "elm_title": "Two"}]}
  write_parts(tmp_path, **{
      name: {**{"examples": LISTS, "generations": texts}.get(name, TABLE), "title": f"Part {name}"}
      for name in names})
  text = page.to_html(report.collect(tmp_path))
  order = sorted(names, key=lambda name: text.index(f"<h2>Part {name}<"))
  assert order == ["examples", "recommendation", "lists", "generations", "consistency", "loss",
                   "audit"]


def test_the_page_suits_a_phone_and_a_dark_window(tmp_path):
  """Every table scrolls by itself in a window that is narrower."""
  write_parts(tmp_path, examples=LISTS, recommendation=TABLE)
  text = page.to_html(report.collect(tmp_path))
  assert "<meta name=viewport content='width=device-width" in text
  assert "prefers-color-scheme:dark" in text
  assert text.count("<table") == text.count("<div class=wide><table") > 0


def test_curves_begin_with_the_loss_and_name_models_as_tables_do(monkeypatch):
  drawn = []

  def keep(plt, figure, name):
    drawn.append([axis.get_title() for axis in figure.axes])
    drawn.append([text.get_text() for text in figure.axes[0].get_legend().get_texts()])
    plt.close(figure)
    return ""

  monkeypatch.setattr(page, "_image", keep)
  row = {"step": 1, "dropped": 0.0, "grad_norm": 1.0, "hit": .5, "loss": 2.0, "time/wait": .1}
  page._curves("phase2", {"phase2": [row], "phase2_rand": [row]})
  assert drawn == [["loss", "hit", "dropped", "grad_norm"], ["ILM", "ILM-rand"]]


def test_a_terminal_without_a_letter_shows_a_question_mark(tmp_path, monkeypatch):
  write_parts(tmp_path, examples=LISTS)
  out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
  monkeypatch.setattr(sys, "stdout", out)
  report.write(tmp_path)
  assert b"Three; Caf?" in out.buffer.getvalue()


@pytest.mark.parametrize(("sizes", "room", "parts"), [
    ([30, 8, 8, 8], 150, [[1, 2, 3]]), ([30, 8, 8, 8], 40, [[1, 2], [3]]),
    ([4, 8, 8, 8], 41, [[1, 2, 3]]), ([90, 50, 50], 40, [[1], [2]]), ([9], 40, [])])
def test_columns_that_do_not_fit_are_another_part(sizes, room, parts):
  assert text_table.parts(sizes, room) == parts


@pytest.mark.parametrize("room", [40, 80, 150])
def test_no_number_is_cut_and_no_line_is_wider_than_the_terminal(monkeypatch, capsys, room):
  monkeypatch.setenv("COLUMNS", str(room))
  numbers = [f"0.{i}234\n-0.{i}11..0.{i}22" for i in range(9)]
  text_table.show("Retrieval", ["", *(f"item to text R@{i}" for i in range(9))],
                  [["Q-Former minus ridge regression (floor), all", *numbers]], "R@k: first k.")
  shown = capsys.readouterr().out
  assert max(map(len, shown.splitlines())) <= room and "…" not in shown
  for number in numbers:
    assert all(line in shown for line in number.splitlines())
  assert shown.count("R@k: first k.") == 1


def test_a_table_in_a_log_fits_80_columns(monkeypatch, capsys):
  """No stream is a terminal, as in CI."""
  monkeypatch.setattr(text_table, "columns_of_terminal", lambda: 0)
  text_table.show("Retrieval", ["", *(f"item to text R@{i}" for i in range(9))],
                  [["Q-Former minus ridge regression (floor), all", *["-0.123"] * 9]])
  assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_a_table_in_a_pipe_is_as_wide_as_the_terminal_behind_it(monkeypatch):
  """As after `| cat`: stdout is a pipe, stderr the terminal."""
  monkeypatch.delenv("COLUMNS", raising=False)
  main, terminal = pty.openpty()
  termios.tcsetwinsize(terminal, (24, 77))
  with os.fdopen(terminal, "w") as stderr:
    monkeypatch.setattr(sys, "__stdout__", io.StringIO())
    monkeypatch.setattr(sys, "__stderr__", stderr)
    assert text_table.columns_of_terminal() == 77
  os.close(main)
