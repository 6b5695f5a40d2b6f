"""The closing summary, from hand-made tables, lists and texts."""
import copy

import pytest
from rich import cells

from ilm_jax.data import interactions
from ilm_jax.evaluation import closing


def row(method, value, by="", n=64):
  made = {"method": method, "metrics": {"hr@10": {
      "value": value, "lo": value - .05, "hi": value + .05, "n": n}}}
  return {**made, "by": by} if by else made


ROWS = [row("ILM", .01, "beam 20"), row("ILM", .02, "exact, first 1 users", 1),
        row("ILM", .16, "item head"), row("ILM-rand", .15, "item head"),
        row("MLP projector", .20, "item head"), row("ILM without vectors", .1, "item head"),
        row("Q-Former", .3, "dot product"), row("popularity", .09), row("iALS", .14),
        row("item-kNN", .12), row("SASRec", .17)]
ITEMS = interactions.Items(["7", "8", "9"], ["Heat", "Brazil", "Brazil"], [1995, 1985, 1985],
                           [["Drama"], ["Sci-Fi"], ["War"]])
CONFIG = {"data": {"name": "ml-100k"}, "lm": {"asset": "smollm2", "train": "none"}, "seed": 0,
          "eval": {"bootstrap": 50}}
LONG = "It is a long and moody thriller about two men who know each other too well " * 5
CONTENT = {
    "run": "mine",
    "tables": [{"phase": "phase1", "step": 1200, "name": "retrieval", "rows": []},
               {"phase": "phase2", "step": 80, "name": "recommendation", "rows": ROWS},
               {"phase": "phase2", "step": 80, "name": "lists", "rows": [
                   {"method": "ILM", "by": "item head",
                    "metrics": {"shared by two users": {"value": .98}}},
                   {"method": "popularity", "metrics": {"shared by two users": {"value": .5}}}]}],
    "examples": [
        {"phase": "phase2", "name": "examples", "examples": [
            {"user": str(u), "last watched": ["Zero", "One", "Two", "Three"],
             "recommended": ["Star Wars", "Fargo", "The Cook, the Thief, His Wife and Her Lover",
                             "Alien"], "next (the target)": "Heat"} for u in range(5)]},
        {"phase": "phase2", "name": "generations", "examples": [
            {"item (never shown)": "Heat (1995). Drama", "elm_title": "Hot", "elm_year": "1995"},
            {"item (never shown)": "Brazil (1985). War", "elm_title": "Cold"}]}]}
RANKS = {"ILM, item head": [1, 20] * 32, "ILM-rand, item head": [None, 20] * 32,
         "SASRec": [3, 4] * 32, "ILM, beam 20": [None] * 64}


def summary(content=None, **changes):
  wanted = {"config": CONFIG, "user_ids": ["a"] * 943, "items": ITEMS, "ranks": RANKS, **changes}
  return closing.summary(content or CONTENT, **wanted)


def part_of(content, name):
  return next(p for p in [*content["tables"], *content["examples"]] if p.get("name") == name)


def text_of(said, width=100):
  """All words with single spaces: where lines end does not matter."""
  return " ".join(" ".join(closing.lines(said, width)).split())


def test_what_was_trained_on_which_data():
  text = text_of(summary())
  assert text.startswith("Summary of mine Data: ml-100k, 943 users, 3 items. Language model: "
                         "smollm2 (frozen). Trained: 1,200 steps of phase 1 (")
  assert "80 steps of phase 2 (" in text
  other = {**CONFIG, "lm": {"asset": "smollm2", "train": "all"}}
  assert "smollm2 (trained, too)" in text_of(summary(config=other))


def test_three_users_with_three_titles_of_what_they_chose_last_and_get():
  out = closing.lines(summary(), 120)
  users = [line for line in out if line.startswith("  user ")]
  assert users == [f"  user {u}: One; Two; Three -> Star Wars; Fargo; "
                   "The Cook, the Thief, His Wife..." for u in range(3)]
  assert any("What users last watched -> " in line for line in out)
  assert ("Of the ten recommended to each, two users have in common, on average: ILM: 9.8, "
          "popularity: 5.0.") in text_of(summary())


def test_the_table_has_models_the_best_baselines_and_popularity():
  """ILM's row is its head's; other readings of it, and the dot product, are no methods to beat."""
  assert [r["method"] for r in closing.compared_rows(ROWS)] == [
      "ILM", "ILM-rand", "MLP projector", "SASRec", "iALS", "popularity"]
  assert closing.compared_rows(ROWS)[0]["by"] == "item head"
  without_head = [r for r in ROWS if r.get("by") != "item head"]
  assert [(r["method"], r.get("by")) for r in closing.compared_rows(without_head)] == [
      ("ILM", "beam 20"), ("SASRec", None), ("iALS", None), ("item-kNN", None),
      ("popularity", None)]
  assert closing.compared_rows(ROWS[:3]) == [ROWS[2]]


def test_differences_are_paired_by_user():
  """ILM hits every second user, SASRec every user, ILM-rand none."""
  best, rand = summary()["differences"]
  assert (best["minus"], best["value"]) == ("SASRec", -.5) and best["hi"] < 0
  assert (rand["minus"], rand["value"]) == ("ILM-rand", .5) and rand["lo"] > 0
  text = text_of(summary())
  assert "ILM minus SASRec (the best baseline), paired: -0.500 [" in text
  assert text.index("ILM is worse.") < text.index("ILM is better.")
  equal = {**RANKS, "SASRec": RANKS["ILM, item head"]}
  assert "+0.000 [+0.000, +0.000], no clear difference." in text_of(summary(ranks=equal))
  assert summary(ranks={**RANKS, "SASRec": [1]})["differences"] == [rand]     # of fewer users


def test_a_description_is_the_longest_text_or_all_short_answers():
  assert summary()["description"] == {
      "item": "Heat (1995). Drama", "text": "title: Hot; year: 1995", "name": "Heat (1995)"}
  content = copy.deepcopy(CONTENT)
  part_of(content, "generations")["examples"][0]["elm_summary"] = LONG
  text = text_of(summary(content))
  assert "Heat (1995). Drama: never described in training." in text
  assert "says: summary: It is a long and" in text and "title: Hot" not in text
  assert "..." in text and LONG.strip() not in text


def test_describe_is_given_a_name_that_only_one_item_has():
  content = copy.deepcopy(CONTENT)
  del part_of(content, "generations")["examples"][0]
  assert summary(content)["description"]["name"] == "item:9"


def test_the_last_lines_are_a_path_and_a_command_that_a_shell_reads():
  said = {**summary(), "report": "/runs/mine/report.html",
          "command": "python -m ilm_jax.main --config=c.py '--workdir=/my runs/mine'"}
  out = closing.lines(said, 60)
  assert any(line.endswith("/runs/mine/report.html") for line in out)
  at = next(n for n, line in enumerate(out) if "python -m" in line)
  assert " ".join(line.strip(" \\") for line in out[at:]) == (
      "python -m ilm_jax.main --config=c.py --workdir='/my runs/mine' --stage=describe "
      "--items='Heat (1995)'")
  assert all(line.endswith(" \\") for line in out[at:-1])
  assert "--stage=describe" not in text_of({**said, "command": ""})


@pytest.mark.parametrize("width", [60, 80, 100])
def test_no_line_is_wider_than_the_terminal(width):
  content = copy.deepcopy(CONTENT)
  wide = "\u4e03\u4eba\u306e\u4f8d" * 12                          # letters of two columns
  part_of(content, "examples")["examples"][0]["recommended"] = [wide] * 3
  part_of(content, "recommendation")["rows"][2]["method"] = "ILM"
  part_of(content, "recommendation")["rows"][-1]["method"] = "a method with a very long name " * 4
  out = closing.lines({**summary(content), "report": "/r.html", "command": "python -m x --a=b"},
                      width)
  assert max(cells.cell_len(line) for line in out) <= width
  assert len(out) < 45


@pytest.mark.parametrize("absent", ["recommendation", "lists", "examples", "generations"])
def test_what_is_not_there_is_left_out(absent):
  content = copy.deepcopy(CONTENT)
  part = part_of(content, absent)
  for parts in (content["tables"], content["examples"]):
    if part in parts:
      parts.remove(part)
  whole, out = text_of(summary()), text_of({**summary(content), "report": "/r.html"})
  words = {"recommendation": "HR@10", "lists": "in common", "examples": "-> what ILM recommends",
           "generations": "never described"}[absent]
  assert words in whole and words not in out and "/r.html" in out


def test_nothing_at_all_and_lists_of_older_reports():
  empty = {"run": "mine", "tables": [], "examples": []}
  said = closing.summary(empty, config={}, user_ids=[], items=None, ranks={})
  assert [line for line in closing.lines(said) if line] == ["Summary of mine"]
  older = copy.deepcopy(CONTENT)
  part_of(older, "examples")["examples"] = [{"last seen": "One; Two", "recommended": "Three; Four"}]
  assert "recommends" not in text_of(summary(older))


@pytest.mark.parametrize(("text", "width", "short"), [
    ("Short", 10, "Short"), ("two  spaces", 20, "two spaces"),
    ("The Good, the Bad and the Ugly", 20, "The Good, the Bad..."),
    ("Supercalifragilistic", 10, "Superca...")])
def test_titles_are_cut_between_words(text, width, short):
  assert closing.cut(text, width) == short
