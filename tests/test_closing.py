"""What the closing summary says, and in which lines, from hand-made tables, lists and texts."""
import copy

import pytest
from rich import cells

from ilm_jax.config import variants
from ilm_jax.data import interactions
from ilm_jax.evaluation import closing, plain_text, sentences
from ilm_jax.stages.evals import rivals


def row(method, value, by="", n=64):
  made = {"method": method, "metrics": {"hr@10": {
      "value": value, "lo": value - .05, "hi": value + .05, "n": n}}}
  return {**made, "by": by} if by else made


def score(value, n=32):
  return {"value": value, "lo": value - .1, "hi": value + .1, "n": n}


ROWS = [row("ILM", .01, "beam 20"), row("ILM", .02, "exact, first 1 users", 1),
        row("ILM", .16, "item head"), row("ILM-rand", .15, "item head"),
        row("MLP projector", .20, "item head"), row("ILM without vectors", .1, "item head"),
        row("Q-Former", .3, "dot product"), row("popularity", .09), row("iALS", .14),
        row("item-kNN", .12), row("SASRec", .17)]
ITEMS = interactions.Items(["7", "8", "9"], ["Heat", "Brazil", "Brazil"], [1995, 1985, 1985],
                           [["Drama"], ["Sci-Fi"], ["War"]])
CONFIG = {"data": {"name": "ml-100k"}, "lm": {"asset": "smollm2", "train": "none"}, "seed": 0,
          "eval": {"bootstrap": 50},
          "phase1": {"losses": {"itc": 1.0, "itm": 0.0, "cf": .5, "ui": 0.0}}}
LONG = "It is a long and moody thriller about two men who know each other too well " * 5
CONTENT = {
    "run": "mine",
    "tables": [{"phase": "phase1", "step": 1200, "name": "retrieval", "rows": []},
               {"phase": "phase2", "step": 80, "name": "recommendation", "rows": ROWS},
               {"phase": "phase2", "step": 80, "name": "lists", "rows": [
                   {"method": "ILM", "by": "item head",
                    "metrics": {"shared by two users": {"value": .98}}},
                   {"method": "popularity", "metrics": {"shared by two users": {"value": .5}}}]},
               {"phase": "phase2", "step": 80, "name": "consistency",
                "protocol": {"commonest genre": "Drama"}, "rows": [
                    {"task": "elm_title", "metrics": {"exact match": score(0.0)}},
                    {"task": "elm_genres", "metrics": {
                        "exact match": score(.2), "first genre right": score(.6),
                        "commonest genre right": score(.3)}},
                    {"task": "elm_summary", "metrics": {
                        "exact match": score(0.0), "semantic consistency": score(.62),
                        "with another item's reference": score(.48)}}]},
               {"phase": "phase2", "step": 80, "name": "loss", "rows": [
                   {"method": "ILM", "minus": "MLP projector", "metrics": {"all": score(.5)}},
                   {"method": "ILM", "minus": "ILM-rand", "metrics": {"all": score(-.2)}}]}],
    "examples": [
        {"phase": "phase2", "name": "examples", "examples": [
            {"user": str(u), "last watched": ["Zero", "One", "Two", "Three"],
             "recommended": ["Star Wars", "Fargo", "The Cook, the Thief, His Wife and Her Lover",
                             "Alien"], "next (the target)": "Heat"} for u in range(5)]},
        {"phase": "phase2", "name": "generations", "examples": [
            {"item (never shown)": "Heat (1995). Drama", "elm_title": "\"Hot", "elm_year": "1995",
             "elm_genres": "War"},
            {"item (never shown)": "Brazil (1985). War", "elm_title": "Cold"}]}]}
RANKS = {"ILM, item head": [1, 20] * 32, "ILM-rand, item head": [None, 20] * 32,
         "SASRec": [3, 4] * 32, "ILM, beam 20": [None] * 64}


def summary(content=None, **changes):
  return closing.summary(content or CONTENT, **{
      "config": CONFIG, "items": ITEMS, "ranks": RANKS, **changes})


def part_of(content, name):
  return next(p for p in [*content["tables"], *content["examples"]] if p.get("name") == name)


def text_of(said, width=100):
  """All words with single spaces: where lines end does not matter."""
  return " ".join(" ".join(sentences.lines(said, width)).split())


def test_what_was_trained_on_which_data():
  assert text_of(summary()).startswith(
      "Trained 1,200 + 80 steps on ml-100k: ILM, the frozen smollm2 reading film vectors. ")
  other = {**CONFIG, "lm": {"asset": "smollm2", "train": "all"}}
  assert "ILM, the trained smollm2 reading" in text_of(summary(config=other))
  other = {**CONFIG, "lm": {"asset": "smollm2", "train": "none", "random": True}}
  assert "ILM, the frozen random smollm2 reading" in text_of(summary(config=other))
  first = {**CONTENT, "tables": CONTENT["tables"][:1], "examples": []}
  assert text_of(summary(first)) == "Trained 1,200 steps on ml-100k: phase 1 of ILM."


def test_a_line_for_each_of_three_users():
  out = sentences.lines(summary(), 100)
  at = out.index("Last watched -> ILM recommends (shared by two users: 9.8 of 10, popularity 5.0):")
  assert out[at + 1:at + 4] == [
      f"  user {u}: Two; Three -> Star Wars; Fargo; The Cook, the Thief, His Wife and Her Lover"
      for u in range(3)]


@pytest.mark.parametrize(("width", "line"), [
    (60, "user 1: Two; Three -> Star Wars; Fargo; The Cook, the..."),
    (49, "user 1: Two; Three -> Star Wars; Fargo"),
    (36, "user 1: Three -> Star Wars; Fargo"), (30, "user 1: Three -> Star Wars")])
def test_a_user_s_line_has_fewer_titles_before_any_is_cut_short(width, line):
  user = {"user": "1", "last": ["One", "Two", "Three"], "recommended": [
      "Star Wars", "Fargo", "The Cook, the Thief, His Wife and Her Lover", "Alien"]}
  assert sentences._recommended(user, width) == line


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


def test_ilm_s_lead_is_paired_by_user():
  """ILM hits every second user, SASRec every user, ILM-rand none."""
  lead = {row["method"]: row.get("lead") for row in summary()["table"]}
  assert lead["SASRec"]["value"] == -.5 and lead["SASRec"]["hi"] < 0
  assert lead["ILM-rand"]["value"] == .5 and lead["ILM-rand"]["lo"] > 0
  assert lead["ILM"] is None and lead["iALS"] is None            # no ranks of iALS
  fewer = summary(ranks={**RANKS, "SASRec": [1]})["table"]
  assert not any("lead" in row for row in fewer if row["method"] == "SASRec")
  out = sentences.lines(summary(), 100)
  rows = {line.split()[0]: line for line in out if line.startswith("  ") and "[." in line}
  assert "HR@10: share of 64 users whose next film is in a list of ten [95 % interval]:" in out
  assert rows["ILM"].endswith(".160 [.110, .210]  ILM's lead (paired):  trained here")
  added = copy.deepcopy(CONTENT)
  added["tables"][1]["protocol"] = {"factors": 3.0}
  assert any(line.startswith("  ILM  ") and line.endswith("  with iALS")
             for line in sentences.lines(summary(added), 100))
  assert "  +.500 [" in rows["ILM-rand"] and rows["ILM-rand"].endswith("  no phase 1")
  assert rows["iALS"].endswith(".140 [.090, .190]")
  assert "lead" not in text_of(summary(ranks={}))


def test_every_method_of_the_table_has_a_meaning():
  methods = {*rivals.NAMES.values(), variants.ILM.label,
             *(variant.label for variant in variants.COMPARED.values())}
  assert methods == sentences.MEANING.keys()
  assert max(map(len, sentences.MEANING.values())) <= 15      # so that it is there in 80 columns


def test_a_description_is_the_short_answers_that_are_ever_right_those_first():
  """Of the first item there is, however well the model does on it. How right titles are is said."""
  out = sentences.lines(summary(), 100)
  at = out.index("Heat (1995). Drama: never described in training. From its vector ILM says:")
  assert out[at + 1:at + 3] == [
      "  genres: War; year: 1995",
      "  Right in 32 such films: first genre 60 % [50, 70] (always Drama: 30 %), title 0 %."]


def test_a_description_is_the_longest_text_and_how_like_the_reference_such_are():
  content = copy.deepcopy(CONTENT)
  part_of(content, "generations")["examples"][0]["elm_summary"] = LONG
  text = text_of(summary(content))
  assert "From its vector ILM says: summary: It is a long and" in text and "title: " not in text
  assert "..." in text and LONG.strip() not in text
  assert ("Likeness to the reference in 32 such films: summary .620 [.520, .720] (another's text: "
          ".480).") in text and "Right in" not in text


def test_describe_is_given_a_name_that_only_one_item_has():
  content = copy.deepcopy(CONTENT)
  del part_of(content, "generations")["examples"][0]
  assert summary(content)["description"]["name"] == "item:9"


@pytest.mark.parametrize(("value", "verb"), [
    (-.2, "lowers"), (.05, "does not clearly move"), (.2, "raises")])
def test_what_phase_1_gives_is_the_loss_against_ilm_rand(value, verb):
  content = copy.deepcopy(CONTENT)
  part_of(content, "loss")["rows"][1]["metrics"]["all"] = score(value)
  assert (f"Phase 1 (texts, collaborative scores) {verb} this seed's loss on new texts: "
          f"{value:+.3f} [".replace("0.", ".")) in text_of(summary(content))


def test_the_last_lines_are_a_path_and_a_command_that_a_shell_reads():
  said = {**summary(), "report": "/runs/mine/report.html",
          "command": "python -m ilm_jax.main --config=c.py '--workdir=/my runs/mine'"}
  out = sentences.lines(said, 60)
  assert any(line.endswith("/runs/mine/report.html") for line in out)
  at = next(n for n, line in enumerate(out) if "python -m" in line)
  assert " ".join(line.strip(" \\") for line in out[at:]) == (
      "Next, ask ILM more: python -m ilm_jax.main --config=c.py --workdir='/my runs/mine' "
      "--stage=describe --items='Heat (1995)'")
  assert all(line.endswith(" \\") for line in out[at:-1])
  assert "--stage=describe" not in text_of({**said, "command": ""})


def test_where_items_are_ranked_the_reader_is_shown_how_to_ask_for_a_list():
  content = copy.deepcopy(CONTENT)
  part_of(content, "examples")["examples"][0]["recommended"] = [
      "Heat (1995). Drama", "Brazil (1985). War", "Brazil (1985). Sci-Fi"]
  out = text_of({**summary(content), "command": "bash launch/quickstart.sh"})
  last = " ".join(out.replace(" \\", "").split())
  assert last.endswith(
      "Next, talk to it on a page (--stage=serve), or name films you like: "
      "bash launch/quickstart.sh "
      "--stage=recommend --liked='Heat (1995)' --liked=item:9")
  assert "--stage=describe" not in out


def test_a_summary_of_everything_has_eighteen_lines():
  said = {**summary(), "report": "/r.html", "command": "bash launch/quickstart.sh"}
  assert len(sentences.lines(said, 100)) == 18


@pytest.mark.parametrize("width", [60, 80, 100])
def test_no_line_is_wider_than_the_terminal(width):
  content = copy.deepcopy(CONTENT)
  wide = "\u4e03\u4eba\u306e\u4f8d" * 12                          # letters of two columns
  part_of(content, "examples")["examples"][0]["recommended"] = [wide] * 3
  part_of(content, "recommendation")["rows"][-1]["method"] = "a method with a very long name " * 4
  out = sentences.lines({**summary(content), "report": "/r.html", "command": "python -m x --a=b"},
                        width)
  assert max(cells.cell_len(line) for line in out) <= width
  assert len(out) < 30


@pytest.mark.parametrize("absent", ["recommendation", "lists", "examples", "generations",
                                    "consistency", "loss"])
def test_what_is_not_there_is_left_out(absent):
  content = copy.deepcopy(CONTENT)
  part = part_of(content, absent)
  for parts in (content["tables"], content["examples"]):
    if part in parts:
      parts.remove(part)
  whole, out = text_of(summary()), text_of({**summary(content), "report": "/r.html"})
  words = {"recommendation": "HR@10", "lists": "shared by", "examples": "-> ILM recommends",
           "generations": "never described", "consistency": "Right in", "loss": "Phase 1"}[absent]
  assert words in whole and words not in out and "/r.html" in out


def test_nothing_at_all_and_lists_of_older_reports():
  empty = {"run": "mine", "tables": [], "examples": []}
  said = closing.summary(empty, config={}, items=None, ranks={})
  assert sentences.lines(said) == ["Summary of mine."]
  older = copy.deepcopy(CONTENT)
  part_of(older, "examples")["examples"] = [{"last seen": "One; Two", "recommended": "Three; Four"}]
  assert "recommends" not in text_of(summary(older))


@pytest.mark.parametrize(("text", "width", "short"), [
    ("Short", 10, "Short"), ("two  spaces", 20, "two spaces"),
    ("The Good, the Bad and the Ugly", 20, "The Good, the Bad..."),
    ("Supercalifragilistic", 10, "Superca...")])
def test_titles_are_cut_between_words(text, width, short):
  assert plain_text.cut(text, width) == short


@pytest.mark.parametrize(("value", "sign", "text"), [
    (.171, False, ".171"), (-.0064, True, "-.006"), (.0064, True, "+.006"), (1.5, False, "1.500"),
    (-10.25, True, "-10.250"), (0.0, True, "+.000")])
def test_numbers_have_no_0_in_front(value, sign, text):
  assert plain_text.number(value, sign) == text


def test_columns_that_do_not_fit_are_left_out_from_the_right():
  rows = [("ILM", ".171", "trained here"), ("popularity of all", ".087", "the most chosen")]
  assert plain_text.aligned(rows, 60) == ["  ILM                .171  trained here",
                                          "  popularity of all  .087  the most chosen"]
  assert plain_text.aligned(rows, 30) == ["  ILM                .171", "  popularity of all  .087"]
  assert plain_text.aligned(rows, 20) == ["  ILM           .171", "  popularit...  .087"]
